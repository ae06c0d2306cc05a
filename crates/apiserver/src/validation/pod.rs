//! Pods and pod templates.

use serde_json::Value;

use super::names;
use crate::{object, status::Cause};

/// Pods. Of a stored one only few fields may change.
pub(crate) fn validate(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    spec(&new["spec"], "spec", &mut causes);
    if let Some(old) = old {
        unchanged(old, new, &mut causes);
    }
    causes
}

/// What `spec` of a pod or template must hold.
pub(crate) fn spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let containers = object::list(spec, "/containers");
    if containers.is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let volumes: Vec<&str> = object::list(spec, "/volumes").iter().map(object::name_of).collect();
    let mut seen: Vec<&str> = Vec::new();
    for list in ["initContainers", "containers"] {
        for (at, one) in object::list(spec, &format!("/{list}")).iter().enumerate() {
            let field = format!("{path}.{list}[{at}]");
            container(one, &field, &volumes, causes);
            let name = object::name_of(one);
            if !name.is_empty() && seen.contains(&name) {
                causes.push(Cause::duplicate(format!("{field}.name"), &name.into()));
            }
            seen.push(name);
        }
    }
    for (at, volume) in volumes.iter().enumerate() {
        let field = format!("{path}.volumes[{at}].name");
        if volume.is_empty() {
            causes.push(Cause::required(field, ""));
        } else if let Err(why) = names::label(volume) {
            causes.push(Cause::invalid(field, &(*volume).into(), &why));
        } else if volumes[..at].contains(volume) {
            causes.push(Cause::duplicate(field, &(*volume).into()));
        }
    }
    one_of(spec, path, "restartPolicy", &["Always", "OnFailure", "Never"], causes);
    one_of(spec, path, "dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], causes);
}

fn one_of(spec: &Value, path: &str, field: &str, known: &[&str], causes: &mut Vec<Cause>) {
    let value = object::text(spec, &format!("/{field}"));
    if !value.is_empty() && !known.contains(&value) {
        causes.push(Cause::not_supported(format!("{path}.{field}"), &value.into(), known));
    }
}

fn container(container: &Value, field: &str, volumes: &[&str], causes: &mut Vec<Cause>) {
    let name = object::name_of(container);
    if name.is_empty() {
        causes.push(Cause::required(format!("{field}.name"), ""));
    } else if let Err(why) = names::label(name) {
        causes.push(Cause::invalid(format!("{field}.name"), &name.into(), &why));
    }
    let image = object::text(container, "/image");
    if image.is_empty() {
        causes.push(Cause::required(format!("{field}.image"), ""));
    } else if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        causes.push(Cause::invalid(format!("{field}.image"), &image.into(), why));
    }
    one_of(container, field, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], causes);
    for (at, port) in object::list(container, "/ports").iter().enumerate() {
        let path = format!("{field}.ports[{at}].containerPort");
        match port["containerPort"].as_i64() {
            None => causes.push(Cause::required(path, "")),
            Some(n) if !(1..=65535).contains(&n) => {
                causes.push(Cause::invalid(path, &n.into(), "must be between 1 and 65535, inclusive"));
            }
            Some(_) => {}
        }
    }
    for (at, variable) in object::list(container, "/env").iter().enumerate() {
        if object::name_of(variable).is_empty() {
            causes.push(Cause::required(format!("{field}.env[{at}].name"), ""));
        }
    }
    for (at, mount) in object::list(container, "/volumeMounts").iter().enumerate() {
        let path = format!("{field}.volumeMounts[{at}]");
        let name = object::name_of(mount);
        if name.is_empty() {
            causes.push(Cause::required(format!("{path}.name"), ""));
        } else if !volumes.contains(&name) {
            causes.push(Cause::other("FieldValueNotFound", format!("{path}.name"), format!("Not found: {name:?}")));
        }
        if object::text(mount, "/mountPath").is_empty() {
            causes.push(Cause::required(format!("{path}.mountPath"), ""));
        }
    }
    resources(&container["resources"], &format!("{field}.resources"), causes);
}

fn resources(resources: &Value, field: &str, causes: &mut Vec<Cause>) {
    let amount = |value: &Value| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        knoll_api::quantity::Quantity::parse(&text)
    };
    for (name, request) in resources["requests"].as_object().into_iter().flatten() {
        let Some(limit) = resources["limits"].get(name) else { continue };
        if let (Ok(wanted), Ok(most)) = (amount(request), amount(limit))
            && wanted > most
        {
            let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let why = format!("must be less than or equal to {name} limit of {}", shown(limit));
            causes.push(Cause::invalid(format!("{field}.requests"), &shown(request).into(), &why));
        }
    }
}

fn unchanged(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let fixed = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        if let Some(map) = spec.as_object_mut() {
            for free in [
                "activeDeadlineSeconds",
                "tolerations",
                "terminationGracePeriodSeconds",
                "schedulingGates",
                "ephemeralContainers",
            ] {
                map.remove(free);
            }
            // The scheduler's and the node's.
            if object::text(old, "/spec/nodeName").is_empty() {
                map.remove("nodeName");
            }
            for list in ["containers", "initContainers"] {
                for container in map.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                    container["image"] = Value::Null;
                    container["resources"] = Value::Null;
                }
            }
        }
        spec
    };
    if fixed(old) != fixed(new) {
        let why = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        causes.push(Cause::forbidden("spec", why));
    }
}
