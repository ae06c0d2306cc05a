//! Values that are not plain messages, lists or maps.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::wire::{Payload, Reader, text};
use super::{Left, MAGIC, ProtobufError, decode_at};
use crate::ty::Shape;
use crate::{builtin, time};

/// Reads a value by its shape. `Null` stands for one that was not given.
pub(super) fn value(shape: &Shape, payload: Payload<'_>, left: Left<'_>) -> Result<Value, ProtobufError> {
    match (shape, payload) {
        (Shape::Bool, Payload::Varint(number)) => Ok(Value::Bool(number != 0)),
        // The cast takes the low half: that is how 32-bit numbers are written.
        (Shape::Int32, Payload::Varint(number)) => Ok(json!(number as i32)),
        (Shape::Int64, Payload::Varint(number)) => Ok(json!(number.cast_signed())),
        (Shape::Double, Payload::Fixed64(bits)) => Ok(json!(f64::from_bits(bits))),
        (Shape::Double, Payload::Fixed32(bits)) => Ok(json!(f32::from_bits(bits))),
        (Shape::Bool, Payload::Bytes([])) => Ok(json!(false)),
        (Shape::Int32 | Shape::Int64, Payload::Bytes([])) => Ok(json!(0)),
        (Shape::String, Payload::Bytes(bytes)) => Ok(Value::String(text(bytes)?)),
        (Shape::Bytes, Payload::Bytes(bytes)) => Ok(Value::String(STANDARD.encode(bytes))),
        (Shape::Quantity, Payload::Bytes(bytes)) => {
            let amount = inner_bytes(bytes, 1)?.map(text).transpose()?.unwrap_or_default();
            Ok(Value::String(if amount.is_empty() { "0".into() } else { amount }))
        }
        (Shape::IntOrString, Payload::Bytes(bytes)) => int_or_string(bytes),
        (Shape::Time, Payload::Bytes(bytes)) => {
            Ok(instant(bytes)?.map_or(Value::Null, |at| json!(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())))
        }
        (Shape::MicroTime, Payload::Bytes(bytes)) => {
            Ok(instant(bytes)?.map_or(Value::Null, |at| json!(time::format_micros(at))))
        }
        (Shape::Duration, Payload::Bytes(bytes)) => {
            let nanoseconds = inner_varint(bytes, 1)?.unwrap_or_default().cast_signed();
            Ok(Value::String(knoll_api::duration::format(nanoseconds)))
        }
        (Shape::FieldsV1 | Shape::Raw | Shape::Json | Shape::Any, Payload::Bytes(bytes)) => {
            embedded(inner_bytes(bytes, 1)?.unwrap_or_default(), left)
        }
        (Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings, Payload::Bytes(bytes)) => {
            schema_or(shape, bytes, left)
        }
        _ => Err(ProtobufError::WireType(String::new())),
    }
}

fn inner_bytes(bytes: &[u8], wanted: u32) -> Result<Option<&[u8]>, ProtobufError> {
    let mut found = None;
    let mut reader = Reader::new(bytes);
    while let Some((tag, payload)) = reader.next()? {
        if let (true, Payload::Bytes(bytes)) = (tag == wanted, payload) {
            found = Some(bytes);
        }
    }
    Ok(found)
}

fn inner_varint(bytes: &[u8], wanted: u32) -> Result<Option<u64>, ProtobufError> {
    let mut found = None;
    let mut reader = Reader::new(bytes);
    while let Some((tag, payload)) = reader.next()? {
        if let (true, Payload::Varint(number)) = (tag == wanted, payload) {
            found = Some(number);
        }
    }
    Ok(found)
}

fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    if inner_varint(bytes, 1)? == Some(1) {
        return Ok(Value::String(inner_bytes(bytes, 3)?.map(text).transpose()?.unwrap_or_default()));
    }
    Ok(json!(inner_varint(bytes, 2)?.unwrap_or_default() as i32))
}

/// A time; `None` for the zero time, which is written as an empty message.
fn instant(bytes: &[u8]) -> Result<Option<Timestamp>, ProtobufError> {
    let seconds = inner_varint(bytes, 1)?;
    let nanoseconds = inner_varint(bytes, 2)?.unwrap_or_default() as i32;
    if seconds.is_none() && nanoseconds == 0 {
        return Ok(None);
    }
    let time = Timestamp::new(seconds.unwrap_or_default().cast_signed(), nanoseconds);
    time.map(Some).map_err(|_| ProtobufError::Malformed)
}

/// JSON in a message, or another whole body.
fn embedded(bytes: &[u8], left: Left<'_>) -> Result<Value, ProtobufError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    if bytes.starts_with(MAGIC) {
        return decode_at(bytes, left.below()?);
    }
    crate::json::from_json(bytes).map(|parsed| parsed.value).map_err(|_| ProtobufError::Json)
}

/// A schema, or what may stand in its place: schemas, a truth value, names.
fn schema_or(shape: &Shape, bytes: &[u8], left: Left<'_>) -> Result<Value, ProtobufError> {
    let schema_type = builtin::named("apiextensions.k8s.io/v1", "JSONSchemaProps");
    let schema_tag = if matches!(shape, Shape::SchemaOrBool) { 2 } else { 1 };
    let (mut schema, mut items, mut allows) = (None, Vec::new(), false);
    let mut reader = Reader::new(bytes);
    while let Some((tag, payload)) = reader.next()? {
        match (tag, payload) {
            (tag, payload @ Payload::Bytes(_)) if tag == schema_tag => {
                schema = Some(super::value(&schema_type, payload, left)?);
            }
            (1, Payload::Varint(number)) => allows = number != 0,
            (2, Payload::Bytes(bytes)) if matches!(shape, Shape::SchemaOrStrings) => {
                items.push(Value::String(text(bytes)?));
            }
            (2, payload) => items.push(super::value(&schema_type, payload, left)?),
            _ => {}
        }
    }
    Ok(match (schema, shape) {
        (Some(schema), _) => schema,
        (None, Shape::SchemaOrBool) => Value::Bool(allows),
        (None, _) => Value::Array(items),
    })
}
