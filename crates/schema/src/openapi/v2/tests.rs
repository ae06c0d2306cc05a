use std::collections::BTreeSet;

use super::*;
use crate::openapi::{self, Served};

fn served<'a>([kind, list_kind, plural]: [&'a str; 3], schema: Option<&'a Value>) -> Served<'a> {
    Served { kind, plural, namespaced: true, subresources: &["status"], schema, list_kind }
}

/// A document with a kind of its own whose schema is `schema`.
fn whole(schema: &Value) -> Value {
    let pods = served(["Pod", "PodList", "pods"], None);
    let services = served(["Service", "ServiceList", "services"], None);
    let widgets = served(["Widget", "WidgetList", "widgets"], Some(schema));
    document([openapi::document("", "v1", &[pods, services]), openapi::document("example.com", "v1", &[widgets])])
}

/// What a strict reader of v2 asks of every schema.
fn assert_strict(document: &Value, at: &str, schema: &Value) {
    for foreign in ["allOf", "oneOf", "anyOf", "nullable", "not"] {
        assert!(schema.get(foreign).is_none(), "{at}: {foreign}");
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let name = target.strip_prefix("#/definitions/").unwrap_or_else(|| panic!("{at}: {target}"));
        assert!(document["definitions"].get(name).is_some(), "{at}: {name} is not defined");
        assert!(schema.get("type").is_none(), "{at}: a reference has no type");
    }
    if schema["type"] == "array" {
        assert!(schema["items"].is_object(), "{at}: a list of nothing");
    }
    assert!(schema.get("properties").is_none() || schema["type"] == "object", "{at}");
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        assert_strict(document, &format!("{at}.{name}"), inner);
    }
    for part in ["items", "additionalProperties"] {
        schema.get(part).into_iter().for_each(|inner| assert_strict(document, &format!("{at}.{part}"), inner));
    }
}

#[test]
fn every_schema_is_one_that_a_strict_reader_takes() {
    let odd = json!({"properties": {
        "null": {"type": "string", "nullable": true},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}},
        "list": {"type": "array"},
        "strange": {"type": "strange"},
        "either": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "map": {"type": "object", "additionalProperties": {"type": "integer", "format": "int32"}},
    }});
    let document = whole(&odd);
    for (name, schema) in document["definitions"].as_object().unwrap() {
        assert_strict(&document, name, schema);
    }
    let widget = &document["definitions"]["com.example.v1.Widget"];
    assert_eq!(widget["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
    let fields = &widget["properties"];
    for anything in ["null", "list", "strange", "either"] {
        assert!(fields[anything].get("type").is_none(), "{anything}");
    }
    assert!(fields["open"].get("properties").is_none());
    assert_eq!(fields["map"]["additionalProperties"], json!({"type": "integer", "format": "int32"}));
    let port = &document["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!(port, &json!({"type": "string", "format": "int-or-string"}));
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert!(patch["parameters"].as_array().unwrap().iter().any(|one| one["name"] == "fieldValidation"));
    assert_eq!(patch["parameters"].as_array().unwrap().last().unwrap()["in"], "body");
}

/// The members of a message: tag, and bytes.
fn members(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let mut found = Vec::new();
    let varint = |bytes: &mut &[u8]| {
        let (mut number, mut shift) = (0_u64, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return number;
            }
        }
    };
    while !bytes.is_empty() {
        let head = varint(&mut bytes);
        if head & 7 == 0 {
            varint(&mut bytes);
            continue;
        }
        assert_eq!(head & 7, 2);
        let length = varint(&mut bytes) as usize;
        found.push((head >> 3, &bytes[..length]));
        bytes = &bytes[length..];
    }
    found
}

fn member(bytes: &[u8], wanted: u64) -> &[u8] {
    members(bytes).into_iter().find(|(tag, _)| *tag == wanted).unwrap_or_else(|| panic!("no member {wanted}")).1
}

#[test]
fn the_message_holds_what_the_document_does() {
    let document = whole(&json!({"properties": {"n": {"type": "integer"}}}));
    let message = encode(&document);
    assert_eq!(member(&message, 1), b"2.0");
    let names = |part: u64, tag: u64| -> BTreeSet<String> {
        let all = members(member(&message, part)).into_iter().filter(|(of, _)| *of == tag);
        all.map(|(_, entry)| String::from_utf8(member(entry, 1).to_vec()).unwrap()).collect()
    };
    let keys = |part: &str| -> BTreeSet<String> { document[part].as_object().unwrap().keys().cloned().collect() };
    assert_eq!((names(8, 2), names(9, 1)), (keys("paths"), keys("definitions")));
    let definitions = members(member(&message, 9));
    let widget = definitions.into_iter().find(|(_, entry)| member(entry, 1) == b"com.example.v1.Widget").unwrap().1;
    let schema = member(widget, 2);
    assert_eq!(member(member(schema, 22), 1), b"object");
    let extension = member(schema, 31);
    assert_eq!(member(extension, 1), b"x-kubernetes-group-version-kind");
    let kinds: Value = serde_json::from_slice(member(member(extension, 2), 2)).unwrap();
    assert_eq!(kinds, json!([{"group": "example.com", "version": "v1", "kind": "Widget"}]));
}
