//! `apiextensions.k8s.io`.

use super::{Table, name, text};
use crate::object;

/// CustomResourceDefinitions.
pub(crate) static DEFINITION: Table = Table {
    columns: &[text("Name"), text("Created At")],
    cells: |o, _| vec![name(o), object::text(o, "/metadata/creationTimestamp").into()],
};
