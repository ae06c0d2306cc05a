//! What the server makes of stored objects and keeps: the resources served, Knative's configuration, the addresses in
//! use.
//!
//! Nobody tells it of a write. Each reader first lets it catch up with the store, so it is as new as the store whoever
//! wrote, and whether or not the writer is still there. A change costs what it brings; only a start, or thousands of
//! changes that nobody asked about, cost a look at everything.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use knoll_store::{Change, Entry, Snapshot, Store};
use serde_json::Value;

use crate::{
    ApiServer,
    follow::{Follower, Seen},
    object,
    resources::{self, Registry},
    server::SYSTEM_NAMESPACE,
};

/// Where definitions of resources are kept.
pub(crate) const DEFINITIONS: &str = "/apiextensions.k8s.io/customresourcedefinitions/";
/// Where Knative's configuration is kept.
const SETTINGS: &str = "/core/configmaps/knative-serving/";
/// Where Services are kept.
const SERVICES: &str = "/core/services/";

/// How far what is derived follows the store.
pub(crate) struct Derived {
    /// Everything before this revision is in.
    before: AtomicU64,
    followers: Mutex<Followers>,
}

struct Followers {
    /// Whether the last round came to its end: a panic in it leaves a change half taken in.
    whole: bool,
    definitions: Follower,
    settings: Follower,
    services: Follower,
}

impl Derived {
    pub(crate) fn new(store: &Store) -> Self {
        let follow = |prefix| Follower::new(store.clone(), prefix);
        let followers = Followers {
            whole: true,
            definitions: follow(DEFINITIONS),
            settings: follow(SETTINGS),
            services: follow(SERVICES),
        };
        Self { before: AtomicU64::new(0), followers: Mutex::new(followers) }
    }
}

impl ApiServer {
    /// Takes in what was written up to now.
    pub(crate) fn catch_up(&self) {
        // Read first: every change up to it is with the followers by now.
        let revision = self.store.revision();
        if self.derived.before.load(Ordering::Acquire) > revision {
            return;
        }
        let mut followers = self.derived.followers.lock().unwrap_or_else(PoisonError::into_inner);
        let Followers { whole, definitions, settings, services } = &mut *followers;
        if !std::mem::replace(whole, false) {
            [&mut *definitions, &mut *settings, &mut *services].into_iter().for_each(Follower::restart);
        }
        while let Some(seen) = definitions.try_next() {
            self.take_definitions(seen);
        }
        let mut changed = false;
        while settings.try_next().is_some() {
            changed = true;
        }
        if changed {
            self.reload_knative();
        }
        while let Some(seen) = services.try_next() {
            self.take_services(seen);
        }
        *whole = true;
        drop(followers);
        self.derived.before.fetch_max(revision + 1, Ordering::AcqRel);
    }

    fn take_definitions(&self, seen: Seen) {
        match seen {
            Seen::All(snapshot) => {
                let definitions: Vec<Arc<Value>> = self.trees_below(&snapshot, DEFINITIONS);
                self.update_registry(|registry| {
                    *registry = Registry::built_in().after(registry);
                    definitions.iter().for_each(|definition| resources::serve(registry, definition));
                });
            }
            Seen::Change(change) => {
                let (old, new) = self.both(&change);
                self.update_registry(|registry| {
                    if let Some(definition) = &old {
                        resources::retire(registry, definition);
                    }
                    new.iter().for_each(|definition| resources::serve(registry, definition));
                });
            }
        }
    }

    fn take_services(&self, seen: Seen) {
        match seen {
            Seen::All(snapshot) => self.addresses.reset(&self.trees_below(&snapshot, SERVICES)),
            Seen::Change(change) => {
                let (old, new) = self.both(&change);
                self.addresses.replace(old.as_deref(), new.as_deref());
            }
        }
    }

    /// Reads Knative's ConfigMaps again.
    fn reload_knative(&self) {
        let snapshot = self.store.snapshot();
        let mut maps = BTreeMap::new();
        for map in self.trees_below(&snapshot, SETTINGS) {
            let data = map["data"].as_object().into_iter().flatten();
            let data = data.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect();
            maps.insert(object::name(&map).to_owned(), data);
        }
        self.update_knative(&maps);
    }

    fn trees_below(&self, snapshot: &Snapshot, prefix: &str) -> Vec<Arc<Value>> {
        snapshot.range(prefix, None).filter_map(|entry| self.tree(&entry.value, entry.revision)).collect()
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

/// The prefix of the settings names the namespace they are in.
const _: () = assert!(SYSTEM_NAMESPACE.len() + "/core/configmaps//".len() == SETTINGS.len());

#[cfg(test)]
mod tests;
