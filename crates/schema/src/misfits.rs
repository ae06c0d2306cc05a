//! Values of the wrong JSON type, told by their path: in the words of a CustomResourceDefinition's schema.

use serde_json::Value;

use crate::{
    crd::{Problem, Reason},
    limits::{FINDINGS, shortened},
    path::{Path, Step},
    ty::{Shape, Type},
};

/// The values whose JSON type is not the one of their field, in the order met; at most
/// [`FINDINGS`](crate::limits::FINDINGS).
pub fn misfits(ty: &Type, value: &Value) -> Vec<Problem> {
    let mut found = Vec::new();
    step(ty, value, &mut Path::default(), &mut found);
    found
}

fn step<'a>(ty: &'a Type, value: &'a Value, path: &mut Path<'a>, found: &mut Vec<Problem>) {
    if found.len() >= FINDINGS {
        return;
    }
    match (&ty.shape, value) {
        (Shape::Object(object), Value::Object(entries)) => {
            for (name, inner) in entries {
                let Some(field) = object.field(name).filter(|_| !inner.is_null()) else { continue };
                path.push(Step::Field(name));
                step(&field.ty, inner, path, found);
                path.pop();
            }
        }
        (Shape::Map(map), Value::Object(entries)) => {
            for (name, inner) in entries {
                path.push(Step::Field(name));
                step(&map.values, inner, path, found);
                path.pop();
            }
        }
        (Shape::List(list), Value::Array(items)) => {
            for (at, inner) in items.iter().enumerate() {
                path.push(Step::Item(at));
                step(&list.items, inner, path, found);
                path.pop();
            }
        }
        (shape, value) => {
            if let Some(wanted) = wanted(shape).filter(|wanted| !fits(wanted, value)) {
                found.push(problem(&path.to_string(), wanted, value));
            }
        }
    }
}

fn problem(path: &str, wanted: &str, value: &Value) -> Problem {
    let is = json_type(value);
    let field = if path.is_empty() { "<nil>".to_owned() } else { shortened(path.to_owned()) };
    let message = format!("Invalid value: \"{is}\": {path} in body must be of type {wanted}: \"{is}\"");
    Problem { field, reason: Reason::TypeInvalid, message: shortened(message) }
}

/// The JSON type a field wants, where it wants one.
fn wanted(shape: &Shape) -> Option<&'static str> {
    Some(match shape {
        Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime | Shape::Duration => "string",
        Shape::Int32 | Shape::Int64 => "integer",
        Shape::Double => "number",
        Shape::Bool => "boolean",
        Shape::IntOrString => "integer,string",
        Shape::Quantity => "number,string",
        Shape::FieldsV1 | Shape::Object(_) | Shape::Map(_) => "object",
        Shape::List(_) => "array",
        Shape::Any | Shape::Raw | Shape::Json => return None,
        Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings => return None,
    })
}

fn fits(wanted: &str, value: &Value) -> bool {
    let is = json_type(value);
    // Where null may stand at all, it stands for the zero value.
    is == "null" || wanted.split(',').any(|wanted| wanted == is || (wanted == "number" && is == "integer"))
}

/// The JSON type of a value, as schemas name it.
pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lookup;

    #[test]
    fn a_value_of_the_wrong_type_is_told_by_its_path() {
        let service = lookup("serving.knative.dev", "v1", "Service").unwrap();
        let tree = json!({"spec": {"template": {
            "metadata": {"annotations": {"autoscaling.knative.dev/min-scale": 1}},
            "spec": {"containers": [{"image": "i", "env": [{"name": "N", "value": 5}], "args": {}}], "timeoutSeconds": "x"},
        }}});
        let told: Vec<String> = misfits(service, &tree).iter().map(ToString::to_string).collect();
        let at = "spec.template.metadata.annotations.autoscaling.knative.dev/min-scale";
        assert_eq!(
            told,
            [
                format!("{at}: Invalid value: \"integer\": {at} in body must be of type string: \"integer\""),
                r#"spec.template.spec.containers[0].args: Invalid value: "object": spec.template.spec.containers[0].args in body must be of type array: "object""#.to_owned(),
                r#"spec.template.spec.containers[0].env[0].value: Invalid value: "integer": spec.template.spec.containers[0].env[0].value in body must be of type string: "integer""#.to_owned(),
                r#"spec.template.spec.timeoutSeconds: Invalid value: "string": spec.template.spec.timeoutSeconds in body must be of type integer: "string""#.to_owned(),
            ]
        );
        let fine = json!({"spec": {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": 1}}}]}}}});
        assert_eq!(misfits(service, &fine), []);
    }
}
