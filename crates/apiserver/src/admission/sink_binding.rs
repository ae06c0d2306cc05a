//! SinkBindings that mean Jobs. The template of a Job is for good, so its containers are told where their events go when it is
//! made; what else a binding means is written by its controller.

use std::sync::Arc;

use knoll_api::labels::eventing::TRUST_BUNDLE;
use serde_json::{Value, json};

use super::{Admission, pod::push};
use crate::{label_selector::LabelSelector, object};

/// Variables that are a binding's.
const BOUND: [&str; 3] = ["K_SINK", "K_CA_CERTS", "K_CE_OVERRIDES"];
/// The volume of certificates to trust, and where containers find it.
const VOLUME: &str = "kne-bundle-volume";
const FOLDER: &str = "/knative-custom-certs";

/// Tells the containers of a new Job what the oldest binding that means it says, once that knows where its sink is.
pub(super) fn job(admission: &Admission<'_>, job: &mut Value) {
    let bindings = stored(admission, "sources.knative.dev/sinkbindings");
    let meant = bindings.iter().filter(|binding| means(binding, job));
    let Some(binding) = meant.min_by(|one, other| age(one).cmp(&age(other))) else { return };
    let told = variables(binding);
    let Some(pod) = job.pointer_mut("/spec/template/spec").filter(|pod| pod.is_object()) else { return };
    let bundles = bundles(admission);
    for list in ["initContainers", "containers"] {
        for container in pod.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            tell(container, &told);
            if !bundles.is_empty() {
                push(container, "volumeMounts", json!({"name": VOLUME, "mountPath": FOLDER, "readOnly": true}));
            }
        }
    }
    if !bundles.is_empty() {
        push(pod, "volumes", json!({"name": VOLUME, "projected": {"defaultMode": 0o644, "sources": bundles}}));
    }
}

/// The objects of a resource (group and plural) that are in the namespace, in order of their names.
fn stored(admission: &Admission<'_>, resource: &str) -> Vec<Arc<Value>> {
    let prefix = format!("/{resource}/{}/", admission.namespace);
    admission.view.snapshot().range(&prefix, None).filter_map(|entry| admission.view.tree(&entry)).collect()
}

/// Whether a binding means this Job and can tell it something.
fn means(binding: &Value, job: &Value) -> bool {
    let subject = &binding["spec"]["subject"];
    let is_job = object::text(subject, "/apiVersion").starts_with("batch/") && object::text(subject, "/kind") == "Job";
    let is_chosen = match object::name_of(subject) {
        "" => LabelSelector::from_object(&subject["selector"])
            .is_some_and(|selector| selector.matches(&job["metadata"]["labels"])),
        name => name == object::name(job),
    };
    is_job && is_chosen && !object::is_deleting(binding) && !object::text(binding, "/status/sinkUri").is_empty()
}

fn age(binding: &Value) -> (&str, &str) {
    (object::text(binding, "/metadata/creationTimestamp"), object::name(binding))
}

fn variables(binding: &Value) -> Vec<Value> {
    let status = &binding["status"];
    let mut told = vec![json!({"name": BOUND[0], "value": status["sinkUri"]})];
    if let Some(certificates) = status["sinkCACerts"].as_str() {
        told.push(json!({"name": BOUND[1], "value": certificates}));
    }
    // It is there without a value, too, as in what the controller writes.
    let overrides = &binding["spec"]["ceOverrides"];
    told.push(match overrides {
        Value::Null => json!({"name": BOUND[2]}),
        overrides => json!({"name": BOUND[2], "value": overrides.to_string()}),
    });
    told
}

fn tell(container: &mut Value, told: &[Value]) {
    if let Some(own) = container["env"].as_array_mut() {
        own.retain(|variable| !BOUND.contains(&object::name_of(variable)));
    }
    told.iter().for_each(|variable| push(container, "env", variable.clone()));
}

/// The ConfigMaps of certificates to trust, as the sources of a volume.
fn bundles(admission: &Admission<'_>) -> Vec<Value> {
    let maps = stored(admission, "core/configmaps");
    let is_bundle = |map: &&Arc<Value>| map["metadata"]["labels"][TRUST_BUNDLE] == "true";
    maps.iter().filter(is_bundle).map(|map| json!({"configMap": {"name": object::name(map)}})).collect()
}
