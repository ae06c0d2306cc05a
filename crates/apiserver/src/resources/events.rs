//! Events: one store, two groups with different names for the same fields.

use std::future::ready;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::{Conversion, Resource, SelectableField};
use crate::{status::Status, tables};

const FIELDS: &[SelectableField] = &[
    ("involvedObject.kind", "/involvedObject/kind", ""),
    ("involvedObject.namespace", "/involvedObject/namespace", ""),
    ("involvedObject.name", "/involvedObject/name", ""),
    ("involvedObject.uid", "/involvedObject/uid", ""),
    ("involvedObject.apiVersion", "/involvedObject/apiVersion", ""),
    ("involvedObject.resourceVersion", "/involvedObject/resourceVersion", ""),
    ("involvedObject.fieldPath", "/involvedObject/fieldPath", ""),
    ("reason", "/reason", ""),
    ("reportingComponent", "/reportingComponent", ""),
    ("source", "/source/component", ""),
    ("type", "/type", ""),
];

const REGARDING_FIELDS: &[SelectableField] = &[
    ("regarding.kind", "/regarding/kind", ""),
    ("regarding.namespace", "/regarding/namespace", ""),
    ("regarding.name", "/regarding/name", ""),
    ("regarding.uid", "/regarding/uid", ""),
    ("regarding.apiVersion", "/regarding/apiVersion", ""),
    ("regarding.resourceVersion", "/regarding/resourceVersion", ""),
    ("regarding.fieldPath", "/regarding/fieldPath", ""),
    ("reason", "/reason", ""),
    ("reportingController", "/reportingController", ""),
    ("type", "/type", ""),
];

/// Core name, `events.k8s.io` name.
const NAMES: &[(&str, &str)] = &[
    ("message", "note"),
    ("involvedObject", "regarding"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

pub(super) fn rows() -> Vec<Resource> {
    let row = |group| {
        Resource::new(group, "v1", "events", "Event").short(&["ev"]).relaxed().no_generation().create_on_update()
    };
    let mut modern = row("events.k8s.io").fields(REGARDING_FIELDS).table(&tables::events::EVENT);
    modern.stored_as = (String::new(), "events".into());
    modern.conversion = Some(Conversion { read: to_modern, write: to_core });
    vec![row("").fields(FIELDS).table(&tables::events::EVENT), modern]
}

fn rename(object: &mut Value, names: impl Iterator<Item = (&'static str, &'static str)>, api_version: &str) {
    let Some(map) = object.as_object_mut() else { return };
    let mut moved = Map::new();
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            moved.insert(to.to_owned(), value);
        }
    }
    map.extend(moved);
    map.insert("apiVersion".into(), api_version.into());
}

fn to_modern(object: &mut Value) -> BoxFuture<'_, Result<(), Status>> {
    rename(object, NAMES.iter().copied(), "events.k8s.io/v1");
    Box::pin(ready(Ok(())))
}

fn to_core(object: &mut Value) -> BoxFuture<'_, Result<(), Status>> {
    rename(object, NAMES.iter().map(|(core, modern)| (*modern, *core)), "v1");
    Box::pin(ready(Ok(())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn both_forms_turn_into_each_other() {
        let core =
            json!({"apiVersion": "v1", "kind": "Event", "message": "m", "involvedObject": {"name": "p"}, "count": 2});
        let mut event = core.clone();
        to_modern(&mut event).await.unwrap();
        assert_eq!(event["note"], "m");
        assert_eq!(event["regarding"]["name"], "p");
        assert_eq!(event["apiVersion"], "events.k8s.io/v1");
        to_core(&mut event).await.unwrap();
        assert_eq!(event, core);
    }
}
