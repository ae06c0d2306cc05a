//! `discovery.k8s.io`.

use super::Resource;
use crate::tables;

pub(super) fn rows() -> Vec<Resource> {
    vec![
        Resource::new("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
            .relaxed()
            .table(&tables::discovery::ENDPOINT_SLICE),
    ]
}
