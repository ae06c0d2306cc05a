//! `admissionregistration.k8s.io`.

use super::{Table, age, name, number, text};
use crate::object;

/// Webhook configurations.
pub(crate) static CONFIGURATION: Table = Table {
    columns: &[text("Name"), number("Webhooks"), text("Age")],
    cells: |o, now| vec![name(o), object::list(o, "/webhooks").len().into(), age(o, now)],
};
