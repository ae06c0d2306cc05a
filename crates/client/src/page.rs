//! One page of a listing, read object by object: as JSON values a page is ten times its text.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use crate::slim::Slim;

/// What a page says of itself.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PageMeta {
    pub(crate) resource_version: String,
    pub(crate) r#continue: String,
}

/// Reads a page, and hands each of its objects on before the next is read.
pub(crate) fn read(text: &[u8], each: &mut dyn FnMut(Value)) -> serde_json::Result<PageMeta> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let meta = Page(each).deserialize(&mut reader)?;
    reader.end()?;
    Ok(meta)
}

/// A page.
struct Page<'a>(&'a mut dyn FnMut(Value));

/// The objects of one; lists that are empty may be null.
struct Items<'a>(&'a mut dyn FnMut(Value));

impl<'de> DeserializeSeed<'de> for Page<'_> {
    type Value = PageMeta;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<PageMeta, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Page<'_> {
    type Value = PageMeta;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<PageMeta, A::Error> {
        let mut meta = PageMeta::default();
        while let Some(name) = fields.next_key::<String>()? {
            match name.as_str() {
                "metadata" => meta = fields.next_value()?,
                "items" => fields.next_value_seed(Items(&mut *self.0))?,
                _ => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(meta)
    }
}

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("objects")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(Slim(item)) = items.next_element()? {
            (self.0)(item);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_is_told_object_by_object_whatever_the_order_of_its_fields() {
        let mut seen = Vec::new();
        let text = json!({"items": [{"a": 1}, {"b": 2}], "kind": "List", "metadata": {"resourceVersion": "7", "continue": "x"}});
        let meta = read(text.to_string().as_bytes(), &mut |item| seen.push(item)).expect("a page");
        assert_eq!(meta, PageMeta { resource_version: "7".into(), r#continue: "x".into() });
        assert_eq!(seen, [json!({"a": 1}), json!({"b": 2})]);
        assert_eq!(read(br#"{"items": null}"#, &mut |_| panic!("there is none")).expect("a page"), PageMeta::default());
        assert!(read(br#"{"items": [{"a": 1}, {"#, &mut drop).is_err());
    }
}
