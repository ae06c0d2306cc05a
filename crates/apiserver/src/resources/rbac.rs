//! `rbac.authorization.k8s.io`.

use super::Resource;
use crate::{admission, defaults, tables, validation};

pub(super) fn rows() -> Vec<Resource> {
    let row = |plural, kind| {
        Resource::new("rbac.authorization.k8s.io", "v1", plural, kind).no_generation().create_on_update()
    };
    vec![
        row("roles", "Role")
            .table(&tables::rbac::ROLE)
            .admit_with(admission::rbac::role)
            .validate_with(validation::rbac::role),
        row("clusterroles", "ClusterRole")
            .cluster()
            .table(&tables::rbac::ROLE)
            .admit_with(admission::rbac::role)
            .validate_with(validation::rbac::cluster_role),
        row("rolebindings", "RoleBinding")
            .table(&tables::rbac::BINDING)
            .default_with(defaults::rbac::binding)
            .admit_with(admission::rbac::binding)
            .validate_with(validation::rbac::binding),
        row("clusterrolebindings", "ClusterRoleBinding")
            .cluster()
            .table(&tables::rbac::BINDING)
            .default_with(defaults::rbac::binding)
            .admit_with(admission::rbac::binding)
            .validate_with(validation::rbac::binding),
    ]
}
