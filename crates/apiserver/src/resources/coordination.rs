//! `coordination.k8s.io`.

use super::Resource;
use crate::tables;

pub(super) fn rows() -> Vec<Resource> {
    vec![
        Resource::new("coordination.k8s.io", "v1", "leases", "Lease")
            .relaxed()
            .no_generation()
            .conditional()
            .create_on_update()
            .table(&tables::coordination::LEASE),
    ]
}
