//! Rows for people: what `kubectl get` prints. One file a group.

pub(crate) mod admission;
pub(crate) mod apps;
pub(crate) mod autoscaling;
pub(crate) mod batch;
pub(crate) mod certificates;
pub(crate) mod coordination;
pub(crate) mod core;
pub(crate) mod discovery;
pub(crate) mod events;
pub(crate) mod extensions;
pub(crate) mod human;
pub(crate) mod json_path;
pub(crate) mod metadata;
pub(crate) mod networking;
pub(crate) mod pod;
pub(crate) mod policy;
pub(crate) mod rbac;
pub(crate) mod scheduling;
pub(crate) mod storage;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object;

/// A column. Those with priority 1 are shown by `-o wide` alone.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// `string`, `integer` or `boolean`.
    pub kind: &'static str,
    /// 0, or 1 for wide output.
    pub priority: u8,
}

/// A text column.
const fn text(name: &'static str) -> Column {
    Column { name, kind: "string", priority: 0 }
}

/// A number column.
const fn number(name: &'static str) -> Column {
    Column { name, kind: "integer", priority: 0 }
}

/// A text column of wide output.
const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", priority: 1 }
}

/// The columns of a built-in kind and how a row is made.
pub struct Table {
    /// Columns; the first is the name.
    pub columns: &'static [Column],
    /// Cells of an object, one a column.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// A column of a custom resource.
#[derive(Clone, Debug)]
pub struct PathColumn {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: u8,
    path: json_path::Path,
}

impl PathColumn {
    /// From name, JSON path and type, all of one priority.
    pub fn list(columns: &[(&str, &str, &str)], priority: u8) -> Vec<Self> {
        columns
            .iter()
            .map(|(name, path, kind)| Self {
                name: (*name).to_owned(),
                kind: (*kind).to_owned(),
                format: String::new(),
                description: String::new(),
                priority,
                path: json_path::Path::parse(path),
            })
            .collect()
    }

    /// The `additionalPrinterColumns` of a version; the age alone when it has none.
    pub fn from_definition(version: &Value) -> Vec<Self> {
        let columns = object::list(version, "/additionalPrinterColumns");
        if columns.is_empty() {
            return Self::list(&[("Age", ".metadata.creationTimestamp", "date")], 0);
        }
        let text = |column: &Value, key: &str| column[key].as_str().unwrap_or_default().to_owned();
        columns
            .iter()
            .map(|column| Self {
                name: text(column, "name"),
                kind: text(column, "type"),
                format: text(column, "format"),
                description: text(column, "description"),
                priority: column["priority"].as_u64().unwrap_or(0).min(255) as u8,
                path: json_path::Path::parse(column["jsonPath"].as_str().unwrap_or_default()),
            })
            .collect()
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(found) = self.path.first(object) else { return Value::Null };
        match (self.kind.as_str(), found) {
            ("date", Value::String(at)) => human::since(at, now).into(),
            ("integer" | "number", Value::Number(_)) | ("boolean", Value::Bool(_)) => found.clone(),
            ("integer" | "number" | "boolean", _) => Value::Null,
            (_, Value::String(_)) => found.clone(),
            (_, other) => other.to_string().into(),
        }
    }
}

/// How a resource's rows are made.
#[derive(Clone)]
pub enum Printer {
    /// Compiled in.
    Built(&'static Table),
    /// By JSON path; the name goes before.
    Paths(Arc<Vec<PathColumn>>),
}

impl Printer {
    /// Definitions of the columns.
    pub fn columns(&self) -> Value {
        let define = |name: &str, kind: &str, format: &str, description: &str, priority: u8| {
            let format = if name == "Name" { "name" } else { format };
            json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
        };
        match self {
            Printer::Built(table) => {
                table.columns.iter().map(|c| define(c.name, c.kind, "", c.name, c.priority)).collect()
            }
            Printer::Paths(columns) => std::iter::once(define("Name", "string", "name", "Name", 0))
                .chain(columns.iter().map(|c| define(&c.name, &c.kind, &c.format, &c.description, c.priority)))
                .collect(),
        }
    }

    /// Cells of an object.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match self {
            Printer::Built(table) => (table.cells)(object, now),
            Printer::Paths(columns) => std::iter::once(Value::from(object::name(object)))
                .chain(columns.iter().map(|c| c.cell(object, now)))
                .collect(),
        }
    }
}

/// Which part of an object goes into its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
    /// Nothing.
    None,
}

impl Include {
    /// From the `includeObject` parameter.
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "Object" => Include::Object,
            "None" => Include::None,
            _ => Include::Metadata,
        }
    }
}

/// The metadata of an object alone.
pub(crate) fn partial(object: &Value, version: &str) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": object["metadata"]})
}

/// A row.
pub(crate) fn row(printer: &Printer, object: &Value, include: Include, version: &str, now: Timestamp) -> Value {
    let mut row = json!({"cells": printer.cells(object, now)});
    match include {
        Include::Metadata => row["object"] = partial(object, version),
        Include::Object => row["object"] = object.clone(),
        Include::None => row["object"] = Value::Null,
    }
    if let Some(conditions) = pod::row_conditions(object) {
        row["conditions"] = conditions;
    }
    row
}

/// A table around rows.
pub(crate) fn table(version: &str, metadata: Value, columns: Value, rows: Vec<Value>) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// The age cell.
fn age(object: &Value, now: Timestamp) -> Value {
    human::since(object::text(object, "/metadata/creationTimestamp"), now).into()
}

/// The name cell.
fn name(object: &Value) -> Value {
    object::name(object).into()
}

/// Joins, or `<none>`.
fn joined(items: impl IntoIterator<Item = String>) -> Value {
    let text = items.into_iter().collect::<Vec<_>>().join(",");
    none_if_empty(&text)
}

/// The text, or `<none>`.
fn none_if_empty(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

/// A number, 0 when absent.
fn count(object: &Value, pointer: &str) -> Value {
    object::integer(object, pointer).unwrap_or(0).into()
}

/// Names and images of a pod template's containers.
fn containers(object: &Value, pointer: &str) -> (Value, Value) {
    let containers = object::list(object, pointer);
    let of = |key: &str| joined(containers.iter().map(|c| c[key].as_str().unwrap_or_default().to_owned()));
    (of("name"), of("image"))
}

/// A LabelSelector as text.
fn selector(selector: &Value) -> Value {
    none_if_empty(&crate::label_selector::format(selector))
}

/// A plain map as `k=v,k=v`.
fn pairs(map: &Value) -> Value {
    let pairs = map.as_object().into_iter().flatten();
    joined(pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())))
}
