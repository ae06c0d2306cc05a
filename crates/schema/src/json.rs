//! Reads JSON and YAML text within bounds, and notices fields that are given twice.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map as JsonMap, Number, Value};

use crate::limits::{self, DEPTH, FINDINGS};

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
/// When the text is not JSON, or more than the [`limits`] allow.
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
/// When the text is not UTF-8 or not one YAML document, or more than the [`limits`] allow (aliases count as what they
/// stand for).
pub fn from_yaml(text: &[u8]) -> Result<Value, TextError> {
    if text.trim_ascii_start().first() == Some(&b'{')
        && let Ok(parsed) = from_json(text)
    {
        return Ok(parsed.value);
    }
    let text = std::str::from_utf8(text).map_err(|error| TextError(error.to_string()))?;
    serde_saphyr::from_str(text).map(|Tree(value)| value).map_err(|error| TextError(error.to_string()))
}

/// A tree within bounds, read from anything.
struct Tree(Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Seed(&mut State::default()).deserialize(deserializer).map(Tree)
    }
}

enum Segment {
    Field(String),
    Item(usize),
}

#[derive(Default)]
struct State {
    path: Vec<Segment>,
    duplicates: Vec<String>,
    budget: limits::Budget,
}

impl State {
    /// Pays for a value that takes `bytes` beside its own place.
    fn pay<E: Error>(&mut self, bytes: usize) -> Result<(), E> {
        self.budget.pay(bytes).map_err(E::custom)
    }

    /// Whether a list or an object may stand here.
    fn nest<E: Error>(&self) -> Result<(), E> {
        if self.path.len() < DEPTH { Ok(()) } else { Err(E::custom(limits::Exceeded::Depth)) }
    }

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
        let finding = limits::shortened(format!("duplicate field \"{path}{dot}{name}\""));
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

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.0.pay(0)?;
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, given: bool) -> Result<Value, E> {
        self.0.pay(0)?;
        Ok(Value::Bool(given))
    }

    fn visit_i64<E: Error>(self, given: i64) -> Result<Value, E> {
        self.0.pay(0)?;
        Ok(Value::from(given))
    }

    fn visit_u64<E: Error>(self, given: u64) -> Result<Value, E> {
        self.0.pay(0)?;
        Ok(Value::from(given))
    }

    fn visit_f64<E: Error>(self, given: f64) -> Result<Value, E> {
        self.0.pay(0)?;
        Ok(Number::from_f64(given).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, given: &str) -> Result<Value, E> {
        self.0.pay(given.len())?;
        Ok(Value::String(given.to_owned()))
    }

    fn visit_string<E: Error>(self, given: String) -> Result<Value, E> {
        self.0.pay(given.len())?;
        Ok(Value::String(given))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.0.nest()?;
        self.0.pay(0)?;
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
        self.0.nest()?;
        self.0.pay(limits::ENTRIES)?;
        let mut entries = JsonMap::new();
        while let Some(name) = access.next_key::<String>()? {
            self.0.budget.name(&name).map_err(A::Error::custom)?;
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
    fn what_is_deeper_or_heavier_than_an_object_may_be_is_refused() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(from_json(nested(DEPTH).as_bytes()).is_ok());
        let error = from_json(nested(DEPTH + 1).as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("nests deeper than 100 levels"), "{error}");
        assert!(from_yaml(nested(DEPTH + 1).as_bytes()).is_err());
        // Each of these small objects takes a hundred times the bytes that name it.
        let many = format!("[{}{{}}]", r#"{"a":1},"#.repeat(200_000));
        let error = from_json(many.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("more memory than 67108864 bytes"), "{error}");
        let long = format!("{{\"{}\":1}}", "k".repeat(limits::NAME + 1));
        assert!(from_json(long.as_bytes()).unwrap_err().to_string().contains("field name"));
    }

    #[test]
    fn aliases_count_as_what_they_stand_for() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let previous = format!("*a{}", level - 1);
            text.push_str(&format!("a{level}: &a{level} [{}]\n", [previous.as_str(); 10].join(", ")));
        }
        assert!(from_yaml(text.as_bytes()).is_err());
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
