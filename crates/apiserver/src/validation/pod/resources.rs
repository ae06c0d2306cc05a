//! Requests and limits.

use knoll_api::quantity::Quantity;
use serde_json::Value;

use crate::{object, status::Cause, validation::names};

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What may be requested without a domain.
fn is_native(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

/// A map of amounts.
pub(super) fn amounts(amounts: &Value, field: &str, causes: &mut Vec<Cause>) {
    for (name, amount) in amounts.as_object().into_iter().flatten() {
        let path = format!("{field}[{name}]");
        if let Err(why) = names::key(name) {
            causes.push(Cause::invalid(&path, &name.as_str().into(), &why));
        } else if !name.contains('/') && !is_native(name) {
            let why = "must be a standard resource type or fully qualified";
            causes.push(Cause::invalid(&path, &name.as_str().into(), why));
        }
        match Quantity::parse(&text(amount)) {
            Err(error) => causes.push(Cause::invalid(path, &text(amount).into(), &error.to_string())),
            Ok(parsed) if parsed < Quantity::ZERO => {
                causes.push(Cause::invalid(path, &text(amount).into(), "must be greater than or equal to 0"));
            }
            Ok(parsed) if name.contains('/') && parsed.milli() % 1000 != 0 => {
                causes.push(Cause::invalid(path, &text(amount).into(), "must be an integer"));
            }
            Ok(_) => {}
        }
    }
}

/// What is requested is within what is allowed.
pub(super) fn check(resources: &Value, field: &str, causes: &mut Vec<Cause>) {
    amounts(&resources["limits"], &format!("{field}.limits"), causes);
    amounts(&resources["requests"], &format!("{field}.requests"), causes);
    for (name, request) in resources["requests"].as_object().into_iter().flatten() {
        let limit = resources["limits"].get(name);
        let Some(limit) = limit else {
            if name.contains('/') {
                let why = "Limit must be set for non overcommitable resources";
                causes.push(Cause::required(format!("{field}.limits"), why));
            }
            continue;
        };
        let (Ok(wanted), Ok(most)) = (Quantity::parse(&text(request)), Quantity::parse(&text(limit))) else { continue };
        let why = if name.contains('/') && wanted != most {
            format!("must be equal to {name} limit of {}", text(limit))
        } else if wanted > most {
            format!("must be less than or equal to {name} limit of {}", text(limit))
        } else {
            continue;
        };
        causes.push(Cause::invalid(format!("{field}.requests"), &text(request).into(), &why));
    }
    for (at, claim) in object::list(resources, "/claims").iter().enumerate() {
        let name = object::name_of(claim);
        causes.push(Cause::not_found(format!("{field}.claims[{at}]"), &name.into()));
    }
}
