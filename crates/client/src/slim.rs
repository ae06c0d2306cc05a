//! An object without the record of who manages which field, which nobody here reads and which is often half of it: it is
//! passed over while the text is read.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value};

/// An object as JSON, without `metadata.managedFields`.
#[derive(Debug)]
pub(crate) struct Slim(pub(crate) Value);

/// Its metadata.
struct Metadata(Value);

struct SlimVisitor;

struct MetadataVisitor;

impl<'de> Deserialize<'de> for Slim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SlimVisitor)
    }
}

impl<'de> Visitor<'de> for SlimVisitor {
    type Value = Slim;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Slim, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let value = if name == "metadata" { fields.next_value::<Metadata>()?.0 } else { fields.next_value()? };
            object.insert(name, value);
        }
        Ok(Slim(Value::Object(object)))
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MetadataVisitor)
    }
}

impl<'de> Visitor<'de> for MetadataVisitor {
    type Value = Metadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metadata")
    }

    fn visit_unit<E>(self) -> Result<Metadata, E> {
        Ok(Metadata(Value::Null))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Metadata, A::Error> {
        let mut metadata = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            if name == "managedFields" {
                fields.next_value::<IgnoredAny>()?;
            } else {
                metadata.insert(name, fields.next_value()?);
            }
        }
        Ok(Metadata(Value::Object(metadata)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_manages_which_field_is_passed_over_and_all_else_stays() {
        let text = json!({"kind": "K", "metadata": {"name": "a", "managedFields": [{"fieldsV1": {"f:spec": {}}}], "uid": "u"},
            "spec": {"managedFields": 1}});
        let slim: Slim = serde_json::from_str(&text.to_string()).expect("an object");
        assert_eq!(slim.0, json!({"kind": "K", "metadata": {"name": "a", "uid": "u"}, "spec": {"managedFields": 1}}));
        let slim: Slim = serde_json::from_str(r#"{"metadata": null}"#).expect("an object");
        assert_eq!(slim.0, json!({"metadata": null}));
    }
}
