//! Environment variables and where they come from.

use serde_json::Value;

use super::{named, present, set_of};
use crate::{object, status::Cause, validation::names};

const SOURCES: &[&str] = &["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
/// What a variable may say of its pod.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const NAME: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";

/// The variables of a container.
pub(super) fn check(container: &Value, parent: &str, causes: &mut Vec<Cause>) {
    for (at, variable) in object::list(container, "/env").iter().enumerate() {
        let field = format!("{parent}.env[{at}]");
        let name = object::name_of(variable);
        if name.is_empty() {
            causes.push(Cause::required(format!("{field}.name"), ""));
        } else if let Err(why) = variable_name(name) {
            causes.push(Cause::invalid(format!("{field}.name"), &name.into(), &why));
        }
        let source = &variable["valueFrom"];
        if !source.is_null() {
            value_from(variable, source, &format!("{field}.valueFrom"), causes);
        }
    }
    for (at, source) in object::list(container, "/envFrom").iter().enumerate() {
        let field = format!("{parent}.envFrom[{at}]");
        named(source, &field, "prefix", variable_name, causes);
        let known = ["configMapRef", "secretRef"];
        match set_of(source, &known)[..] {
            [] => causes.push(Cause::invalid(&field, &"".into(), "must specify one of: `configMapRef` or `secretRef`")),
            [only] => present(&source[only], &format!("{field}.{only}"), "name", causes),
            _ => {
                causes.push(Cause::invalid(&field, &"".into(), "may not have more than one field specified at a time"))
            }
        }
    }
}

fn variable_name(name: &str) -> Result<(), String> {
    let fine = name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=');
    if fine { Ok(()) } else { Err(NAME.into()) }
}

fn value_from(variable: &Value, source: &Value, field: &str, causes: &mut Vec<Cause>) {
    if !object::is_empty(variable.get("value")) {
        causes.push(Cause::invalid(field, &"".into(), "may not be specified when `value` is not empty"));
    }
    match set_of(source, SOURCES)[..] {
        [] => {
            let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
            causes.push(Cause::invalid(field, &"".into(), why));
        }
        ["fieldRef"] => of_pod(&source["fieldRef"], &format!("{field}.fieldRef"), FIELDS, causes),
        ["resourceFieldRef"] => of_resources(&source["resourceFieldRef"], &format!("{field}.resourceFieldRef"), causes),
        [only @ ("configMapKeyRef" | "secretKeyRef")] => {
            let path = format!("{field}.{only}");
            present(&source[only], &path, "name", causes);
            present(&source[only], &path, "key", causes);
            named(&source[only], &path, "key", names::config_key, causes);
        }
        [_] => {}
        _ => causes.push(Cause::invalid(field, &"".into(), "may not have more than one field specified at a time")),
    }
}

/// A field of the pod, by its path.
pub(super) fn of_pod(reference: &Value, field: &str, known: &[&str], causes: &mut Vec<Cause>) {
    present(reference, field, "fieldPath", causes);
    let path = object::text(reference, "/fieldPath");
    let keyed = path
        .strip_suffix("']")
        .and_then(|rest| rest.split_once("['"))
        .filter(|(map, _)| matches!(*map, "metadata.labels" | "metadata.annotations"));
    if let Some((_, key)) = keyed {
        if let Err(why) = names::key(&key.to_lowercase()) {
            causes.push(Cause::invalid(format!("{field}.fieldPath"), &path.into(), &why));
        }
    } else if !path.is_empty() && !known.contains(&path) {
        causes.push(Cause::not_supported(format!("{field}.fieldPath"), &path.into(), known));
    }
}

/// A container's own request or limit.
pub(super) fn of_resources(reference: &Value, field: &str, causes: &mut Vec<Cause>) {
    present(reference, field, "resource", causes);
    let resource = object::text(reference, "/resource");
    let known = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    let pages = ["limits.hugepages-", "requests.hugepages-"].iter().any(|prefix| resource.starts_with(prefix));
    if !resource.is_empty() && !pages && !known.contains(&resource) {
        causes.push(Cause::not_supported(format!("{field}.resource"), &resource.into(), &known));
    }
}
