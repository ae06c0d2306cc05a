//! `rbac.authorization.k8s.io`.

use super::Resource;
use crate::tables;

pub(super) fn rows() -> Vec<Resource> {
    let row = |plural, kind| {
        Resource::new("rbac.authorization.k8s.io", "v1", plural, kind).no_generation().create_on_update()
    };
    vec![
        row("roles", "Role").table(&tables::rbac::ROLE),
        row("clusterroles", "ClusterRole").cluster().table(&tables::rbac::ROLE),
        row("rolebindings", "RoleBinding").table(&tables::rbac::BINDING),
        row("clusterrolebindings", "ClusterRoleBinding").cluster().table(&tables::rbac::BINDING),
    ]
}
