//! `certificates.k8s.io`.

use serde_json::Value;

use super::{Table, age, name, text};
use crate::object;

/// CertificateSigningRequests.
pub(crate) static REQUEST: Table = Table {
    columns: &[text("Name"), text("Age"), text("SignerName"), text("Requestor"), text("Condition")],
    cells: |o, now| {
        let field = |pointer: &str| object::text(o, pointer).into();
        vec![name(o), age(o, now), field("/spec/signerName"), field("/spec/username"), condition(o).into()]
    },
};

fn condition(request: &Value) -> String {
    let is = |kind: &str| object::list(request, "/status/conditions").iter().any(|c| c["type"] == kind);
    let mut words = Vec::new();
    words.push(if is("Denied") {
        "Denied"
    } else if is("Approved") {
        "Approved"
    } else {
        "Pending"
    });
    if is("Failed") {
        words.push("Failed");
    }
    if !object::text(request, "/status/certificate").is_empty() {
        words.push("Issued");
    }
    words.join(",")
}
