//! The control plane's own ConfigMaps.

use crate::config::{self, ConfigError, Data};

/// Checks a ConfigMap of the system namespace: its values, and that nobody edited its example by mistake. Maps that
/// are not ours always pass.
///
/// # Errors
/// When it could not be used.
pub fn validate_config_map(name: &str, data: &Data, annotations: &Data) -> Result<(), ConfigError> {
    if !config::NAMES.contains(&name) {
        return Ok(());
    }
    if let Some(problem) = config::example_problem(data, annotations) {
        return Err(ConfigError::Rule(problem));
    }
    config::check(name, data)
}
