//! Certificate.

use serde_json::Value;

use super::json;
use crate::field_error::{FieldError, FieldErrors, HERE};

pub(super) fn validate(new: &Value) -> FieldErrors {
    let spec = json::member(new, "spec");
    let mut errors = FieldErrors::none();
    let names: Vec<&str> = json::list(spec, "dnsNames").iter().map(|name| name.as_str().unwrap_or_default()).collect();
    if names.is_empty() {
        errors.push(FieldError::missing(&["dnsNames"]));
    }
    for (at, _) in names.iter().enumerate().filter(|(_, name)| name.is_empty()) {
        errors.also(FieldErrors::from(FieldError::invalid("", HERE)).via_field_index("dnsNames", at));
    }
    if json::text(spec, "secretName").is_empty() {
        errors.push(FieldError::missing(&["secretName"]));
    }
    let domain = json::text(spec, "domain");
    let covers = |name: &&str| *name == domain || name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if !domain.is_empty() && !names.is_empty() && !names.iter().any(covers) {
        // Clients know this explanation as the path.
        let path = "domain must be a suffix of, or match exactly, at least one entry in dnsNames";
        errors.push(FieldError::invalid("domain", path));
    }
    errors.via_field("spec")
}
