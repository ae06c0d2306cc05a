//! `admissionregistration.k8s.io`.

use super::Resource;
use crate::tables;

pub(super) fn rows() -> Vec<Resource> {
    let row = |plural, kind| Resource::new("admissionregistration.k8s.io", "v1", plural, kind).cluster();
    vec![
        row("mutatingwebhookconfigurations", "MutatingWebhookConfiguration")
            .category(&["api-extensions"])
            .conditional()
            .table(&tables::admission::CONFIGURATION),
        row("validatingwebhookconfigurations", "ValidatingWebhookConfiguration")
            .category(&["api-extensions"])
            .conditional()
            .table(&tables::admission::CONFIGURATION),
    ]
}
