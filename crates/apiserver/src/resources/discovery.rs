//! `discovery.k8s.io`.

use super::Resource;
use crate::{admission, defaults, tables, validation};

pub(super) fn rows() -> Vec<Resource> {
    vec![
        Resource::new("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
            .relaxed()
            .table(&tables::discovery::ENDPOINT_SLICE)
            .default_with(defaults::endpoints::slice)
            .admit_with(admission::endpoints::slice)
            .validate_with(validation::endpoints::slice),
    ]
}
