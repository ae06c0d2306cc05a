//! `policy`.

use serde_json::Value;

use super::{Table, age, count, name, number, text};

/// PodDisruptionBudgets.
pub(crate) static POD_DISRUPTION_BUDGET: Table = Table {
    columns: &[
        text("Name"),
        text("Min Available"),
        text("Max Unavailable"),
        number("Allowed Disruptions"),
        text("Age"),
    ],
    cells: |o, now| {
        let of = |key: &str| match &o["spec"][key] {
            Value::Null => "N/A".into(),
            Value::String(text) => text.as_str().into(),
            other => other.to_string().into(),
        };
        vec![name(o), of("minAvailable"), of("maxUnavailable"), count(o, "/status/disruptionsAllowed"), age(o, now)]
    },
};
