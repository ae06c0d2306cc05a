//! Eventing: from Brokers, channels, flows and sources as users write them to what the data plane of events carries out,
//! and back to what their status says of it.
//!
//! Upstream runs Deployments behind these kinds and reports from their endpoints. Here the data plane is part of this
//! program: it tells which objects it carries out ([`crate::Carried`]), and conditions that upstream takes from endpoints
//! say that.

mod addresses;
mod alias;
mod api_server_source;
mod backing_policies;
mod broker;
mod carried;
mod channel;
mod channelable;
mod container_source;
mod destination;
pub mod event_job;
mod event_policy;
pub mod event_transform;
mod event_type;
#[cfg(test)]
mod fixture;
mod flow;
pub mod graph;
mod identity;
mod in_memory_channel;
mod integration_sink;
mod integration_source;
mod job_sink;
mod parallel;
mod ping_source;
mod policies;
mod request_reply;
mod sequence;
mod sink_binding;
mod source;
mod source_event_types;
mod subscribers;
mod subscribers_elsewhere;
mod subscription;
mod sugar;
mod terms;
mod token_secret;
mod trigger;
mod trust_bundles;
mod uri;

use knoll_api::{
    Timestamp,
    conditions::{is_false, is_true},
    duck::{DeliverySpec, DeliveryStatus, Destination},
    status::{Addressable, Condition},
};

use crate::{Row, World, status::Reporting};

pub use carried::{CARRIED_KINDS, served_broker, to_carry};
use carried::{carried, hindrance, is_carried};
pub use identity::sender_account;
pub(crate) use sink_binding::NAME as SINK_BINDING;
pub use subscribers::subscriptions;
pub use token_secret::TokenSecret;
pub use trigger::broker_of;

const DEAD_LETTER_SINK_RESOLVED: &str = "DeadLetterSinkResolved";
const ADDRESSABLE: &str = "Addressable";

/// Every controller of this module.
pub(crate) fn rows() -> Vec<Row> {
    vec![
        broker::ROW,
        trigger::ROW,
        sugar::NAMESPACES,
        sugar::TRIGGERS,
        in_memory_channel::ROW,
        channel::ROW,
        subscription::ROW,
        sequence::ROW,
        parallel::ROW,
        ping_source::ROW,
        sink_binding::ROW,
        container_source::ROW,
        api_server_source::ROW,
        integration_source::ROW,
        job_sink::ROW,
        integration_sink::ROW,
        event_transform::ROW,
        request_reply::ROW,
        source_event_types::PING,
        source_event_types::API_SERVER,
        event_policy::ROW,
        event_type::ROW,
    ]
}

/// Says why there is nothing more to do for now; the status has been written.
struct Stopped;

/// Says of an object what the condition of another says of that; `unknown` is reason and message while it says nothing.
fn follow<R: Reporting>(next: &mut R, type_: &str, ready: Option<&Condition>, unknown: (&str, &str), now: Timestamp) {
    let mut conditions = next.conditions(now);
    match ready {
        None => conditions.mark_unknown(type_, unknown.0, unknown.1),
        Some(ready) if is_true(ready) => conditions.mark_true(type_),
        Some(ready) if is_false(ready) => conditions.mark_false(type_, &ready.reason, &ready.message),
        Some(ready) => conditions.mark_unknown(type_, &ready.reason, &ready.message),
    };
}

/// The dead letter sink that a delivery names.
fn dead_letter_sink(delivery: Option<&DeliverySpec>) -> Option<&Destination> {
    delivery?.dead_letter_sink.as_ref()
}

/// Where dead letters go, as a status says it.
fn dead_letters_to(address: Addressable) -> DeliveryStatus {
    DeliveryStatus {
        dead_letter_sink_uri: address.url,
        dead_letter_sink_ca_certs: address.ca_certs,
        dead_letter_sink_audience: address.audience,
    }
}

/// Finds where an object's own dead letters go, and says how that went; `reason` is that of a failure.
///
/// # Errors
/// When the sink has no address; the status says so.
fn settle_dead_letters<R: Reporting>(
    world: &World,
    next: &mut R,
    delivery: Option<&DeliverySpec>,
    now: Timestamp,
    reason: &str,
    status: fn(&mut R) -> &mut DeliveryStatus,
) -> Result<(), Stopped> {
    *status(next) = DeliveryStatus::default();
    let Some(sink) = dead_letter_sink(delivery) else {
        dead_letters_not_configured(next, now);
        return Ok(());
    };
    match destination::resolve(world, sink, next.namespace()) {
        Ok(address) => {
            *status(next) = dead_letters_to(address);
            next.conditions(now).mark_true(DEAD_LETTER_SINK_RESOLVED);
            Ok(())
        }
        Err(why) => {
            next.conditions(now).mark_false(DEAD_LETTER_SINK_RESOLVED, reason, &why);
            Err(Stopped)
        }
    }
}

fn dead_letters_not_configured<R: Reporting>(next: &mut R, now: Timestamp) {
    next.conditions(now).mark_true_with_reason(
        DEAD_LETTER_SINK_RESOLVED,
        "DeadLetterSinkNotConfigured",
        "No dead letter sink is configured.",
    );
}
