//! The table of kinds without one.

use super::{Table, age, name, text};

/// Name and age.
pub(crate) static NAME_AGE: Table =
    Table { columns: &[text("Name"), text("Age")], cells: |object, now| vec![name(object), age(object, now)] };
