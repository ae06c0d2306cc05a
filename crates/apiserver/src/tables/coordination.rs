//! `coordination.k8s.io`.

use super::{Table, age, name, text};
use crate::object;

/// Leases.
pub(crate) static LEASE: Table = Table {
    columns: &[text("Name"), text("Holder"), text("Age")],
    cells: |o, now| vec![name(o), object::text(o, "/spec/holderIdentity").into(), age(o, now)],
};
