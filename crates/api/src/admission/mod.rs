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
mod eventing;
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
    config::{ConfigBundle, eventing::EventingBundle},
    field_error::{FieldError, FieldErrors, Severity},
    labels::EVENTING_SYSTEM_NAMESPACE,
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
    /// Serving's configuration in force.
    pub config: &'a ConfigBundle,
    /// Eventing's configuration in force.
    pub eventing: &'a EventingBundle,
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
        Kind::Broker => eventing::broker::default(new, context),
        Kind::Trigger => eventing::trigger::default(new, context),
        Kind::EventPolicy => eventing::event_policy::default(new),
        Kind::EventType => eventing::event_type::default(new),
        Kind::RequestReply => eventing::request_reply::default(new, context),
        Kind::Channel => eventing::channel::default(new, context),
        Kind::InMemoryChannel => eventing::in_memory_channel::default(new),
        Kind::Subscription => eventing::subscription::default(new),
        Kind::Sequence => eventing::sequence::default(new, context),
        Kind::Parallel => eventing::parallel::default(new, context),
        Kind::ApiServerSource => eventing::api_server_source::default(new),
        Kind::ContainerSource => eventing::container_source::default(new),
        Kind::PingSource => eventing::ping_source::default(new),
        Kind::SinkBinding => eventing::sink_binding::default(new),
        Kind::IntegrationSource => eventing::integration_source::default(new),
        Kind::JobSink => eventing::job_sink::default(new),
        Kind::IntegrationSink => eventing::integration_sink::default(new),
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
        Kind::Broker => eventing::broker::validate(new, old, context),
        Kind::Trigger => eventing::trigger::validate(new, old, context),
        Kind::EventPolicy => eventing::event_policy::validate(operation, new, context),
        Kind::EventTransform => eventing::event_transform::validate(new, old, context),
        Kind::EventType => eventing::event_type::validate(new),
        Kind::RequestReply => eventing::request_reply::validate(new, context),
        Kind::Channel => eventing::channel::validate(new, old, context),
        Kind::InMemoryChannel => eventing::in_memory_channel::validate(new, old, context),
        Kind::Subscription => eventing::subscription::validate(new, old, context),
        Kind::Sequence => eventing::sequence::validate(new, context),
        Kind::Parallel => eventing::parallel::validate(new, context),
        Kind::ApiServerSource => eventing::api_server_source::validate(new, context),
        Kind::ContainerSource => eventing::container_source::validate(new, context),
        Kind::PingSource => eventing::ping_source::validate(new, context),
        Kind::SinkBinding => eventing::sink_binding::validate(new, context),
        Kind::IntegrationSource => eventing::integration_source::validate(new, context),
        Kind::JobSink => eventing::job_sink::validate(new),
        Kind::IntegrationSink => eventing::integration_sink::validate(new),
        _ => FieldErrors::none(),
    };
    (found.at(Severity::Error), found.at(Severity::Warning))
}

/// The webhook that checks a kind on a cluster; refusals speak in its name.
fn webhook(kind: Kind) -> &'static str {
    match kind {
        Kind::InMemoryChannel => "validation.inmemorychannel.eventing.knative.dev",
        _ if is_eventing(kind) => "validation.webhook.eventing.knative.dev",
        _ => "validation.webhook.serving.knative.dev",
    }
}

/// Whether a kind is one of Eventing's.
pub fn is_eventing(kind: Kind) -> bool {
    const GROUPS: [&str; 5] = [
        "eventing.knative.dev",
        "messaging.knative.dev",
        "flows.knative.dev",
        "sources.knative.dev",
        "sinks.knative.dev",
    ];
    GROUPS.contains(&kind.group())
}

/// The message of the 400 that refuses an object with these problems.
pub fn denial(kind: Kind, errors: &FieldErrors) -> String {
    format!("admission webhook \"{}\" denied the request: validation failed: {errors}", webhook(kind))
}

/// The message of the 400 that refuses a Service's dry run, because the pod would be refused with `why`.
pub fn rehearsal_denial(why: &str) -> String {
    let error = FieldError::new(format!("dry run failed with {why}"), &["spec.template"]);
    format!(
        "admission webhook \"{}\" denied the request: validation callback failed: {}",
        webhook(Kind::Service),
        FieldErrors::from(error)
    )
}

/// The message of the 400 that refuses a ConfigMap of a system namespace.
pub fn config_map_denial(namespace: &str, error: &crate::config::ConfigError) -> String {
    let of = if namespace == EVENTING_SYSTEM_NAMESPACE { "eventing" } else { "serving" };
    format!("admission webhook \"config.webhook.{of}.knative.dev\" denied the request: validation failed: {error}")
}
