//! Roles and bindings: nobody grants what they do not hold themselves.
//!
//! Whoever writes a role must hold every right in it, or the right to `escalate` it; whoever writes a binding must hold
//! every right of its role, or the right to `bind` it. A change that is only the garbage collector's passes.

use serde_json::Value;

use super::Admission;
use crate::{
    attributes::Attributes,
    auth::PolicyRule,
    object,
    status::{Cause, Status},
};

const GROUP: &str = "rbac.authorization.k8s.io";

/// A Role or ClusterRole.
pub(crate) fn role(admission: &mut Admission<'_>, role: &mut Value) -> Result<(), Status> {
    if admission.identity.is_master() || is_collectors(admission.old, role) {
        return Ok(());
    }
    let resource = admission.resource;
    let name = object::name(role);
    if may(admission, "escalate", &resource.plural, name) {
        return Ok(());
    }
    let held = |rules: &[PolicyRule]| {
        admission.view.authority().confirm_no_escalation(admission.identity, admission.namespace, rules)
    };
    let rules = rules_of(admission, role)?;
    held(&rules).map_err(|why| resource.forbidden(name, &why))?;
    let aggregates = |role: &Value| !object::is_empty(role.get("aggregationRule"));
    if aggregates(role) || admission.old.is_some_and(aggregates) {
        // It gathers whatever others will hold.
        let why = "must have cluster-admin privileges to use the aggregationRule";
        held(&PolicyRule::everything()).map_err(|_| resource.forbidden(name, why))?;
    }
    Ok(())
}

/// A RoleBinding or ClusterRoleBinding.
pub(crate) fn binding(admission: &mut Admission<'_>, binding: &mut Value) -> Result<(), Status> {
    if admission.identity.is_master() || is_collectors(admission.old, binding) {
        return Ok(());
    }
    let (kind, role) = (object::text(binding, "/roleRef/kind"), object::text(binding, "/roleRef/name"));
    let plural = match kind {
        "ClusterRole" => "clusterroles",
        "Role" if admission.resource.namespaced => "roles",
        // Validation says what is wrong with it.
        _ => return Ok(()),
    };
    if may(admission, "bind", plural, role) {
        return Ok(());
    }
    let authority = admission.view.authority();
    let rules = authority.role(kind, admission.namespace, role);
    let rules = rules.ok_or_else(|| Status::not_found(GROUP, plural, role))?;
    let held = authority.confirm_no_escalation(admission.identity, admission.namespace, &rules);
    held.map_err(|why| admission.resource.forbidden(object::name(binding), &why))
}

fn may(admission: &Admission<'_>, verb: &str, plural: &str, name: &str) -> bool {
    let attributes = Attributes {
        verb: verb.into(),
        group: GROUP.into(),
        version: "v1".into(),
        resource: plural.into(),
        namespace: admission.namespace.into(),
        name: name.into(),
        ..Attributes::default()
    };
    admission.view.authority().authorize(admission.identity, &attributes).is_allowed()
}

fn rules_of(admission: &Admission<'_>, role: &Value) -> Result<Vec<PolicyRule>, Status> {
    let rules = role.get("rules").filter(|rules| !rules.is_null());
    let Some(rules) = rules else { return Ok(Vec::new()) };
    serde_json::from_value(rules.clone()).map_err(|error| {
        let cause = Cause::invalid("rules", rules, &error.to_string());
        admission.resource.invalid(object::name(role), vec![cause])
    })
}

/// Whether only owners, finalizers and the record of managers differ.
fn is_collectors(old: Option<&Value>, new: &Value) -> bool {
    let Some(old) = old else { return false };
    let rest = |object: &Value| {
        let mut object = object.clone();
        let meta = object::meta_mut(&mut object);
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            meta.remove(field);
        }
        object
    };
    rest(old) == rest(new)
}
