//! `scheduling.k8s.io` and `node.k8s.io`.

use super::Resource;
use crate::tables;

pub(super) fn rows() -> Vec<Resource> {
    vec![
        Resource::new("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass")
            .cluster()
            .short(&["pc"])
            .table(&tables::scheduling::PRIORITY_CLASS),
        Resource::new("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass")
            .cluster()
            .no_generation()
            .conditional()
            .create_on_update()
            .table(&tables::scheduling::RUNTIME_CLASS),
    ]
}
