//! Reads JSON and YAML text, and notices fields that are given twice.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map as JsonMap, Number, Value};

/// Most findings that are told.
const FINDINGS: usize = 100;

/// A text as a tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The tree; of a field given twice it holds the last value.
    pub value: Value,
    /// The fields given twice, each as `duplicate field "data.a"`; at most 100.
    pub duplicates: Vec<String>,
}

/// Why a text is no tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TextError(String);

/// Reads JSON.
///
/// # Errors
/// When the text is not JSON.
pub fn from_json(text: &[u8]) -> Result<Parsed, TextError> {
    let mut state = State::default();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Seed(&mut state).deserialize(&mut deserializer).map_err(|error| TextError(error.to_string()))?;
    deserializer.end().map_err(|error| TextError(error.to_string()))?;
    Ok(Parsed { value, duplicates: state.duplicates })
}

/// Reads YAML, of which JSON is a part. A field given twice is an error here.
///
/// # Errors
/// When the text is not UTF-8 or not one YAML document, or uses more aliases or depth than is reasonable.
pub fn from_yaml(text: &[u8]) -> Result<Value, TextError> {
    if text.trim_ascii_start().first() == Some(&b'{')
        && let Ok(value) = serde_json::from_slice(text)
    {
        return Ok(value);
    }
    let text = std::str::from_utf8(text).map_err(|error| TextError(error.to_string()))?;
    serde_saphyr::from_str(text).map_err(|error| TextError(error.to_string()))
}

enum Segment {
    Field(String),
    Item(usize),
}

#[derive(Default)]
struct State {
    path: Vec<Segment>,
    duplicates: Vec<String>,
}

impl State {
    fn duplicate(&mut self, name: &str) {
        let mut path = String::new();
        for segment in &self.path {
            match segment {
                Segment::Field(name) if path.is_empty() => path.push_str(name),
                Segment::Field(name) => path = format!("{path}.{name}"),
                Segment::Item(item) => path = format!("{path}[{item}]"),
            }
        }
        let dot = if path.is_empty() { "" } else { "." };
        let finding = format!("duplicate field \"{path}{dot}{name}\"");
        if self.duplicates.len() < FINDINGS && !self.duplicates.contains(&finding) {
            self.duplicates.push(finding);
        }
    }
}

struct Seed<'a>(&'a mut State);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, given: bool) -> Result<Value, E> {
        Ok(Value::Bool(given))
    }

    fn visit_i64<E>(self, given: i64) -> Result<Value, E> {
        Ok(Value::from(given))
    }

    fn visit_u64<E>(self, given: u64) -> Result<Value, E> {
        Ok(Value::from(given))
    }

    fn visit_f64<E>(self, given: f64) -> Result<Value, E> {
        Ok(Number::from_f64(given).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, given: &str) -> Result<Value, E> {
        Ok(Value::String(given.to_owned()))
    }

    fn visit_string<E>(self, given: String) -> Result<Value, E> {
        Ok(Value::String(given))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            self.0.path.push(Segment::Item(items.len()));
            let item = access.next_element_seed(Seed(&mut *self.0))?;
            self.0.path.pop();
            match item {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = JsonMap::new();
        while let Some(name) = access.next_key::<String>()? {
            if entries.contains_key(&name) {
                self.0.duplicate(&name);
            }
            self.0.path.push(Segment::Field(name));
            let value = access.next_value_seed(Seed(&mut *self.0))?;
            if let Some(Segment::Field(name)) = self.0.path.pop() {
                entries.insert(name, value);
            }
        }
        Ok(Value::Object(entries))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_given_twice_are_named_and_the_last_counts() {
        let parsed = from_json(br#"{"data":{"a":"1","b":"2","a":"3","a":"4"},"l":[{},{"x":1,"x":null}]}"#).unwrap();
        assert_eq!(parsed.value, json!({"data": {"a": "4", "b": "2"}, "l": [{}, {"x": null}]}));
        assert_eq!(parsed.duplicates, ["duplicate field \"data.a\"", "duplicate field \"l[1].x\""]);
    }

    #[test]
    fn numbers_keep_their_kind() {
        let parsed = from_json(b"[1, -1, 1.5, 18446744073709551615]").unwrap();
        assert_eq!(parsed.value, json!([1, -1, 1.5, u64::MAX]));
        assert!(from_json(b"{} x").is_err());
        assert!(from_json(b"{").is_err());
    }

    #[test]
    fn yaml_becomes_a_tree() {
        let text = "apiVersion: v1\nmetadata:\n  name: x # why\n  labels: {n: '1', t: \"true\"}\nlist:\n- 1\n- 1.5\n- true\n- null\n- a b\n";
        let wanted = json!({
            "apiVersion": "v1",
            "metadata": {"name": "x", "labels": {"n": "1", "t": "true"}},
            "list": [1, 1.5, true, null, "a b"],
        });
        assert_eq!(from_yaml(text.as_bytes()).unwrap(), wanted);
        assert_eq!(from_yaml(b" {\"a\": 1}").unwrap(), json!({"a": 1}));
        assert!(from_yaml(b"a: [").is_err());
    }
}
