//! Validation of objects against a schema, worded as clients know it.

use std::{collections::BTreeSet, fmt};

use serde_json::{Map as JsonMap, Value};

use super::formats;
use crate::{
    limits::{self, FINDINGS},
    misfits::json_type,
    path::{Path, Step},
};

/// Most steps of one validation: of a schema looked at for a value, of a name or value compared with another. Schemas
/// whose parts repeat each other's work ask for the product of both sizes otherwise.
const STEPS: usize = 10_000_000;
/// What the server itself sees to.
const SERVERS: [&str; 3] = ["apiVersion", "kind", "metadata"];

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

/// Every problem of an object of a kind, up to [`FINDINGS`].
pub(super) fn object(schema: &Value, object: &Value) -> Vec<Problem> {
    // The server itself sees to these.
    let mut rest = object.clone();
    if let Value::Object(entries) = &mut rest {
        SERVERS.into_iter().for_each(|name| drop(entries.remove(name)));
    }
    let mut search = Search { found: Vec::new(), path: Path::default(), depth: 0, steps: STEPS };
    search.value(schema, &rest);
    let mut found = search.found;
    let last = if search.steps == 0 {
        format!("checking the object against its schema takes more than {STEPS} steps")
    } else if found.iter().any(|problem| problem.reason.blocks_rules()) && has_rules(schema) {
        "some validation rules were not checked because the object was invalid; \
         correct the existing errors to complete validation"
            .to_owned()
    } else {
        return found;
    };
    found.truncate(FINDINGS - 1);
    let message = format!("Invalid value: null: {last}");
    found.push(Problem { field: "<nil>".into(), reason: Reason::Invalid, message });
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

/// The items of a list, or none.
fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Looking for problems.
struct Search<'a> {
    found: Vec<Problem>,
    /// Where it is.
    path: Path<'a>,
    /// Steps of the path.
    depth: usize,
    /// What is left of [`STEPS`].
    steps: usize,
}

impl<'a> Search<'a> {
    /// Pays for so many steps; `false` when no more are left.
    fn pay(&mut self, steps: usize) -> bool {
        self.steps = self.steps.saturating_sub(steps);
        self.steps > 0
    }

    /// Notes a problem here; beyond [`FINDINGS`] they are only counted as some.
    fn note(&mut self, reason: Reason, message: impl FnOnce(&Path<'a>) -> String) {
        // Writing it down costs more than looking.
        if self.found.len() < FINDINGS && self.pay(16) {
            let field = if self.depth == 0 { "<nil>".to_owned() } else { limits::shortened(self.path.to_string()) };
            self.found.push(Problem { field, reason, message: limits::shortened(message(&self.path)) });
        }
    }

    fn invalid(&mut self, given: &impl fmt::Display, text: impl FnOnce() -> String) {
        self.note(Reason::Invalid, |path| format!("Invalid value: {given}: {path} in body {}", text()));
    }

    /// Does something one step further down.
    fn below(&mut self, step: Step<'a>, search: impl FnOnce(&mut Self)) {
        self.path.push(step);
        self.depth += 1;
        search(self);
        self.depth -= 1;
        self.path.pop();
    }

    fn value(&mut self, schema: &Value, given: &'a Value) {
        if !self.pay(1) || given.is_null() && schema["nullable"] == true {
            return;
        }
        if !self.is_of_type(schema, given) {
            return;
        }
        let values = items(&schema["enum"]);
        if schema["enum"].is_array() && self.pay(values.len()) && !values.contains(given) {
            let list = || values.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
            self.note(Reason::NotSupported, |_| format!("Unsupported value: {given}: supported values: {}", list()));
        }
        match given {
            Value::Number(_) => self.number(schema, given),
            Value::String(text) => self.text(schema, given, text),
            Value::Array(items) => self.list(schema, items),
            Value::Object(entries) => self.entries(schema, entries),
            _ => {}
        }
        self.combined(schema, given);
    }

    fn is_of_type(&mut self, schema: &Value, given: &Value) -> bool {
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
        self.note(Reason::TypeInvalid, |path| {
            format!("Invalid value: \"{is}\": {path} in body must be of type {wanted}: \"{is}\"")
        });
        false
    }

    fn number(&mut self, schema: &Value, given: &Value) {
        let Some(number) = given.as_f64() else { return };
        let exclusive = |name: &str| schema[name] == true;
        if let Some(least) = schema["minimum"].as_f64() {
            let limit = &schema["minimum"];
            if exclusive("exclusiveMinimum") && number <= least {
                self.invalid(given, || format!("should be greater than {limit}"));
            } else if number < least {
                self.invalid(given, || format!("should be greater than or equal to {limit}"));
            }
        }
        if let Some(most) = schema["maximum"].as_f64() {
            let limit = &schema["maximum"];
            if exclusive("exclusiveMaximum") && number >= most {
                self.invalid(given, || format!("should be less than {limit}"));
            } else if number > most {
                self.invalid(given, || format!("should be less than or equal to {limit}"));
            }
        }
        if let Some(step) = schema["multipleOf"].as_f64()
            && step > 0.0
            && (number / step).fract() != 0.0
        {
            self.invalid(given, || format!("should be a multiple of {}", schema["multipleOf"]));
        }
    }

    fn text(&mut self, schema: &Value, given: &Value, text: &str) {
        // Text is looked at once for each schema that asks, however long it is.
        if !self.pay(text.len() / 64) {
            return;
        }
        let length = text.chars().count() as u64;
        if let Some(most) = schema["maxLength"].as_u64()
            && length > most
        {
            self.note(Reason::TooLong, |_| format!("Too long: may not be more than {most} bytes"));
        }
        if let Some(least) = schema["minLength"].as_u64()
            && length < least
        {
            self.invalid(given, || format!("should be at least {least} chars long"));
        }
        if let Some(format) = schema["format"].as_str()
            && !formats::fits(format, text)
        {
            self.invalid(given, || format!("must be of type {format}: {given}"));
        }
    }

    fn too_many(&mut self, count: u64, most: u64) {
        self.note(Reason::TooMany, |_| format!("Too many: {count}: must have at most {most} items"));
    }

    fn list(&mut self, schema: &Value, items: &'a [Value]) {
        let count = items.len() as u64;
        if let Some(most) = schema["maxItems"].as_u64()
            && count > most
        {
            self.too_many(count, most);
        }
        if let Some(least) = schema["minItems"].as_u64()
            && count < least
        {
            self.invalid(&count, || format!("should have at least {least} items"));
        }
        for (at, item) in items.iter().enumerate() {
            self.below(Step::Item(at), |search| search.value(&schema["items"], item));
        }
        self.duplicates(schema, items);
    }

    /// Items of sets differ, items of maps differ in their keys.
    fn duplicates(&mut self, schema: &Value, given: &'a [Value]) {
        let keys: Vec<&str> = items(&schema["x-kubernetes-list-map-keys"]).iter().filter_map(Value::as_str).collect();
        let kind = schema["x-kubernetes-list-type"].as_str();
        let identity = |item: &Value| match kind {
            Some("set") => Some(item.to_string()),
            Some("map") => {
                let key =
                    keys.iter().filter_map(|name| item.get(name).map(|value| ((*name).to_owned(), value.clone())));
                Some(Value::Object(key.collect()).to_string())
            }
            _ => None,
        };
        let mut seen = BTreeSet::new();
        for (at, item) in given.iter().enumerate() {
            if !self.pay(1 + keys.len()) {
                return;
            }
            let Some(identity) = identity(item) else { return };
            if !self.pay(identity.len() / 64) {
                return;
            }
            if seen.contains(&identity) {
                self.below(Step::Item(at), |search| {
                    search.note(Reason::Duplicate, |_| format!("Duplicate value: {identity}"));
                });
            } else {
                seen.insert(identity);
            }
        }
    }

    fn entries(&mut self, schema: &Value, entries: &'a JsonMap<String, Value>) {
        let count = entries.len() as u64;
        if let Some(most) = schema["maxProperties"].as_u64()
            && count > most
        {
            self.too_many(count, most);
        }
        if let Some(least) = schema["minProperties"].as_u64()
            && count < least
        {
            self.invalid(&count, || format!("should have at least {least} properties"));
        }
        let required = items(&schema["required"]);
        if !self.pay(required.len()) {
            return;
        }
        for name in required.iter().filter_map(Value::as_str) {
            if !(entries.contains_key(name) || self.depth == 0 && SERVERS.contains(&name)) {
                self.missing(name);
            }
        }
        for (name, inner) in entries {
            let schema = match schema["properties"].get(name) {
                Some(schema) => schema,
                None => &schema["additionalProperties"],
            };
            if schema.is_object() {
                self.below(Step::Field(name), |search| search.value(schema, inner));
            }
        }
    }

    fn missing(&mut self, name: &str) {
        if self.found.len() < FINDINGS && self.pay(16) {
            let field = limits::shortened(self.path.with(name));
            self.found.push(Problem { field, reason: Reason::Required, message: "Required value".into() });
        }
    }

    /// The problems of a value by one schema of several.
    fn problems(&mut self, schema: &Value, given: &'a Value) -> Vec<Problem> {
        let outer = std::mem::take(&mut self.found);
        self.value(schema, given);
        std::mem::replace(&mut self.found, outer)
    }

    fn say(&mut self, text: impl FnOnce(&Path<'a>) -> String) {
        self.note(Reason::Invalid, |path| format!("Invalid value: \"\": {}", text(path)));
    }

    /// `allOf`, `anyOf`, `oneOf` and `not`.
    fn combined(&mut self, schema: &Value, given: &'a Value) {
        let mut nested = Vec::new();
        let mut failed: Vec<Problem> = Vec::new();
        for schema in items(&schema["allOf"]) {
            failed.extend(self.problems(schema, given));
            failed.truncate(FINDINGS);
        }
        if !failed.is_empty() {
            self.say(|path| format!("\"{path}\" must validate all the schemas (allOf)"));
        }
        nested.extend(failed);
        if let Some(any) = schema["anyOf"].as_array() {
            let (valid, least) = self.outcomes(any, given);
            if valid == 0 {
                self.say(|path| format!("\"{path}\" must validate at least one schema (anyOf)"));
                nested.extend(least);
            }
        }
        if let Some(one) = schema["oneOf"].as_array() {
            let (valid, least) = self.outcomes(one, given);
            let head = |path: &Path<'_>| format!("\"{path}\" must validate one and only one schema (oneOf).");
            if valid == 0 {
                self.say(|path| format!("{} Found none valid", head(path)));
                nested.extend(least);
            } else if valid > 1 {
                self.say(|path| format!("{} Found {valid} valid alternatives", head(path)));
            }
        }
        if schema["not"].is_object() && self.problems(&schema["not"], given).is_empty() {
            self.say(|path| format!("\"{path}\" must not validate the schema (not)"));
        }
        nested.truncate(FINDINGS.saturating_sub(self.found.len()));
        self.found.extend(nested);
    }

    /// How many of some schemas a value fits, and the problems by the one that it fits best.
    fn outcomes(&mut self, schemas: &[Value], given: &'a Value) -> (usize, Vec<Problem>) {
        let (mut valid, mut least) = (0, None::<Vec<Problem>>);
        for schema in schemas {
            let problems = self.problems(schema, given);
            valid += usize::from(problems.is_empty());
            if least.as_ref().is_none_or(|least| problems.len() < least.len()) {
                least = Some(problems);
            }
        }
        (valid, least.unwrap_or_default())
    }
}
