//! Validation of objects against a schema, worded as clients know it.

use serde_json::{Map as JsonMap, Value};

use super::formats;
use crate::{limits, misfits::json_type};

/// What is wrong, in the words of a Status' causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A value is missing.
    Required,
    /// A value is not fit.
    Invalid,
    /// A value is of another type.
    TypeInvalid,
    /// A value is none of those possible.
    NotSupported,
    /// Text is too long.
    TooLong,
    /// There are too many items or entries.
    TooMany,
    /// An item is there twice.
    Duplicate,
}

impl Reason {
    /// The cause's `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Required => "FieldValueRequired",
            Reason::Invalid => "FieldValueInvalid",
            Reason::TypeInvalid => "FieldValueTypeInvalid",
            Reason::NotSupported => "FieldValueNotSupported",
            Reason::TooLong => "FieldValueTooLong",
            Reason::TooMany => "FieldValueTooMany",
            Reason::Duplicate => "FieldValueDuplicate",
        }
    }

    /// True when rules cannot be evaluated over what is wrong.
    fn blocks_rules(self) -> bool {
        matches!(self, Reason::Required | Reason::TooLong | Reason::TooMany | Reason::TypeInvalid)
    }
}

/// One way in which an object does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The path, such as `spec.n`; `<nil>` for the whole.
    pub field: String,
    /// What kind of problem it is.
    pub reason: Reason,
    /// The message after the path and a colon.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Every problem of an object of a kind.
pub(super) fn object(schema: &Value, object: &Value) -> Vec<Problem> {
    let mut found = Vec::new();
    // The server itself sees to these.
    let mut rest = object.clone();
    if let Value::Object(entries) = &mut rest {
        ["apiVersion", "kind", "metadata"].into_iter().for_each(|name| drop(entries.remove(name)));
    }
    let mut schema = schema.clone();
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| !matches!(name.as_str(), Some("apiVersion" | "kind" | "metadata")));
    }
    value(&schema, &rest, "", &mut found);
    if found.iter().any(|problem| problem.reason.blocks_rules()) && has_rules(&schema) {
        let message = "Invalid value: null: some validation rules were not checked because the object was invalid; \
                       correct the existing errors to complete validation";
        found.push(Problem { field: "<nil>".into(), reason: Reason::Invalid, message: message.into() });
    }
    found.truncate(limits::FINDINGS);
    for problem in &mut found {
        problem.message = limits::shortened(std::mem::take(&mut problem.message));
    }
    found
}

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(entries) => {
            entries.iter().any(|(name, inner)| name == "x-kubernetes-validations" || has_rules(inner))
        }
        Value::Array(items) => items.iter().any(has_rules),
        _ => false,
    }
}

fn value(schema: &Value, given: &Value, path: &str, found: &mut Vec<Problem>) {
    if given.is_null() && schema["nullable"] == true {
        return;
    }
    if !check_type(schema, given, path, found) {
        return;
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(given)
    {
        let list: Vec<String> = values.iter().map(Value::to_string).collect();
        let message = format!("Unsupported value: {given}: supported values: {}", list.join(", "));
        found.push(Problem { field: field(path), reason: Reason::NotSupported, message });
    }
    match given {
        Value::Number(_) => number(schema, given, path, found),
        Value::String(given) => text(schema, given, path, found),
        Value::Array(items) => list(schema, items, path, found),
        Value::Object(entries) => entries_of(schema, entries, path, found),
        _ => {}
    }
    combined(schema, given, path, found);
}

fn field(path: &str) -> String {
    if path.is_empty() { "<nil>".into() } else { path.to_owned() }
}

fn invalid(path: &str, given: &Value, text: &str) -> Problem {
    let message = format!("Invalid value: {given}: {path} in body {text}");
    Problem { field: field(path), reason: Reason::Invalid, message }
}

fn check_type(schema: &Value, given: &Value, path: &str, found: &mut Vec<Problem>) -> bool {
    let is = json_type(given);
    let wanted = if schema["x-kubernetes-int-or-string"] == true {
        if is == "integer" || is == "string" {
            return true;
        }
        "integer,string"
    } else {
        match schema["type"].as_str() {
            None => return true,
            Some(wanted) if wanted == is || (wanted == "number" && is == "integer") => return true,
            Some("integer") if given.as_f64().is_some_and(|number| number.fract() == 0.0) => return true,
            Some(wanted) => wanted,
        }
    };
    let message = format!("Invalid value: \"{is}\": {path} in body must be of type {wanted}: \"{is}\"");
    found.push(Problem { field: field(path), reason: Reason::TypeInvalid, message });
    false
}

fn number(schema: &Value, given: &Value, path: &str, found: &mut Vec<Problem>) {
    let Some(number) = given.as_f64() else { return };
    let exclusive = |name: &str| schema[name] == true;
    if let Some(least) = schema["minimum"].as_f64() {
        let limit = &schema["minimum"];
        if exclusive("exclusiveMinimum") && number <= least {
            found.push(invalid(path, given, &format!("should be greater than {limit}")));
        } else if number < least {
            found.push(invalid(path, given, &format!("should be greater than or equal to {limit}")));
        }
    }
    if let Some(most) = schema["maximum"].as_f64() {
        let limit = &schema["maximum"];
        if exclusive("exclusiveMaximum") && number >= most {
            found.push(invalid(path, given, &format!("should be less than {limit}")));
        } else if number > most {
            found.push(invalid(path, given, &format!("should be less than or equal to {limit}")));
        }
    }
    if let Some(step) = schema["multipleOf"].as_f64()
        && step > 0.0
        && (number / step).fract() != 0.0
    {
        found.push(invalid(path, given, &format!("should be a multiple of {}", schema["multipleOf"])));
    }
}

fn text(schema: &Value, given: &str, path: &str, found: &mut Vec<Problem>) {
    let length = given.chars().count() as u64;
    if let Some(most) = schema["maxLength"].as_u64()
        && length > most
    {
        let message = format!("Too long: may not be more than {most} bytes");
        found.push(Problem { field: field(path), reason: Reason::TooLong, message });
    }
    let quoted = Value::String(given.to_owned());
    if let Some(least) = schema["minLength"].as_u64()
        && length < least
    {
        found.push(invalid(path, &quoted, &format!("should be at least {least} chars long")));
    }
    if let Some(format) = schema["format"].as_str()
        && !formats::fits(format, given)
    {
        found.push(invalid(path, &quoted, &format!("must be of type {format}: {quoted}")));
    }
}

fn list(schema: &Value, items: &[Value], path: &str, found: &mut Vec<Problem>) {
    let count = items.len() as u64;
    if let Some(most) = schema["maxItems"].as_u64()
        && count > most
    {
        found.push(too_many(path, count, most));
    }
    if let Some(least) = schema["minItems"].as_u64()
        && count < least
    {
        found.push(invalid(path, &Value::from(count), &format!("should have at least {least} items")));
    }
    for (at, item) in items.iter().enumerate() {
        value(&schema["items"], item, &format!("{path}[{at}]"), found);
    }
    duplicates(schema, items, path, found);
}

fn too_many(path: &str, count: u64, most: u64) -> Problem {
    let message = format!("Too many: {count}: must have at most {most} items");
    Problem { field: field(path), reason: Reason::TooMany, message }
}

/// Items of sets differ, items of maps differ in their keys.
fn duplicates(schema: &Value, items: &[Value], path: &str, found: &mut Vec<Problem>) {
    let keys = schema["x-kubernetes-list-map-keys"].as_array().map_or(&[][..], Vec::as_slice);
    let identity = |item: &Value| match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Some(item.clone()),
        Some("map") => {
            let names = keys.iter().filter_map(Value::as_str);
            let key = names.filter_map(|name| item.get(name).map(|value| (name.to_owned(), value.clone())));
            Some(Value::Object(key.collect()))
        }
        _ => None,
    };
    let mut seen: Vec<Value> = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let Some(identity) = identity(item) else { return };
        if seen.contains(&identity) {
            let message = format!("Duplicate value: {identity}");
            found.push(Problem { field: format!("{path}[{at}]"), reason: Reason::Duplicate, message });
        } else {
            seen.push(identity);
        }
    }
}

fn entries_of(schema: &Value, entries: &JsonMap<String, Value>, path: &str, found: &mut Vec<Problem>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let count = entries.len() as u64;
    if let Some(most) = schema["maxProperties"].as_u64()
        && count > most
    {
        found.push(too_many(path, count, most));
    }
    if let Some(least) = schema["minProperties"].as_u64()
        && count < least
    {
        found.push(invalid(path, &Value::from(count), &format!("should have at least {least} properties")));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !entries.contains_key(name) {
            found.push(Problem { field: below(name), reason: Reason::Required, message: "Required value".into() });
        }
    }
    for (name, inner) in entries {
        let schema = match schema["properties"].get(name) {
            Some(schema) => schema,
            None => &schema["additionalProperties"],
        };
        if schema.is_object() {
            value(schema, inner, &below(name), found);
        }
    }
}

/// `allOf`, `anyOf`, `oneOf` and `not`.
fn combined(schema: &Value, given: &Value, path: &str, found: &mut Vec<Problem>) {
    let problems = |schema: &Value| {
        let mut problems = Vec::new();
        value(schema, given, path, &mut problems);
        problems
    };
    let mut say = |text: String| {
        let message = format!("Invalid value: \"\": {text}");
        found.push(Problem { field: field(path), reason: Reason::Invalid, message });
    };
    let mut nested = Vec::new();
    if let Some(all) = schema["allOf"].as_array() {
        let failed: Vec<Problem> = all.iter().flat_map(&problems).collect();
        if !failed.is_empty() {
            say(format!("\"{path}\" must validate all the schemas (allOf)"));
        }
        nested.extend(failed);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let outcomes: Vec<Vec<Problem>> = any.iter().map(&problems).collect();
        if !outcomes.iter().any(Vec::is_empty) {
            say(format!("\"{path}\" must validate at least one schema (anyOf)"));
            nested.extend(outcomes.into_iter().min_by_key(Vec::len).into_iter().flatten());
        }
    }
    if let Some(one) = schema["oneOf"].as_array() {
        let outcomes: Vec<Vec<Problem>> = one.iter().map(&problems).collect();
        let valid = outcomes.iter().filter(|outcome| outcome.is_empty()).count();
        let head = format!("\"{path}\" must validate one and only one schema (oneOf).");
        if valid == 0 {
            say(format!("{head} Found none valid"));
            nested.extend(outcomes.into_iter().min_by_key(Vec::len).into_iter().flatten());
        } else if valid > 1 {
            say(format!("{head} Found {valid} valid alternatives"));
        }
    }
    if schema["not"].is_object() && problems(&schema["not"]).is_empty() {
        say(format!("\"{path}\" must not validate the schema (not)"));
    }
    found.extend(nested);
}
