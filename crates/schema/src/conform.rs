//! Brings a JSON tree into the form its type stores.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use knoll_api::quantity::Quantity;
use serde_json::{Map as JsonMap, Value};

use crate::limits::{FINDINGS, shortened};
use crate::path::{Path, Step};
use crate::time;
use crate::ty::{Object, Presence, Shape, Type};

/// A value that its type cannot hold: where it stands, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeError {
    /// The way down to the value, as `spec.containers[0].image`; empty for the object itself.
    path: String,
    why: String,
}

impl TypeError {
    fn new(why: impl Into<String>) -> Self {
        Self { path: String::new(), why: why.into() }
    }

    /// The same, seen from one step further up.
    fn below(mut self, step: Step<'_>) -> Self {
        let rest = match self.path.as_str() {
            "" => String::new(),
            item if item.starts_with('[') => item.to_owned(),
            field => format!(".{field}"),
        };
        self.path = match step {
            Step::Field(name) => format!("{name}{rest}"),
            Step::Item(at) => format!("[{at}]{rest}"),
        };
        self
    }
}

impl std::error::Error for TypeError {}

impl std::fmt::Display for TypeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.why);
        }
        write!(f, "{}: {}", shortened(self.path.clone()), self.why)
    }
}

/// Brings a JSON tree into the form the type stores: fields the type does not know and nulls are dropped, and so are zero
/// values where zero means absent; quantities and times take their canonical form. Answers the dropped unknown fields as
/// [`unknown_fields`] does.
///
/// # Errors
/// When a value cannot be of its type. The tree is then partly done and of no use.
pub fn conform(ty: &Type, value: &mut Value) -> Result<Vec<String>, TypeError> {
    let mut walk = Walk { path: Path::default(), unknown: Vec::new() };
    walk.value(ty, value)?;
    Ok(walk.unknown)
}

/// The fields a type does not know, each as `unknown field "spec.foo"`, in the order met; at most
/// [`FINDINGS`](crate::limits::FINDINGS).
pub fn unknown_fields(ty: &Type, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    look(ty, value, &mut Path::default(), &mut found);
    found
}

/// Drops the fields a type does not know, whatever else is wrong with the tree. Answers them as [`unknown_fields`] does.
pub fn prune(ty: &Type, value: &mut Value) -> Vec<String> {
    let unknown = unknown_fields(ty, value);
    if !unknown.is_empty() {
        drop_unknown(ty, value);
    }
    unknown
}

fn drop_unknown(ty: &Type, value: &mut Value) {
    match (&ty.shape, value) {
        (Shape::Object(object), Value::Object(entries)) => {
            entries.retain(|name, inner| match object.field(name) {
                Some(field) => {
                    drop_unknown(&field.ty, inner);
                    true
                }
                None => object.open,
            });
        }
        (Shape::Map(map), Value::Object(entries)) => {
            entries.values_mut().for_each(|inner| drop_unknown(&map.values, inner));
        }
        (Shape::List(list), Value::Array(items)) => items.iter_mut().for_each(|inner| drop_unknown(&list.items, inner)),
        _ => {}
    }
}

/// Fills in the defaults the type itself knows, where fields are absent. Most defaults of built-in kinds are not among them.
pub fn fill_defaults(ty: &Type, value: &mut Value) {
    match (&ty.shape, value) {
        (Shape::Object(object), Value::Object(entries)) => {
            for field in &object.fields {
                if let Some(default) = &field.default {
                    entries.entry(field.name.to_string()).or_insert_with(|| default.clone());
                }
                if let Some(inner) = entries.get_mut(field.name.as_ref()) {
                    fill_defaults(&field.ty, inner);
                }
            }
        }
        (Shape::Map(map), Value::Object(entries)) => {
            entries.values_mut().for_each(|inner| fill_defaults(&map.values, inner));
        }
        (Shape::List(list), Value::Array(items)) => {
            items.iter_mut().for_each(|inner| fill_defaults(&list.items, inner))
        }
        _ => {}
    }
}

fn look<'a>(ty: &'a Type, value: &'a Value, path: &mut Path<'a>, found: &mut Vec<String>) {
    match (&ty.shape, value) {
        (Shape::Object(object), Value::Object(entries)) => {
            for (name, inner) in entries {
                match object.field(name) {
                    Some(field) => {
                        path.push(Step::Field(name));
                        look(&field.ty, inner, path, found);
                        path.pop();
                    }
                    None if object.open => {}
                    None => note(found, path, name),
                }
            }
        }
        (Shape::Map(map), Value::Object(entries)) => {
            for (name, inner) in entries {
                path.push(Step::Field(name));
                look(&map.values, inner, path, found);
                path.pop();
            }
        }
        (Shape::List(list), Value::Array(items)) => {
            for (at, inner) in items.iter().enumerate() {
                path.push(Step::Item(at));
                look(&list.items, inner, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

/// Notes an unknown field, unless enough are noted.
fn note(found: &mut Vec<String>, path: &Path<'_>, name: &str) {
    if found.len() < FINDINGS {
        found.push(shortened(format!("unknown field \"{}\"", path.with(name))));
    }
}

struct Walk<'a> {
    path: Path<'a>,
    unknown: Vec<String>,
}

impl<'a> Walk<'a> {
    fn value(&mut self, ty: &'a Type, value: &mut Value) -> Result<(), TypeError> {
        match &ty.shape {
            Shape::Object(object) => match value {
                Value::Object(entries) => self.object(object, entries),
                Value::Null => {
                    *value = Value::Object(JsonMap::new());
                    Ok(())
                }
                _ => Err(mismatch(ty, value)),
            },
            Shape::Map(map) => {
                let Value::Object(entries) = value else { return Err(mismatch(ty, value)) };
                for (name, inner) in entries {
                    self.value(&map.values, inner).map_err(|error| error.below(Step::Field(name)))?;
                }
                Ok(())
            }
            Shape::List(list) => {
                let Value::Array(items) = value else { return Err(mismatch(ty, value)) };
                for (at, inner) in items.iter_mut().enumerate() {
                    self.path.push(Step::Item(at));
                    self.value(&list.items, inner).map_err(|error| error.below(Step::Item(at)))?;
                    self.path.pop();
                }
                Ok(())
            }
            _ => leaf(ty, value),
        }
    }

    fn object(&mut self, object: &'a Object, entries: &mut JsonMap<String, Value>) -> Result<(), TypeError> {
        let names: Vec<String> = entries.keys().cloned().collect();
        for name in names {
            let Some(field) = object.field(&name) else {
                if !object.open {
                    entries.remove(&name);
                    note(&mut self.unknown, &self.path, &name);
                }
                continue;
            };
            let Some(inner) = entries.get_mut(&name) else { continue };
            if inner.is_null() && !matches!(field.ty.shape, Shape::Any | Shape::Json) {
                entries.remove(&name);
                continue;
            }
            self.path.push(Step::Field(&field.name));
            self.value(&field.ty, inner).map_err(|error| error.below(Step::Field(&field.name)))?;
            self.path.pop();
            if field.presence == Presence::NonZero && is_zero(&field.ty, inner) {
                entries.remove(&name);
            }
        }
        Ok(())
    }
}

fn leaf(ty: &Type, value: &mut Value) -> Result<(), TypeError> {
    let fits = match (&ty.shape, &*value) {
        (Shape::String | Shape::Duration, Value::String(_)) | (Shape::Bool, Value::Bool(_)) => true,
        (Shape::Double | Shape::Quantity, Value::Number(_)) | (Shape::FieldsV1, Value::Object(_)) => true,
        (Shape::Int64, Value::Number(number)) => number.is_i64(),
        (Shape::Int32, Value::Number(number)) => number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        (Shape::IntOrString, Value::String(_)) => true,
        (Shape::IntOrString, Value::Number(number)) if number.is_i64() => true,
        (Shape::Bytes, Value::String(text)) => {
            check_base64(text)?;
            true
        }
        (Shape::Quantity | Shape::Time | Shape::MicroTime, Value::String(_)) => true,
        // In a list or a map null stands for the zero value.
        (Shape::Time | Shape::MicroTime, Value::Null) => true,
        (Shape::Quantity, Value::Null) => {
            *value = Value::String("0".into());
            true
        }
        (Shape::String | Shape::Bytes, Value::Null) => {
            *value = Value::String(String::new());
            true
        }
        (Shape::Any | Shape::Raw | Shape::Json, _) => true,
        (Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings, _) => true,
        _ => false,
    };
    if !fits {
        return Err(mismatch(ty, value));
    }
    canonical(&ty.shape, value)
}

fn mismatch(ty: &Type, value: &Value) -> TypeError {
    TypeError::new(format!("must be {}, not {}", wanted(&ty.shape), found(value)))
}

fn canonical(shape: &Shape, value: &mut Value) -> Result<(), TypeError> {
    match (shape, &*value) {
        (Shape::Quantity, Value::String(text)) => *value = Value::String(quantity(text)?),
        (Shape::Quantity, Value::Number(number)) => *value = Value::String(quantity(&number.to_string())?),
        (Shape::Time, Value::String(text)) => *value = Value::String(time::seconds(text).map_err(TypeError::new)?),
        (Shape::MicroTime, Value::String(text)) => *value = Value::String(time::micros(text).map_err(TypeError::new)?),
        _ => {}
    }
    Ok(())
}

fn quantity(text: &str) -> Result<String, TypeError> {
    match Quantity::parse(text) {
        Ok(quantity) => Ok(quantity.to_string()),
        Err(error) => Err(TypeError::new(error.to_string())),
    }
}

fn check_base64(text: &str) -> Result<(), TypeError> {
    let Err(error) = STANDARD.decode(text) else { return Ok(()) };
    let at = match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
        base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len(),
    };
    Err(TypeError::new(format!("must be base64: it is not at byte {at}")))
}

/// True for the value a type has when nothing was given, where JSON need not say it.
pub(crate) fn is_zero(ty: &Type, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(given) => !given,
        Value::Number(number) => number.as_f64() == Some(0.0),
        // An empty quantity is not its zero.
        Value::String(text) => text.is_empty() && !matches!(ty.shape, Shape::Quantity),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty() && matches!(ty.shape, Shape::Map(_)),
    }
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "a boolean".into(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(_) => "a string".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// What a value of this form is, in words.
fn wanted(shape: &Shape) -> &'static str {
    match shape {
        Shape::Int32 => "an integer of 32 bits",
        Shape::Int64 => "an integer of 64 bits",
        Shape::Double => "a number",
        Shape::Bool => "a boolean",
        Shape::Quantity => "a quantity, as \"500m\" or \"1Gi\"",
        Shape::Time | Shape::MicroTime => "a time",
        Shape::IntOrString => "an integer or a string",
        Shape::FieldsV1 | Shape::Object(_) | Shape::Map(_) => "an object",
        Shape::List(_) => "a list",
        _ => "a string",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lookup;

    fn deployment() -> &'static Type {
        lookup("apps", "v1", "Deployment").unwrap()
    }

    #[test]
    fn unknown_fields_are_named_by_their_path() {
        let tree = json!({"kind": "Deployment", "foo": 1, "spec": {"template": {"spec": {"containers": [{}, {"imag": "x"}]}}}});
        let wanted = ["unknown field \"foo\"", "unknown field \"spec.template.spec.containers[1].imag\""];
        assert_eq!(unknown_fields(deployment(), &tree), wanted);
        let mut tree = tree;
        assert_eq!(conform(deployment(), &mut tree).unwrap(), wanted);
        assert_eq!(tree, json!({"kind": "Deployment", "spec": {"template": {"spec": {"containers": [{}, {}]}}}}));
    }

    #[test]
    fn zero_values_go_unless_they_mean_something() {
        let mut tree = json!({
            "metadata": {"name": "", "creationTimestamp": null, "labels": {}},
            "spec": {"replicas": 0, "paused": false, "template": {"spec": {
                "schedulerName": "", "automountServiceAccountToken": false,
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [{"name": "c", "args": [], "resources": {}}],
            }}},
        });
        conform(deployment(), &mut tree).unwrap();
        let wanted = json!({
            "metadata": {},
            "spec": {"replicas": 0, "template": {"spec": {
                "automountServiceAccountToken": false,
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [{"name": "c", "resources": {}}],
            }}},
        });
        assert_eq!(tree, wanted);
    }

    #[test]
    fn quantities_take_their_canonical_form() {
        let mut tree =
            json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}}]}});
        conform(lookup("", "v1", "Pod").unwrap(), &mut tree).unwrap();
        assert_eq!(tree["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "500m", "memory": "1Gi"}));
    }

    #[test]
    fn kinds_of_knative_take_the_defaults_of_their_schema() {
        let mut tree = json!({"spec": {"template": {"spec": {"containers": [{"ports": [{"containerPort": 80}, {"protocol": "UDP"}]}]}}}});
        fill_defaults(lookup("serving.knative.dev", "v1", "Service").unwrap(), &mut tree);
        let wanted = json!([{"containerPort": 80, "protocol": "TCP"}, {"protocol": "UDP"}]);
        assert_eq!(tree["spec"]["template"]["spec"]["containers"][0]["ports"], wanted);
    }

    #[test]
    fn a_wrong_type_is_named_with_its_field() {
        let check = |mut tree: Value| conform(deployment(), &mut tree).unwrap_err().to_string();
        let text = check(json!({"spec": {"replicas": "3"}}));
        assert_eq!(text, "spec.replicas: must be an integer of 32 bits, not a string");
        let text = check(json!({"spec": {"replicas": 1.5}}));
        assert_eq!(text, "spec.replicas: must be an integer of 32 bits, not the number 1.5");
        let text = check(json!({"spec": {"template": {"spec": {"containers": [{}, {"ports": {}}]}}}}));
        assert_eq!(text, "spec.template.spec.containers[1].ports: must be a list, not an object");
        let text = check(json!({"metadata": {"labels": {"a.b/c": 1}}}));
        assert_eq!(text, "metadata.labels.a.b/c: must be a string, not the number 1");
        let text = check(json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1.5}}}}));
        assert_eq!(text, "spec.strategy.rollingUpdate.maxSurge: must be an integer or a string, not the number 1.5");
        assert_eq!(check(json!([])), "must be an object, not a list");
    }

    #[test]
    fn a_lease_needs_six_decimals_and_other_times_take_any() {
        let lease = lookup("coordination.k8s.io", "v1", "Lease").unwrap();
        let mut tree = json!({"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}});
        conform(lease, &mut tree).unwrap();
        let mut tree = json!({"spec": {"renewTime": "2026-01-01T00:00:00Z"}});
        let text = conform(lease, &mut tree).unwrap_err().to_string();
        let shown = "must be a time with six decimals, as \"2026-01-01T00:00:00.000000Z\"";
        assert_eq!(text, format!("spec.renewTime: {shown}, not \"2026-01-01T00:00:00Z\""));
        let mut tree = json!({"metadata": {"creationTimestamp": "yesterday"}});
        let text = conform(lease, &mut tree).unwrap_err().to_string();
        let shown = "must be a time, as \"2026-01-01T00:00:00Z\"";
        assert_eq!(text, format!("metadata.creationTimestamp: {shown}, not \"yesterday\""));
        let mut tree = json!({"metadata": {"deletionTimestamp": "2026-01-01T02:00:00.5+02:00"}});
        conform(lease, &mut tree).unwrap();
        assert_eq!(tree["metadata"]["deletionTimestamp"], "2026-01-01T00:00:00Z");
    }

    #[test]
    fn a_secret_must_hold_base64() {
        let mut tree = json!({"data": {"k": "a!b="}});
        let text = conform(lookup("", "v1", "Secret").unwrap(), &mut tree).unwrap_err().to_string();
        assert_eq!(text, "data.k: must be base64: it is not at byte 1");
    }

    #[test]
    fn kinds_of_knative_keep_zeros_and_opaque_parts() {
        let mut tree = json!({"spec": {"template": {"spec": {
            "containerConcurrency": 0, "affinity": {"x": [null]}, "containers": [{"image": "i", "nope": 1}]}}}});
        let unknown = conform(lookup("serving.knative.dev", "v1", "Service").unwrap(), &mut tree).unwrap();
        assert_eq!(unknown, ["unknown field \"spec.template.spec.containers[0].nope\""]);
        let wanted = json!({"containerConcurrency": 0, "affinity": {"x": [null]}, "containers": [{"image": "i"}]});
        assert_eq!(tree["spec"]["template"]["spec"], wanted);
    }
}
