//! EventType: `v1beta2` is stored. `v1beta1` names a Broker where `v1beta2` has a reference; `v1beta3` lists attributes.

use serde_json::{Value, json};

/// A Broker is referred to; a reference that is there goes before it.
pub(super) fn from_v1beta1(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec") {
        refer_to_broker(spec);
    }
}

/// What is referred to stays a reference.
pub(super) fn to_v1beta1(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec") {
        refer_to_broker(spec);
    }
}

fn refer_to_broker(spec: &mut Value) {
    let Some(fields) = spec.as_object_mut() else { return };
    let broker = fields.remove("broker");
    let Some(Value::String(name)) = broker.filter(|broker| broker != "") else { return };
    if fields.get("reference").is_none_or(Value::is_null) {
        fields.insert(
            "reference".to_owned(),
            json!({"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": name}),
        );
    }
}

pub(super) fn to_v1beta3(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else { return };
    refer_to_broker(spec);
    let Some(fields) = spec.as_object_mut() else { return };
    let mut attributes =
        vec![json!({"name": "specversion", "required": true}), json!({"name": "id", "required": true})];
    for (field, name, required) in [("type", "type", true), ("source", "source", true), ("schema", "schemadata", false)]
    {
        match fields.remove(field) {
            Some(Value::String(value)) if !value.is_empty() => {
                attributes.push(json!({"name": name, "required": required, "value": value}));
            }
            _ if required => attributes.push(json!({"name": name, "required": true})),
            _ => {}
        }
    }
    fields.remove("schemaData");
    fields.insert("attributes".to_owned(), attributes.into());
}

pub(super) fn from_v1beta3(object: &mut Value) {
    let Some(fields) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let attributes = fields.remove("attributes");
    let attributes = attributes.as_ref().and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (name, field) in STORED_VALUES {
        let attribute = attributes.iter().find(|attribute| attribute["name"] == name);
        if let Some(value) = attribute.and_then(|attribute| attribute["value"].as_str()) {
            fields.insert(field.to_owned(), value.into());
        }
    }
    fields.entry("type").or_insert_with(|| "".into());
}

/// Attributes of `v1beta3` whose value is stored, and the field that it is stored in.
const STORED_VALUES: [(&str, &str); 3] = [("type", "type"), ("source", "source"), ("schemadata", "schema")];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{Kind, conversion};

    fn event_type(version: &str, spec: Value) -> Value {
        json!({"apiVersion": format!("eventing.knative.dev/{version}"), "kind": "EventType", "metadata": {"name": "t"}, "spec": spec})
    }

    #[test]
    fn what_is_stored_is_read_as_attributes_and_written_back_the_same() {
        let stored =
            event_type("v1beta2", json!({"type": "t", "source": "/s", "schema": "http://x", "description": "d"}));
        let mut read = stored.clone();
        conversion::read(Kind::EventType, "v1beta3", &mut read);
        let attributes = json!([
            {"name": "specversion", "required": true},
            {"name": "id", "required": true},
            {"name": "type", "required": true, "value": "t"},
            {"name": "source", "required": true, "value": "/s"},
            {"name": "schemadata", "required": false, "value": "http://x"},
        ]);
        assert_eq!(read, event_type("v1beta3", json!({"attributes": attributes, "description": "d"})));
        conversion::write(Kind::EventType, "v1beta3", &mut read);
        assert_eq!(read, stored);
    }

    #[test]
    fn a_broker_becomes_a_reference() {
        let mut old = event_type("v1beta1", json!({"type": "t", "broker": "b"}));
        conversion::write(Kind::EventType, "v1beta1", &mut old);
        let reference = json!({"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "b"});
        assert_eq!(old, event_type("v1beta2", json!({"type": "t", "reference": reference})));
        conversion::read(Kind::EventType, "v1beta1", &mut old);
        assert_eq!(old, event_type("v1beta1", json!({"type": "t", "reference": reference})));
    }

    #[test]
    fn a_type_without_values_is_read_and_written() {
        let mut empty = event_type("v1beta2", json!({"type": ""}));
        conversion::read(Kind::EventType, "v1beta3", &mut empty);
        assert_eq!(empty["spec"]["attributes"].as_array().map(Vec::len), Some(4));
        conversion::write(Kind::EventType, "v1beta3", &mut empty);
        assert_eq!(empty, event_type("v1beta2", json!({"type": ""})));
        for version in ["v1beta1", "v1beta3"] {
            let mut odd = json!({"spec": "text"});
            conversion::write(Kind::EventType, version, &mut odd);
            conversion::read(Kind::EventType, version, &mut odd);
            assert_eq!(odd["spec"], "text");
        }
    }

    #[test]
    fn a_ping_source_differs_in_its_version_alone() {
        let stored = json!({"apiVersion": "sources.knative.dev/v1", "kind": "PingSource", "spec": {"data": "d"}});
        let mut read = stored.clone();
        conversion::read(Kind::PingSource, "v1beta2", &mut read);
        assert_eq!(
            read,
            json!({"apiVersion": "sources.knative.dev/v1beta2", "kind": "PingSource", "spec": {"data": "d"}})
        );
        conversion::write(Kind::PingSource, "v1beta2", &mut read);
        assert_eq!(read, stored);
    }
}
