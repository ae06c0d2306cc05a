//! Pods: whom they run as, and the token they get.

use serde_json::{Value, json};

use super::{Admission, Operation, limit_range, node};
use crate::{metadata, object, status::Status, validation};

/// Where a container finds its token.
const TOKEN_DIRECTORY: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_VOLUME: &str = "kube-api-access-";

/// Gives a new pod its ServiceAccount's token and pull secrets.
pub(crate) fn admit(admission: &mut Admission<'_>, pod: &mut Value) -> Result<(), Status> {
    node::pod(admission, pod)?;
    if admission.operation == Operation::Update {
        let causes = admission.old.map(|old| validation::pod::unchanged_parts(old, pod, admission.subresource));
        return match causes.filter(|causes| !causes.is_empty()) {
            Some(causes) => Err(admission.resource.invalid(object::name(pod), causes)),
            None => Ok(()),
        };
    }
    set_priority(admission, pod)?;
    runtime_class(admission, pod)?;
    limit_range::pod(admission, pod)?;
    set_status(pod);
    let namespace = admission.namespace.to_owned();
    let mirror = object::annotation(pod, "kubernetes.io/config.mirror").is_some();
    if mirror {
        return Ok(());
    }
    let name = account_name(pod);
    let Some(account) = admission.view.core_object("serviceaccounts", &namespace, &name) else {
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        return Err(admission.resource.forbidden(object::name(pod), &why));
    };
    let spec = object::map_at(pod, "spec");
    spec.insert("serviceAccountName".into(), name.as_str().into());
    spec.insert("serviceAccount".into(), name.as_str().into());
    if object::is_empty(spec.get("imagePullSecrets")) && !object::is_empty(account.get("imagePullSecrets")) {
        spec.insert("imagePullSecrets".into(), account["imagePullSecrets"].clone());
    }
    let wanted = spec.get("automountServiceAccountToken").or(account.get("automountServiceAccountToken"));
    if wanted != Some(&Value::Bool(false)) {
        mount_token(pod);
    }
    Ok(())
}

/// A new pod is pending, whatever its writer says.
fn set_status(pod: &mut Value) {
    let class = quality_of_service(pod);
    pod["status"] = json!({"phase": "Pending", "qosClass": class});
}

fn account_name(pod: &Value) -> String {
    let named = ["/spec/serviceAccountName", "/spec/serviceAccount"].map(|p| object::text(pod, p));
    named.into_iter().find(|n| !n.is_empty()).unwrap_or("default").to_owned()
}

fn mount_token(pod: &mut Value) {
    let existing = object::list(pod, "/spec/volumes").iter().map(object::name_of).find(|n| n.starts_with(TOKEN_VOLUME));
    let has_volume = existing.is_some();
    let volume = existing.map_or_else(|| metadata::generate_name(TOKEN_VOLUME), str::to_owned);
    let mut used = false;
    for list in ["initContainers", "containers"] {
        // Not by index: that would leave a null where there is no list.
        let list = pod.get_mut("spec").and_then(|spec| spec.get_mut(list));
        let Some(containers) = list.and_then(Value::as_array_mut) else { continue };
        for container in containers {
            if object::list(container, "/volumeMounts").iter().any(|m| m["mountPath"] == TOKEN_DIRECTORY) {
                continue;
            }
            let mount = json!({"name": volume, "readOnly": true, "mountPath": TOKEN_DIRECTORY});
            push(container, "volumeMounts", mount);
            used = true;
        }
    }
    if used && !has_volume {
        push(&mut pod["spec"], "volumes", token_volume(&volume));
    }
}

/// Appends to a list, made when it is absent.
pub(super) fn push(object: &mut Value, field: &str, item: Value) {
    match object[field].as_array_mut() {
        Some(list) => list.push(item),
        None => object[field] = json!([item]),
    }
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
                ]}},
            ],
        },
    })
}

/// Where pods may be of the classes that are evicted last of all.
const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "knative-serving", "knative-eventing"];

fn set_priority(admission: &Admission<'_>, pod: &mut Value) -> Result<(), Status> {
    let class = object::text(pod, "/spec/priorityClassName").to_owned();
    if class.starts_with("system-") && !SYSTEM_NAMESPACES.contains(&admission.namespace) {
        let namespace = admission.namespace;
        let why = format!("pods with {class} priorityClass is not permitted in {namespace} namespace");
        return Err(admission.resource.forbidden(object::name(pod), &why));
    }
    let priority = match class.as_str() {
        "" => 0,
        "system-node-critical" => 2_000_001_000,
        "system-cluster-critical" => 2_000_000_000,
        name => {
            let Some(class) = admission.view.object(&format!("/scheduling.k8s.io/priorityclasses//{name}")) else {
                let why = format!("no PriorityClass with name {name} was found");
                return Err(admission.resource.forbidden(object::name(pod), &why));
            };
            object::integer(&class, "/value").unwrap_or(0)
        }
    };
    let spec = object::map_at(pod, "spec");
    spec.insert("priority".into(), priority.into());
    object::default(spec, "preemptionPolicy", "PreemptLowerPriority");
    Ok(())
}

/// A class that a pod names must be there.
fn runtime_class(admission: &Admission<'_>, pod: &Value) -> Result<(), Status> {
    let class = object::text(pod, "/spec/runtimeClassName");
    if class.is_empty() || admission.view.has(&format!("/node.k8s.io/runtimeclasses//{class}")) {
        return Ok(());
    }
    let why = format!("pod rejected: RuntimeClass {class:?} not found");
    Err(admission.resource.forbidden(object::name(pod), &why))
}

/// `Guaranteed` when every container's cpu and memory are limited to what they request, `BestEffort` when
/// none says anything, else `Burstable`.
fn quality_of_service(pod: &Value) -> &'static str {
    let lists = ["/spec/initContainers", "/spec/containers"];
    let containers: Vec<&Value> = lists.iter().flat_map(|p| object::list(pod, p)).collect();
    let set = |container: &&&Value, kind: &str, resource: &str| {
        !object::is_empty(container.pointer(&format!("/resources/{kind}/{resource}")))
    };
    let any = |c: &&Value| ["requests", "limits"].iter().any(|k| ["cpu", "memory"].iter().any(|r| set(&c, k, r)));
    if !containers.iter().any(any) {
        return "BestEffort";
    }
    let guaranteed = |c: &&Value| {
        ["cpu", "memory"].iter().all(|resource| {
            let limit = c.pointer(&format!("/resources/limits/{resource}"));
            let request = c.pointer(&format!("/resources/requests/{resource}"));
            !object::is_empty(limit) && (request.is_none() || request == limit)
        })
    };
    if containers.iter().all(guaranteed) { "Guaranteed" } else { "Burstable" }
}
