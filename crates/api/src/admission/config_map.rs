//! The control plane's own ConfigMaps.

use crate::{
    config::{self, ConfigError, Data, eventing},
    labels::{EVENTING_SYSTEM_NAMESPACE, SYSTEM_NAMESPACE},
};

/// Checks a ConfigMap of a system namespace: its values, and that nobody edited its example by mistake. Maps that
/// are not ours always pass.
///
/// # Errors
/// When it could not be used.
pub fn validate_config_map(namespace: &str, name: &str, data: &Data, annotations: &Data) -> Result<(), ConfigError> {
    let check = match namespace {
        SYSTEM_NAMESPACE if config::NAMES.contains(&name) => config::check,
        EVENTING_SYSTEM_NAMESPACE if eventing::NAMES.contains(&name) => eventing::check,
        _ => return Ok(()),
    };
    if let Some(problem) = config::example_problem(data, annotations) {
        return Err(ConfigError::Rule(problem));
    }
    check(name, data)
}
