//! All endpoint pools of a gateway: found by revision for hints, and by Service for routes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use knoll_api::Key;
use knoll_api::table::{Backend, Instance, RoutingTable};

use crate::endpoint::Endpoint;
use crate::endpoint_pool::{Common, EndpointPool};
use crate::gateway::EndpointPoolView;

/// Most revisions with instances announced before the table knows them.
const MAX_EARLY: usize = 4096;

/// The endpoint pools. Kept behind a lock that no request takes while its thread's routes are warm.
#[derive(Debug)]
pub(crate) struct EndpointPools {
    common: Arc<Common>,
    table: Arc<RoutingTable>,
    /// By what stays the same while the object lives: a Revision's uid.
    pools: HashMap<String, Arc<EndpointPool>>,
    by_revision: HashMap<Key, Arc<EndpointPool>>,
    /// Pools of deleted revisions, as long as a request holds them.
    closed: HashMap<Key, Vec<Weak<EndpointPool>>>,
    /// Instances of revisions the table does not know yet.
    early: BTreeMap<Key, Vec<Instance>>,
}

impl EndpointPools {
    pub(crate) fn new(common: Arc<Common>) -> Self {
        let (table, pools, by_revision, closed, early) = Default::default();
        Self { common, table, pools, by_revision, closed, early }
    }

    /// The endpoint pool behind a Service.
    pub(crate) fn pool(&self, service: &Key, backend: &Backend) -> Option<Arc<EndpointPool>> {
        self.pools.get(&identity(service, backend)).cloned()
    }

    /// Every endpoint pool in which something goes on.
    pub(crate) fn view(&self) -> Vec<EndpointPoolView> {
        let mut all: Vec<_> = self.pools.values().filter_map(|pool| pool.view()).collect();
        all.sort_unstable_by(|one, two| one.key.cmp(&two.key));
        all
    }

    /// How many endpoint pools there are.
    pub(crate) fn len(&self) -> usize {
        self.pools.len()
    }

    /// Follows `next` where it differs from the last table. Returns endpoint pools nothing leads to any more, for
    /// [`EndpointPools::forget`] once no thread routes by the old table.
    pub(crate) fn apply(&mut self, next: &Arc<RoutingTable>, now: u64) -> Vec<String> {
        let last = std::mem::replace(&mut self.table, next.clone());
        let mut lonely = Vec::new();
        for (service, old, new) in differences(&last.backends, &next.backends) {
            let (was, is) =
                (old.map(|backend| identity(service, backend)), new.map(|backend| identity(service, backend)));
            if let (Some(is), Some(backend)) = (&is, new) {
                self.pool_or_new(is, service, backend, now).follow(service, Some(backend.clone()), now);
            }
            if let Some(was) = was.filter(|was| Some(was) != is.as_ref())
                && let Some(pool) = self.pools.get(&was)
                && !pool.follow(service, None, now)
            {
                lonely.push(was);
            }
        }
        lonely
    }

    /// Closes and drops the endpoint pools named, unless a Service leads to them again.
    pub(crate) fn forget(&mut self, lonely: Vec<String>) {
        for identity in lonely {
            if self.pools.get(&identity).is_some_and(|pool| pool.has_services()) {
                continue;
            }
            if let Some(pool) = self.pools.remove(&identity) {
                if pool.close() {
                    self.closed.entry(pool.key.clone()).or_default().push(Arc::downgrade(&pool));
                }
                let same = |other: &Arc<EndpointPool>| Arc::ptr_eq(other, &pool);
                if self.by_revision.get(&pool.key).is_some_and(same) {
                    self.by_revision.remove(&pool.key);
                }
            }
        }
        self.closed.retain(|_, pools| {
            pools.retain(|pool| pool.strong_count() > 0);
            !pools.is_empty()
        });
    }

    /// Notes an instance ahead of the table.
    pub(crate) fn instance_up(&mut self, revision: Key, instance: Instance, now: u64) {
        match self.by_revision.get(&revision) {
            Some(pool) => pool.instance_up(&instance, now),
            None if self.early.len() < MAX_EARLY => {
                let early = self.early.entry(revision).or_default();
                early.retain(|other| other.address != instance.address);
                early.push(instance);
            }
            None => {
                self.common.metrics.hints_dropped.count();
                tracing::debug!(%revision, "too many early instances; this one waits for the table");
            }
        }
    }

    /// Notes that an instance is gone ahead of the table.
    pub(crate) fn instance_down(&mut self, revision: &Key, instance: &Instance, now: u64) {
        if let Some(early) = self.early.get_mut(revision) {
            early.retain(|other| other != instance);
            if early.is_empty() {
                self.early.remove(revision);
            }
        }
        if let Some(pool) = self.by_revision.get(revision) {
            pool.instance_down(instance, now);
        }
    }

    /// What is left of an instance that takes no new requests: where requests may be in flight.
    pub(crate) fn leaving(&self, revision: &Key, instance: &Instance) -> Vec<Arc<Endpoint>> {
        let closed = self.closed.get(revision).into_iter().flatten().filter_map(Weak::upgrade);
        closed.chain(self.by_revision.get(revision).cloned()).flat_map(|pool| pool.leaving(instance)).collect()
    }

    fn pool_or_new(&mut self, identity: &str, service: &Key, backend: &Backend, now: u64) -> Arc<EndpointPool> {
        if let Some(pool) = self.pools.get(identity) {
            return pool.clone();
        }
        let revision = backend.revision.as_ref().map(|policy| policy.revision.clone());
        let is_revision = revision.is_some();
        let key = revision.unwrap_or_else(|| service.clone());
        let pool = Arc::new(EndpointPool::new(key.clone(), is_revision, self.common.clone()));
        self.pools.insert(identity.to_owned(), pool.clone());
        if is_revision {
            self.by_revision.insert(key.clone(), pool.clone());
            for instance in self.early.remove(&key).into_iter().flatten() {
                pool.instance_up(&instance, now);
            }
        }
        pool
    }
}

fn identity(service: &Key, backend: &Backend) -> String {
    match &backend.revision {
        Some(policy) if !policy.uid.is_empty() => policy.uid.clone(),
        Some(policy) => format!("revision {}", policy.revision),
        None => format!("service {service}"),
    }
}

type Difference<'a> = (&'a Key, Option<&'a Arc<Backend>>, Option<&'a Arc<Backend>>);

/// Services whose backend is not the same value in both maps.
fn differences<'a>(
    old: &'a OrdMap<Key, Arc<Backend>>,
    new: &'a OrdMap<Key, Arc<Backend>>,
) -> impl Iterator<Item = Difference<'a>> {
    old.diff(new).map(|item| match item {
        DiffItem::Add(service, backend) => (service, None, Some(backend)),
        DiffItem::Remove(service, backend) => (service, Some(backend), None),
        DiffItem::Update { old: (service, before), new: (_, after) } => (service, Some(before), Some(after)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(backends: &[(&str, &Arc<Backend>)]) -> OrdMap<Key, Arc<Backend>> {
        backends.iter().map(|&(name, backend)| (Key::new("ns", name), backend.clone())).collect()
    }

    #[test]
    fn only_what_changed_differs() {
        let plain = Arc::new(Backend::default());
        let failed = Arc::new(Backend { failure: Some("why".into()), ..Backend::default() });
        let old = map(&[("a", &plain), ("b", &plain), ("d", &plain)]);
        let new = map(&[("a", &Arc::new(Backend::default())), ("b", &failed), ("c", &plain)]);
        let found: Vec<_> = differences(&old, &new)
            .map(|(key, left, right)| (key.name.as_str(), left.is_some(), right.is_some()))
            .collect();
        assert_eq!(found, [("b", true, true), ("c", false, true), ("d", true, false)]);
    }
}
