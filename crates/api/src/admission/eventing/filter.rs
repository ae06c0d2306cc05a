//! Filters: which events somebody wants.

use knoll_event::cesql::Expression;
use serde_json::Value;

use super::super::json;
use crate::field_error::{FieldError, FieldErrors, HERE};

/// Deepest nesting of filters; nobody writes ten.
const DEEPEST: usize = 32;

/// Checks a list of filters. What is doubtful about their expressions is a warning.
pub(super) fn validate(filters: &[Value]) -> FieldErrors {
    list(filters, 0)
}

fn list(filters: &[Value], depth: usize) -> FieldErrors {
    filters.iter().enumerate().fold(FieldErrors::none(), |mut errors, (at, filter)| {
        errors.also(one(filter, depth).via_index(at));
        errors
    })
}

fn one(filter: &Value, depth: usize) -> FieldErrors {
    if depth >= DEEPEST {
        return FieldError::new(format!("filters are nested more than {DEEPEST} deep"), &[HERE]).into();
    }
    let mut errors = FieldErrors::none();
    let dialects = ["exact", "prefix", "suffix", "all", "any", "cesql"];
    let set = dialects.iter().filter(|dialect| !is_empty(json::member(filter, dialect))).count();
    if set + usize::from(json::has(filter, "not")) > 1 {
        errors.push(FieldError::new("multiple dialects found, filters can have only one dialect set", &[]));
    }
    for dialect in ["exact", "prefix", "suffix"] {
        errors.also(attributes(json::member(filter, dialect)).via_field(dialect));
    }
    for dialect in ["all", "any"] {
        errors.also(list(json::list(filter, dialect), depth + 1).via_field(dialect));
    }
    if json::has(filter, "not") {
        errors.also(one(json::member(filter, "not"), depth + 1).via_field("not"));
    }
    errors.also(expression(json::text(filter, "cesql")).via_field("cesql"));
    errors
}

/// Compiles an expression as whoever evaluates it will.
fn expression(text: &str) -> FieldErrors {
    if text.is_empty() {
        return FieldErrors::none();
    }
    match Expression::parse(text) {
        Ok(expression) => expression.warnings().into_iter().fold(FieldErrors::none(), |mut errors, warning| {
            errors.push(FieldError::new(warning, &[HERE]).as_warning());
            errors
        }),
        Err(error) => FieldError::invalid(text, HERE).with_details(error.to_string()).into(),
    }
}

/// Whether a dialect is not set: not even an entry says something.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(entries) => entries.is_empty(),
        Value::Array(items) => items.is_empty(),
        other => json::is_blank(other),
    }
}

/// Checks names of attributes.
pub(super) fn attributes(attributes: &Value) -> FieldErrors {
    let names = attributes.as_object().into_iter().flatten().map(|(name, _)| name);
    let bad = names.filter(|name| {
        let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
        !(starts && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
    });
    bad.fold(FieldErrors::none(), |mut errors, name| {
        let why = "Attribute name must start with a letter and can only contain lowercase alphanumeric";
        errors.also(FieldErrors::from(FieldError::invalid_key(name, HERE).with_details(why)).via_key(name));
        errors
    })
}
