//! Metadata of any kind.

use serde_json::Value;

use super::names;
use crate::{object, resources::Resource, status::Cause};

/// Most bytes of all annotations together.
const ANNOTATIONS: usize = 256 * 1024;

/// Findings about an object's metadata.
pub(crate) fn check(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = object::name(object);
    if let Err(why) = name_rule(resource)(name) {
        causes.push(Cause::invalid("metadata.name", &name.into(), &why));
    }
    labels(&object["metadata"]["labels"], "metadata.labels", &mut causes);
    annotations(&object["metadata"]["annotations"], &mut causes);
    owners(object, &mut causes);
    for finalizer in object::finalizers(object) {
        if names::key(finalizer).is_err() {
            causes.push(Cause::invalid("metadata.finalizers", &finalizer.into(), names::NAME_PART));
        }
    }
    causes
}

fn name_rule(resource: &Resource) -> fn(&str) -> Result<(), String> {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "namespaces") => names::label,
        ("", "services") => names::label_1035,
        // As recorders name them: after what they are about, whatever that is called.
        ("", "events") | ("rbac.authorization.k8s.io", _) => names::path_segment,
        _ => names::subdomain,
    }
}

/// Findings about labels under a field.
pub(crate) fn labels(labels: &Value, field: &str, causes: &mut Vec<Cause>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        if let Err(why) = names::key(key) {
            causes.push(Cause::invalid(field, &key.as_str().into(), &why));
        }
        if let Err(why) = names::label_value(value.as_str().unwrap_or_default()) {
            causes.push(Cause::invalid(field, value, &why));
        }
    }
}

fn annotations(annotations: &Value, causes: &mut Vec<Cause>) {
    let mut total = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        if let Err(why) = names::key(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &key.as_str().into(), &why));
        }
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > ANNOTATIONS {
        causes.push(Cause::too_long("metadata.annotations", ANNOTATIONS));
    }
}

fn owners(object: &Value, causes: &mut Vec<Cause>) {
    let mut controllers = 0;
    for (at, owner) in object::list(object, "/metadata/ownerReferences").iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if object::is_empty(owner.get(field)) {
                let why = if field == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                let path = format!("metadata.ownerReferences[{at}].{field}");
                causes.push(Cause::invalid(path, &owner.get(field).cloned().unwrap_or("".into()), why));
            }
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        let why = "Only one reference can have Controller set to true";
        causes.push(Cause::invalid("metadata.ownerReferences", &object["metadata"]["ownerReferences"], why));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::ResourceRegistry;

    fn findings(group: &str, plural: &str, name: &str) -> Vec<Cause> {
        let registry = ResourceRegistry::built_in();
        let row = registry.get(group, "v1", plural).expect("served");
        check(row, &json!({"metadata": {"name": name}}))
    }

    #[test]
    fn an_event_of_the_core_group_bears_any_name_that_a_path_holds() {
        assert!(findings("", "events", "source-orfzszpv.Sent.1").is_empty());
        for name in ["a/b", "a%b", "..", "."] {
            assert_eq!(findings("", "events", name).len(), 1, "{name}");
        }
        assert_eq!(findings("events.k8s.io", "events", "source-orfzszpv.Sent.1").len(), 1);
        assert_eq!(findings("", "configmaps", "source-orfzszpv.Sent.1").len(), 1);
    }
}
