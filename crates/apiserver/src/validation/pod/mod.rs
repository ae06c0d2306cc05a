//! Pods and pod templates, by the rules and in the words of Kubernetes.

mod containers;
mod environment;
mod os;
mod placement;
mod probes;
mod resources;
mod security;
mod spec;
mod update;
mod volumes;

use serde_json::Value;

use crate::{object, status::Cause};

pub(crate) use self::{spec::spec, update::unchanged_parts};

/// Pods. Of a stored one only few fields may change.
pub(crate) fn validate(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    match old {
        // What was accepted stays acceptable: rules may have become stricter since, and must not keep a pod from
        // changing otherwise, or from going.
        Some(old) if old.get("spec") == new.get("spec") => {}
        Some(old) => {
            spec(&new["spec"], "spec", &mut causes);
            update::unchanged(old, new, &mut causes);
        }
        None => spec(&new["spec"], "spec", &mut causes),
    }
    causes
}

/// PodTemplates.
pub(crate) fn template_object(new: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    spec(&new["template"]["spec"], "template.spec", &mut causes);
    causes
}

/// A value of a closed set, where one is given.
fn one_of(parent: &Value, path: &str, field: &str, known: &[&str], causes: &mut Vec<Cause>) {
    let value = object::text(parent, &format!("/{field}"));
    if !value.is_empty() && !known.contains(&value) {
        causes.push(Cause::not_supported(format!("{path}.{field}"), &value.into(), known));
    }
}

/// A number within bounds, where one is given.
fn within(parent: &Value, path: &str, field: &str, low: i64, high: i64, causes: &mut Vec<Cause>) {
    let Some(number) = parent.get(field).and_then(Value::as_i64) else { return };
    if (low..=high).contains(&number) {
        return;
    }
    let why = match (low, high) {
        (0, i64::MAX) => "must be greater than or equal to 0".to_owned(),
        (1, i64::MAX) => "must be greater than 0".to_owned(),
        _ => format!("must be between {low} and {high}, inclusive"),
    };
    causes.push(Cause::invalid(format!("{path}.{field}"), &number.into(), &why));
}

/// A name of a form, where one is given.
fn named(parent: &Value, path: &str, field: &str, form: fn(&str) -> Result<(), String>, causes: &mut Vec<Cause>) {
    let name = object::text(parent, &format!("/{field}"));
    if let (false, Err(why)) = (name.is_empty(), form(name)) {
        causes.push(Cause::invalid(format!("{path}.{field}"), &name.into(), &why));
    }
}

/// A text that must be there.
fn present(parent: &Value, path: &str, field: &str, causes: &mut Vec<Cause>) {
    if object::text(parent, &format!("/{field}")).is_empty() {
        causes.push(Cause::required(format!("{path}.{field}"), ""));
    }
}

/// The fields of `known` that are set.
fn set_of<'a>(parent: &Value, known: &[&'a str]) -> Vec<&'a str> {
    known.iter().copied().filter(|field| parent.get(field).is_some_and(|value| !value.is_null())).collect()
}

/// A path below something: relative, and never up.
fn below(path: &str, field: String, causes: &mut Vec<Cause>) {
    if path.starts_with('/') {
        causes.push(Cause::invalid(&field, &path.into(), "must be a relative path"));
    }
    steps_back(path, field, causes);
}

/// A path with a step up.
fn steps_back(path: &str, field: String, causes: &mut Vec<Cause>) {
    if path.split('/').any(|part| part == "..") {
        causes.push(Cause::invalid(field, &path.into(), "must not contain '..'"));
    }
}
