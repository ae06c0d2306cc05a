//! From objects of the API, as admission and their controllers left them, to what the data plane acts on.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use knoll_api::{
    Key, Resource,
    config::eventing::DefaultAuthorizationMode,
    duck::{self, AddressStatus, AppliedEventPoliciesStatus, DeliverySpec, DeliveryStatus},
    eventing::{self, Broker, EventPolicy, FilterError, Trigger, TriggerSpec},
    iso8601,
    labels::eventing::ORDERING,
    messaging::{self, InMemoryChannel},
    sinks,
};
use knoll_broker::{
    delivery::{Backoff, BackoffPolicy, Delivery, Destination},
    topology::{
        JobSink, Kind, LogSink, Name, Ordering, RequestReply, Subscriber, Subscription,
        access::{Access, Guard, Mode, Policy},
    },
};
use knoll_event::{filter::Filter, mode::Format};
use knoll_plan::{World, sender_account, subscriptions};

/// How long an answer is waited for where a RequestReply does not say; what admission fills in.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// What a snapshot says of a broker or channel itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Head {
    pub(super) uid: String,
    pub(super) delivery: Option<Delivery>,
    pub(super) audience: Option<String>,
    pub(super) access: HeadAccess,
}

/// Who may send to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct HeadAccess {
    /// What counts without a policy; nothing while senders need not say who they are.
    mode: Option<Mode>,
    /// The policies that its status names.
    policies: Vec<Arc<EventPolicy>>,
}

/// How the data plane names a broker or channel.
pub(super) fn name(kind: Kind, key: &Key) -> Name {
    Name::new(kind, &key.namespace, &key.name)
}

pub(super) fn broker(world: &World, broker: &Broker) -> Head {
    let status = &broker.status;
    let access = head_access(world, broker, &status.policies);
    let delivery = broker.spec.delivery.as_ref().map(|spec| delivery(spec, Some(&status.delivery)));
    let audience = status.address.address.as_ref().and_then(|address| address.audience.clone());
    Head { uid: broker.uid().to_owned(), delivery, audience, access }
}

pub(super) fn channel(world: &World, channel: &InMemoryChannel) -> Head {
    let status = &channel.status;
    let access = head_access(world, channel, &status.policies);
    let delivery = channel.spec.delivery.as_ref().map(|spec| delivery(spec, Some(&status.delivery)));
    let audience = status.address.address.as_ref().and_then(|address| address.audience.clone());
    Head { uid: channel.uid().to_owned(), delivery, audience, access }
}

fn head_access(world: &World, object: &impl Resource, applied: &AppliedEventPoliciesStatus) -> HeadAccess {
    let features = &world.eventing.features;
    if !features.oidc_authentication.is_enabled() {
        return HeadAccess::default();
    }
    let mode = match features.default_authorization_mode {
        DefaultAuthorizationMode::AllowAll => Mode::AllowAll,
        DefaultAuthorizationMode::DenyAll => Mode::DenyAll,
        DefaultAuthorizationMode::AllowSameNamespace => Mode::AllowSameNamespace,
    };
    let named = applied.policies.iter().map(|policy| object.key().sibling(policy.name.clone()));
    HeadAccess { mode: Some(mode), policies: named.filter_map(|key| world.event_policies.get(&key)).collect() }
}

impl HeadAccess {
    /// What decides about senders. A policy whose filters cannot be read lets nothing through.
    pub(super) fn access(&self) -> Access {
        let Some(mode) = self.mode else { return Access::Open };
        if self.policies.is_empty() {
            return Access::Otherwise(mode);
        }
        let policy = |policy: &Arc<EventPolicy>| {
            let filters = policy.spec.filters.iter().map(|filter| filter.compile()).collect::<Result<Vec<_>, _>>();
            let filter = filters.and_then(|filters| Ok(Filter::all(filters)?));
            let filter = filter.unwrap_or_else(|error| {
                tracing::error!(policy = %policy.key(), %error, "a filter cannot be used: the EventPolicy lets nothing through");
                nothing()
            });
            Policy { from: policy.status.from.iter().map(|from| from.as_str().into()).collect(), filter }
        };
        Access::Policies(self.policies.iter().map(policy).collect())
    }
}

/// A filter that lets nothing through: an attribute without a name has no value.
fn nothing() -> Filter {
    Filter::exact([("", "")])
}

/// A RequestReply, whose Broker is in its namespace.
pub(super) fn request_reply(of: &eventing::RequestReply) -> RequestReply {
    let spec = &of.spec;
    let timeout = spec.timeout.as_deref().and_then(|text| iso8601::parse(text).ok()?.to_std());
    RequestReply {
        namespace: of.namespace().into(),
        name: of.name().into(),
        uid: of.uid().into(),
        broker: Name::new(Kind::Broker, of.namespace(), &spec.broker_ref.name),
        correlation_attribute: spec.correlation_attribute.as_str().into(),
        reply_attribute: spec.reply_attribute.as_str().into(),
        timeout: timeout.unwrap_or(REPLY_TIMEOUT),
    }
}

/// A JobSink that says what Jobs are made from, and is to stay.
pub(super) fn job_sink(world: &World, of: Arc<sinks::JobSink>) -> Option<JobSink> {
    let is_one = of.spec.job.is_some() && !of.is_deleting();
    let guard = guard(world, of.as_ref(), &of.status.address, &of.status.policies);
    is_one.then_some(JobSink { object: of, guard })
}

/// An IntegrationSink into a log, that is to stay.
pub(super) fn log_sink(world: &World, of: &sinks::IntegrationSink) -> Option<LogSink> {
    let log = of.spec.log.clone().filter(|_| of.spec.aws.is_none() && !of.is_deleting())?;
    let guard = guard(world, of, &of.status.address, &of.status.policies);
    Some(LogSink { namespace: of.namespace().into(), name: of.name().into(), log, guard })
}

fn guard(world: &World, of: &impl Resource, address: &AddressStatus, policies: &AppliedEventPoliciesStatus) -> Guard {
    let guard = Guard::new(of.namespace().into()).for_those_of(head_access(world, of, policies).access());
    match address.address.as_ref().and_then(|address| address.audience.as_deref()) {
        Some(audience) => guard.for_audience(audience),
        None => guard,
    }
}

/// A Trigger whose events go where its status says. One whose filters cannot be read gets no event, and says why beside.
pub(super) fn trigger(world: &World, trigger: &Trigger) -> (Subscription, Option<FilterError>) {
    let status = &trigger.status;
    let to = destination(&status.subscriber_uri, &status.subscriber_ca_certs, &status.subscriber_audience);
    let subscriber = to.map_or(Subscriber::Unresolved, Subscriber::At);
    let (filter, error) = match filter(&trigger.spec) {
        Ok(filter) => (filter, None),
        Err(error) => (nothing(), Some(error)),
    };
    let own = trigger.spec.delivery.as_ref();
    let subscription = Subscription {
        service_account: sender_account(world, trigger).map(Into::into),
        filter,
        delivery: own.map(|spec| delivery(spec, Some(&status.delivery))),
        ordering: ordering(trigger),
        ..Subscription::new(trigger.namespace(), trigger.name(), trigger.uid(), subscriber)
    };
    (subscription, error)
}

fn filter(spec: &TriggerSpec) -> Result<Filter, FilterError> {
    let filters = spec.filters.iter().map(|filter| filter.compile()).collect::<Result<Vec<_>, _>>()?;
    Ok(Filter::of_trigger(filters, spec.filter.iter().flat_map(|filter| filter.pairs()))?)
}

/// Who is subscribed to a channel; of several of one uid the first, and nobody whose uid no Subscription could have. Events
/// are sent as the Subscription's own account, in its namespace, where it says itself that they go; one that no Subscription
/// has put there has none, and neither has one that was led elsewhere by who may write the channel.
pub(super) fn subscribers(world: &World, channel: &InMemoryChannel) -> Vec<Subscription> {
    let mut seen = HashSet::new();
    let there = channel.spec.subscribers.iter().filter(|subscriber| subscriber.has_fitting_uid());
    let there = there.filter(|subscriber| seen.insert(subscriber.uid.as_str()));
    let live = match world.eventing.features.oidc_authentication.is_enabled() {
        true => subscriptions(world, &channel.key()),
        false => Vec::new(),
    };
    let live: HashMap<&str, &messaging::Subscription> = live.iter().map(|one| (one.uid(), &**one)).collect();
    let made = there.map(|subscriber| {
        let made = subscription(channel, subscriber);
        match live.get(subscriber.uid.as_str()) {
            Some(live) if live.status.physical_subscription.is_where(subscriber) => Subscription {
                namespace: live.namespace().into(),
                service_account: sender_account(world, *live).map(Into::into),
                ..made
            },
            _ => made,
        }
    });
    made.collect()
}

fn subscription(channel: &InMemoryChannel, of: &duck::Subscriber) -> Subscription {
    let to = destination(&of.subscriber_uri, &of.subscriber_ca_certs, &of.subscriber_audience);
    let subscriber = match (&of.subscriber_uri, to) {
        (None, _) => Subscriber::Nobody,
        (Some(_), None) => Subscriber::Unresolved,
        (Some(_), Some(to)) => Subscriber::At(to),
    };
    let name = of.name.as_deref().unwrap_or(&of.uid);
    Subscription {
        reply: destination(&of.reply_uri, &of.reply_ca_certs, &of.reply_audience),
        delivery: of.delivery.as_ref().map(|spec| delivery(spec, None)),
        ordering: ordering(channel),
        ..Subscription::new(channel.namespace(), name, &of.uid, subscriber)
    }
}

/// A delivery; its dead letter sink is where the status says that it is, or else the URI that it names.
fn delivery(spec: &DeliverySpec, found: Option<&DeliveryStatus>) -> Delivery {
    let policy = spec.backoff_policy.map(|policy| match policy {
        duck::BackoffPolicy::Linear => BackoffPolicy::Linear,
        duck::BackoffPolicy::Exponential => BackoffPolicy::Exponential,
    });
    let sink = spec.dead_letter_sink.as_ref().and_then(|sink| match found {
        Some(found) => {
            destination(&found.dead_letter_sink_uri, &found.dead_letter_sink_ca_certs, &found.dead_letter_sink_audience)
        }
        None => destination(&sink.uri, &sink.ca_certs, &sink.audience),
    });
    Delivery {
        retry: spec.retry.and_then(|retry| u32::try_from(retry).ok()).unwrap_or(0),
        backoff: policy.zip(spec.backoff_delay()).map(|(policy, delay)| Backoff { policy, delay }),
        timeout: spec.timeout(),
        retry_after_max: spec.retry_after_max(),
        format: spec.format.map(|format| match format {
            duck::Format::Json => Format::Json,
            duck::Format::Binary => Format::Binary,
        }),
        dead_letter_sink: sink,
    }
}

/// A destination, when its URI is known and is one.
fn destination(uri: &Option<String>, ca_certs: &Option<String>, audience: &Option<String>) -> Option<Destination> {
    let to = Destination::read(uri.as_deref()?).ok()?;
    let text = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(Into::into);
    Some(Destination { ca_certs: text(ca_certs), audience: text(audience), ..to })
}

fn ordering(object: &impl Resource) -> Ordering {
    match object.annotation(ORDERING) {
        Some("key") => Ordering::Key,
        _ => Ordering::Unordered,
    }
}

/// Whether the data plane would do the same for both, provided that their filters are of one generation of their Trigger.
pub(super) fn is_same(one: &Subscription, other: &Subscription) -> bool {
    let Subscription { namespace, name, uid, service_account, filter: _, subscriber, reply, delivery, ordering } = one;
    *namespace == other.namespace
        && *name == other.name
        && *uid == other.uid
        && *service_account == other.service_account
        && *subscriber == other.subscriber
        && *reply == other.reply
        && *delivery == other.delivery
        && *ordering == other.ordering
}

#[cfg(test)]
mod tests {
    use knoll_plan::Settings;

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(yaml: serde_json::Value) -> T {
        serde_json::from_value(yaml).expect("an object")
    }

    fn at(uri: &'static str) -> Destination {
        Destination::read(uri).expect("a URI")
    }

    #[test]
    fn a_trigger_delivers_as_it_says_to_where_its_status_says() {
        let object: Trigger = read(serde_json::json!({
            "metadata": {"name": "t", "namespace": "ns", "uid": "u", "annotations": {"knoll.dev/ordering": "key"}},
            "spec": {
                "broker": "b",
                "filters": [{"exact": {"type": "a"}}],
                "subscriber": {"ref": {"kind": "Service", "name": "app", "apiVersion": "v1"}},
                "delivery": {
                    "retry": 3, "backoffPolicy": "linear", "backoffDelay": "PT0.2S", "timeout": "PT5S", "format": "json",
                    "deadLetterSink": {"ref": {"kind": "Service", "name": "dls", "apiVersion": "v1"}},
                },
            },
            "status": {
                "subscriberUri": "http://app.ns.svc.cluster.local/", "subscriberAudience": "app",
                "deadLetterSinkUri": "http://dls.ns.svc.cluster.local/",
            },
        }));
        let (subscription, error) = trigger(&World::new(Settings::default()), &object);
        assert!(error.is_none());
        let to = Destination { audience: Some("app".into()), ..at("http://app.ns.svc.cluster.local/") };
        let backoff = Backoff { policy: BackoffPolicy::Linear, delay: Duration::from_millis(200) };
        let expected = Subscription {
            ordering: Ordering::Key,
            delivery: Some(Delivery {
                retry: 3,
                backoff: Some(backoff),
                timeout: Some(Duration::from_secs(5)),
                format: Some(Format::Json),
                dead_letter_sink: Some(at("http://dls.ns.svc.cluster.local/")),
                ..Delivery::default()
            }),
            ..Subscription::new("ns", "t", "u", Subscriber::At(to))
        };
        assert!(is_same(&subscription, &expected), "{subscription:?}");
        let event = |kind: &str| knoll_event::Event::new("1", "/s", kind).expect("an event");
        assert!(subscription.filter.verdict(&event("a")).delivers());
        assert!(!subscription.filter.verdict(&event("b")).delivers());
    }

    #[test]
    fn a_trigger_whose_subscriber_is_not_known_is_there_and_one_whose_filter_is_none_gets_nothing() {
        let object: Trigger = read(serde_json::json!({
            "metadata": {"name": "t", "namespace": "ns", "uid": "u"},
            "spec": {"broker": "b", "filters": [{"cesql": "1 +"}], "subscriber": {}},
            "status": {},
        }));
        let (subscription, error) = trigger(&World::new(Settings::default()), &object);
        assert_eq!(subscription.subscriber, Subscriber::Unresolved);
        assert!(error.expect("no expression").to_string().starts_with("cesql: "));
        let event = knoll_event::Event::new("1", "/s", "t").expect("an event");
        assert!(!subscription.filter.verdict(&event).delivers());
    }

    #[test]
    fn a_channels_subscribers_are_those_of_its_spec_each_once() {
        let object: InMemoryChannel = read(serde_json::json!({
            "metadata": {"name": "c", "namespace": "ns", "uid": "u"},
            "spec": {"subscribers": [
                {"uid": "1", "name": "s", "subscriberUri": "http://a/", "replyUri": "http://r/",
                 "delivery": {"retry": -1, "deadLetterSink": {"uri": "http://d/"}}},
                {"uid": "1", "name": "again", "subscriberUri": "http://b/"},
                {"uid": "2", "replyUri": "http://r/"},
                {"uid": "3", "subscriberUri": "no uri at all"},
            ]},
            "status": {},
        }));
        let all = subscribers(&World::new(Settings::default()), &object);
        let [first, nobody, lost] = &all[..] else { panic!("{all:?}") };
        let delivery = Delivery { dead_letter_sink: Some(at("http://d/")), ..Delivery::default() };
        let expected = Subscription {
            reply: Some(at("http://r/")),
            delivery: Some(delivery),
            ..Subscription::new("ns", "s", "1", Subscriber::At(at("http://a/")))
        };
        assert!(is_same(first, &expected), "{first:?}");
        assert_eq!((&nobody.subscriber, &*nobody.name), (&Subscriber::Nobody, "2"));
        assert_eq!(lost.subscriber, Subscriber::Unresolved);
    }

    #[test]
    fn a_brokers_dead_letters_go_where_its_status_found_them() {
        let object: Broker = read(serde_json::json!({
            "metadata": {"name": "b", "namespace": "ns", "uid": "u"},
            "spec": {"delivery": {"deadLetterSink": {"ref": {"kind": "Service", "name": "d", "apiVersion": "v1"}}}},
            "status": {"deadLetterSinkUri": "http://d.ns.svc.cluster.local", "address": {"url": "http://x", "audience": "me"}},
        }));
        let head = broker(&World::new(Settings::default()), &object);
        let sink = head.delivery.expect("it says something").dead_letter_sink;
        assert_eq!(sink, Some(at("http://d.ns.svc.cluster.local")));
        assert_eq!((head.uid.as_str(), head.audience.as_deref()), ("u", Some("me")));
    }
}
