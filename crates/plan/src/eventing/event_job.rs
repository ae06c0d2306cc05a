//! The Job that a JobSink makes of an event, and the Secret by which the Job gets it.
//!
//! Both have one name, which follows from the event's source and id: an event that comes again finds its Job. The Secret is
//! the Job's and goes with it.

use knoll_api::{
    Resource,
    k8s_openapi::{
        ByteString,
        api::{
            batch::v1::Job,
            core::v1::{Container, EnvVar, PodSpec, Secret, SecretVolumeSource, Volume, VolumeMount},
        },
        apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    },
    names,
    sinks::JobSink,
};

use super::job_sink::NAME_LABEL;

/// Most bytes of an event as JSON: what a Secret holds.
pub const MOST_BYTES: usize = 1 << 20;

/// Label of the Jobs and Secrets: their name.
const ID_LABEL: &str = "sinks.knative.dev/job-sink-id";
/// Where containers find the event, as a file of the name [`ENTRY`].
const MOUNT: &str = "/etc/jobsink-event";
/// Name of the volume with the event; a container that mounts it elsewhere finds it there.
const VOLUME: &str = "jobsink-event";
/// Entry of the Secret: the event, as structured JSON.
const ENTRY: &str = "event";
/// Variable that tells containers where the event is mounted.
const EVENT_PATH: &str = "K_EVENT_PATH";

/// How a Job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is complete.
    Complete,
    /// It failed.
    Failed,
}

/// Name of the Job of an event, and of its Secret: no other event's, which upstream's may be.
pub fn name(sink: &str, source: &str, id: &str) -> String {
    // A line break stands in no source.
    names::child(&format!("{sink}-"), &names::md5_hex(&format!("{}\n{source}{id}", source.len())))
}

/// The name that it had before, as upstream's: of every two events whose source and id read the same one after the other. Whose it
/// is, its Secret says.
pub fn earlier_name(sink: &str, source: &str, id: &str) -> String {
    names::child(&format!("{sink}-"), &names::md5_hex(&format!("{source}{id}")))
}

/// The Job of this name; nothing when the JobSink does not say what Jobs are made from.
pub fn job(sink: &JobSink, name: &str) -> Option<Job> {
    let given = sink.spec.job.as_ref()?;
    let mut labels = given.metadata.labels.clone().unwrap_or_default();
    labels.extend(own_labels(sink.name(), name));
    let owner = OwnerReference { block_owner_deletion: Some(false), ..sink.controller_reference() };
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(sink.namespace().to_owned()),
        labels: Some(labels),
        annotations: given.metadata.annotations.clone(),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    let mut spec = given.spec.clone();
    if let Some(pod) = spec.as_mut().and_then(|spec| spec.template.spec.as_mut()) {
        give_event(pod, name);
    }
    Some(Job { metadata, spec, status: None })
}

/// The Secret with the event, for a Job that is there.
pub fn secret(job: &Job, event: Vec<u8>) -> Secret {
    let owner = OwnerReference { block_owner_deletion: Some(false), ..job.controller_reference() };
    let labels = job.metadata.labels.iter().flatten();
    let labels = labels.filter(|(label, _)| [ID_LABEL, NAME_LABEL].contains(&label.as_str()));
    let metadata = ObjectMeta {
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone(),
        labels: Some(labels.map(|(label, value)| (label.clone(), value.clone())).collect()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    Secret {
        metadata,
        immutable: Some(true),
        data: Some([(ENTRY.to_owned(), ByteString(event))].into()),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

/// The event that a Secret holds for this Job, as structured JSON; nothing where it is another Job's.
pub fn event_of<'a>(secret: &'a Secret, job: &Job) -> Option<&'a [u8]> {
    let mut owners = secret.metadata.owner_references.iter().flatten();
    let is_its = job.metadata.uid.is_some() && owners.any(|owner| Some(&owner.uid) == job.metadata.uid.as_ref());
    secret.data.as_ref().filter(|_| is_its)?.get(ENTRY).map(|entry| &entry.0[..])
}

/// How a Job ended; nothing before.
pub fn outcome(job: &Job) -> Option<Outcome> {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    let holds = conditions.into_iter().flatten().filter(|condition| condition.status == "True");
    holds.into_iter().find_map(|condition| match condition.type_.as_str() {
        "Complete" => Some(Outcome::Complete),
        "Failed" => Some(Outcome::Failed),
        _ => None,
    })
}

fn own_labels(sink: &str, name: &str) -> [(String, String); 2] {
    [(ID_LABEL.to_owned(), name.to_owned()), (NAME_LABEL.to_owned(), sink.to_owned())]
}

/// Mounts the event where a container does not do so itself, and says where.
fn give_event(pod: &mut PodSpec, secret: &str) {
    pod.containers.iter_mut().for_each(tell);
    let volumes = pod.volumes.get_or_insert_default();
    if !volumes.iter().any(|volume| volume.name == VOLUME) {
        let source = SecretVolumeSource { secret_name: Some(secret.to_owned()), ..SecretVolumeSource::default() };
        volumes.push(Volume { name: VOLUME.to_owned(), secret: Some(source), ..Volume::default() });
    }
}

fn tell(container: &mut Container) {
    let mounts = container.volume_mounts.get_or_insert_default();
    let own = mounts.iter().find(|mount| mount.name == VOLUME).map(|mount| mount.mount_path.clone());
    let path = own.unwrap_or_else(|| {
        let mount = VolumeMount {
            name: VOLUME.to_owned(),
            mount_path: MOUNT.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        };
        mounts.push(mount);
        MOUNT.to_owned()
    });
    let variables = container.env.get_or_insert_default();
    // Of two of one name the later one counts.
    variables.retain(|variable| variable.name != EVENT_PATH);
    variables.push(EnvVar { name: EVENT_PATH.to_owned(), value: Some(path), value_from: None });
}

#[cfg(test)]
mod tests {
    use knoll_api::k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
    use serde_json::{Value, json};

    use super::*;

    fn sink(spec: &Value) -> JobSink {
        let metadata = json!({"name": "j", "namespace": "ns", "uid": "sink-1"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a JobSink")
    }

    fn shown(object: &impl serde::Serialize) -> Value {
        serde_json::to_value(object).expect("an object")
    }

    #[test]
    fn an_event_has_one_name_and_no_other_has_it() {
        // echo -n /s1 | md5sum
        assert_eq!(earlier_name("j", "/s", "1"), "j-b8a765b7041c79e3f785739f20361857");
        assert_eq!(earlier_name("j", "/s", "11"), earlier_name("j", "/s1", "1"));
        assert_ne!(name("j", "/s", "11"), name("j", "/s1", "1"));
        assert_ne!(name("j", "/s", "1"), earlier_name("j", "/s", "1"));
        assert_ne!(name("j", "/s", "1"), name("j", "/s", "2"));
        assert_ne!(name("j", "/s", "1"), name("k", "/s", "1"));
        let long = name(&"x".repeat(60), "/s", "1");
        assert!(long.len() <= 63 && long != name(&"x".repeat(60), "/s", "2"), "{long}");
    }

    #[test]
    fn a_job_is_made_as_the_sink_says_with_the_event_in_every_container() {
        let sink = sink(&json!({"job": {
            "metadata": {"name": "ignored", "labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {"backoffLimit": 3, "template": {"spec": {
                "restartPolicy": "Never",
                "initContainers": [{"name": "i", "image": "i"}],
                "containers": [
                    {"name": "c", "image": "i"},
                    {"name": "own", "image": "i", "env": [{"name": "K_EVENT_PATH", "value": "x"}, {"name": "A", "value": "1"}],
                     "volumeMounts": [{"name": "jobsink-event", "mountPath": "/events"}]},
                ],
            }}},
        }}));
        let made = job(&sink, "j-1").expect("it says what Jobs are made from");
        assert_eq!(
            shown(&made),
            json!({
                "apiVersion": "batch/v1", "kind": "Job",
                "metadata": {
                    "name": "j-1", "namespace": "ns", "annotations": {"c": "d"},
                    "labels": {"a": "b", "sinks.knative.dev/job-sink-id": "j-1", "sinks.knative.dev/job-sink-name": "j"},
                    "ownerReferences": [{
                        "apiVersion": "sinks.knative.dev/v1alpha1", "kind": "JobSink", "name": "j", "uid": "sink-1",
                        "controller": true, "blockOwnerDeletion": false,
                    }],
                },
                "spec": {"backoffLimit": 3, "template": {"spec": {
                    "restartPolicy": "Never",
                    "initContainers": [{"name": "i", "image": "i"}],
                    "containers": [
                        {"name": "c", "image": "i", "env": [{"name": "K_EVENT_PATH", "value": "/etc/jobsink-event"}],
                         "volumeMounts": [{"name": "jobsink-event", "mountPath": "/etc/jobsink-event", "readOnly": true}]},
                        {"name": "own", "image": "i",
                         "env": [{"name": "A", "value": "1"}, {"name": "K_EVENT_PATH", "value": "/events"}],
                         "volumeMounts": [{"name": "jobsink-event", "mountPath": "/events"}]},
                    ],
                    "volumes": [{"name": "jobsink-event", "secret": {"secretName": "j-1"}}],
                }}},
            })
        );
        assert!(job(&self::sink(&json!({})), "j-1").is_none());
    }

    #[test]
    fn the_secret_is_the_jobs_and_holds_the_event() {
        let sink = sink(&json!({"job": {"spec": {"template": {"spec": {"containers": []}}}}}));
        let mut made = job(&sink, "j-1").expect("it says what Jobs are made from");
        made.metadata.uid = Some("job-1".into());
        assert_eq!(
            shown(&secret(&made, b"{}".into())),
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": true, "data": {"event": "e30="},
                "metadata": {
                    "name": "j-1", "namespace": "ns",
                    "labels": {"sinks.knative.dev/job-sink-id": "j-1", "sinks.knative.dev/job-sink-name": "j"},
                    "ownerReferences": [{
                        "apiVersion": "batch/v1", "kind": "Job", "name": "j-1", "uid": "job-1",
                        "controller": true, "blockOwnerDeletion": false,
                    }],
                },
            })
        );
    }

    #[test]
    fn a_job_has_ended_once_a_condition_says_so() {
        let ended = |type_: &str, status: &str| {
            let condition = JobCondition { type_: type_.into(), status: status.into(), ..JobCondition::default() };
            let status = JobStatus { conditions: Some(vec![condition]), ..JobStatus::default() };
            outcome(&Job { status: Some(status), ..Job::default() })
        };
        assert_eq!(outcome(&Job::default()), None);
        assert_eq!(ended("Complete", "True"), Some(Outcome::Complete));
        assert_eq!(ended("Failed", "True"), Some(Outcome::Failed));
        assert_eq!(ended("Failed", "False"), None);
        assert_eq!(ended("FailureTarget", "True"), None);
    }
}
