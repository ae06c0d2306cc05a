//! Field selectors.

use std::borrow::Cow;

use serde_json::Value;

use crate::{resources::Resource, status::Status};

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    label: String,
    pointer: String,
    default: &'static str,
    equals: bool,
    value: String,
}

/// Comparisons that must all hold; none matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector(Vec<Term>);

impl FieldSelector {
    /// Parses `a.b=c,d!=e` over the fields that `resource` offers.
    ///
    /// # Errors
    /// 400 when it cannot be parsed or names another field.
    pub(crate) fn parse(text: &str, resource: &Resource) -> Result<Self, Status> {
        split(text).into_iter().map(|clause| term(&clause, text, resource)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether everything matches.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object matches.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|t| (read(object, t) == t.value) == t.equals)
    }

    /// The value that `label` must equal, if there is one.
    pub(crate) fn exact(&self, label: &str) -> Option<&str> {
        self.0.iter().find(|t| t.equals && t.label == label).map(|t| t.value.as_str())
    }
}

fn read<'a>(object: &'a Value, term: &'a Term) -> Cow<'a, str> {
    match object.pointer(&term.pointer) {
        None | Some(Value::Null) => term.default.into(),
        Some(Value::String(text)) if text.is_empty() => term.default.into(),
        Some(Value::String(text)) => text.into(),
        Some(other) => other.to_string().into(),
    }
}

/// Splits at commas that are not escaped.
fn split(text: &str) -> Vec<String> {
    let mut clauses = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ',' => clauses.push(String::new()),
            '\\' => {
                let current = clauses.last_mut().expect("there is always a clause");
                current.push('\\');
                current.extend(chars.next());
            }
            c => clauses.last_mut().expect("there is always a clause").push(c),
        }
    }
    clauses.retain(|c| !c.trim().is_empty());
    clauses
}

fn term(clause: &str, text: &str, resource: &Resource) -> Result<Term, Status> {
    let signs = [("!=", false), ("==", true), ("=", true)];
    let parts = signs.iter().find_map(|(sign, equals)| clause.split_once(sign).map(|(l, v)| (l, v, *equals)));
    let (label, value, equals) =
        parts.ok_or_else(|| Status::bad_request(format!("invalid selector: {text:?}; can't understand {clause:?}")))?;
    let label = label.trim();
    let (pointer, default) = locate(label, resource)?;
    let value = value.replace("\\,", ",").replace("\\=", "=").replace("\\\\", "\\");
    Ok(Term { label: label.into(), pointer, default, equals, value })
}

fn locate(label: &str, resource: &Resource) -> Result<(String, &'static str), Status> {
    match label {
        "metadata.name" => return Ok(("/metadata/name".into(), "")),
        "metadata.namespace" => return Ok(("/metadata/namespace".into(), "")),
        _ => {}
    }
    if let Some((_, pointer, default)) = resource.fields.iter().find(|(l, ..)| *l == label) {
        return Ok(((*pointer).to_owned(), default));
    }
    if let Some(custom) = &resource.custom {
        if custom.selectable.iter().any(|path| path.strip_prefix('.') == Some(label)) {
            return Ok((format!("/{}", label.replace('.', "/")), ""));
        }
        return Err(Status::bad_request(format!("field label not supported: {label}")));
    }
    Err(Status::bad_request(if resource.fields.is_empty() {
        format!("{label:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {label}")
    }))
}
