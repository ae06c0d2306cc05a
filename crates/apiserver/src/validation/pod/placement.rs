//! On which nodes a pod may run: tolerations, affinities, spreading.

use serde_json::Value;

use super::{one_of, present, within};
use crate::{
    object,
    status::Cause,
    validation::{metadata, names},
};

pub(super) fn check(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (at, toleration) in object::list(spec, "/tolerations").iter().enumerate() {
        tolerated(toleration, &format!("{path}.tolerations[{at}]"), causes);
    }
    let affinity = &spec["affinity"];
    node_affinity(&affinity["nodeAffinity"], &format!("{path}.affinity.nodeAffinity"), causes);
    for kind in ["podAffinity", "podAntiAffinity"] {
        pod_affinity(&affinity[kind], &format!("{path}.affinity.{kind}"), causes);
    }
    for (at, spread) in object::list(spec, "/topologySpreadConstraints").iter().enumerate() {
        let field = format!("{path}.topologySpreadConstraints[{at}]");
        if spread["maxSkew"].as_i64().is_none_or(|skew| skew <= 0) {
            causes.push(Cause::invalid(format!("{field}.maxSkew"), &spread["maxSkew"], "must be greater than zero"));
        }
        within(spread, &field, "minDomains", 1, i64::MAX, causes);
        topology_key(spread, &field, causes);
        present(spread, &field, "whenUnsatisfiable", causes);
        one_of(spread, &field, "whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"], causes);
        one_of(spread, &field, "nodeAffinityPolicy", &["Honor", "Ignore"], causes);
        one_of(spread, &field, "nodeTaintsPolicy", &["Honor", "Ignore"], causes);
        label_selector(&spread["labelSelector"], &format!("{field}.labelSelector"), causes);
    }
}

fn tolerated(toleration: &Value, field: &str, causes: &mut Vec<Cause>) {
    let (key, operator) = (object::text(toleration, "/key"), object::text(toleration, "/operator"));
    let (value, effect) = (object::text(toleration, "/value"), object::text(toleration, "/effect"));
    if let (false, Err(why)) = (key.is_empty(), names::key(key)) {
        causes.push(Cause::invalid(format!("{field}.key"), &key.into(), &why));
    }
    if key.is_empty() && operator != "Exists" {
        let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        causes.push(Cause::invalid(format!("{field}.operator"), &operator.into(), why));
    }
    if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        causes.push(Cause::invalid(format!("{field}.effect"), &effect.into(), why));
    }
    match operator {
        "" | "Equal" => {
            if let Err(why) = names::label_value(value) {
                causes.push(Cause::invalid(format!("{field}.operator"), &value.into(), &why));
            }
        }
        "Exists" if !value.is_empty() => {
            let why = "value must be empty when `operator` is 'Exists'";
            causes.push(Cause::invalid(format!("{field}.operator"), &value.into(), why));
        }
        _ => one_of(toleration, field, "operator", &["Equal", "Exists"], causes),
    }
    one_of(toleration, field, "effect", &["NoExecute", "NoSchedule", "PreferNoSchedule"], causes);
}

fn node_affinity(affinity: &Value, field: &str, causes: &mut Vec<Cause>) {
    let required = &affinity["requiredDuringSchedulingIgnoredDuringExecution"];
    if !required.is_null() {
        let path = format!("{field}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
        let terms = object::list(required, "/nodeSelectorTerms");
        if terms.is_empty() {
            causes.push(Cause::required(&path, "must have at least one node selector term"));
        }
        for (at, term) in terms.iter().enumerate() {
            node_term(term, &format!("{path}[{at}]"), causes);
        }
    }
    let preferred = object::list(affinity, "/preferredDuringSchedulingIgnoredDuringExecution");
    for (at, one) in preferred.iter().enumerate() {
        let path = format!("{field}.preferredDuringSchedulingIgnoredDuringExecution[{at}]");
        weight(one, &path, causes);
        node_term(&one["preference"], &format!("{path}.preference"), causes);
    }
}

fn node_term(term: &Value, field: &str, causes: &mut Vec<Cause>) {
    for (at, expression) in object::list(term, "/matchExpressions").iter().enumerate() {
        let path = format!("{field}.matchExpressions[{at}]");
        let key = object::text(expression, "/key");
        if let Err(why) = names::key(key) {
            causes.push(Cause::invalid(format!("{path}.key"), &key.into(), &why));
        }
        let values = object::list(expression, "/values");
        let wrong = match object::text(expression, "/operator") {
            "In" | "NotIn" if values.is_empty() => {
                Some(Cause::required(format!("{path}.values"), "must be specified when `operator` is 'In' or 'NotIn'"))
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                Some(Cause::forbidden(format!("{path}.values"), why))
            }
            "Gt" | "Lt" if values.len() != 1 => {
                let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                Some(Cause::required(format!("{path}.values"), why))
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => None,
            other => {
                let why = "not a valid selector operator";
                Some(Cause::invalid(format!("{path}.operator"), &other.into(), why))
            }
        };
        causes.extend(wrong);
    }
    for (at, wanted) in object::list(term, "/matchFields").iter().enumerate() {
        let path = format!("{field}.matchFields[{at}]");
        let key = object::text(wanted, "/key");
        if key != "metadata.name" {
            causes.push(Cause::invalid(format!("{path}.key"), &key.into(), "not a valid field selector key"));
        }
        if object::list(wanted, "/values").len() != 1 {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            causes.push(Cause::required(format!("{path}.values"), why));
        }
    }
}

fn pod_affinity(affinity: &Value, field: &str, causes: &mut Vec<Cause>) {
    let required = object::list(affinity, "/requiredDuringSchedulingIgnoredDuringExecution");
    for (at, term) in required.iter().enumerate() {
        pod_term(term, &format!("{field}.requiredDuringSchedulingIgnoredDuringExecution[{at}]"), causes);
    }
    let preferred = object::list(affinity, "/preferredDuringSchedulingIgnoredDuringExecution");
    for (at, one) in preferred.iter().enumerate() {
        let path = format!("{field}.preferredDuringSchedulingIgnoredDuringExecution[{at}]");
        weight(one, &path, causes);
        pod_term(&one["podAffinityTerm"], &format!("{path}.podAffinityTerm"), causes);
    }
}

fn pod_term(term: &Value, field: &str, causes: &mut Vec<Cause>) {
    label_selector(&term["labelSelector"], &format!("{field}.labelSelector"), causes);
    label_selector(&term["namespaceSelector"], &format!("{field}.namespaceSelector"), causes);
    for (at, namespace) in object::list(term, "/namespaces").iter().enumerate() {
        if let Err(why) = names::label(namespace.as_str().unwrap_or_default()) {
            causes.push(Cause::invalid(format!("{field}.namespaces[{at}]"), namespace, &why));
        }
    }
    topology_key(term, field, causes);
}

fn topology_key(term: &Value, field: &str, causes: &mut Vec<Cause>) {
    let key = object::text(term, "/topologyKey");
    if key.is_empty() {
        causes.push(Cause::required(format!("{field}.topologyKey"), "can not be empty"));
    } else if let Err(why) = names::key(key) {
        causes.push(Cause::invalid(format!("{field}.topologyKey"), &key.into(), &why));
    }
}

fn weight(term: &Value, field: &str, causes: &mut Vec<Cause>) {
    if !term["weight"].as_i64().is_some_and(|weight| (1..=100).contains(&weight)) {
        causes.push(Cause::invalid(format!("{field}.weight"), &term["weight"], "must be in the range 1-100"));
    }
}

/// A `LabelSelector`.
fn label_selector(selector: &Value, field: &str, causes: &mut Vec<Cause>) {
    metadata::labels(&selector["matchLabels"], &format!("{field}.matchLabels"), causes);
    for (at, expression) in object::list(selector, "/matchExpressions").iter().enumerate() {
        let path = format!("{field}.matchExpressions[{at}]");
        let values = object::list(expression, "/values");
        match object::text(expression, "/operator") {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                causes.push(Cause::required(format!("{path}.values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.push(Cause::forbidden(format!("{path}.values"), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let why = "not a valid selector operator";
                causes.push(Cause::invalid(format!("{path}.operator"), &other.into(), why));
            }
        }
        let key = object::text(expression, "/key");
        if let Err(why) = names::key(key) {
            causes.push(Cause::invalid(format!("{path}.key"), &key.into(), &why));
        }
    }
}
