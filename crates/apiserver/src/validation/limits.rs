//! LimitRanges and ResourceQuotas.

use std::collections::BTreeSet;

use knoll_api::quantity::Quantity;
use serde_json::Value;

use crate::{object, status::Cause};

/// The lists of amounts in a LimitRange.
const LISTS: &[&str] = &["default", "defaultRequest", "max", "maxLimitRequestRatio", "min"];

/// What Kubernetes knows of scopes. Those that are not counted by here are warned of.
const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

fn quantity(value: &Value) -> Option<Quantity> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Quantity::parse(&text).ok()
}

/// LimitRanges: one set of bounds for each type of thing, that do not contradict each other.
pub(crate) fn limit_range(new: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut seen = BTreeSet::new();
    for (at, item) in object::list(new, "/spec/limits").iter().enumerate() {
        let field = format!("spec.limits[{at}]");
        let kind = object::text(item, "/type");
        if !seen.insert(kind) {
            causes.push(Cause::duplicate(format!("{field}.type"), &kind.into()));
        }
        for list in LISTS.iter().filter(|list| kind == "Pod" && list.starts_with("default")) {
            if !object::is_empty(item.get(*list)) {
                causes.push(Cause::forbidden(format!("{field}.{list}"), "may not be specified when `type` is 'Pod'"));
            }
        }
        let storage = |list: &str| item[list].get("storage").is_some();
        if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
            let why = "either minimum or maximum storage value is required, but neither was provided";
            causes.push(Cause::required(format!("{field}.limits"), why));
        }
        let amount = |list: &str, name: &str| quantity(item[list].get(name)?);
        for (low, high) in [
            ("min", "max"),
            ("min", "default"),
            ("min", "defaultRequest"),
            ("default", "max"),
            ("defaultRequest", "max"),
            ("defaultRequest", "default"),
        ] {
            for (name, value) in item[low].as_object().into_iter().flatten() {
                if let (Some(least), Some(most)) = (amount(low, name), amount(high, name))
                    && least > most
                {
                    let why = format!("{low} value is greater than {high} value");
                    causes.push(Cause::invalid(format!("{field}.{low}[{name}]"), value, &why));
                }
            }
        }
    }
    causes
}

/// ResourceQuotas: amounts that can be counted, and scopes that do not exclude each other and stay.
pub(crate) fn resource_quota(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (name, value) in new.pointer("/spec/hard").and_then(Value::as_object).into_iter().flatten() {
        let field = format!("spec.hard[{name}]");
        let Some(amount) = quantity(value) else { continue };
        let compute = ["cpu", "memory", "storage"].iter().any(|of| name.ends_with(of));
        if amount < Quantity::ZERO {
            causes.push(Cause::invalid(field, value, "must be greater than or equal to 0"));
        } else if !compute && amount.nano() % 1_000_000_000 != 0 {
            causes.push(Cause::invalid(field, value, "must be an integer"));
        }
    }
    scopes(new, &mut causes);
    let of = |quota: &Value, part: &str| quota.pointer(part).cloned().unwrap_or_default();
    for part in ["/spec/scopes", "/spec/scopeSelector"] {
        if old.is_some_and(|old| of(old, part) != of(new, part)) {
            causes.push(Cause::invalid(part[1..].replace('/', "."), &of(new, part), "field is immutable"));
        }
    }
    causes
}

fn scopes(quota: &Value, causes: &mut Vec<Cause>) {
    let plain = object::list(quota, "/spec/scopes").iter().filter_map(Value::as_str).collect::<Vec<_>>();
    for (at, scope) in plain.iter().enumerate() {
        if !SCOPES.contains(scope) {
            causes.push(Cause::not_supported(format!("spec.scopes[{at}]"), &(*scope).into(), SCOPES));
        }
    }
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if plain.contains(&one) && plain.contains(&other) {
            causes.push(Cause::invalid("spec.scopes", &plain.clone().into(), "conflicting scopes"));
        }
    }
    for (at, expression) in object::list(quota, "/spec/scopeSelector/matchExpressions").iter().enumerate() {
        let field = format!("spec.scopeSelector.matchExpressions[{at}]");
        let (scope, operator) = (object::text(expression, "/scopeName"), object::text(expression, "/operator"));
        if !SCOPES.contains(&scope) {
            causes.push(Cause::not_supported(format!("{field}.scopeName"), &scope.into(), SCOPES));
        }
        let by_value = matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if !by_value && operator != "Exists" {
            let why = "must be 'Exists': only priority classes and classes of volumes are told apart by value";
            causes.push(Cause::invalid(format!("{field}.operator"), &operator.into(), why));
        }
        let values = !object::is_empty(expression.get("values"));
        match operator {
            "In" | "NotIn" if !values => causes.push(Cause::required(
                format!("{field}.values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            )),
            "Exists" | "DoesNotExist" if values => causes.push(Cause::invalid(
                format!("{field}.values"),
                &expression["values"],
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => causes.push(Cause::not_supported(
                format!("{field}.operator"),
                &other.into(),
                &["DoesNotExist", "Exists", "In", "NotIn"],
            )),
        }
    }
}
