//! `apiextensions.k8s.io` and `apiregistration.k8s.io`.

use super::Resource;
use crate::tables;

pub(super) fn rows() -> Vec<Resource> {
    vec![
        Resource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition")
            .cluster()
            .short(&["crd", "crds"])
            .category(&["api-extensions"])
            .status()
            .answers_with_object()
            .table(&tables::extensions::DEFINITION),
        Resource::new("apiregistration.k8s.io", "v1", "apiservices", "APIService")
            .cluster()
            .category(&["api-extensions"])
            .status()
            .no_generation(),
    ]
}
