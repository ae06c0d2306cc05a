//! What the API server does to an object of a Knative kind before it is stored: fill in, then check.
//!
//! Both work on the JSON tree. Filling in touches only the fields it has to, so that nothing the client sent gets lost
//! and nothing appears that nobody asked for; doing it twice changes nothing more. Checking speaks in the words that
//! Knative's clients and tests know.

mod annotations;
mod certificate;
mod config_map;
mod configuration;
mod diff;
mod domain_mapping;
mod ingress;
mod json;
mod metadata;
mod metric;
mod object_reference;
mod pod;
mod pod_autoscaler;
mod revision;
mod revision_defaults;
mod route;
mod serverless_service;
mod service;
mod template;
#[cfg(test)]
mod tests;
mod traffic;

use serde_json::Value;

pub use config_map::validate_config_map;

use crate::{
    Kind, Timestamp,
    config::ConfigBundle,
    field_error::{FieldError, FieldErrors, Severity},
};

/// What is being done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is new.
    Create,
    /// Its metadata or spec may change.
    Update,
    /// Only its status may change.
    UpdateStatus,
}

/// What filling in and checking depend on besides the object.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Configuration in force.
    pub config: &'a ConfigBundle,
    /// Who asks.
    pub user: &'a str,
    /// When.
    pub now: Timestamp,
}

/// Fills in what `new` leaves open. `old` is the stored object on updates. Kinds without defaults and writes of status
/// are left alone; so is whatever has a type it should not have, for the schema to refuse.
pub fn default(kind: Kind, operation: Operation, new: &mut Value, old: Option<&Value>, context: &Context<'_>) {
    if operation == Operation::UpdateStatus {
        return;
    }
    let old = old.filter(|_| operation == Operation::Update);
    match kind {
        Kind::Service => service::default(operation, new, old, context),
        Kind::Configuration => configuration::default(operation, new, old, context),
        Kind::Revision => revision::default(operation, new, context),
        Kind::Route => route::default(operation, new, old, context),
        Kind::DomainMapping => domain_mapping::default(operation, new, old, context),
        Kind::PodAutoscaler => pod_autoscaler::default(new, context),
        Kind::Ingress => ingress::default(new),
        _ => {}
    }
}

/// Checks `new`, which has been filled in. `old` is the stored object on updates. Returns the problems that block and
/// the ones that are only told. Kinds that only the schema checks, and writes of status, always pass.
pub fn validate(
    kind: Kind,
    operation: Operation,
    new: &Value,
    old: Option<&Value>,
    context: &Context<'_>,
) -> (FieldErrors, FieldErrors) {
    if operation == Operation::UpdateStatus {
        return Default::default();
    }
    let old = old.filter(|_| operation == Operation::Update);
    let found = match kind {
        Kind::Service => service::validate(new, old, context),
        Kind::Configuration => configuration::validate(new, old, context),
        Kind::Revision => revision::validate(new, old, context),
        Kind::Route => route::validate(new, old),
        Kind::DomainMapping => domain_mapping::validate(new, old),
        Kind::PodAutoscaler => pod_autoscaler::validate(new, context),
        Kind::Metric => metric::validate(new, context),
        Kind::Ingress => ingress::validate(new),
        Kind::ServerlessService => serverless_service::validate(new),
        Kind::Certificate => certificate::validate(new),
        _ => FieldErrors::none(),
    };
    (found.at(Severity::Error), found.at(Severity::Warning))
}

/// The message of the 400 that refuses an object with these problems.
pub fn denial(errors: &FieldErrors) -> String {
    format!(
        "admission webhook \"validation.webhook.serving.knative.dev\" denied the request: validation failed: {errors}"
    )
}

/// The message of the 400 that refuses a dry run, because the pod would be refused with `why`.
pub fn rehearsal_denial(why: &str) -> String {
    let error = FieldError::new(format!("dry run failed with {why}"), &["spec.template"]);
    format!(
        "admission webhook \"validation.webhook.serving.knative.dev\" denied the request: validation callback failed: \
         {}",
        FieldErrors::from(error)
    )
}

/// The message of the 400 that refuses a ConfigMap.
pub fn config_map_denial(error: &crate::config::ConfigError) -> String {
    format!("admission webhook \"config.webhook.serving.knative.dev\" denied the request: validation failed: {error}")
}
