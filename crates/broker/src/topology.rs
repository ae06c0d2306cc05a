//! What the data plane acts on: brokers, channels and who listens to them, as one immutable snapshot.
//!
//! Controllers make it and hand a whole [`Topology`] over; the data plane never changes one. A snapshot shares everything
//! that did not change with the one before, so that a change of one Trigger costs its own filter and a walk down a few trees
//! ([`Addressable::with_subscription`]), and looking something up costs a walk down one, however many there are.
//!
//! What is not in a snapshot is deleted, for good: the events and dead letters of a broker or channel, the progress and the
//! backlog of a subscription. So the first snapshot is made once everything is known, and whoever exists stays in it,
//! ready or not: a subscriber that cannot be found is [`Subscriber::Unresolved`], and what comes meanwhile is kept for it.
//! A snapshot that misses something that is there says so ([`Topology::complete`]): then nothing is deleted until one comes
//! that misses nothing, and what may be somebody's who is missing is kept.
//! What is known by uid goes on across changes of everything else; another uid is another object, and begins with nothing.

pub mod access;
mod address;
mod request_reply;
mod sinks;

use std::{collections::HashSet, ops::Bound, sync::Arc};

use http::Uri;
use imbl::{OrdMap, ordmap::DiffItem};
use knoll_event::{
    Event,
    filter::{Filter, Matcher, Matching},
};
use tokio::sync::watch;

use self::access::{Access, Guard};
pub(crate) use self::request_reply::Asked;
pub use self::{
    address::{Names, NotFound},
    request_reply::RequestReply,
    sinks::{JobSink, LogSink},
};
use crate::delivery::{Delivery, Destination};

/// The newest snapshot; nothing before the first one, which is complete: until then nobody is told that a broker is not
/// there, and nothing is deleted.
pub type Snapshots = watch::Receiver<Option<Topology>>;

/// What takes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A Broker: its Triggers filter, replies come back to it, and events count their hops.
    Broker,
    /// An InMemoryChannel: events are neither filtered nor changed, and replies go where its Subscriptions say.
    Channel,
}

impl Kind {
    /// As it is written in names and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Channel => "channel",
        }
    }
}

/// Which object it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// What it is.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl Name {
    /// A name from its parts.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

/// Whether events come to a subscriber in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    /// In any order, as upstream.
    #[default]
    Unordered,
    /// Those of one `partitionkey` one after the other, in the order in which they were taken
    /// (`knoll.dev/ordering: key`). Events without a key are in no order.
    Key,
}

/// Who is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscriber {
    /// There.
    At(Destination),
    /// It is not known where: every attempt fails, and is tried again as a 404 is.
    Unresolved,
    /// Nobody: events go straight to where replies go.
    Nobody,
}

/// A Trigger of a broker, or a Subscription of a channel.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Its namespace, which may be another than that of the broker or channel.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its uid: progress is kept under it, so that one that is made again gets new events only.
    pub uid: Arc<str>,
    /// Who it is where tokens are asked for: a ServiceAccount of its namespace.
    pub service_account: Option<Arc<str>>,
    /// Which events it gets; [`Filter::attributes`] of nothing for all of them.
    pub filter: Filter,
    /// Who gets them.
    pub subscriber: Subscriber,
    /// Where a Subscription's replies go; they are dropped without. A Trigger's go to its broker.
    pub reply: Option<Destination>,
    /// Its own delivery, if it says something.
    pub delivery: Option<Delivery>,
    /// Whether order matters.
    pub ordering: Ordering,
}

impl Subscription {
    /// One that gets every event, in no order, as its broker or channel delivers.
    pub fn new(namespace: &str, name: &str, uid: &str, subscriber: Subscriber) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            uid: uid.into(),
            service_account: None,
            filter: Filter::attributes([]),
            subscriber,
            reply: None,
            delivery: None,
            ordering: Ordering::default(),
        }
    }
}

/// A subscription with what counts for it.
#[derive(Debug)]
pub struct Subscribed {
    /// It.
    pub subscription: Subscription,
    /// Its own delivery or that of its broker or channel.
    pub delivery: Delivery,
}

/// A broker or a channel, with who listens to it. Copies share all of it, and a copy with one subscription more or less
/// shares all but that one.
#[derive(Clone, Debug)]
pub struct Addressable {
    name: Name,
    uid: Arc<str>,
    guard: Guard,
    delivery: Option<Arc<Delivery>>,
    /// By uid.
    members: OrdMap<Arc<str>, Member>,
    /// For a broker: over the filters, by the places of their subscriptions.
    matcher: Matcher,
    next_place: Place,
}

/// Where a subscription stands in the index over filters. Another one never has the same place in the same index.
pub(crate) type Place = u64;

/// A subscription in its place.
#[derive(Clone, Debug)]
struct Member {
    place: Place,
    subscribed: Arc<Subscribed>,
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place && Arc::ptr_eq(&self.subscribed, &other.subscribed)
    }
}

/// What became of a subscription from one state of its broker or channel to the next.
pub(crate) struct Move<'a> {
    /// Its uid.
    pub(crate) uid: &'a Arc<str>,
    /// Where it stood, if it was there.
    pub(crate) was: Option<Place>,
    /// Where it stands and what it is, if it is there.
    pub(crate) now: Option<(Place, &'a Arc<Subscribed>)>,
}

impl Addressable {
    /// Puts one together: what is delivered how is decided, and filters become an index. Costs what its subscriptions are. Of
    /// two of one uid the later one counts.
    pub fn new(name: Name, uid: &str, delivery: Option<&Delivery>, subscriptions: Vec<Subscription>) -> Self {
        let (uid, delivery) = (uid.into(), delivery.cloned().map(Arc::new));
        let (members, matcher) = Default::default();
        let guard = Guard::new(name.namespace.clone());
        let mut it = Self { name, uid, guard, delivery, members, matcher, next_place: 0 };
        let filters: Vec<(Place, Filter)> =
            subscriptions.into_iter().map(|subscription| it.enter(subscription)).collect();
        if it.name.kind == Kind::Broker {
            let is_there: HashSet<Place> = it.members.values().map(|member| member.place).collect();
            it.matcher = Matcher::new(filters.into_iter().filter(|(place, _)| is_there.contains(place)));
        }
        it
    }

    /// The same, for whom senders need a token made out to this audience.
    #[must_use]
    pub fn for_audience(mut self, audience: &str) -> Self {
        self.guard = self.guard.for_audience(audience);
        self
    }

    /// The same, to whom those may send whom this lets.
    #[must_use]
    pub fn for_those_of(mut self, access: Access) -> Self {
        self.guard = self.guard.for_those_of(access);
        self
    }

    /// The same with this subscription, in place of the one of its uid. Costs what its own filter is, however many others
    /// there are.
    #[must_use]
    pub fn with_subscription(&self, subscription: Subscription) -> Self {
        let mut it = self.without_subscription(&subscription.uid);
        let (place, filter) = it.enter(subscription);
        if it.name.kind == Kind::Broker {
            it.matcher.insert(place, filter);
        }
        it
    }

    /// The same without the subscription of this uid, at the same cost.
    #[must_use]
    pub fn without_subscription(&self, uid: &str) -> Self {
        let mut it = self.clone();
        if let Some(member) = it.members.remove(uid) {
            it.matcher.remove(member.place);
        }
        it
    }

    /// Makes a subscription a member. Its place, and its filter for the index.
    fn enter(&mut self, subscription: Subscription) -> (Place, Filter) {
        let delivery = Delivery::effective(subscription.delivery.as_ref(), self.delivery.as_deref());
        let (uid, filter) = (subscription.uid.clone(), subscription.filter.clone());
        let place = self.next_place;
        self.next_place += 1;
        self.members.insert(uid, Member { place, subscribed: Arc::new(Subscribed { subscription, delivery }) });
        (place, filter)
    }

    /// Which object it is.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Its uid: its events are kept under it, so that one that is made again begins with none.
    pub const fn uid(&self) -> &Arc<str> {
        &self.uid
    }

    /// Who a sender's token must be made out to, if it needs one.
    pub fn audience(&self) -> Option<&str> {
        self.guard.audience()
    }

    /// Who may send.
    pub fn access(&self) -> &Access {
        self.guard.access()
    }

    /// What its senders have to be.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Who listens, by uid.
    pub fn subscribed(&self) -> impl Iterator<Item = &Arc<Subscribed>> {
        self.members.values().map(|member| &member.subscribed)
    }

    /// Whose subscriptions are not in `self` as they were in `before`. What both share costs nothing.
    pub(crate) fn since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = Move<'a>> {
        let here = |member: &'a Member| Some((member.place, &member.subscribed));
        before.members.diff(&self.members).map(move |difference| match difference {
            DiffItem::Add(uid, now) => Move { uid, was: None, now: here(now) },
            DiffItem::Update { old: (_, was), new: (uid, now) } => Move { uid, was: Some(was.place), now: here(now) },
            DiffItem::Remove(uid, was) => Move { uid, was: Some(was.place), now: None },
        })
    }

    /// Looks up who may get this event, by the index over filters; nothing for a channel, which has none.
    pub(crate) fn matching<'a>(&'a self, event: &'a Event) -> Option<Matching<'a>> {
        (self.name.kind == Kind::Broker).then(|| self.matcher.begin(event))
    }

    /// Everybody's place.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        self.members.values().map(|member| member.place)
    }
}

/// Who a message of events is for, but for what JobSinks are asked.
#[derive(Debug)]
pub(crate) enum Found {
    /// A broker or channel.
    Addressable(Arc<Addressable>),
    /// A RequestReply.
    RequestReply(Asked),
    /// An IntegrationSink.
    LogSink(Arc<LogSink>),
}

/// The snapshot.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    names: Arc<Names>,
    addressables: OrdMap<Name, Arc<Addressable>>,
    /// By namespace and name.
    request_replies: OrdMap<(Arc<str>, Arc<str>), Arc<RequestReply>>,
    /// The same.
    job_sinks: OrdMap<(Arc<str>, Arc<str>), Arc<JobSink>>,
    /// The same.
    log_sinks: OrdMap<(Arc<str>, Arc<str>), Arc<LogSink>>,
    /// Whether something is missing that is there.
    is_partial: bool,
}

/// What became of a broker or channel from one snapshot to the next.
pub(crate) enum Change {
    /// It is there, new or not as it was.
    Is(Arc<Addressable>),
    /// It is gone.
    Gone(Name),
}

impl Topology {
    /// A snapshot of nothing, whose addresses are made of these names.
    pub fn new(names: Names) -> Self {
        Self { names: Arc::new(names), ..Self::default() }
    }

    /// The same with this one, in place of the one of its name.
    #[must_use]
    pub fn with(mut self, addressable: impl Into<Arc<Addressable>>) -> Self {
        let addressable = addressable.into();
        self.addressables.insert(addressable.name.clone(), addressable);
        self
    }

    /// The same without the one of this name.
    #[must_use]
    pub fn without(mut self, name: &Name) -> Self {
        self.addressables.remove(name);
        self
    }

    /// The same, of which it is known whether it misses nothing that is there. As long as it is not said, it does not.
    #[must_use]
    pub fn complete(mut self, is_complete: bool) -> Self {
        self.is_partial = !is_complete;
        self
    }

    /// Whether what is not in it is gone.
    pub fn is_complete(&self) -> bool {
        !self.is_partial
    }

    /// Whether it is the same snapshot as another, not only one that says the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.names, &other.names)
            && self.addressables.ptr_eq(&other.addressables)
            && self.request_replies.ptr_eq(&other.request_replies)
            && self.job_sinks.ptr_eq(&other.job_sinks)
            && self.log_sinks.ptr_eq(&other.log_sinks)
            && self.is_partial == other.is_partial
    }

    /// Why nothing is found under a name that could be somebody's.
    fn unknown(&self) -> NotFound {
        if self.is_partial { NotFound::NotYet } else { NotFound::Unknown }
    }

    /// The broker or channel of this name.
    pub fn get(&self, name: &Name) -> Option<&Arc<Addressable>> {
        self.addressables.get(name)
    }

    /// Every broker and channel.
    pub fn addressables(&self) -> impl Iterator<Item = &Arc<Addressable>> {
        self.addressables.values()
    }

    /// Brokers and channels behind this one, or from the first on, by kind, namespace and name.
    pub fn addressables_after(&self, name: Option<&Name>) -> impl Iterator<Item = &Arc<Addressable>> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        self.addressables.range::<_, Name>((from, Bound::Unbounded)).map(|(_, addressable)| addressable)
    }

    /// The same of one namespace.
    pub fn addressables_of<'a>(
        &'a self,
        namespace: &'a str,
        after: Option<&'a Name>,
    ) -> impl Iterator<Item = &'a Arc<Addressable>> {
        [Kind::Broker, Kind::Channel].into_iter().flat_map(move |kind| {
            let first = Name::new(kind, namespace, "");
            let first = after.filter(|after| **after > first).cloned().unwrap_or(first);
            let is_of = move |of: &&Arc<Addressable>| of.name().kind == kind && *of.name().namespace == *namespace;
            let range = (Bound::Excluded(first), Bound::Unbounded);
            self.addressables.range::<_, Name>(range).map(|(_, addressable)| addressable).take_while(is_of)
        })
    }

    /// Whether a host is a name as those of brokers, channels, RequestReplies and sinks are. One that is none leads elsewhere.
    pub(crate) fn may_have(&self, host: &str) -> bool {
        self.names.is_service(host)
    }

    /// The broker or channel that a request is for, by the host it names and its target as it stands in the request.
    ///
    /// # Errors
    /// When there is none, or the request names none.
    pub fn find(&self, host: &str, target: &str) -> Result<&Arc<Addressable>, NotFound> {
        let name = self.names.name(host, target)?;
        self.addressables.get(&name).ok_or(self.unknown())
    }

    /// Who a message is for, as [`find`](Self::find) does.
    pub(crate) fn look_up(&self, host: &str, target: &str) -> Result<Found, NotFound> {
        if let Some(asked) = self.find_request_reply(host, target) {
            return asked.map(Found::RequestReply);
        }
        if let Some(sink) = self.find_log_sink(host, target) {
            return sink.map(Found::LogSink);
        }
        self.find(host, target).cloned().map(Found::Addressable)
    }

    /// The address of a broker or channel, whether it is there or not; nothing when its name is none of a URI.
    pub fn address(&self, name: &Name) -> Option<Uri> {
        let (host, path) = match name.kind {
            Kind::Broker => (self.names.broker_host(), format!("/{}/{}", name.namespace, name.name)),
            Kind::Channel => (self.names.channel_host(&name.namespace, &name.name), "/".to_owned()),
        };
        Uri::builder().scheme("http").authority(host).path_and_query(path).build().ok()
    }

    /// What is not in `self` as it was in `before`. What both share costs nothing.
    pub(crate) fn since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = Change> + 'a {
        before.addressables.diff(&self.addressables).filter_map(|difference| match difference {
            DiffItem::Add(_, now) => Some(Change::Is(now.clone())),
            DiffItem::Update { old: (_, old), new: (_, new) } => {
                (!Arc::ptr_eq(old, new)).then(|| Change::Is(new.clone()))
            }
            DiffItem::Remove(name, _) => Some(Change::Gone(name.clone())),
        })
    }
}

impl PartialEq for Addressable {
    /// One is itself: two that were put together apart are not compared.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addressable(kind: Kind, name: &str, subscriptions: Vec<Subscription>) -> Addressable {
        Addressable::new(Name::new(kind, "ns", name), &format!("uid-{name}"), None, subscriptions)
    }

    /// Who gets an event.
    fn names(of: &Addressable, event: &Event) -> Vec<String> {
        let places: Vec<Place> = match of.matching(event) {
            Some(mut matching) => {
                assert!(matching.go_on(&mut usize::MAX.clone()));
                matching.matched().filters
            }
            None => of.places().collect(),
        };
        let named = of.members.values().filter(|member| places.contains(&member.place));
        named.map(|member| member.subscribed.subscription.name.to_string()).collect()
    }

    fn moves(now: &Addressable, before: &Addressable) -> Vec<String> {
        now.since(before)
            .map(|moved| match moved.now {
                Some((_, subscribed)) => format!("+{}", subscribed.subscription.name),
                None => format!("-{}", moved.uid),
            })
            .collect()
    }

    fn changes(now: &Topology, before: &Topology) -> Vec<String> {
        now.since(before)
            .map(|change| match change {
                Change::Is(addressable) => format!("+{}", addressable.name().name),
                Change::Gone(name) => format!("-{}", name.name),
            })
            .collect()
    }

    #[test]
    fn a_snapshot_tells_what_changed_since_another() {
        let before = ["a", "b", "c"]
            .into_iter()
            .fold(Topology::default(), |topology, name| topology.with(addressable(Kind::Broker, name, vec![])));
        let now =
            before.clone().with(addressable(Kind::Broker, "b", vec![])).with(addressable(Kind::Channel, "a", vec![]));
        let now = now.without(&Name::new(Kind::Broker, "ns", "c"));
        assert_eq!(changes(&now, &before), ["+b", "-c", "+a"]);
        assert_eq!(changes(&now, &now), [""; 0]);
        assert_eq!(changes(&before, &Topology::default()), ["+a", "+b", "+c"]);
    }

    #[test]
    fn a_snapshot_is_itself_and_none_that_changed() {
        let one = Topology::default().with(addressable(Kind::Broker, "a", vec![]));
        let again = one.clone().with(addressable(Kind::Broker, "a", vec![]));
        let gone = one.clone().without(&Name::new(Kind::Broker, "ns", "a"));
        let partial = one.clone().complete(false);
        assert!(one.is(&one.clone()));
        assert!([again, gone, partial].iter().all(|other| !one.is(other)));
    }

    #[test]
    fn everything_is_found_at_its_address() {
        let topology = Topology::default().with(addressable(Kind::Broker, "x", vec![])).with(addressable(
            Kind::Channel,
            "x",
            vec![],
        ));
        for of in topology.addressables() {
            let address = topology.address(of.name()).expect("a URI");
            let found = topology.find(address.host().expect("a host"), address.path()).expect("there");
            assert!(Arc::ptr_eq(found, of), "{address}");
        }
    }

    #[test]
    fn a_broker_filters_and_a_channel_does_not() {
        let only = |kind: &str| Subscription {
            filter: Filter::exact([("type", kind)]),
            ..Subscription::new("ns", kind, kind, Subscriber::Unresolved)
        };
        let event = Event::new("1", "/s", "b").expect("an event");
        let matching = |kind| {
            let of = addressable(kind, "x", vec![only("a"), only("b")]);
            names(&of, &event)
        };
        assert_eq!(
            (matching(Kind::Broker), matching(Kind::Channel)),
            (vec!["b".to_owned()], vec!["a".into(), "b".into()])
        );
    }

    #[test]
    fn what_counts_for_a_subscription_is_decided_once() {
        let delivery = Delivery { retry: 7, ..Delivery::default() };
        let own = Subscription {
            delivery: Some(Delivery { retry: 1, ..Delivery::default() }),
            ..Subscription::new("ns", "own", "1", Subscriber::Unresolved)
        };
        let without = Subscription::new("ns", "without", "2", Subscriber::Unresolved);
        let name = Name::new(Kind::Broker, "ns", "b");
        let addressable = Addressable::new(name, "uid", Some(&delivery), vec![own, without]);
        let retries: Vec<u32> = addressable.subscribed().map(|subscribed| subscribed.delivery.retry).collect();
        assert_eq!(retries, [1, 7]);
    }

    #[test]
    fn one_subscription_more_or_less_leaves_the_others_as_they_are() {
        let of = |uid: &str, kind: &str| Subscription {
            filter: Filter::exact([("type", kind)]),
            ..Subscription::new("ns", &format!("{uid}-{kind}"), uid, Subscriber::Unresolved)
        };
        let event = Event::new("1", "/s", "b").expect("an event");
        let delivery = Delivery { retry: 7, ..Delivery::default() };
        let name = Name::new(Kind::Broker, "ns", "b");
        let one = Addressable::new(name, "uid", Some(&delivery), vec![of("1", "a"), of("2", "b")]);
        let two = one.with_subscription(of("3", "b"));
        let three = two.with_subscription(of("1", "b"));
        let four = three.without_subscription("2").without_subscription("nobody's");
        let all = [&one, &two, &three, &four].map(|of| names(of, &event).join(" "));
        assert_eq!(all, ["2-b", "2-b 3-b", "1-b 2-b 3-b", "1-b 3-b"]);
        let moved = [moves(&two, &one), moves(&three, &two), moves(&four, &three), moves(&four, &four)];
        assert_eq!(moved.map(|moved| moved.join(" ")), ["+3-b", "+1-b", "-2", ""]);
        assert_eq!(moves(&one, &four).join(" "), "+1-a +2-b -3");
        assert!(four.subscribed().all(|subscribed| subscribed.delivery.retry == 7));
        let again = Addressable::new(one.name().clone(), "uid", None, vec![of("1", "a"), of("1", "b")]);
        assert_eq!(names(&again, &event), ["1-b"]);
    }
}
