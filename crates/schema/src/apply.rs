//! Server-side apply, and the record of who owns which field.
//!
//! An applier says which fields it wants and with which values. Fields somebody else owns with another value are conflicts
//! unless it insists; fields it owned and no longer says are removed when nobody else owns them. Every other write is
//! recorded too, so that conflicts with it can be seen.

mod check;
mod compare;
mod managers;
mod merge;
mod set;
mod walk;

use jiff::Timestamp;
use serde_json::{Map as JsonMap, Value, json};

use crate::builtin;
use crate::ty::{Object, Presence, Shape, Type};
use compare::Comparison;
use managers::{FieldManager, Managers, Operation, Owned};
pub use set::{FieldSet, PathElement};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Most bytes of all annotations of an object together.
const ANNOTATIONS: usize = 256 * 1024;

/// The manager that owns what was there before anybody applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Metadata that nobody owns.
const NOBODYS: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// Who writes, and what.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The type of the object.
    pub ty: &'a Type,
    /// The object's `apiVersion`, such as `apps/v1`.
    pub api_version: &'a str,
    /// The object's kind.
    pub kind: &'a str,
    /// The manager's name.
    pub manager: &'a str,
    /// The subresource written through; empty for the object itself.
    pub subresource: &'a str,
    /// Fields that writes through this endpoint cannot change, such as `status`: they are never owned by them.
    pub ignored: &'a [&'a [&'a str]],
    /// Now.
    pub now: Timestamp,
}

/// Why something cannot be applied.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// The applied object says who owns what. A bad request.
    #[error("metadata.managedFields must be nil")]
    ManagedFields,
    /// The applied object is not of its type. The API server of Kubernetes calls this an internal error.
    #[error("failed to create typed patch object ({object}): {problems}")]
    Typed {
        /// `namespace/name; apiVersion, Kind=kind`.
        object: String,
        /// What is wrong, with paths.
        problems: String,
    },
    /// Others own fields with other values. A conflict.
    #[error("{}", message(.0))]
    Conflicts(Vec<Conflict>),
}

/// A field that somebody else owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The owner, as messages name it: `"m1"` or `"x" using apps/v1`.
    pub manager: String,
    /// The path, such as `.spec.containers[name="c"].image`.
    pub field: String,
    path: Vec<PathElement>,
}

impl Conflict {
    /// The message of the cause that stands for it in a Status.
    pub fn message(&self) -> String {
        format!("conflict with {}", self.manager)
    }
}

fn message(conflicts: &[Conflict]) -> String {
    if let [conflict] = conflicts {
        return format!("Apply failed with 1 conflict: {}: {}", conflict.message(), conflict.field);
    }
    let mut lines = Vec::new();
    let mut last = "";
    for conflict in conflicts {
        if conflict.manager != last {
            lines.push(format!("conflicts with {}:", conflict.manager));
            last = &conflict.manager;
        }
        lines.push(format!("- {}", conflict.field));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// Applies a configuration and answers the object with it, `metadata.managedFields` included. `live` is the stored object,
/// `None` when there is none yet. Applying the same again answers an equal object.
///
/// # Errors
/// When the configuration is not of its type, or others own what it changes and `force` is not given.
pub fn apply(writer: &Writer<'_>, live: Option<&Value>, config: &Value, force: bool) -> Result<Value, ApplyError> {
    if config.pointer("/metadata/managedFields").is_some_and(|given| !given.is_null()) {
        return Err(ApplyError::ManagedFields);
    }
    let problems = check::problems(writer.ty, config);
    if !problems.is_empty() {
        return Err(typed_error(writer, config, &problems));
    }
    let before = live.cloned().unwrap_or_else(|| skeleton(writer));
    let mut managers = managers::read(&before);
    let before = without_managers(before);
    if managers.is_empty() && live.is_some() {
        let first = Writer { manager: BEFORE_FIRST_APPLY, subresource: "", ..*writer };
        record(&first, &skeleton(writer), &before, &mut managers);
    }
    let (after, managers) = apply_over(writer, &before, config, managers, force)?;
    Ok(finish(writer, after, config, &managers))
}

fn typed_error(writer: &Writer<'_>, config: &Value, problems: &[String]) -> ApplyError {
    let text = |at: &str| config.pointer(at).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let object = format!("{namespace}/{name}; {}, Kind={}", writer.api_version, writer.kind);
    let problems = match problems {
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    ApplyError::Typed { object, problems }
}

/// Applies; when kubectl meets conflicts only in what its own annotation says it wrote before, it insists.
fn apply_over(
    writer: &Writer<'_>,
    before: &Value,
    config: &Value,
    managers: Managers,
    force: bool,
) -> Result<(Value, Managers), ApplyError> {
    let conflicts = match apply_once(writer, before, config, managers.clone(), force) {
        Err(ApplyError::Conflicts(conflicts)) if writer.manager == "kubectl" => conflicts,
        other => return other,
    };
    let allowed = allowed_by_annotation(writer, before);
    let left: Vec<Conflict> = conflicts.into_iter().filter(|conflict| !holds(&allowed, &conflict.path)).collect();
    if left.is_empty() {
        return apply_once(writer, before, config, managers, true);
    }
    Err(ApplyError::Conflicts(left))
}

fn holds(set: &FieldSet, path: &[PathElement]) -> bool {
    let mut one = FieldSet::default();
    one.insert(path);
    !one.intersection(set).is_empty()
}

/// The fields an object still has as kubectl's annotation says it wrote them.
fn allowed_by_annotation(writer: &Writer<'_>, live: &Value) -> FieldSet {
    let Some(text) = annotation(live) else { return FieldSet::default() };
    let Ok(written) = serde_json::from_str::<Value>(text) else { return FieldSet::default() };
    let said = walk::field_set(writer.ty, &written);
    let differs = compare::compare(writer.ty, &written, live);
    said.difference(&differs.modified).difference(&differs.removed)
}

fn annotation(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str().filter(|text| !text.is_empty())
}

fn apply_once(
    writer: &Writer<'_>,
    before: &Value,
    config: &Value,
    mut managers: Managers,
    force: bool,
) -> Result<(Value, Managers), ApplyError> {
    let manager = FieldManager::new(writer.manager, Operation::Apply, writer.subresource, writer.api_version);
    let last = managers.remove(&manager);
    let set = walk::field_set(writer.ty, config).recursive_difference(&ignored(writer));
    let mut after = merge::merge(writer.ty, before, config);
    if let Some(last) = &last {
        after = prune(writer.ty, &after, &last.set, &set, &managers);
    }
    let comparison = compare::compare(writer.ty, before, &after).without(&ignored(writer));
    take_over(&mut managers, &comparison, force)?;
    let set = strip(&set);
    let unchanged = comparison == Comparison::default() && last.as_ref().is_some_and(|last| last.set == set);
    let time = last.filter(|_| unchanged).map_or_else(|| Some(timestamp(writer.now)), |last| last.time);
    managers.insert(manager, Owned { set, api_version: writer.api_version.to_owned(), time });
    Ok((after, managers))
}

/// Takes out what an applier owned, no longer says, and nobody else owns. An item of a list goes with all in it unless
/// somebody else owns the item itself: parts alone would be an item without its key.
fn prune(ty: &Type, merged: &Value, last: &FieldSet, set: &FieldSet, managers: &Managers) -> Value {
    let mut kept = set.clone();
    for owned in managers.values() {
        kept.unite(&owned.set);
    }
    let gone = last.with_declared_fields(ty).difference(&kept.with_declared_fields(ty));
    if gone.is_empty() { merged.clone() } else { merge::remove(ty, merged, &gone) }
}

/// Takes changed fields from their owners, and removed ones from everybody.
fn take_over(managers: &mut Managers, comparison: &Comparison, force: bool) -> Result<(), ApplyError> {
    let mut changed = comparison.modified.clone();
    changed.unite(&comparison.added);
    if !force {
        let mut conflicts = Vec::new();
        for (manager, owned) in managers.iter() {
            for path in owned.set.intersection(&changed).paths() {
                let field = path.iter().map(PathElement::to_string).collect();
                conflicts.push(Conflict { manager: manager.describe(), field, path });
            }
        }
        if !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
    }
    for owned in managers.values_mut() {
        owned.set = owned.set.difference(&changed).difference(&comparison.removed);
    }
    managers.retain(|_, owned| !owned.set.is_empty());
    Ok(())
}

/// Records a write other than apply: answers the new object with its `metadata.managedFields`. `live` is the stored object,
/// `None` for a create. `new` is what is about to be stored; its own `managedFields` count as an edit of the record.
pub fn track(writer: &Writer<'_>, live: Option<&Value>, new: Value) -> Value {
    let reset = writer.subresource.is_empty() && managers::is_reset(&new);
    let mut managers = Managers::new();
    if !reset {
        if writer.subresource.is_empty() {
            managers = managers::read(&new);
        }
        if let (true, Some(live)) = (managers.is_empty(), live) {
            managers = managers::read(live);
        }
    }
    let mut new = without_managers(new);
    // An object without a record gets one when somebody applies to it.
    if !managers.is_empty() || live.is_none() {
        // The record in `live` is compared, too, and counts for nothing: nobody owns it.
        let skeleton = live.is_none().then(|| skeleton(writer));
        if let Some(before) = live.or(skeleton.as_ref()) {
            record(writer, before, &new, &mut managers);
        }
        managers::cap(&mut managers);
        managers::write(&mut new, &managers);
    }
    new
}

fn record(writer: &Writer<'_>, before: &Value, after: &Value, managers: &mut Managers) {
    let comparison = compare::compare(writer.ty, before, after).without(&ignored(writer));
    if take_over(managers, &comparison, true).is_err() {
        return;
    }
    let mut changed = comparison.modified;
    changed.unite(&comparison.added);
    let changed = strip(&changed);
    if changed.is_empty() {
        return;
    }
    let manager = FieldManager::new(writer.manager, Operation::Update, writer.subresource, writer.api_version);
    let owned = managers.entry(manager).or_insert_with(|| Owned {
        set: FieldSet::default(),
        api_version: writer.api_version.to_owned(),
        time: None,
    });
    owned.set.unite(&changed);
    owned.time = Some(timestamp(writer.now));
}

fn finish(writer: &Writer<'_>, mut after: Value, config: &Value, managers: &Managers) -> Value {
    if writer.manager == "kubectl" && annotation(&after).is_some() {
        let mut written = without_managers(config.clone());
        if let Some(Value::Object(annotations)) = written.pointer_mut("/metadata/annotations") {
            annotations.remove(LAST_APPLIED);
        }
        let text = format!("{written}\n");
        let text = if text.len() > ANNOTATIONS { String::new() } else { text };
        after["metadata"]["annotations"][LAST_APPLIED] = Value::String(text);
    }
    managers::write(&mut after, managers);
    after
}

fn timestamp(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn without_managers(mut object: Value) -> Value {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.remove("managedFields");
    }
    object
}

fn ignored(writer: &Writer<'_>) -> FieldSet {
    let mut set = FieldSet::default();
    for path in writer.ignored {
        set.insert_fields(path);
    }
    set
}

/// Without what nobody owns.
fn strip(set: &FieldSet) -> FieldSet {
    let mut nobodys = FieldSet::default();
    for path in [&["apiVersion"][..], &["kind"], &["metadata"]] {
        nobodys.insert_fields(path);
    }
    for name in NOBODYS {
        nobodys.insert_fields(&["metadata", name]);
    }
    set.difference(&nobodys)
}

/// What is there before anything was given: the parts every object of a built-in kind has.
fn skeleton(writer: &Writer<'_>) -> Value {
    let mut root = match writer.ty.object() {
        Some(object) if writer.ty.kind.as_ref().is_some_and(|kind| !builtin::is_custom(&kind.group)) => parts(object),
        _ => JsonMap::new(),
    };
    root.insert("apiVersion".into(), json!(writer.api_version));
    root.insert("kind".into(), json!(writer.kind));
    Value::Object(root)
}

fn parts(object: &Object) -> JsonMap<String, Value> {
    let mut entries = JsonMap::new();
    for field in &object.fields {
        match &field.ty.shape {
            Shape::Object(inner) if field.presence != Presence::Explicit => {
                entries.insert(field.name.to_string(), Value::Object(parts(inner)));
            }
            _ if field.presence == Presence::Always => drop(entries.insert(field.name.to_string(), Value::Null)),
            _ => {}
        }
    }
    entries
}

#[cfg(test)]
mod tests;
