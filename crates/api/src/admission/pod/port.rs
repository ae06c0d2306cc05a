//! Ports of containers.

use serde_json::Value;

use super::{ContainerType, json, mask};
use crate::field_error::{FieldError, FieldErrors, HERE};

/// Ports that the platform listens on in every pod.
const RESERVED: [i64; 6] = [8008, 8012, 8013, 8022, 9090, 9091];

/// The port that requests come to.
pub(super) struct Serving {
    pub(super) name: String,
}

/// The serving port of several containers.
pub(super) fn serving(containers: &[Value]) -> Serving {
    let port = containers.iter().rev().find_map(|container| json::list(container, "ports").first());
    let name = port.map(|port| json::text(port, "name")).filter(|name| !name.is_empty());
    Serving { name: name.unwrap_or("http").to_owned() }
}

/// Checks that there is one serving port.
pub(super) fn validate_count(containers: &[Value]) -> Option<FieldError> {
    match containers.iter().map(|container| json::list(container, "ports").len()).sum::<usize>() {
        0 if containers.len() > 1 => Some(FieldError::missing(&["ports"])),
        0 | 1 => None,
        _ => Some(
            FieldError::new("more than one container port is set", &["ports"])
                .with_details("Only a single port is allowed across all containers"),
        ),
    }
}

/// Checks the ports of one container.
pub(super) fn validate(ports: &[Value], kind: ContainerType) -> FieldErrors {
    let mut errors = FieldErrors::none();
    if kind == ContainerType::Init {
        ports.iter().for_each(|port| errors.also(validate_number(port)));
        return errors;
    }
    let Some(port) = ports.first() else { return errors };
    errors.also(validate_number(port));
    let protocol = json::text(port, "protocol");
    if !matches!(protocol, "" | "TCP") {
        errors.push(FieldError::invalid(protocol, "protocol"));
    }
    let name = json::text(port, "name");
    if !matches!(name, "" | "h2c" | "http1") {
        errors.push(
            FieldError::new(format!("Port name {name} is not allowed"), &[HERE])
                .with_details("Name must be empty, or one of: 'h2c', 'http1'"),
        );
    }
    errors
}

fn validate_number(port: &Value) -> FieldErrors {
    let mut errors = mask::port(port);
    let number = json::int(port, "containerPort");
    if RESERVED.contains(&number) {
        let error = FieldError::invalid(format!("{number} is a reserved port"), "containerPort");
        errors.push(error.with_details(format!("{number} is a reserved port, please use a different value")));
    }
    if !(0..=65535).contains(&number) {
        errors.push(FieldError::out_of_bounds(number, 0, 65535, "containerPort"));
    }
    errors
}
