//! Roles and bindings.

use serde_json::Value;

use super::names;
use crate::{object, status::Cause};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Roles: rights to objects alone.
pub(crate) fn role(new: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (at, rule) in object::list(new, "/rules").iter().enumerate() {
        let field = format!("rules[{at}]");
        if !object::is_empty(rule.get("nonResourceURLs")) {
            let why = "namespaced rules cannot apply to non-resource URLs";
            causes.push(Cause::invalid(format!("{field}.nonResourceURLs"), &rule["nonResourceURLs"], why));
        }
        rule_parts(rule, &field, &mut causes);
    }
    causes
}

/// ClusterRoles: rights to objects, or to paths.
pub(crate) fn cluster_role(new: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (at, rule) in object::list(new, "/rules").iter().enumerate() {
        rule_parts(rule, &format!("rules[{at}]"), &mut causes);
    }
    if !new["aggregationRule"].is_null() && object::is_empty(new.pointer("/aggregationRule/clusterRoleSelectors")) {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        causes.push(Cause::required("aggregationRule.clusterRoleSelectors", why));
    }
    causes
}

fn rule_parts(rule: &Value, field: &str, causes: &mut Vec<Cause>) {
    let empty = |part: &str| object::is_empty(rule.get(part));
    if empty("verbs") {
        causes.push(Cause::required(format!("{field}.verbs"), "verbs must contain at least one value"));
    }
    if !empty("nonResourceURLs") {
        if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            causes.push(Cause::invalid(format!("{field}.nonResourceURLs"), &rule["nonResourceURLs"], why));
        }
        return;
    }
    if empty("apiGroups") {
        causes.push(Cause::required(format!("{field}.apiGroups"), "resource rules must supply at least one api group"));
    }
    if empty("resources") {
        causes.push(Cause::required(format!("{field}.resources"), "resource rules must supply at least one resource"));
    }
}

/// They name a role, which cannot change, and whom it is for.
pub(crate) fn binding(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let group = object::text(new, "/roleRef/apiGroup");
    if group != GROUP {
        causes.push(Cause::not_supported("roleRef.apiGroup", &group.into(), &[GROUP]));
    }
    let kind = object::text(new, "/roleRef/kind");
    let kinds: &[&str] = if new["kind"] == "ClusterRoleBinding" { &["ClusterRole"] } else { &["ClusterRole", "Role"] };
    if !kinds.contains(&kind) {
        causes.push(Cause::not_supported("roleRef.kind", &kind.into(), kinds));
    }
    let name = object::text(new, "/roleRef/name");
    if name.is_empty() {
        causes.push(Cause::required("roleRef.name", ""));
    } else if let Err(why) = names::path_segment(name) {
        causes.push(Cause::invalid("roleRef.name", &name.into(), &why));
    }
    let namespaced = new["kind"] == "RoleBinding";
    for (at, one) in object::list(new, "/subjects").iter().enumerate() {
        subject(one, &format!("subjects[{at}]"), namespaced, &mut causes);
    }
    if let Some(old) = old
        && old["roleRef"] != new["roleRef"]
    {
        causes.push(Cause::invalid("roleRef", &new["roleRef"], "cannot change roleRef"));
    }
    causes
}

fn subject(subject: &Value, field: &str, namespaced: bool, causes: &mut Vec<Cause>) {
    let name = object::name_of(subject);
    if name.is_empty() {
        causes.push(Cause::required(format!("{field}.name"), ""));
    }
    let (kind, group) = (object::text(subject, "/kind"), object::text(subject, "/apiGroup"));
    match kind {
        "ServiceAccount" => {
            if let (false, Err(why)) = (name.is_empty(), names::subdomain(name)) {
                causes.push(Cause::invalid(format!("{field}.name"), &name.into(), &why));
            }
            if !group.is_empty() {
                causes.push(Cause::not_supported(format!("{field}.apiGroup"), &group.into(), &[""]));
            }
            if !namespaced && object::text(subject, "/namespace").is_empty() {
                causes.push(Cause::required(format!("{field}.namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                causes.push(Cause::not_supported(format!("{field}.apiGroup"), &group.into(), &[GROUP]));
            }
        }
        other => {
            let known = ["ServiceAccount", "User", "Group"];
            causes.push(Cause::not_supported(format!("{field}.kind"), &other.into(), &known));
        }
    }
}
