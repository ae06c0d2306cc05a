//! Dry runs of Knative's templates: the pod that one would become is admitted, too, and thrown away.

use jiff::Timestamp;
use knoll_api::{Kind, admission as rules, labels::serving};
use serde_json::{Map, Value, json};

use super::{Admission, Operation, admit};
use crate::{metadata, object, status::Status};

/// What a revision has and a pod has not.
const OF_REVISIONS: &[&str] =
    &["containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds", "idleTimeoutSeconds"];
/// Probes may leave out what is known only of the finished pod, so they are no part of it here.
const PROBES: &[&str] = &["livenessProbe", "readinessProbe", "startupProbe"];

/// Refuses a dry run whose pods would be refused.
pub(super) fn rehearse(admission: &Admission<'_>, kind: Kind, object: &Value) -> Result<(), Status> {
    let of_service = || object.pointer("/metadata/labels").and_then(|labels| labels.get(serving::SERVICE));
    let applies = match kind {
        Kind::Service => true,
        // Its Service's dry run told already.
        Kind::Configuration => object::is_empty(of_service()),
        _ => false,
    };
    let template = object.pointer("/spec/template/spec").and_then(Value::as_object);
    let (true, true, Some(template)) = (admission.dry_run, applies, template) else { return Ok(()) };
    let registry = admission.server.registry();
    let Some(pods) = registry.get("", "v1", "pods") else { return Ok(()) };
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": metadata::generate_name("dry-run-validation")},
        "spec": pod_spec(template),
    });
    metadata::prepare_create(pods, admission.namespace, &mut pod, Timestamp::now())?;
    let mut rehearsal = Admission {
        server: admission.server,
        resource: pods,
        identity: admission.identity,
        namespace: admission.namespace,
        part: None,
        operation: Operation::Create,
        old: None,
        dry_run: true,
        warnings: &mut Vec::new(),
        held: Vec::new(),
        claim: None,
    };
    let refused = |status: Status| Status::bad_request(rules::rehearsal_denial(&status.message));
    admit(&mut rehearsal, &mut pod).map_err(refused)
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
