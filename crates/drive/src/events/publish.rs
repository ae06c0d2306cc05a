//! Keeps the snapshot that the data plane of events acts on, and says what it carries out once it does.
//!
//! A change costs its own object and its broker or channel; what comes together is handed over together, up to a bound, so
//! that what concerns everything does not hold up the loop. A panic costs the object it happened at, of which the snapshot
//! keeps what it had.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    sync::Arc,
};

use knoll_api::{Key, Kind, Resource, duck::AppliedEventPoliciesStatus};
use knoll_broker::{
    Topology,
    topology::{self, Addressable, JobSink, LogSink, Name, RequestReply, Subscription},
};
use knoll_plan::{Carried, Changed, Observation, SystemConfig, World, broker_of, served_broker, to_carry};
use tokio::time::Instant;

use super::{
    EventLinks,
    translate::{self, Head},
    transport,
};
use crate::{
    counters::{Counters, count},
    pace::Pace,
};

/// Kinds that snapshots are made of.
pub(crate) const KINDS: [Kind; 7] = [
    Kind::Broker,
    Kind::Trigger,
    Kind::InMemoryChannel,
    Kind::RequestReply,
    Kind::JobSink,
    Kind::IntegrationSink,
    Kind::EventPolicy,
];
/// Those that snapshots hold.
const HELD: [Kind; 6] =
    [Kind::Broker, Kind::Trigger, Kind::InMemoryChannel, Kind::RequestReply, Kind::JobSink, Kind::IntegrationSink];

/// Objects looked at for one snapshot after the first, which is of all there is.
const TOGETHER: usize = 64;
/// The ConfigMap whose features snapshots depend on.
const FEATURES: &str = "config-features";

type Object = (Kind, Key);
/// What is to be told of objects.
type Told = BTreeMap<Object, Option<Carried>>;

/// A subscription as it was last translated, with the generation of the object that it is of.
struct Known {
    subscription: Subscription,
    generation: i64,
}

/// A broker or channel. The Triggers of a broker are known whether it is there or not.
#[derive(Default)]
struct Entry {
    head: Option<Head>,
    /// By Trigger; those of a channel by their uids.
    subscriptions: BTreeMap<Key, Known>,
    /// Put together of both; nothing while it is not there or has to be put together anew.
    made: Option<Addressable>,
    /// What the data plane was handed and does not act on yet, with what the World is told once it does.
    handed: Option<(Arc<Addressable>, Told)>,
}

/// See the module.
pub(crate) struct EventPublisher {
    links: EventLinks,
    topology: Option<Topology>,
    entries: BTreeMap<Name, Entry>,
    /// The broker of each Trigger.
    brokers: BTreeMap<Key, Name>,
    /// What changed, and what is looked at again beside that because the configuration changed.
    touched: BTreeSet<Object>,
    again: BTreeSet<Object>,
    /// What could not be looked at the last time.
    panicked: BTreeSet<Object>,
    /// Whether the newest snapshot says otherwise than it should whether it is complete.
    is_stale: bool,
    pace: Pace,
    counters: Arc<Counters>,
}

/// What came of looking at objects.
#[derive(Default)]
struct Looked {
    /// Brokers and channels that are not as they were.
    different: BTreeSet<Name>,
    /// What is to be told, by the broker or channel that has to be acted on first.
    told: BTreeMap<Name, Told>,
    /// What nobody has to take on first: whoever has the snapshot acts on it.
    alone: Vec<(Key, Alone)>,
    /// What is to be told once there is the snapshot.
    told_at_once: Told,
}

/// An object that has no events of its own, as it is, or nothing when it is gone.
enum Alone {
    RequestReply(Option<RequestReply>),
    JobSink(Option<JobSink>),
    LogSink(Option<LogSink>),
}

impl EventPublisher {
    pub(crate) fn new(links: EventLinks, counters: Arc<Counters>) -> Self {
        Self {
            links,
            topology: None,
            entries: BTreeMap::new(),
            brokers: BTreeMap::new(),
            touched: BTreeSet::new(),
            again: BTreeSet::new(),
            panicked: BTreeSet::new(),
            is_stale: false,
            pace: Pace::new(),
            counters,
        }
    }

    /// Notes a change that the World holds already.
    pub(crate) fn changed(&mut self, change: &Changed, world: &World) {
        if self.topology.is_none() {
            return;
        }
        transport::changed(&self.links.transport, world, change);
        match change {
            Changed::Object { before, after } => {
                match after.as_ref().or(before.as_ref()).map(|object| (object.kind(), object.key())) {
                    Some((Kind::EventPolicy, policy)) => self.policy_changed(world, &policy),
                    Some((kind, key)) if HELD.contains(&kind) => drop(self.touched.insert((kind, key))),
                    _ => {}
                }
            }
            // Which broker a Trigger may name is a feature, and so is who may send, and how.
            Changed::Config(SystemConfig::Eventing(FEATURES)) => {
                self.links.event_types.switch(world.eventing.features.event_type_auto_create.is_enabled());
                transport::tell(&self.links.transport, world);
                self.again = all(world).collect();
            }
            Changed::Config(_)
            | Changed::Observed(..)
            | Changed::Duck(..)
            | Changed::Untyped { .. }
            | Changed::Known(_) => {}
        }
    }

    /// Looks again at whom a policy speaks of, which is at most what its namespace holds.
    fn policy_changed(&mut self, world: &World, policy: &Key) {
        let named = |applied: &AppliedEventPoliciesStatus| applied.policies.iter().any(|one| one.name == policy.name);
        let brokers = world.brokers.in_namespace(&policy.namespace).filter(|broker| named(&broker.status.policies));
        self.touched.extend(brokers.map(|broker| (Kind::Broker, broker.key())));
        let channels = world.in_memory_channels.in_namespace(&policy.namespace);
        let channels = channels.filter(|channel| named(&channel.status.policies));
        self.touched.extend(channels.map(|channel| (Kind::InMemoryChannel, channel.key())));
        let sinks = world.job_sinks.in_namespace(&policy.namespace).filter(|sink| named(&sink.status.policies));
        self.touched.extend(sinks.map(|sink| (Kind::JobSink, sink.key())));
        let sinks = world.integration_sinks.in_namespace(&policy.namespace).filter(|sink| named(&sink.status.policies));
        self.touched.extend(sinks.map(|sink| (Kind::IntegrationSink, sink.key())));
    }

    /// When [`EventPublisher::publish`] has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        let is_behind = !self.touched.is_empty() || !self.again.is_empty() || self.is_stale || self.topology.is_none();
        is_behind.then(|| self.pace.next())
    }

    /// Hands over what changed, if it is time, and says what needs nobody's doing. The first time is once every kind was
    /// listed: what is not in a complete snapshot is deleted.
    pub(crate) fn publish(&mut self, world: &World, now: Instant) -> Option<Observation> {
        self.is_stale = self.topology.as_ref().is_some_and(|last| last.is_complete() != self.knows_all(world));
        self.due().filter(|_| self.pace.is_due(now))?;
        let begun = Instant::now();
        let is_first = self.topology.is_none();
        if is_first {
            self.links.event_types.switch(world.eventing.features.event_type_auto_create.is_enabled());
            transport::tell(&self.links.transport, world);
            self.touched = all(world).collect();
        }
        let mut looked = Looked::default();
        for object in self.next_few(if is_first { usize::MAX } else { TOGETHER }) {
            self.look_safely(world, object, &mut looked);
        }
        let told = self.hand_over(looked, self.knows_all(world));
        self.is_stale = false;
        self.pace.handed_over(now, begun.elapsed());
        (!told.is_empty()).then_some(Observation::Carries(told))
    }

    /// Takes what is to be looked at next: what changed first.
    fn next_few(&mut self, most: usize) -> Vec<Object> {
        let (touched, again) = (&mut self.touched, &mut self.again);
        std::iter::from_fn(|| touched.pop_first().or_else(|| again.pop_first())).take(most).collect()
    }

    /// Whether a snapshot misses nothing that is there: what cannot be read or looked at is not gone.
    fn knows_all(&self, world: &World) -> bool {
        let features = Key::new(&world.settings.eventing_namespace, FEATURES);
        let knows_features =
            !world.is_unreadable(Kind::ConfigMap, &features) && !world.eventing.errors.contains_key(FEATURES);
        self.panicked.is_empty() && knows_features && !HELD.iter().any(|kind| world.has_unreadable(*kind))
    }

    /// What is carried out, now that the data plane acts on these.
    pub(crate) fn adopted(&mut self, addressables: &[Arc<Addressable>]) -> Option<Observation> {
        let mut told = Told::new();
        for addressable in addressables {
            let Some(entry) = self.entries.get_mut(addressable.name()) else { continue };
            if let Some((_, due)) = entry.handed.take_if(|(handed, _)| Arc::ptr_eq(handed, addressable)) {
                told.extend(due);
            }
        }
        (!told.is_empty()).then_some(Observation::Carries(told))
    }

    fn look_safely(&mut self, world: &World, object: Object, looked: &mut Looked) {
        let (kind, key) = (object.0, &object.1);
        match knoll_faults::catch(|| self.look(world, kind, key, looked)) {
            Ok(()) => drop(self.panicked.remove(&object)),
            Err(panic) => {
                count(&self.counters.plan_panics);
                let kind = kind.kind();
                tracing::error!(kind, %key, panic, "telling the data plane of events panicked; it keeps what it had");
                self.panicked.insert(object);
            }
        }
    }

    fn look(&mut self, world: &World, kind: Kind, key: &Key, looked: &mut Looked) {
        match kind {
            Kind::Broker => self.look_at_broker(world, key, looked),
            Kind::Trigger => self.look_at_trigger(world, key, looked),
            Kind::InMemoryChannel => self.look_at_channel(world, key, looked),
            _ => look_at_one_alone(world, kind, key, looked),
        }
    }

    fn look_at_broker(&mut self, world: &World, key: &Key, looked: &mut Looked) {
        let name = translate::name(topology::Kind::Broker, key);
        let head = served_broker(world, key).map(|broker| translate::broker(world, &broker));
        let entry = self.entries.entry(name.clone()).or_default();
        let came_or_went = entry.head.is_some() != head.is_some();
        let told = looked.told.entry(name.clone()).or_default();
        told.insert((Kind::Broker, key.clone()), to_carry(world, Kind::Broker, key));
        if came_or_went {
            let triggers = entry.subscriptions.keys();
            told.extend(triggers.map(|key| ((Kind::Trigger, key.clone()), to_carry(world, Kind::Trigger, key))));
        }
        if entry.set_head(head) {
            looked.different.insert(name);
        }
    }

    fn look_at_trigger(&mut self, world: &World, key: &Key, looked: &mut Looked) {
        let trigger = world.triggers.get(key);
        let name = trigger.as_ref().map(|trigger| {
            let broker = broker_of(world, trigger);
            translate::name(topology::Kind::Broker, &broker)
        });
        let before = match &name {
            Some(name) => self.brokers.insert(key.clone(), name.clone()),
            None => self.brokers.remove(key),
        };
        if let Some(before) = before.filter(|before| Some(before) != name.as_ref()) {
            if let Some(entry) = self.entries.get_mut(&before) {
                entry.remove(key);
            }
            // What is to be told of one that is elsewhere is told from there.
            if name.is_none() {
                looked.told.entry(before.clone()).or_default().insert((Kind::Trigger, key.clone()), None);
            }
            looked.different.insert(before);
        }
        let (Some(trigger), Some(name)) = (trigger, name) else { return };
        let generation = trigger.meta().generation.unwrap_or_default();
        let (subscription, error) = translate::trigger(world, &trigger);
        let carried = to_carry(world, Kind::Trigger, key).filter(|_| error.is_none());
        if let Some(error) = error {
            tracing::error!(trigger = %key, %error, "a filter cannot be used: the Trigger gets no event");
        }
        looked.told.entry(name.clone()).or_default().insert((Kind::Trigger, key.clone()), carried);
        let entry = self.entries.entry(name.clone()).or_default();
        if entry.put(key.clone(), Known { subscription, generation }) {
            looked.different.insert(name);
        }
    }

    fn look_at_channel(&mut self, world: &World, key: &Key, looked: &mut Looked) {
        let name = translate::name(topology::Kind::Channel, key);
        let channel = world.in_memory_channels.get(key);
        let entry = self.entries.entry(name.clone()).or_default();
        let head = channel.as_ref().map(|channel| translate::channel(world, channel));
        let mut is_different = entry.set_head(head);
        let subscribers = channel.iter().flat_map(|channel| translate::subscribers(world, channel));
        let subscribers: BTreeMap<Key, Subscription> =
            subscribers.map(|subscription| (Key::new("", &*subscription.uid), subscription)).collect();
        let gone: Vec<Key> = entry.subscriptions.keys().filter(|uid| !subscribers.contains_key(uid)).cloned().collect();
        for uid in gone {
            entry.remove(&uid);
            is_different = true;
        }
        for (uid, subscription) in subscribers {
            // Nothing is filtered here, so that every generation is the same.
            is_different |= entry.put(uid, Known { subscription, generation: 0 });
        }
        let told = looked.told.entry(name.clone()).or_default();
        told.insert((Kind::InMemoryChannel, key.clone()), to_carry(world, Kind::InMemoryChannel, key));
        if is_different {
            looked.different.insert(name);
        }
    }

    /// Makes the next snapshot. What is told of those that nobody has to act on first.
    fn hand_over(&mut self, looked: Looked, is_complete: bool) -> Told {
        let Looked { different, mut told, alone, told_at_once } = looked;
        let last = self.topology.take();
        let is_as_complete = last.as_ref().is_some_and(|last| last.is_complete() == is_complete);
        let is_different = !is_as_complete || !different.is_empty() || !alone.is_empty();
        let mut next = last.unwrap_or_else(|| Topology::new(self.links.names.clone())).complete(is_complete);
        let mut now = told_at_once;
        for (key, one) in alone {
            next = match one {
                Alone::RequestReply(Some(reply)) => next.with_request_reply(reply),
                Alone::RequestReply(None) => next.without_request_reply(&key.namespace, &key.name),
                Alone::JobSink(Some(sink)) => next.with_job_sink(sink),
                Alone::JobSink(None) => next.without_job_sink(&key.namespace, &key.name),
                Alone::LogSink(Some(sink)) => next.with_log_sink(sink),
                Alone::LogSink(None) => next.without_log_sink(&key.namespace, &key.name),
            };
        }
        for name in &different {
            let btree_map::Entry::Occupied(mut occupied) = self.entries.entry(name.clone()) else { continue };
            let entry = occupied.get_mut();
            let due = told.remove(name).unwrap_or_default();
            if let Some(addressable) = entry.made(name).map(Arc::new) {
                let mut all = entry.handed.take().map(|(_, told)| told).unwrap_or_default();
                all.extend(due);
                entry.handed = Some((addressable.clone(), all));
                next = next.with(addressable);
            } else {
                next = next.without(name);
                now.extend(entry.handed.take().map(|(_, told)| told).unwrap_or_default());
                now.extend(due);
                if entry.subscriptions.is_empty() {
                    occupied.remove();
                }
            }
        }
        for (name, due) in told {
            match self.entries.get_mut(&name).and_then(|entry| entry.handed.as_mut()) {
                Some((_, waiting)) => waiting.extend(due),
                None => now.extend(due),
            }
        }
        self.topology = Some(next.clone());
        if is_different {
            count(&self.counters.topologies);
            self.links.topology.send_replace(Some(next));
        }
        now
    }
}

fn look_at_one_alone(world: &World, kind: Kind, key: &Key, looked: &mut Looked) {
    let one = match kind {
        Kind::JobSink => {
            let sink = world.job_sinks.get(key);
            Alone::JobSink(sink.and_then(|sink| translate::job_sink(world, sink)))
        }
        Kind::IntegrationSink => {
            let sink = world.integration_sinks.get(key);
            Alone::LogSink(sink.and_then(|sink| translate::log_sink(world, &sink)))
        }
        _ => Alone::RequestReply(world.request_replies.get(key).map(|reply| translate::request_reply(&reply))),
    };
    looked.alone.push((key.clone(), one));
    looked.told_at_once.insert((kind, key.clone()), to_carry(world, kind, key));
}

/// Everything that snapshots hold.
fn all(world: &World) -> impl Iterator<Item = Object> {
    HELD.into_iter().flat_map(|kind| world.keys(kind).into_iter().map(move |key| (kind, key)))
}

impl Head {
    fn addressable(&self, name: Name, subscriptions: Vec<Subscription>) -> Addressable {
        let addressable = Addressable::new(name, &self.uid, self.delivery.as_ref(), subscriptions);
        let addressable = addressable.for_those_of(self.access.access());
        match &self.audience {
            Some(audience) => addressable.for_audience(audience),
            None => addressable,
        }
    }
}

impl Entry {
    /// What it says of itself from now on. Whether that is different.
    fn set_head(&mut self, head: Option<Head>) -> bool {
        let is_different = self.head != head;
        if is_different {
            (self.head, self.made) = (head, None);
        }
        is_different
    }

    /// Puts a subscription in the place of the one of its key. Whether the data plane does otherwise from now on.
    fn put(&mut self, key: Key, next: Known) -> bool {
        let before = self.subscriptions.get(&key);
        let is_same = before.is_some_and(|known| {
            known.generation == next.generation && translate::is_same(&known.subscription, &next.subscription)
        });
        if is_same {
            return false;
        }
        if before.is_some_and(|before| before.subscription.uid != next.subscription.uid) {
            self.remove(&key);
        }
        self.made = self.made.take().map(|made| made.with_subscription(next.subscription.clone()));
        self.subscriptions.insert(key, next);
        true
    }

    fn remove(&mut self, key: &Key) {
        let Some(known) = self.subscriptions.remove(key) else { return };
        self.made = self.made.take().map(|made| made.without_subscription(&known.subscription.uid));
    }

    /// What the data plane is handed, while it is there. A change of one subscription costs that one, a change of the broker
    /// or channel itself all of them.
    fn made(&mut self, name: &Name) -> Option<Addressable> {
        let head = self.head.as_ref()?;
        let made = self.made.take().unwrap_or_else(|| {
            let subscriptions = self.subscriptions.values().map(|known| known.subscription.clone()).collect();
            head.addressable(name.clone(), subscriptions)
        });
        self.made = Some(made.clone());
        Some(made)
    }
}

#[cfg(test)]
mod tests;
