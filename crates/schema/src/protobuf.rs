//! Reads request bodies in protobuf form.
//!
//! A body is four bytes of magic and a message with the kind and the object in it; the tables say which tag is which field.
//! Clients write every field that is not a pointer even when it is zero, so a zero is kept only where it means something
//! ([`Presence`]).

mod leaf;
mod wire;

use std::cell::Cell;

use serde_json::{Map as JsonMap, Value};

use crate::builtin;
use crate::limits::{self, Budget, Exceeded};
use crate::ty::{Field, List, Map, Object, Presence, Shape, Type};
use wire::{Payload, Reader};

const MAGIC: &[u8] = b"k8s\0";

/// Most messages within messages.
const DEPTH: u32 = 100;

/// Why a body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The magic is missing.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// The kind has no protobuf form, or is not known.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    Kind {
        /// As the body names it.
        kind: String,
        /// As the body names it.
        api_version: String,
    },
    /// The bytes end in the middle of something.
    #[error("unexpected EOF")]
    Truncated,
    /// A number is too long, a tag is zero, or a member has no known form.
    #[error("illegal member in a message")]
    Malformed,
    /// A member has another form than its field.
    #[error("wrong wire type for field {0}")]
    WireType(String),
    /// Text is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// Embedded JSON is malformed.
    #[error("malformed JSON inside the message")]
    Json,
    /// Messages nest too deeply.
    #[error("messages nest too deeply")]
    Depth,
    /// The message becomes more than an object may be.
    #[error("the message {0}")]
    Limit(#[from] Exceeded),
}

/// What is left for reading: levels here, memory in all.
#[derive(Clone, Copy)]
struct Left<'a> {
    depth: u32,
    budget: &'a Cell<Budget>,
}

impl Left<'_> {
    /// One level further down.
    fn below(self) -> Result<Self, ProtobufError> {
        Ok(Self { depth: self.depth.checked_sub(1).ok_or(ProtobufError::Depth)?, ..self })
    }

    /// Pays for a value that takes `bytes` beside its own place.
    fn pay(self, bytes: usize) -> Result<(), ProtobufError> {
        let mut budget = self.budget.get();
        budget.pay(bytes)?;
        self.budget.set(budget);
        Ok(())
    }
}

type Entries = JsonMap<String, Value>;

/// Reads a body into the JSON tree of the object it holds, with `apiVersion` and `kind`.
///
/// # Errors
/// When the bytes are malformed, hold a kind without a protobuf form, or become more than the
/// [`crate::limits`] allow.
pub fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let budget = Cell::new(Budget::default());
    let value = decode_at(bytes, Left { depth: DEPTH, budget: &budget })?;
    // JSON inside has levels of its own.
    limits::check(&value)?;
    Ok(value)
}

fn decode_at(bytes: &[u8], left: Left<'_>) -> Result<Value, ProtobufError> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut reader = Reader::new(envelope);
    while let Some((tag, payload)) = reader.next()? {
        match (tag, payload) {
            (1, Payload::Bytes(meta)) => {
                let mut meta = Reader::new(meta);
                while let Some((tag, payload)) = meta.next()? {
                    match (tag, payload) {
                        (1, Payload::Bytes(text)) => api_version = wire::text(text)?,
                        (2, Payload::Bytes(text)) => kind = wire::text(text)?,
                        _ => {}
                    }
                }
            }
            (2, Payload::Bytes(object)) => raw = object,
            _ => {}
        }
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let ty = builtin::lookup(group, version, &kind).filter(|_| !builtin::is_custom(group));
    let Some(object) = ty.and_then(Type::object) else { return Err(ProtobufError::Kind { kind, api_version }) };
    let mut entries = Entries::new();
    message(object, raw, &mut entries, left)?;
    entries.insert("apiVersion".into(), Value::String(api_version));
    entries.insert("kind".into(), Value::String(kind));
    Ok(Value::Object(entries))
}

/// Reads a message into the fields of an object.
fn message(object: &Object, bytes: &[u8], entries: &mut Entries, left: Left<'_>) -> Result<(), ProtobufError> {
    let left = left.below()?;
    left.pay(limits::ENTRIES)?;
    let mut reader = Reader::new(bytes);
    while let Some((tag, payload)) = reader.next()? {
        let Ok(at) = object.wire.binary_search_by_key(&tag, |wire| wire.tag) else { continue };
        let member = &object.wire[at];
        let Some(name) = &member.field else {
            let (Some(inner), Payload::Bytes(bytes)) = (member.ty.object(), payload) else {
                return Err(ProtobufError::WireType(member.ty.name.to_string()));
            };
            message(inner, bytes, entries, left)?;
            continue;
        };
        field(&member.ty, name, payload, entries, left).map_err(|error| named(error, name))?;
    }
    for field in &object.fields {
        if entries.get(field.name.as_ref()).is_some_and(|value| means_absent(field, value)) {
            entries.remove(field.name.as_ref());
        }
    }
    Ok(())
}

fn named(error: ProtobufError, name: &str) -> ProtobufError {
    match error {
        ProtobufError::WireType(inner) if inner.is_empty() => ProtobufError::WireType(name.to_owned()),
        other => other,
    }
}

fn means_absent(field: &Field, value: &Value) -> bool {
    match value {
        Value::Null => true,
        _ if field.presence != Presence::NonZero => false,
        Value::Object(entries) => entries.is_empty(),
        _ => crate::conform::is_zero(&field.ty, value),
    }
}

/// Reads one member into its field; members of lists and maps add to what is there.
fn field(
    ty: &Type,
    name: &str,
    payload: Payload<'_>,
    entries: &mut Entries,
    left: Left<'_>,
) -> Result<(), ProtobufError> {
    match &ty.shape {
        Shape::List(list) if !list.wrapped => {
            let slot = entries.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(items) = slot {
                repeated(list, payload, items, left)?;
            }
        }
        Shape::Map(map) => {
            let slot = entries.entry(name).or_insert_with(|| Value::Object(Entries::new()));
            if let Value::Object(slots) = slot {
                map_entry(map, payload, slots, left)?;
            }
        }
        _ => drop(entries.insert(name.to_owned(), value(ty, payload, left)?)),
    }
    Ok(())
}

fn repeated(list: &List, payload: Payload<'_>, items: &mut Vec<Value>, left: Left<'_>) -> Result<(), ProtobufError> {
    let numeric = matches!(list.items.shape, Shape::Int32 | Shape::Int64 | Shape::Bool);
    match payload {
        Payload::Bytes(packed) if numeric => {
            let mut reader = Reader::new(packed);
            while let Some(number) = reader.packed()? {
                items.push(value(&list.items, Payload::Varint(number), left)?);
            }
        }
        payload => items.push(value(&list.items, payload, left)?),
    }
    Ok(())
}

fn map_entry(map: &Map, payload: Payload<'_>, slots: &mut Entries, left: Left<'_>) -> Result<(), ProtobufError> {
    let Payload::Bytes(bytes) = payload else { return Err(ProtobufError::WireType(String::new())) };
    let (mut key, mut given) = (String::new(), None);
    let mut reader = Reader::new(bytes);
    while let Some((tag, payload)) = reader.next()? {
        match (tag, payload) {
            (1, Payload::Bytes(text)) => key = wire::text(text)?,
            (2, payload) => given = Some(value(&map.values, payload, left)?),
            _ => {}
        }
    }
    let given = match given {
        Some(given) => given,
        None => value(&map.values, Payload::Bytes(&[]), left)?,
    };
    slots.insert(key, given);
    Ok(())
}

/// Reads one value.
fn value(ty: &Type, payload: Payload<'_>, left: Left<'_>) -> Result<Value, ProtobufError> {
    match (&ty.shape, payload) {
        (Shape::Object(object), Payload::Bytes(bytes)) => {
            let mut entries = Entries::new();
            message(object, bytes, &mut entries, left)?;
            Ok(Value::Object(entries))
        }
        (Shape::List(list), Payload::Bytes(bytes)) if list.wrapped => {
            let mut items = Vec::new();
            let mut reader = Reader::new(bytes);
            while let Some((tag, payload)) = reader.next()? {
                if tag == 1 {
                    items.push(value(&list.items, payload, left)?);
                }
            }
            Ok(Value::Array(items))
        }
        _ => {
            left.pay(if let Payload::Bytes(bytes) = payload { bytes.len() } else { 0 })?;
            leaf::value(&ty.shape, payload, left)
        }
    }
}

#[cfg(test)]
mod tests;
