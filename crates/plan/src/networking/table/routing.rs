//! The table, kept up to date by what changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use knoll_api::{
    Key, Object, Resource,
    labels::serving as keys,
    table::{Host, RoutingTable},
};

use super::{
    backend::{backend, is_revision, service_of},
    ingress_routes::{IngressRoutes, ingress_routes},
};
use crate::{Changed, SystemConfig, World};

/// The table, kept up to date by what changed.
#[derive(Debug, Default)]
pub struct Routing {
    table: RoutingTable,
    ingress_routes: BTreeMap<Key, IngressRoutes>,
    /// Hosts, each with an Ingress that claims it. These indexes are flat, a row a fact: nearly every host and Service
    /// has one Ingress, and a set of its own for each would weigh more than the table.
    claims: BTreeSet<(Side, Arc<str>, Key)>,
    /// Services, each with an Ingress that names it.
    named: Pairs,
    /// Backends, each with an Ingress that uses it.
    used: Pairs,
    /// Ingresses, each with one that follows it.
    followed: Pairs,
    panics: Panics,
    /// Everything is to be looked at again: up to here, it was.
    stale: Option<Option<Key>>,
}

/// Ingresses that one update looks at again when all of them are to be.
const AT_ONCE: usize = 256;

/// Panics that are told with what they said; more are counted.
const TOLD: usize = 16;

/// What panicked while the table was built: the table keeps what it had of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Panics {
    /// How many.
    pub count: u64,
    /// The first of them: the Ingress or backend, and what the panic said.
    pub first: Vec<(Key, String)>,
}

/// What an update gives the gateway and the Ingresses.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The table as it is now.
    pub table: Arc<RoutingTable>,
    /// Ingresses that were looked at: the generation the table holds now, or that it holds none. For
    /// [`crate::Observation::Published`], once the gateway has the table.
    pub published: BTreeMap<Key, Option<i64>>,
}

/// What is looked up, each with an Ingress.
type Pairs = BTreeSet<(Key, Key)>;

/// The Ingresses that stand with `key`, in order.
fn with<'a>(pairs: &'a Pairs, key: &Key) -> impl Iterator<Item = &'a Key> + use<'a> {
    let of = key.clone();
    pairs.range((key.clone(), Key::new("", ""))..).take_while(move |(key, _)| *key == of).map(|(_, ingress)| ingress)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    External,
    Local,
}

/// What has to be looked at again.
#[derive(Default)]
struct Touched {
    ingresses: BTreeSet<Key>,
    backends: BTreeSet<Key>,
}

impl Routing {
    /// The table of `world`, from nothing.
    pub fn new(world: &World) -> (Routing, Update) {
        let mut routing = Routing::default();
        let touched = Touched {
            ingresses: world.ingresses.keys().collect(),
            backends: world.serverless_services.keys().collect(),
        };
        let (published, _) = routing.redo(world, touched);
        let update = Update { table: Arc::new(routing.table.clone()), published };
        (routing, update)
    }

    /// Takes in changes that `world` holds already. Nothing when neither the table nor what it holds changed.
    pub fn update(&mut self, world: &World, changes: &[Changed]) -> Option<Update> {
        let mut touched = Touched::default();
        for change in changes {
            self.touch(change, &mut touched);
        }
        self.touch_stale(world, &mut touched);
        if touched.ingresses.is_empty() && touched.backends.is_empty() {
            return None;
        }
        let (published, changed) = self.redo(world, touched);
        if published.is_empty() && !changed {
            return None;
        }
        Some(Update { table: Arc::new(self.table.clone()), published })
    }

    /// The table as it is now.
    pub fn table(&self) -> &RoutingTable {
        &self.table
    }

    /// What panicked since this was asked last.
    pub fn take_panics(&mut self) -> Panics {
        std::mem::take(&mut self.panics)
    }

    /// Does pure `work` about `key`; a panic is noted, and gives nothing.
    fn try_to<T>(&mut self, key: &Key, work: impl FnOnce() -> T) -> Option<T> {
        let done = knoll_faults::catch(|| {
            #[cfg(test)]
            super::tests::step_on_mine(key);
            work()
        });
        done.map_err(|said| {
            self.panics.count += 1;
            if self.panics.first.len() < TOLD {
                self.panics.first.push((key.clone(), said));
            }
        })
        .ok()
    }

    /// Whether the next update has something to look at even if nothing changes.
    pub fn is_behind(&self) -> bool {
        self.stale.is_some()
    }

    /// The next few of what is to be looked at again.
    fn touch_stale(&mut self, world: &World, touched: &mut Touched) {
        let Some(after) = self.stale.take() else { return };
        let keys = world.ingresses.keys_after(after.as_ref(), AT_ONCE);
        if keys.len() == AT_ONCE {
            self.stale = Some(keys.last().cloned());
        }
        touched.ingresses.extend(keys);
    }

    fn touch(&mut self, change: &Changed, touched: &mut Touched) {
        match change {
            Changed::Config(SystemConfig::Serving("config-network")) => self.stale = Some(None),
            Changed::Object { before, after } => {
                for object in before.iter().chain(after) {
                    self.touch_object(object, touched);
                }
            }
            Changed::Config(_)
            | Changed::Observed(..)
            | Changed::Duck(..)
            | Changed::Untyped { .. }
            | Changed::Known(_) => {}
        }
    }

    fn touch_object(&self, object: &Object, touched: &mut Touched) {
        let key = object.key();
        match object {
            Object::Ingress(_) => {
                touched.ingresses.extend(with(&self.followed, &key).cloned());
                touched.ingresses.insert(key);
            }
            Object::Revision(_) | Object::ServerlessService(_) => {
                // What a Service is decides how Ingresses name it.
                touched.ingresses.extend(with(&self.named, &key).cloned());
                touched.backends.insert(key);
            }
            Object::PodAutoscaler(_) => {
                touched.backends.insert(key);
            }
            Object::Pod(pod) => {
                let revision = pod.label(keys::REVISION).map(|revision| key.sibling(revision));
                touched.backends.extend(revision);
            }
            Object::CoreService(_) => {
                touched.ingresses.extend(with(&self.named, &key).cloned());
                touched.backends.extend(self.ports_of(&key));
            }
            Object::Endpoints(_) => touched.backends.extend(self.ports_of(&key)),
            _ => {}
        }
    }

    /// Backends of a Service that is not a Revision's.
    fn ports_of(&self, service: &Key) -> Vec<Key> {
        let first = service.sibling(format!("{}:", service.name));
        let ports = self.used.range((first, Key::new("", ""))..).map(|(key, _)| key);
        ports.take_while(|key| service_of(key).0 == *service).cloned().collect()
    }

    /// Looks at everything touched again. Says what to publish, and whether the table changed.
    fn redo(&mut self, world: &World, mut touched: Touched) -> (BTreeMap<Key, Option<i64>>, bool) {
        let (mut hosts, mut published) = (BTreeSet::new(), BTreeMap::new());
        for key in touched.ingresses {
            let Some(next) = self.try_to(&key, || ingress_routes(world, &key)) else { continue };
            let before = self.ingress_routes.get(&key);
            if before == next.as_ref() {
                continue;
            }
            published.insert(key.clone(), next.as_ref().map(|routes| routes.generation));
            if let Some(before) = self.ingress_routes.remove(&key) {
                touched.backends.extend(before.backends.iter().cloned());
                self.index(&key, &before, &mut hosts, false);
            }
            if let Some(next) = next {
                touched.backends.extend(next.backends.iter().cloned());
                self.index(&key, &next, &mut hosts, true);
                self.ingress_routes.insert(key, next);
            }
        }
        let mut changed = false;
        for (side, name) in hosts {
            changed |= self.redo_host(side, &name);
        }
        for key in touched.backends {
            changed |= self.redo_backend(world, key);
        }
        (published, changed)
    }

    fn index(&mut self, key: &Key, routes: &IngressRoutes, hosts: &mut BTreeSet<(Side, Arc<str>)>, is_in: bool) {
        let external = routes.external.iter().map(|(name, _)| (Side::External, Arc::from(name.as_str())));
        let local = routes.local.iter().map(|(name, _)| (Side::Local, Arc::from(name.as_str())));
        for (side, name) in external.chain(local) {
            let claim = (side, Arc::clone(&name), key.clone());
            if is_in {
                self.claims.insert(claim)
            } else {
                self.claims.remove(&claim)
            };
            hosts.insert((side, name));
        }
        let indexes = [
            (&mut self.named, &routes.services),
            (&mut self.used, &routes.backends),
            (&mut self.followed, &routes.follows),
        ];
        for (index, members) in indexes {
            for member in members.iter() {
                let pair = (member.clone(), key.clone());
                if is_in {
                    index.insert(pair)
                } else {
                    index.remove(&pair)
                };
            }
        }
    }

    /// The first claimant has the host. Returns whether that changed anything.
    fn redo_host(&mut self, side: Side, name: &Arc<str>) -> bool {
        let first = self.claims.range((side, Arc::clone(name), Key::new("", ""))..).next();
        let winner = first.filter(|claim| claim.0 == side && claim.1 == *name).map(|claim| &claim.2);
        let host: Option<Arc<Host>> = winner.and_then(|key| self.ingress_routes.get(key)).and_then(|routes| {
            let hosts = if side == Side::External { &routes.external } else { &routes.local };
            IngressRoutes::host(hosts, name).cloned()
        });
        let hosts = if side == Side::External { &mut self.table.external } else { &mut self.table.local };
        let before = match host.clone() {
            Some(host) => hosts.insert(name.to_string(), host),
            None => hosts.remove(&**name),
        };
        before != host
    }

    /// Returns whether that changed anything.
    fn redo_backend(&mut self, world: &World, key: Key) -> bool {
        if with(&self.used, &key).next().is_none() && !is_revision(world, &key) {
            return self.table.backends.remove(&key).is_some();
        }
        let Some(next) = self.try_to(&key, || backend(world, &key)) else { return false };
        let changed = self.table.backends.get(&key).is_none_or(|before| **before != next);
        if changed {
            self.table.backends.insert(key, Arc::new(next));
        }
        changed
    }
}
