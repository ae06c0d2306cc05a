//! What Knative's templates would become: made, admitted and thrown away.

use std::sync::Arc;

use jiff::Timestamp;
use knoll_api::{Kind, admission as rules, field_error::FieldError, labels::serving};
use serde_json::{Map, Value, json};

use crate::{
    admission::{Admission, knative},
    metadata, object,
    resources::Resource,
    status::Status,
};

/// What a revision has and a pod has not.
const OF_REVISIONS: &[&str] =
    &["containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds", "idleTimeoutSeconds"];
/// Probes may leave out what is known only of the finished pod, so they are no part of it here.
const PROBES: &[&str] = &["livenessProbe", "readinessProbe", "startupProbe"];

/// An object that a write would lead to, to be admitted and thrown away.
pub(super) struct Rehearsal {
    pub(super) row: Arc<Resource>,
    pub(super) object: Value,
    /// How the refusal of it is told.
    pub(super) refusal: fn(&Status) -> Status,
}

/// What is rehearsed of a write: the pod that a dry run's template would become, and the Job that a JobSink makes.
/// `None` where there is nothing to rehearse.
///
/// # Errors
/// When no object can be made of it.
pub(super) fn of(admission: &Admission<'_>, object: &Value) -> Result<Option<Rehearsal>, Status> {
    let kind = knative::kind(admission).filter(|_| !knative::is_leaving(admission, object));
    let of_service = || object.pointer("/metadata/labels").and_then(|labels| labels.get(serving::SERVICE));
    match kind {
        Some(Kind::Service) if admission.dry_run => pod(admission, object),
        // Its Service's dry run told already.
        Some(Kind::Configuration) if admission.dry_run && object::is_empty(of_service()) => pod(admission, object),
        Some(Kind::JobSink) => job(admission, object),
        _ => Ok(None),
    }
}

fn pod(admission: &Admission<'_>, object: &Value) -> Result<Option<Rehearsal>, Status> {
    let template = object.pointer("/spec/template/spec").and_then(Value::as_object);
    let Some(spec) = template.map(pod_spec) else { return Ok(None) };
    let metadata = json!({"name": metadata::generate_name("dry-run-validation")});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    prepared(admission, ("", "v1", "pods"), pod, |status| Status::bad_request(rules::rehearsal_denial(&status.message)))
}

fn job(admission: &Admission<'_>, object: &Value) -> Result<Option<Rehearsal>, Status> {
    const JOB: &str = "/spec/job";
    let before = admission.old.and_then(|old| old.pointer(JOB));
    let Some(job) = object.pointer(JOB).filter(|job| before != Some(*job)) else { return Ok(None) };
    let mut metadata = job.get("metadata").filter(|metadata| metadata.is_object()).cloned().unwrap_or(json!({}));
    metadata["name"] = metadata::generate_name(object::name(object)).into();
    metadata["namespace"] = admission.namespace.into();
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job["spec"]});
    prepared(admission, ("batch", "v1", "jobs"), job, |status| {
        let error = FieldError::new(status.message.clone(), &["spec.job"]);
        Status::bad_request(rules::denial(Kind::JobSink, &error.into()))
    })
}

fn prepared(
    admission: &Admission<'_>,
    (group, version, plural): (&str, &str, &str),
    mut object: Value,
    refusal: fn(&Status) -> Status,
) -> Result<Option<Rehearsal>, Status> {
    let Some(row) = admission.view.registry().get(group, version, plural).cloned() else { return Ok(None) };
    metadata::prepare_create(&row, admission.namespace, &mut object, Timestamp::now()).map_err(|e| refusal(&e))?;
    Ok(Some(Rehearsal { row, object, refusal }))
}

fn pod_spec(template: &Map<String, Value>) -> Value {
    let mut spec = template.clone();
    spec.retain(|field, _| !OF_REVISIONS.contains(&field.as_str()));
    for container in spec.get_mut("containers").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(container) = container.as_object_mut() {
            container.retain(|field, _| !PROBES.contains(&field.as_str()));
        }
    }
    Value::Object(spec)
}
