//! Events, in the core form or that of `events.k8s.io`.

use jiff::Timestamp;
use serde_json::Value;

use super::{Table, human, name, number, text, wide};
use crate::object;

/// Events.
pub(crate) static EVENT: Table = Table {
    columns: &[
        text("Last Seen"),
        text("Type"),
        text("Reason"),
        text("Object"),
        wide("Subobject"),
        wide("Source"),
        text("Message"),
        wide("First Seen"),
        super::Column { priority: 1, ..number("Count") },
        wide("Name"),
    ],
    cells,
};

/// The first text that is there.
fn either<'a>(event: &'a Value, pointers: &[&str]) -> &'a str {
    pointers.iter().map(|p| object::text(event, p)).find(|t| !t.is_empty()).unwrap_or_default()
}

fn cells(event: &Value, now: Timestamp) -> Vec<Value> {
    let first = either(event, &["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"]);
    let last = either(event, &["/series/lastObservedTime", "/lastTimestamp", "/deprecatedLastTimestamp"]);
    let last = if last.is_empty() { first } else { last };
    let regarding = if event["regarding"].is_object() { &event["regarding"] } else { &event["involvedObject"] };
    let kind = object::text(regarding, "/kind").to_lowercase();
    let of =
        if object::name_of(regarding).is_empty() { kind } else { format!("{kind}/{}", object::name_of(regarding)) };
    let source = either(
        event,
        &["/source/component", "/deprecatedSource/component", "/reportingComponent", "/reportingController"],
    );
    let host = either(event, &["/source/host", "/deprecatedSource/host"]);
    let source = if host.is_empty() { source.to_owned() } else { format!("{source}, {host}") };
    let times = ["/series/count", "/count", "/deprecatedCount"].iter().find_map(|p| object::integer(event, p));
    vec![
        human::since(last, now).into(),
        object::text(event, "/type").into(),
        object::text(event, "/reason").into(),
        of.into(),
        object::text(regarding, "/fieldPath").into(),
        source.into(),
        either(event, &["/message", "/note"]).trim().into(),
        human::since(first, now).into(),
        times.unwrap_or(1).into(),
        name(event),
    ]
}
