//! What the server makes of stored objects and keeps: the resources served, Knative's configuration, the addresses in
//! use.
//!
//! Nobody tells it of a write. Each reader first lets it catch up with the store, so it is as new as the store whoever
//! wrote, and whether or not the writer is still there. A change costs what it brings; only a start, or thousands of
//! changes that nobody asked about, cost a look at everything.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use knoll_api::{
    config::{ConfigBundle, Data, eventing::EventingBundle},
    labels::{EVENTING_SYSTEM_NAMESPACE, SYSTEM_NAMESPACE},
};
use knoll_store::{Change, Entry, Snapshot, Store};
use serde_json::Value;

use crate::{
    addresses::Addresses,
    bindings::{BINDINGS, Bindings, MAPS, may_be_bundle},
    counters::Counters,
    follow::{Follower, Seen},
    object,
    objects::Trees,
    resources::ResourceRegistry,
};

/// Where definitions of resources are kept.
pub(crate) const DEFINITIONS: &str = "/apiextensions.k8s.io/customresourcedefinitions/";
/// Where Serving's configuration is kept.
const SETTINGS: &str = "/core/configmaps/knative-serving/";
/// Where Eventing's configuration is kept.
const EVENTING_SETTINGS: &str = "/core/configmaps/knative-eventing/";
/// Where Services are kept.
const SERVICES: &str = "/core/services/";

/// What is made of stored objects, and how far it follows the store.
pub(crate) struct Derived {
    store: Store,
    trees: Trees,
    counters: Arc<Counters>,
    registry: RwLock<Arc<ResourceRegistry>>,
    knative: RwLock<Arc<ConfigBundle>>,
    eventing: RwLock<Arc<EventingBundle>>,
    addresses: Addresses,
    bindings: Bindings,
    /// Everything before this revision is in.
    before: AtomicU64,
    followers: Mutex<Followers>,
}

struct Followers {
    /// Whether the last round came to its end: a panic in it leaves a change half taken in.
    whole: bool,
    definitions: Follower,
    settings: Follower,
    eventing_settings: Follower,
    services: Follower,
    bindings: Follower,
    maps: Follower,
}

impl Derived {
    /// Derives from `store`, reading objects through `trees`.
    pub(crate) fn new(store: &Store, trees: &Trees, counters: &Arc<Counters>) -> Self {
        let follow = |prefix| Follower::new(store.clone(), prefix);
        let followers = Followers {
            whole: true,
            definitions: follow(DEFINITIONS),
            settings: follow(SETTINGS),
            eventing_settings: follow(EVENTING_SETTINGS),
            services: follow(SERVICES),
            bindings: follow(BINDINGS),
            maps: follow(MAPS),
        };
        Self {
            store: store.clone(),
            trees: trees.clone(),
            counters: counters.clone(),
            registry: RwLock::new(Arc::new(ResourceRegistry::built_in())),
            knative: RwLock::default(),
            eventing: RwLock::default(),
            addresses: Addresses::default(),
            bindings: Bindings::default(),
            before: AtomicU64::new(0),
            followers: Mutex::new(followers),
        }
    }

    /// The rows served at this moment.
    pub(crate) fn registry(&self) -> Arc<ResourceRegistry> {
        self.catch_up();
        self.registry.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serving's configuration in force.
    pub(crate) fn knative(&self) -> Arc<ConfigBundle> {
        self.catch_up();
        self.knative.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Eventing's configuration in force.
    pub(crate) fn eventing(&self) -> Arc<EventingBundle> {
        self.catch_up();
        self.eventing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The addresses and ports of Services, with what others were given.
    pub(crate) fn addresses(&self) -> &Addresses {
        self.catch_up();
        &self.addresses
    }

    /// SinkBindings by whom they mean, and certificates to trust.
    pub(crate) fn bindings(&self) -> &Bindings {
        self.catch_up();
        &self.bindings
    }

    /// Takes in what was written up to now.
    pub(crate) fn catch_up(&self) {
        // Read first: every change up to it is with the followers by now.
        let revision = self.store.revision();
        if self.before.load(Ordering::Acquire) > revision {
            return;
        }
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        let Followers { whole, definitions, settings, eventing_settings, services, bindings, maps } = &mut *followers;
        if !std::mem::replace(whole, false) {
            let own = [&mut *definitions, &mut *settings, &mut *eventing_settings, &mut *services];
            own.into_iter().chain([&mut *bindings, &mut *maps]).for_each(Follower::restart);
        }
        while let Some(seen) = definitions.try_next() {
            self.take_definitions(seen);
        }
        if any_change(settings) {
            self.reload(&self.knative, SETTINGS, ConfigBundle::updated);
        }
        if any_change(eventing_settings) {
            self.reload(&self.eventing, EVENTING_SETTINGS, EventingBundle::updated);
        }
        while let Some(seen) = services.try_next() {
            self.take_services(seen);
        }
        while let Some(seen) = bindings.try_next() {
            self.take_bindings(seen);
        }
        while let Some(seen) = maps.try_next() {
            self.take_maps(seen);
        }
        *whole = true;
        drop(followers);
        self.before.fetch_max(revision + 1, Ordering::AcqRel);
    }

    fn take_definitions(&self, seen: Seen) {
        match seen {
            Seen::All(snapshot) => {
                let definitions: Vec<Arc<Value>> = self.trees_below(&snapshot, DEFINITIONS).collect();
                self.update_registry(|registry| {
                    *registry = ResourceRegistry::built_in().after(registry);
                    definitions.iter().for_each(|definition| self.serve(registry, definition));
                });
            }
            Seen::Change(change) => {
                let (old, new) = self.both(&change);
                self.update_registry(|registry| {
                    if let Some(definition) = &old {
                        registry.retire(definition);
                    }
                    new.iter().for_each(|definition| self.serve(registry, definition));
                });
            }
        }
    }

    /// Serves what a definition says. One that cannot be understood costs itself, and no other request.
    fn serve(&self, registry: &mut ResourceRegistry, definition: &Value) {
        let name = object::name(definition);
        // Serving is the last step of taking a definition in: one that panics leaves the rows as they were.
        if let Err(panic) = self.catch("serve a definition", || registry.serve(definition)) {
            tracing::error!(definition = name, panic, "a definition is not served");
        }
    }

    /// Does a step; a panic of it is counted and becomes what it said.
    fn catch<T>(&self, doing: &str, step: impl FnOnce() -> T) -> Result<T, String> {
        let step = || {
            tracing::trace!(doing, "a step begins");
            step()
        };
        knoll_faults::catch(step).inspect_err(|_| self.counters.panics.add())
    }

    fn update_registry(&self, change: impl FnOnce(&mut ResourceRegistry)) {
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut registry));
    }

    fn take_services(&self, seen: Seen) {
        match seen {
            Seen::All(snapshot) => self.addresses.reset(self.trees_below(&snapshot, SERVICES)),
            Seen::Change(change) => {
                let (old, new) = self.both(&change);
                self.addresses.replace(old.as_deref(), new.as_deref());
            }
        }
    }

    fn take_bindings(&self, seen: Seen) {
        let take = |key: &str, binding: Option<Arc<Value>>| self.bindings.take_binding(key, binding.as_deref());
        match seen {
            Seen::All(snapshot) => {
                self.bindings.begin(BINDINGS);
                let all = snapshot.range(BINDINGS, None);
                all.for_each(|entry| take(&entry.key, self.tree(&entry.value, entry.revision)));
            }
            Seen::Change(change) => {
                let now = change.value.as_ref().and_then(|value| self.tree(value, change.revision));
                take(&change.key, now);
            }
        }
    }

    fn take_maps(&self, seen: Seen) {
        let take = |key: &str, map: Option<&Bytes>, revision: u64| {
            let map = map.filter(|map| may_be_bundle(map)).and_then(|map| self.tree(map, revision));
            self.bindings.take_map(key, map.as_deref());
        };
        match seen {
            Seen::All(snapshot) => {
                self.bindings.begin(MAPS);
                let all = snapshot.range(MAPS, None);
                all.for_each(|entry| take(&entry.key, Some(&entry.value), entry.revision));
            }
            Seen::Change(change) => take(&change.key, change.value.as_ref(), change.revision),
        }
    }

    /// Reads the ConfigMaps below a prefix again.
    fn reload<T>(&self, bundle: &RwLock<Arc<T>>, prefix: &str, update: impl FnOnce(&T, &BTreeMap<String, Data>) -> T) {
        let snapshot = self.store.snapshot();
        let mut maps = BTreeMap::new();
        for map in self.trees_below(&snapshot, prefix) {
            let data = map["data"].as_object().into_iter().flatten();
            let data = data.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect();
            maps.insert(object::name(&map).to_owned(), data);
        }
        let mut bundle = bundle.write().unwrap_or_else(PoisonError::into_inner);
        match self.catch("read the configuration", || update(&bundle, &maps)) {
            Ok(updated) => *bundle = Arc::new(updated),
            Err(panic) => {
                tracing::error!(panic, prefix, "ConfigMaps cannot be read: the settings before stay in force")
            }
        }
    }

    /// One after the other: as trees, all Services of a large instance would take hundreds of megabytes.
    fn trees_below<'a>(&'a self, snapshot: &'a Snapshot, prefix: &'a str) -> impl Iterator<Item = Arc<Value>> + 'a {
        snapshot.range(prefix, None).filter_map(|entry| self.tree(&entry.value, entry.revision))
    }

    fn both(&self, change: &Change) -> (Option<Arc<Value>>, Option<Arc<Value>>) {
        let old = change.previous.as_ref().and_then(|Entry { value, revision, .. }| self.tree(value, *revision));
        (old, change.value.as_ref().and_then(|value| self.tree(value, change.revision)))
    }

    /// A stored object; one that cannot be read is left out, and told.
    fn tree(&self, value: &Bytes, revision: u64) -> Option<Arc<Value>> {
        self.trees.of(value, revision).inspect_err(|error| tracing::error!(%error, revision, "left out")).ok()
    }
}

/// Whether anything was seen.
fn any_change(follower: &mut Follower) -> bool {
    std::iter::from_fn(|| follower.try_next()).count() > 0
}

/// The prefixes of the settings name the namespaces they are in.
const _: () = assert!(SYSTEM_NAMESPACE.len() + "/core/configmaps//".len() == SETTINGS.len());
const _: () = assert!(EVENTING_SYSTEM_NAMESPACE.len() + "/core/configmaps//".len() == EVENTING_SETTINGS.len());

#[cfg(test)]
pub(crate) mod tests;
