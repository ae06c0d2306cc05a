//! What objects of Eventing are found by: the objects that they send events to or take events from.

use knoll_api::{
    Key, Kind, Resource,
    duck::{DeliverySpec, Destination, KReference},
    eventing::{Broker, EventPolicy, EventTransform, EventType, RequestReply, Trigger},
    labels::eventing::DEPENDENCY,
    messaging::{Channel, InMemoryChannel, Subscription},
    sources::{ApiServerSource, IntegrationSource, PingSource, SinkBinding},
};

use super::api_server_source::account_of;
use crate::{
    DuckKind, World,
    ducks::CHOSEN,
    status::Reporting,
    terms::{Indexed, Term, leads_to, select},
};

/// Whether there is something to decide about an object: one that is going is left to whoever deletes it, and of one in
/// doubt the status stays as it is.
pub(super) fn is_decidable<R: Indexed + Reporting>(world: &World, object: &R) -> bool {
    !object.is_deleting() && !is_in_doubt(world, object)
}

/// Whether an object of which there is a status refers to one of a kind that is not served now. It may be so for a moment
/// only, and says nothing of the object that is referred to: "not yet" is no "no". Of kinds that no controller knows some are
/// mistakes: of these what is written anew is told.
pub(super) fn is_in_doubt<R: Indexed + Reporting>(world: &World, object: &R) -> bool {
    let (absent, has_status) = (&world.observed.absent, !object.common().conditions.is_empty());
    let mut is_in_doubt = false;
    object.own_terms(&mut |term| match term {
        Term::LeadsTo { kind, .. } => is_in_doubt |= has_status && absent.contains(&kind),
        Term::Duck { api_version, kind, name: "", .. } => {
            let kind = DuckKind { api_version: api_version.to_owned(), kind: kind.to_owned() };
            is_in_doubt |= match world.ducks.is_known(&kind) {
                None => true,
                Some(is_known) => !is_known && has_status && object.is_observed(),
            };
        }
        _ => {}
    });
    is_in_doubt
}

/// The kind that a reference means, if controllers know it.
pub(super) fn kind_of(reference: &KReference) -> Option<Kind> {
    match reference.api_version.as_str() {
        "" => Kind::in_any_version(&reference.group, &reference.kind),
        api_version => Kind::from_api(api_version, &reference.kind),
    }
}

/// The kind that a reference means, if controllers do not know it and somebody may have made it.
pub(super) fn duck_of(reference: &KReference) -> Option<DuckKind> {
    DuckKind::of(&reference.api_version, &reference.kind)
}

/// Key of the object that a reference means; where it names no namespace, it means that of the object which refers.
pub(super) fn key_of(reference: &KReference, namespace: &str) -> Key {
    let own = reference.namespace.is_empty();
    Key::new(if own { namespace } else { &reference.namespace }, reference.name.clone())
}

fn reference(reference: &KReference, namespace: &str, add: &mut dyn FnMut(Term<'_>)) {
    let key = key_of(reference, namespace);
    if let Some(kind) = kind_of(reference) {
        add(leads_to(kind, &key));
    } else if let Some(DuckKind { api_version, kind }) = &duck_of(reference) {
        add(Term::Duck { api_version, kind, namespace: &key.namespace, name: &key.name });
        add(Term::Duck { api_version, kind, namespace: "", name: "" });
    }
}

fn destination(to: &Destination, namespace: &str, add: &mut dyn FnMut(Term<'_>)) {
    to.ref_.iter().for_each(|ref_| reference(ref_, namespace, add));
}

fn delivery(delivery: Option<&DeliverySpec>, namespace: &str, add: &mut dyn FnMut(Term<'_>)) {
    let sink = delivery.and_then(|delivery| delivery.dead_letter_sink.as_ref());
    sink.iter().for_each(|sink| destination(sink, namespace, add));
}

impl Indexed for Broker {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        self.spec.config.iter().for_each(|config| reference(config, self.namespace(), add));
        delivery(self.spec.delivery.as_ref(), self.namespace(), add);
    }
}

impl Indexed for Trigger {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        let namespace = self.namespace();
        // Which of the two counts is a feature's business.
        let elsewhere = self.spec.broker_ref.as_ref().map(|broker| key_of(broker, namespace));
        let here = (!self.spec.broker.is_empty()).then(|| self.key().sibling(self.spec.broker.clone()));
        elsewhere.iter().chain(&here).for_each(|broker| add(leads_to(Kind::Broker, broker)));
        destination(&self.spec.subscriber, namespace, add);
        delivery(self.spec.delivery.as_ref(), namespace, add);
        let dependency = self.annotation(DEPENDENCY).and_then(|text| serde_json::from_str::<KReference>(text).ok());
        // It counts in the Trigger's namespace, whatever it says.
        dependency.iter().for_each(|dependency| {
            let here = KReference { namespace: String::new(), ..dependency.clone() };
            reference(&here, namespace, add);
        });
    }
}

impl Indexed for EventPolicy {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        let namespace = self.namespace();
        let mut by_name = false;
        for to in self.spec.to.iter().filter_map(|to| to.ref_.as_ref()) {
            by_name = true;
            if let Some(kind) = super::policies::kind_of(&to.api_version, &to.kind) {
                add(leads_to(kind, &Key::new(namespace, to.name.to_lowercase())));
            }
        }
        for from in self.spec.from.iter().filter_map(|from| from.ref_.as_ref()) {
            let own = from.namespace.is_empty();
            if let Some(kind) = Kind::from_api(&from.api_version, &from.kind) {
                add(leads_to(kind, &Key::new(if own { namespace } else { &from.namespace }, from.name.clone())));
            }
        }
        if !by_name || self.spec.to.iter().any(|to| to.selector.is_some()) {
            add(Term::SelectsOtherwise { namespace });
        }
    }
}

impl Indexed for EventType {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        self.spec.reference.iter().for_each(|to| reference(to, self.namespace(), add));
    }
}

impl Indexed for RequestReply {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        let broker = self.key().sibling(self.spec.broker_ref.name.clone());
        add(leads_to(Kind::Broker, &broker));
    }
}

impl Indexed for EventTransform {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        self.spec.sink.iter().for_each(|to| destination(to, self.namespace(), add));
    }
}

impl Indexed for Channel {}

impl Indexed for InMemoryChannel {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        delivery(self.spec.delivery.as_ref(), self.namespace(), add);
    }
}

impl Indexed for Subscription {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        let namespace = self.namespace();
        reference(&self.spec.channel, namespace, add);
        self.spec.subscriber.iter().chain(&self.spec.reply).for_each(|to| destination(to, namespace, add));
        delivery(self.spec.delivery.as_ref(), namespace, add);
    }
}

macro_rules! sources {
    ($($ty:ty),*) => {
        $(
            impl Indexed for $ty {
                fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
                    destination(&self.spec.source.sink, self.namespace(), add);
                }
            }
        )*
    };
}
sources!(PingSource, IntegrationSource);

impl Indexed for ApiServerSource {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        let account = self.key().sibling(account_of(self).to_owned());
        destination(&self.spec.source.sink, self.namespace(), add);
        add(leads_to(Kind::ServiceAccount, &account));
        // Namespaces have none.
        select("", self.spec.namespace_selector.as_ref(), add);
    }
}

impl Indexed for SinkBinding {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        let (namespace, subject) = (self.namespace(), &self.spec.subject);
        destination(&self.spec.source.sink, namespace, add);
        if let Some(DuckKind { api_version, kind }) = &DuckKind::of(&subject.api_version, &subject.kind) {
            let name = if subject.name.is_empty() { CHOSEN } else { &subject.name };
            add(Term::Duck { api_version, kind, namespace, name });
            add(Term::Duck { api_version, kind, namespace: "", name: "" });
        } else if subject.name.is_empty() {
            select(namespace, subject.selector.as_ref(), add);
        } else if let Some(kind) = Kind::from_api(&subject.api_version, &subject.kind) {
            add(leads_to(kind, &Key::new(namespace, subject.name.clone())));
        }
    }
}
