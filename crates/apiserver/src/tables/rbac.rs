//! `rbac.authorization.k8s.io`.

use serde_json::Value;

use super::{Table, age, name, text, wide};
use crate::object;

/// Roles and ClusterRoles.
pub(crate) static ROLE: Table = Table {
    columns: &[text("Name"), text("Created At")],
    cells: |o, _| vec![name(o), object::text(o, "/metadata/creationTimestamp").into()],
};

/// RoleBindings and ClusterRoleBindings.
pub(crate) static BINDING: Table = Table {
    columns: &[text("Name"), text("Role"), text("Age"), wide("Users"), wide("Groups"), wide("ServiceAccounts")],
    cells: |o, now| {
        let role = format!("{}/{}", object::text(o, "/roleRef/kind"), object::text(o, "/roleRef/name"));
        vec![
            name(o),
            role.into(),
            age(o, now),
            subjects(o, "User"),
            subjects(o, "Group"),
            subjects(o, "ServiceAccount"),
        ]
    },
};

fn subjects(binding: &Value, kind: &str) -> Value {
    let of_kind = object::list(binding, "/subjects").iter().filter(|s| s["kind"] == kind);
    let names = of_kind.map(|s| match object::text(s, "/namespace") {
        "" => object::name_of(s).to_owned(),
        namespace => format!("{namespace}/{}", object::name_of(s)),
    });
    names.collect::<Vec<_>>().join(", ").into()
}
