//! `certificates.k8s.io`.

use super::{Resource, SelectableField, Subresource};
use crate::tables;

const FIELDS: &[SelectableField] = &[("spec.signerName", "/spec/signerName", "")];

pub(super) fn rows() -> Vec<Resource> {
    vec![
        Resource::new("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest")
            .cluster()
            .short(&["csr"])
            .sub(&[Subresource::Status, Subresource::Approval])
            .no_generation()
            .fields(FIELDS)
            .table(&tables::certificates::REQUEST),
    ]
}
