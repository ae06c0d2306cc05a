//! Who owns which fields: `metadata.managedFields`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::{Map as JsonMap, Value, json};

use super::set::FieldSet;

/// Most managers by update; beyond it the oldest become one.
const UPDATERS: usize = 10;

/// The manager that stands for the oldest updaters.
const ANCIENT: &str = "ancient-changes";

/// How a manager came to own its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

/// One manager. Appliers are the same in every version, updaters are not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FieldManager {
    pub(super) name: String,
    pub(super) operation: Operation,
    pub(super) subresource: String,
    /// Empty for appliers.
    version: String,
}

impl FieldManager {
    pub(super) fn new(name: &str, operation: Operation, subresource: &str, api_version: &str) -> Self {
        let version = if operation == Operation::Update { api_version.to_owned() } else { String::new() };
        Self { name: name.to_owned(), operation, subresource: subresource.to_owned(), version }
    }

    /// As messages about conflicts name it.
    pub(super) fn describe(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text = format!("{text} with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            text = format!("{text} using {}", self.version);
        }
        text
    }
}

/// What a manager owns.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Owned {
    pub(super) set: FieldSet,
    pub(super) api_version: String,
    pub(super) time: Option<String>,
}

/// All managers of an object.
pub(super) type Managers = BTreeMap<FieldManager, Owned>;

/// Reads the managers of an object; none when the list is absent or malformed.
pub(super) fn read(object: &Value) -> Managers {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries.and_then(|entries| entries.iter().map(read_one).collect()).unwrap_or_default()
}

/// True for the list by which clients clear all managers: one empty entry.
pub(super) fn is_reset(object: &Value) -> bool {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries.is_some_and(|entries| matches!(&entries[..], [Value::Object(entry)] if entry.is_empty()))
}

fn read_one(entry: &Value) -> Option<(FieldManager, Owned)> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    let operation = match text("operation") {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    let set = match entry.get("fieldsV1") {
        Some(fields) => FieldSet::from_fields_v1(fields)?,
        None => FieldSet::default(),
    };
    let manager = FieldManager::new(text("manager"), operation, text("subresource"), text("apiVersion"));
    let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
    Some((manager, Owned { set, api_version: text("apiVersion").to_owned(), time }))
}

/// Writes the managers into an object, appliers first, each kind by time.
pub(super) fn write(object: &mut Value, managers: &Managers) {
    let mut sorted: Vec<(&FieldManager, &Owned)> = managers.iter().filter(|(_, owned)| !owned.set.is_empty()).collect();
    sorted.sort_by(|(a, x), (b, y)| (a.operation, &x.time, a).cmp(&(b.operation, &y.time, b)));
    let entries: Vec<Value> = sorted.into_iter().map(|(manager, owned)| write_one(manager, owned)).collect();
    let Some(root) = object.as_object_mut() else { return };
    let metadata = root.entry("metadata").or_insert_with(|| Value::Object(JsonMap::new()));
    let Some(metadata) = metadata.as_object_mut() else { return };
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".into(), Value::Array(entries));
    }
}

fn write_one(manager: &FieldManager, owned: &Owned) -> Value {
    let mut entry = json!({
        "manager": manager.name,
        "operation": if manager.operation == Operation::Apply { "Apply" } else { "Update" },
        "apiVersion": owned.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": owned.set.to_fields_v1(),
    });
    if let Some(time) = &owned.time {
        entry["time"] = json!(time);
    }
    if !manager.subresource.is_empty() {
        entry["subresource"] = json!(manager.subresource);
    }
    entry
}

/// Makes one manager of the oldest updaters when there are too many.
pub(super) fn cap(managers: &mut Managers) {
    let mut updaters: Vec<(Option<String>, FieldManager)> = managers
        .iter()
        .filter(|(manager, _)| manager.operation == Operation::Update && manager.subresource.is_empty())
        .map(|(manager, owned)| (owned.time.clone(), manager.clone()))
        .collect();
    if updaters.len() <= UPDATERS {
        return;
    }
    updaters.sort_by_key(|oldest| Reverse(oldest.clone()));
    // One place stays free for the manager that takes the oldest in.
    for (time, manager) in updaters.split_off(UPDATERS - 1) {
        let Some(owned) = managers.remove(&manager) else { continue };
        let ancient = FieldManager::new(ANCIENT, Operation::Update, "", &owned.api_version);
        let into = managers.entry(ancient).or_insert_with(|| Owned {
            set: FieldSet::default(),
            api_version: owned.api_version.clone(),
            time: None,
        });
        into.set.unite(&owned.set);
        into.time = into.time.take().max(time);
    }
}
