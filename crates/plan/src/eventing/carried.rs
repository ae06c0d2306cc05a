//! What the data plane of events is to carry out, and what it does.

use std::sync::Arc;

use knoll_api::{Key, Kind, Resource, conditions::is_true, eventing::Broker};

use super::{api_server_source::SUFFICIENT_PERMISSIONS, broker, integration_source, trigger::broker_of};
use crate::{Carried, World, status::Reporting};

/// Kinds that the data plane of events carries out.
pub const CARRIED_KINDS: [Kind; 9] = [
    Kind::Broker,
    Kind::Trigger,
    Kind::InMemoryChannel,
    Kind::PingSource,
    Kind::ApiServerSource,
    Kind::IntegrationSource,
    Kind::JobSink,
    Kind::IntegrationSink,
    Kind::RequestReply,
];

/// The Broker of this key, if it is there and of the class that is served here.
pub fn served_broker(world: &World, key: &Key) -> Option<Arc<Broker>> {
    world.brokers.get(key).filter(|broker| broker::is_ours(broker))
}

/// What the data plane is to carry out of an object, by what the object's status says; nothing when it is none of the data
/// plane's, or not yet, or no more. A Trigger is carried out from when its Broker is there, whether or not its subscriber
/// has an address: events are kept for it until then.
///
/// Whoever carries objects out tells so by [`crate::Observation::Carries`], with what this returned.
pub fn to_carry(world: &World, kind: Kind, key: &Key) -> Option<Carried> {
    match kind {
        Kind::Broker => {
            let broker = served_broker(world, key)?;
            of(broker.as_ref(), broker.status.address.address.is_some())
        }
        Kind::Trigger => {
            let trigger = world.triggers.get(key)?;
            let broker = served_broker(world, &broker_of(world, &trigger));
            of(trigger.as_ref(), broker.is_some())
        }
        Kind::InMemoryChannel => {
            let channel = world.in_memory_channels.get(key)?;
            of(channel.as_ref(), channel.status.address.address.is_some())
        }
        Kind::PingSource => {
            let source = world.ping_sources.get(key)?;
            of(source.as_ref(), source.status.sink_uri.is_some())
        }
        Kind::ApiServerSource => {
            let source = world.api_server_sources.get(key)?;
            let may = source.condition(SUFFICIENT_PERMISSIONS).is_some_and(is_true);
            of(source.as_ref(), may && source.status.source.sink_uri.is_some())
        }
        Kind::IntegrationSource => {
            let source = world.integration_sources.get(key)?;
            of(source.as_ref(), integration_source::is_ours(&source) && source.status.sink_uri.is_some())
        }
        Kind::JobSink => {
            let sink = world.job_sinks.get(key)?;
            of(sink.as_ref(), sink.spec.job.is_some() && sink.status.address.address.is_some())
        }
        Kind::IntegrationSink => {
            let sink = world.integration_sinks.get(key)?;
            let is_log = sink.spec.log.is_some() && sink.spec.aws.is_none();
            of(sink.as_ref(), is_log && sink.status.address.address.is_some())
        }
        Kind::RequestReply => {
            let replies = world.request_replies.get(key)?;
            of(replies.as_ref(), replies.status.address.address.is_some())
        }
        _ => None,
    }
}

/// The generation that the status speaks of, where there is one.
fn of<R: Reporting>(object: &R, is_due: bool) -> Option<Carried> {
    let generation = object.common().observed_generation.filter(|_| is_due && !object.is_deleting())?;
    Some(Carried { uid: object.uid().to_owned(), generation, problem: None })
}

/// The newest generation of an object that the data plane carries out; nothing while it carries out none.
pub(super) fn carried<R: Resource>(world: &World, object: &R) -> Option<i64> {
    let carried = world.observed.carried.get(&(R::KIND, object.key()))?;
    (carried.uid == object.uid() && carried.problem.is_none()).then_some(carried.generation)
}

/// Why the data plane does not carry out the newest generation of an object, where it says so.
pub(super) fn problem<'w, R: Resource>(world: &'w World, object: &R) -> Option<&'w str> {
    let carried = world.observed.carried.get(&(R::KIND, object.key()))?;
    let is_newest = carried.generation >= object.meta().generation.unwrap_or_default();
    carried.problem.as_deref().filter(|_| is_newest && carried.uid == object.uid())
}

/// Whether the data plane carries out the newest generation of an object.
pub(super) fn is_carried<R: Resource>(world: &World, object: &R) -> bool {
    carried(world, object).is_some_and(|generation| generation >= object.meta().generation.unwrap_or_default())
}
