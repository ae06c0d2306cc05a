//! Dry runs of Knative's templates: the pod that one would become, to be admitted and thrown away.

use std::sync::Arc;

use jiff::Timestamp;
use knoll_api::{Kind, admission as rules, labels::serving};
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

/// The pod that a dry run's template would become, and its row; `None` where there is nothing to rehearse.
///
/// # Errors
/// When no pod can be made of it.
pub(super) fn pod(admission: &Admission<'_>, object: &Value) -> Result<Option<(Arc<Resource>, Value)>, Status> {
    let kind = knative::kind(admission).filter(|_| admission.dry_run && !knative::is_leaving(admission, object));
    let of_service = || object.pointer("/metadata/labels").and_then(|labels| labels.get(serving::SERVICE));
    let applies = match kind {
        Some(Kind::Service) => true,
        // Its Service's dry run told already.
        Some(Kind::Configuration) => object::is_empty(of_service()),
        _ => false,
    };
    let template = object.pointer("/spec/template/spec").and_then(Value::as_object);
    let (true, Some(template)) = (applies, template) else { return Ok(None) };
    let Some(pods) = admission.view.registry().get("", "v1", "pods").cloned() else { return Ok(None) };
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": metadata::generate_name("dry-run-validation")},
        "spec": pod_spec(template),
    });
    metadata::prepare_create(&pods, admission.namespace, &mut pod, Timestamp::now())?;
    Ok(Some((pods, pod)))
}

/// How the refusal of such a pod is told.
pub(super) fn refusal(status: &Status) -> Status {
    Status::bad_request(rules::rehearsal_denial(&status.message))
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
