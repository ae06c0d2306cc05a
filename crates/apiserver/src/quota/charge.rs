//! What an object counts against a ResourceQuota, under the names that quotas use.

use knoll_api::quantity::Quantity;
use serde_json::Value;

use crate::{claims::Amounts, object, resources::Resource};

/// What containers request and may be limited to.
const COMPUTE: &[&str] = &["cpu", "memory", "ephemeral-storage"];
/// Kinds of the core group that are counted under their plain name, too.
const PLAIN: &[&str] =
    &["configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets", "services"];

/// What an object of this row counts.
pub(super) fn of(resource: &Resource, object: &Value) -> Amounts {
    let mut amounts = Amounts::new();
    let one = amount("1");
    amounts.insert(count_name(resource), one);
    if !resource.group.is_empty() {
        return amounts;
    }
    let plural = resource.plural.as_str();
    if PLAIN.contains(&plural) {
        amounts.insert(plural.to_owned(), one);
    }
    match plural {
        "pods" if !is_finished(object) => pod(object, &mut amounts),
        "services" => service(object, &mut amounts),
        "persistentvolumeclaims" => {
            let storage = object::text(object, "/spec/resources/requests/storage");
            amounts.insert("requests.storage".into(), amount(storage));
        }
        _ => {}
    }
    amounts
}

/// Whether objects of this row can count under one of these names.
pub(super) fn concerns(resource: &Resource, hard: &Amounts) -> bool {
    let count = count_name(resource);
    let core = resource.group.is_empty();
    let plural = resource.plural.as_str();
    hard.keys().any(|name| {
        *name == count
            || core
                && match plural {
                    "pods" => name == "pods" || COMPUTE.iter().any(|compute| name.ends_with(compute)),
                    "services" => name.starts_with("services"),
                    "persistentvolumeclaims" => name == plural || name == "requests.storage",
                    _ => name == plural && PLAIN.contains(&plural),
                }
    })
}

/// Whether these limits are, for objects of this row, of nothing but how many there are.
pub(super) fn is_number(resource: &Resource, hard: &Amounts) -> bool {
    let number = number(resource, 0);
    hard.iter()
        .filter(|(name, most)| concerns(resource, &Amounts::from([((*name).clone(), **most)])))
        .all(|(name, _)| number.contains_key(name))
}

/// What so many objects of this row count, by their number.
pub(super) fn number(resource: &Resource, count: usize) -> Amounts {
    let count = amount(&count.to_string());
    let plain = resource.group.is_empty() && PLAIN.contains(&resource.plural.as_str());
    [Some(count_name(resource)), plain.then(|| resource.plural.clone())]
        .into_iter()
        .flatten()
        .map(|name| (name, count))
        .collect()
}

/// The name under which quotas count objects of this row.
fn count_name(resource: &Resource) -> String {
    let dot = if resource.group.is_empty() { "" } else { "." };
    format!("count/{}{dot}{}", resource.plural, resource.group)
}

/// What a text says; nothing where it cannot be read, which validation refuses.
fn amount(text: &str) -> Quantity {
    text.parse().unwrap_or(Quantity::ZERO)
}

fn is_finished(pod: &Value) -> bool {
    matches!(object::text(pod, "/status/phase"), "Succeeded" | "Failed")
}

fn pod(pod: &Value, amounts: &mut Amounts) {
    amounts.insert("pods".into(), amount("1"));
    for name in COMPUTE {
        let requested = of_containers(pod, "requests", name);
        amounts.insert(format!("requests.{name}"), requested);
        amounts.insert((*name).to_owned(), requested);
        amounts.insert(format!("limits.{name}"), of_containers(pod, "limits", name));
    }
}

/// The containers together, or the greatest init container if that is more, and overhead.
fn of_containers(pod: &Value, kind: &str, name: &str) -> Quantity {
    let of = |container: &Value| amount(object::text(container, &format!("/resources/{kind}/{name}")));
    let sum = |all: Quantity, container: &Value| all.plus(of(container));
    let init = object::list(pod, "/spec/initContainers");
    let stays = |container: &&Value| container["restartPolicy"] == "Always";
    let beside = init.iter().filter(stays).fold(Quantity::ZERO, sum);
    let running = object::list(pod, "/spec/containers").iter().fold(beside, sum);
    let starting = init.iter().filter(|c| !stays(c)).map(|c| beside.plus(of(c))).max().unwrap_or(Quantity::ZERO);
    let overhead = amount(object::text(pod, &format!("/spec/overhead/{name}")));
    running.max(starting).plus(overhead)
}

fn service(service: &Value, amounts: &mut Amounts) {
    let ports = object::list(service, "/spec/ports").len().to_string();
    match object::text(service, "/spec/type") {
        "LoadBalancer" => {
            amounts.insert("services.loadbalancers".into(), amount("1"));
            if service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)) {
                amounts.insert("services.nodeports".into(), amount(&ports));
            }
        }
        "NodePort" => drop(amounts.insert("services.nodeports".into(), amount(&ports))),
        _ => {}
    }
}

/// Names of compute amounts in `hard` that a container of a pod leaves open, each with those containers.
pub(super) fn unsaid(pod: &Value, hard: &Amounts) -> Vec<String> {
    let compute = |name: &&String| {
        let plain = name.trim_start_matches("requests.").trim_start_matches("limits.");
        // Ephemeral storage need not be said.
        matches!(plain, "cpu" | "memory")
    };
    let lists = ["/spec/initContainers", "/spec/containers"];
    let findings = hard.keys().filter(compute).filter_map(|name| {
        let (kind, resource) = name.split_once('.').unwrap_or(("requests", name));
        let path = format!("/resources/{kind}/{resource}");
        let containers = lists.iter().flat_map(|list| object::list(pod, list));
        let silent: Vec<&str> =
            containers.filter(|c| object::is_empty(c.pointer(&path))).map(object::name_of).collect();
        (!silent.is_empty()).then(|| format!("{name} for: {}", silent.join(",")))
    });
    findings.collect()
}
