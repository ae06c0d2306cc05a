//! `scheduling.k8s.io` and `node.k8s.io`.

use super::{Table, age, count, name, number, text};
use crate::object;

/// PriorityClasses.
pub(crate) static PRIORITY_CLASS: Table = Table {
    columns: &[text("Name"), number("Value"), text("Global-Default"), text("Age"), text("PreemptionPolicy")],
    cells: |o, now| {
        let policy = object::text(o, "/preemptionPolicy").into();
        vec![name(o), count(o, "/value"), (o["globalDefault"] == true).to_string().into(), age(o, now), policy]
    },
};

/// RuntimeClasses.
pub(crate) static RUNTIME_CLASS: Table = Table {
    columns: &[text("Name"), text("Handler"), text("Age")],
    cells: |o, now| vec![name(o), object::text(o, "/handler").into(), age(o, now)],
};
