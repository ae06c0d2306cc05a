//! Ingress.

use serde_json::Value;

use super::json;
use crate::{
    field_error::{FieldError, FieldErrors, HERE},
    networking::EXTERNAL_IP,
};

pub(super) fn default(new: &mut Value) {
    let rules = new.get_mut("spec").and_then(|spec| spec.get_mut("rules")).and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten() {
        if json::text(rule, "visibility").is_empty() {
            json::set(rule, "visibility", EXTERNAL_IP);
        }
        let paths = rule.get_mut("http").and_then(|http| http.get_mut("paths")).and_then(Value::as_array_mut);
        for path in paths.into_iter().flatten() {
            // The only split takes everything.
            if let Some([split]) = path.get_mut("splits").and_then(Value::as_array_mut).map(Vec::as_mut_slice)
                && json::int(split, "percent") == 0
            {
                json::set(split, "percent", 100);
            }
        }
    }
}

pub(super) fn validate(new: &Value) -> FieldErrors {
    let namespace = json::at(new, &["metadata", "namespace"]).as_str().unwrap_or_default();
    validate_spec(json::member(new, "spec"), namespace).via_field("spec")
}

fn validate_spec(spec: &Value, namespace: &str) -> FieldErrors {
    if json::is_zero(spec) {
        return FieldError::missing(&[HERE]).into();
    }
    let mut errors = FieldErrors::none();
    let rules = json::list(spec, "rules");
    if rules.is_empty() {
        errors.push(FieldError::missing(&["rules"]));
    }
    for (at, rule) in rules.iter().enumerate() {
        errors.also(validate_rule(rule, namespace).via_field_index("rules", at));
    }
    for (at, tls) in json::list(spec, "tls").iter().enumerate() {
        errors.also(validate_tls(tls).via_field_index("tls", at));
    }
    let option = json::text(spec, "httpOption");
    if !matches!(option, "" | "Enabled" | "Redirected") {
        errors.push(FieldError::invalid(option, "httpOption"));
    }
    errors
}

fn validate_rule(rule: &Value, namespace: &str) -> FieldErrors {
    if json::is_zero(rule) {
        return FieldError::missing(&[HERE]).into();
    }
    if !json::has(rule, "http") {
        return FieldError::missing(&["http"]).into();
    }
    let paths = json::list(json::member(rule, "http"), "paths");
    if paths.is_empty() {
        return FieldErrors::from(FieldError::missing(&["paths"])).via_field("http");
    }
    let mut errors = FieldErrors::none();
    for (at, path) in paths.iter().enumerate() {
        errors.also(validate_path(path, namespace).via_field_index("paths", at));
    }
    errors.via_field("http")
}

fn validate_path(path: &Value, namespace: &str) -> FieldErrors {
    if json::is_zero(path) {
        return FieldError::missing(&[HERE]).into();
    }
    let splits = json::list(path, "splits");
    if splits.is_empty() {
        return FieldError::missing(&["splits"]).into();
    }
    let mut total = 0_i64;
    for (at, split) in splits.iter().enumerate() {
        let errors = validate_split(split, namespace);
        if !errors.is_empty() {
            return errors.via_field_index("splits", at);
        }
        total += json::int(split, "percent");
    }
    let is_whole = total == 100 || (splits.len() == 1 && total == 0);
    (!is_whole)
        .then(|| {
            let message = format!("traffic split percentage must total to 100, but was {total}");
            FieldError::new(message, &["splits"])
        })
        .into()
}

fn validate_split(split: &Value, namespace: &str) -> FieldErrors {
    if json::is_zero(split) {
        return FieldError::missing(&[HERE]).into();
    }
    let mut errors = FieldErrors::none();
    let percent = json::int(split, "percent");
    if !(0..=100).contains(&percent) {
        errors.push(FieldError::invalid(percent, "percent"));
    }
    let backend = ["serviceNamespace", "serviceName", "servicePort"];
    if backend.iter().all(|key| json::is_zero(json::member(split, key))) {
        errors.push(FieldError::missing(&[HERE]));
        return errors;
    }
    match json::text(split, "serviceNamespace") {
        "" => errors.push(FieldError::missing(&["serviceNamespace"])),
        other if other != namespace => {
            let message = "service namespace must match ingress namespace";
            errors.push(FieldError::new(message, &["serviceNamespace"]));
        }
        _ => {}
    }
    for key in ["serviceName", "servicePort"] {
        if json::is_zero(json::member(split, key)) {
            errors.push(FieldError::missing(&[key]));
        }
    }
    errors
}

fn validate_tls(tls: &Value) -> FieldErrors {
    if json::is_zero(tls) {
        return FieldError::missing(&[HERE]).into();
    }
    let missing = ["secretName", "secretNamespace"].into_iter().filter(|key| json::text(tls, key).is_empty());
    missing.map(|key| FieldError::missing(&[key])).collect()
}
