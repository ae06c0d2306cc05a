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
use knoll_plan::{Carried, Changed, Observation, World};
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
    /// The address of the API server, as events of ApiServerSources name it.
    pub api_server: Arc<str>,
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
}

impl Ingredients {
    fn of(object: &impl Resource, status: &SourceStatus, namespaces: &[String]) -> Self {
        let mut status = status.clone();
        status.common.conditions.clear();
        Self { uid: object.uid().to_owned(), status, namespaces: namespaces.to_vec() }
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
                Some((Ingredients::of(source.as_ref(), &source.status, &[]), Source::of_ping(&source)?))
            }),
            Kind::IntegrationSource => world.integration_sources.get(key).and_then(|source| {
                Some((Ingredients::of(source.as_ref(), &source.status, &[]), Source::of_timer(&source)?))
            }),
            _ => world.api_server_sources.get(key).and_then(|source| {
                let ingredients = Ingredients::of(source.as_ref(), &source.status.source, &source.status.namespaces);
                Some((ingredients, of_api_server(&source, &self.links.api_server)?))
            }),
        };
        match made {
            None => self.made.remove(object).map(|_| None),
            Some((ingredients, _)) if self.made.get(object) == Some(&ingredients) => None,
            Some((ingredients, source)) => {
                self.made.insert(object.clone(), ingredients);
                Some(Some(source))
            }
        }
    }

    /// What runs from now on.
    pub(crate) fn applied(&mut self, applied: Applied) -> Option<Observation> {
        let told: BTreeMap<Object, Option<Carried>> = applied
            .since(&self.seen)
            .map(|id| {
                let carried = applied.get(id).map(|of| Carried {
                    uid: of.uid.to_string(),
                    generation: of.generation,
                    problem: of.problem.as_deref().map(str::to_owned),
                });
                ((id.kind, Key::new(&*id.namespace, &*id.name)), carried)
            })
            .collect();
        self.seen = applied;
        (!told.is_empty()).then_some(Observation::Carries(told))
    }
}

/// An ApiServerSource; one whose filters cannot be read is not carried out, and says why.
fn of_api_server(source: &ApiServerSource, api_server: &str) -> Option<Source> {
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
        let links = SourceLinks { snapshots, applied: sender.subscribe(), api_server: "a".into() };
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
    fn a_source_is_handed_over_when_it_changes_and_not_when_it_becomes_ready() {
        let (snapshots, newest) = watch::channel(None);
        let links = SourceLinks { snapshots, applied: watch::Sender::default().subscribe(), api_server: "a".into() };
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
