//! Keeps the snapshot of the sources that run in this process, and says which of them do.
//!
//! A change costs its own source. One that only its status tells of differently, such as that it is ready, is not handed
//! over again: a watch would begin anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use knoll_api::{Key, Kind, Resource, duck::SourceStatus, sources::ApiServerSource};
use knoll_event::filter::Filter;
use knoll_plan::{Carried, Changed, Observation, World, sender_account};
use knoll_sources::{Applied, Id, Source, Sources};
use tokio::sync::watch;

use crate::counters::{Counters, count};

/// Kinds that the snapshot is made of.
pub(crate) const KINDS: [Kind; 3] = [Kind::PingSource, Kind::ApiServerSource, Kind::IntegrationSource];

/// Both ways between the loop and the sources.
#[derive(Clone)]
pub struct SourceLinks {
    /// What is to run; nothing before everything was listed.
    pub snapshots: watch::Sender<Option<Sources>>,
    /// What runs.
    pub applied: watch::Receiver<Applied>,
}

impl SourceLinks {
    /// What runs, for a World that knows nothing of it: what ran before this life of the loop is told, too.
    pub(crate) fn running(&self) -> watch::Receiver<Applied> {
        let mut running = self.applied.clone();
        running.mark_changed();
        running
    }
}

type Object = (Kind, Key);

/// What a source is made of: its spec by the generation that the status speaks of, and what the status found.
#[derive(Clone, Debug, PartialEq)]
struct Ingredients {
    uid: String,
    status: SourceStatus,
    namespaces: Vec<String>,
    /// As whom its events are sent.
    account: Option<String>,
}

impl Ingredients {
    fn of(world: &World, object: &impl Resource, status: &SourceStatus, namespaces: &[String]) -> Self {
        let mut status = status.clone();
        status.common.conditions.clear();
        let account = sender_account(world, object);
        Self { uid: object.uid().to_owned(), status, namespaces: namespaces.to_vec(), account }
    }
}

/// See the module.
pub(crate) struct SourcePublisher {
    links: SourceLinks,
    sources: Option<Sources>,
    made: BTreeMap<Object, Ingredients>,
    touched: BTreeSet<Object>,
    seen: Applied,
    counters: Arc<Counters>,
}

impl SourcePublisher {
    pub(crate) fn new(links: SourceLinks, counters: Arc<Counters>) -> Self {
        let (made, touched, seen) = Default::default();
        Self { links, sources: None, made, touched, seen, counters }
    }

    /// Notes a change that the World holds already.
    pub(crate) fn changed(&mut self, change: &Changed) {
        let Changed::Object { before, after } = change else { return };
        let object = after.as_ref().or(before.as_ref()).filter(|_| self.sources.is_some());
        let object = object.map(|object| (object.kind(), object.key()));
        self.touched.extend(object.filter(|(kind, _)| KINDS.contains(kind)));
    }

    /// Hands over what changed.
    pub(crate) fn publish(&mut self, world: &World) {
        let is_first = self.sources.is_none();
        if is_first {
            let all = KINDS.into_iter().flat_map(|kind| world.keys(kind).into_iter().map(move |key| (kind, key)));
            self.touched = all.collect();
        }
        let mut next = self.sources.take().unwrap_or_default();
        let mut is_different = is_first;
        for object in std::mem::take(&mut self.touched) {
            match knoll_faults::catch(|| self.look(world, &object)) {
                Ok(None) => {}
                Ok(Some(made)) => {
                    is_different = true;
                    let id = Id::new(object.0, &object.1.namespace, &object.1.name);
                    next = match made {
                        Some(source) => next.with(source),
                        None => next.without(&id),
                    };
                }
                Err(panic) => {
                    count(&self.counters.plan_panics);
                    let (kind, key) = (object.0.kind(), &object.1);
                    tracing::error!(kind, %key, panic, "telling the sources panicked; they keep what they had");
                }
            }
        }
        self.sources = Some(next.clone());
        if is_different {
            self.links.snapshots.send_replace(Some(next));
        }
    }

    /// What becomes of a source; nothing when that is what it is.
    fn look(&mut self, world: &World, object: &Object) -> Option<Option<Source>> {
        let (kind, key) = object;
        let made = match kind {
            Kind::PingSource => world.ping_sources.get(key).and_then(|source| {
                Some((Ingredients::of(world, source.as_ref(), &source.status, &[]), Source::of_ping(&source)?))
            }),
            Kind::IntegrationSource => world.integration_sources.get(key).and_then(|source| {
                Some((Ingredients::of(world, source.as_ref(), &source.status, &[]), Source::of_timer(&source)?))
            }),
            _ => world.api_server_sources.get(key).and_then(|source| {
                let (status, namespaces) = (&source.status.source, &source.status.namespaces);
                let ingredients = Ingredients::of(world, source.as_ref(), status, namespaces);
                Some((ingredients, of_api_server(&source)?))
            }),
        };
        match made {
            None => self.made.remove(object).map(|_| None),
            Some((ingredients, _)) if self.made.get(object) == Some(&ingredients) => None,
            Some((ingredients, mut source)) => {
                source.service_account = ingredients.account.as_deref().map(Into::into);
                self.made.insert(object.clone(), ingredients);
                Some(Some(source))
            }
        }
    }

    /// What runs from now on, and why others do not.
    pub(crate) fn applied(&mut self, applied: Applied) -> Vec<Observation> {
        let (mut carries, mut hindered) = (BTreeMap::new(), BTreeMap::new());
        for id in applied.since(&self.seen) {
            let object: Object = (id.kind, Key::new(&*id.namespace, &*id.name));
            let carrying = applied.get(id);
            let carried = carrying.filter(|of| of.problem.is_none());
            let carried = carried.map(|of| Carried { uid: of.uid.to_string(), generation: of.generation });
            let why = carrying.and_then(|of| Some((of.uid.to_string(), of.problem.as_ref()?.to_string())));
            hindered.insert(object.clone(), why);
            carries.insert(object, carried);
        }
        self.seen = applied;
        if carries.is_empty() {
            Vec::new()
        } else {
            vec![Observation::Carries(carries), Observation::Hindered(hindered)]
        }
    }
}

/// An ApiServerSource, once its status says how its events name the API server; one whose filters cannot be read is not
/// carried out, and says why.
fn of_api_server(source: &ApiServerSource) -> Option<Source> {
    let api_server = &source.status.source.ce_attributes.first()?.source;
    let filters = source.spec.filters.iter().map(|filter| filter.compile()).collect::<Result<Vec<_>, _>>();
    let filter = filters.and_then(|filters| match filters.is_empty() {
        true => Ok(None),
        false => Ok(Some(Filter::all(filters)?)),
    });
    match filter {
        Ok(filter) => Source::of_api_server(source, filter, api_server),
        Err(error) => {
            let mut made = Source::of_api_server(source, None, api_server)?;
            made.work = Err(format!("spec.filters: {error}").into());
            Some(made)
        }
    }
}

#[cfg(test)]
mod tests {
    use knoll_api::Object;
    use knoll_plan::{Change, Settings};
    use serde_json::{Value, json};

    use super::*;

    fn ping(generation: i64, ready: &str) -> Value {
        json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": generation},
            "spec": {"schedule": "* * * * *", "sink": {"uri": "http://s/"}},
            "status": {
                "observedGeneration": generation, "sinkUri": "http://s/",
                "conditions": [{"type": "Ready", "status": ready}],
            },
        })
    }

    #[test]
    fn what_runs_already_is_told_to_a_loop_that_begins_again() {
        let (snapshots, _) = watch::channel(None);
        let sender = watch::Sender::default();
        let links = SourceLinks { snapshots, applied: sender.subscribe() };
        assert_eq!(links.applied.has_changed().ok(), Some(false));
        assert_eq!(links.running().has_changed().ok(), Some(true));
        drop(sender);
    }

    fn put(world: &mut World, publisher: &mut SourcePublisher, object: Value) {
        let object = Object::from_json(Kind::PingSource, object).expect("an object");
        world.apply(Change::Put(object)).iter().for_each(|changed| publisher.changed(changed));
        publisher.publish(world);
    }

    #[test]
    fn events_are_sent_as_the_sources_own_account_whatever_its_status_names() {
        let (snapshots, newest) = watch::channel(None);
        let links = SourceLinks { snapshots, applied: watch::Sender::default().subscribe() };
        let (mut world, mut publisher) = (World::new(Settings::default()), SourcePublisher::new(links, Arc::default()));
        let mut named = ping(1, "True");
        named["status"]["auth"] = json!({"serviceAccountName": "deployer"});
        named["status"]["sinkAudience"] = json!("another");
        let account = || {
            let sources = newest.borrow().clone().expect("sources");
            let source = sources.get(&Id::new(Kind::PingSource, "ns", "p")).expect("it is there").clone();
            source.service_account.clone()
        };
        put(&mut world, &mut publisher, named.clone());
        assert_eq!(account(), None, "nobody is asked who they are");
        let features = json!({
            "metadata": {"name": "config-features", "namespace": "knative-eventing"},
            "data": {"authentication-oidc": "enabled"},
        });
        let features = Object::from_json(Kind::ConfigMap, features).expect("an object");
        world.apply(Change::Put(features)).iter().for_each(|changed| publisher.changed(changed));
        named["metadata"]["generation"] = json!(2);
        named["status"]["observedGeneration"] = json!(2);
        put(&mut world, &mut publisher, named);
        assert_eq!(account().as_deref(), Some("p-oidc-sources.knative.dev-pingsource"));
    }

    #[test]
    fn a_source_is_handed_over_when_it_changes_and_not_when_it_becomes_ready() {
        let (snapshots, newest) = watch::channel(None);
        let links = SourceLinks { snapshots, applied: watch::Sender::default().subscribe() };
        let (mut world, mut publisher) = (World::new(Settings::default()), SourcePublisher::new(links, Arc::default()));
        let id = Id::new(Kind::PingSource, "ns", "p");
        put(&mut world, &mut publisher, ping(1, "Unknown"));
        let held = || newest.borrow().as_ref().and_then(|sources: &Sources| sources.get(&id).cloned());
        let first = held().expect("it is there");
        put(&mut world, &mut publisher, ping(1, "True"));
        assert!(Arc::ptr_eq(&first, &held().expect("it is there")), "nothing of it is different");
        put(&mut world, &mut publisher, ping(2, "True"));
        assert_eq!(held().expect("it is there").generation, 2);
        let gone = world.apply(Change::Gone(Kind::PingSource, Key::new("ns", "p")));
        gone.iter().for_each(|changed| publisher.changed(changed));
        publisher.publish(&world);
        assert!(held().is_none() && publisher.made.is_empty());
    }
}
