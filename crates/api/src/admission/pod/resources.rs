//! Requests and limits. Kubernetes would refuse the pods, long after the revision was accepted; so the revision is
//! refused, in its words.

use serde_json::Value;

use super::json;
use crate::{
    field_error::{FieldError, FieldErrors},
    quantity::Quantity,
};

fn text(amount: &Value) -> String {
    amount.as_str().map_or_else(|| amount.to_string(), str::to_owned)
}

/// Checks that amounts are none below zero, and that no more is requested than allowed.
pub(super) fn validate(resources: &Value) -> FieldErrors {
    let mut errors = FieldErrors::none();
    for list in ["requests", "limits"] {
        for (name, amount) in json::member(resources, list).as_object().into_iter().flatten() {
            if Quantity::parse(&text(amount)).is_ok_and(|amount| amount < Quantity::ZERO) {
                let message = format!("Invalid value: {:?}: must be greater than or equal to 0", text(amount));
                errors.push(FieldError::new(message, &[&format!("{list}[{name}]")]));
            }
        }
    }
    let limits = json::member(resources, "limits");
    for (name, request) in json::member(resources, "requests").as_object().into_iter().flatten() {
        let Some(limit) = limits.get(name) else { continue };
        let (Ok(wanted), Ok(most)) = (Quantity::parse(&text(request)), Quantity::parse(&text(limit))) else { continue };
        if wanted > most {
            let message = format!(
                "Invalid value: {:?}: must be less than or equal to {name} limit of {}",
                text(request),
                text(limit)
            );
            errors.push(FieldError::new(message, &["requests"]));
        }
    }
    errors
}
