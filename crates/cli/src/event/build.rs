//! An event from the words of a command line, as `kn event` makes it.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{EventError, Fields};

/// The event in the JSON format of CloudEvents.
pub(super) fn event(fields: &Fields, now: Timestamp) -> Result<Value, EventError> {
    let mut data = Value::Object(Map::new());
    for field in &fields.field {
        let (path, text) = pair(field)?;
        let value = serde_json::from_str(text).ok().filter(|value: &Value| !value.is_array() && !value.is_object());
        set(&mut data, path, value.unwrap_or_else(|| text.into()))?;
    }
    for field in &fields.raw_field {
        let (path, text) = pair(field)?;
        set(&mut data, path, text.into())?;
    }
    let id = fields.id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let mut event = json!({
        "specversion": "1.0", "id": id, "source": fields.source, "type": fields.kind, "time": now.to_string(),
        "datacontenttype": "application/json", "data": data,
    });
    if let Some(subject) = &fields.subject {
        event["subject"] = subject.as_str().into();
    }
    for extension in &fields.extension {
        let (name, value) = pair(extension)?;
        event[name] = value.into();
    }
    Ok(event)
}

fn pair(text: &str) -> Result<(&str, &str), EventError> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| EventError::Usage(format!("{text:?} is not of the form FIELD=VALUE")))
}

/// Puts a value at a path of names with dots between.
fn set(data: &mut Value, path: &str, value: Value) -> Result<(), EventError> {
    let mut at = data;
    for name in path.split('.') {
        let Value::Object(fields) = at else {
            return Err(EventError::Usage(format!("{path}: a field of this name has a value already")));
        };
        at = fields.entry(name).or_insert_with(|| Value::Object(Map::new()));
    }
    *at = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields {
            kind: "t".into(),
            id: Some("1".into()),
            source: "s".into(),
            subject: None,
            field: Vec::new(),
            raw_field: Vec::new(),
            extension: Vec::new(),
        }
    }

    fn words(all: &[&str]) -> Vec<String> {
        all.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn fields_are_what_they_read_as_and_raw_ones_are_text() {
        let fields = Fields {
            field: words(&["a.b=1", "a.c=x=y", "t=true", "list=[1]"]),
            raw_field: words(&["r=1"]),
            extension: words(&["ext=e"]),
            subject: Some("sub".into()),
            ..fields()
        };
        let event = event(&fields, Timestamp::UNIX_EPOCH).expect("an event");
        assert_eq!(event["data"], json!({"a": {"b": 1, "c": "x=y"}, "t": true, "list": "[1]", "r": "1"}));
        assert_eq!(
            (&event["ext"], &event["subject"], &event["time"]),
            (&json!("e"), &json!("sub"), &json!("1970-01-01T00:00:00Z"))
        );
    }

    #[test]
    fn what_is_no_field_is_told() {
        for field in [&["x"][..], &["=1"], &["a=1", "a.b=2"]] {
            let fields = Fields { field: words(field), ..fields() };
            assert!(event(&fields, Timestamp::UNIX_EPOCH).is_err(), "{field:?}");
        }
    }
}
