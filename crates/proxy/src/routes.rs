//! The hosts a data thread has prepared, and whether a new table leaves them as they are.
//!
//! A new table drops nothing. A prepared host is compared with the table in force when it is next asked for, which
//! costs a look-up for the host and one for each of its Services, once a table. Hosts nobody asks for leave after
//! one to two [`KEPT`]s.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use knoll_api::Key;
use knoll_api::table::{Host, RoutingTable};

use crate::gateway::Visibility;
use crate::route::{self, HostRoute, Target};

/// How long an unused host stays prepared, at least.
const KEPT: Duration = Duration::from_secs(60);
/// Most hosts of one side that may be in use before those that were not asked for since the last turn leave early.
const MAX_HOSTS: usize = 8192;

/// What a name stands for in a table.
#[derive(Clone, Debug)]
enum Source {
    Listed(Arc<Host>),
    Service(Key),
}

impl Source {
    fn of(table: &RoutingTable, visibility: Visibility, name: &str, cluster_domain: &str) -> Option<Self> {
        let listed = match visibility {
            Visibility::External => table.external.get(name),
            Visibility::ClusterLocal => table.local.get(name).or_else(|| table.external.get(name)),
        };
        match (listed, visibility) {
            (Some(host), _) => Some(Self::Listed(host.clone())),
            (None, Visibility::External) => None,
            (None, Visibility::ClusterLocal) => route::service_of(name, cluster_domain)
                .filter(|key| table.backends.contains_key(key))
                .map(Self::Service),
        }
    }

    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Listed(one), Self::Listed(two)) => Arc::ptr_eq(one, two) || one == two,
            (Self::Service(one), Self::Service(two)) => one == two,
            _ => false,
        }
    }
}

/// A host, prepared from a table.
#[derive(Debug)]
struct Prepared {
    /// The last table it was found to agree with.
    generation: u64,
    source: Source,
    route: Rc<HostRoute>,
}

/// What a look-up needs besides the name.
pub(crate) struct Lookup<'a> {
    /// The table in force.
    pub(crate) table: &'a RoutingTable,
    /// Its number.
    pub(crate) generation: u64,
    /// See `Config::cluster_domain`.
    pub(crate) cluster_domain: &'a str,
    /// Finds who answers for a Service.
    pub(crate) target: &'a mut dyn FnMut(&Key) -> Option<Target>,
}

/// How a host was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// As it was prepared for this table.
    Ready,
    /// As it was prepared for an earlier table, which agrees.
    Confirmed,
    /// It was prepared now.
    Prepared,
}

/// The prepared hosts of one side, by name as clients write it.
#[derive(Debug)]
pub(crate) struct Routes {
    visibility: Visibility,
    /// Asked for since the last turn.
    young: HashMap<Box<str>, Prepared>,
    /// Asked for in the turn before.
    old: HashMap<Box<str>, Prepared>,
    turned: Instant,
}

impl Routes {
    pub(crate) fn new(visibility: Visibility, now: Instant) -> Self {
        let (young, old) = Default::default();
        Self { visibility, young, old, turned: now }
    }

    /// The host called `host`, if the table knows it.
    pub(crate) fn find(&mut self, host: &str, lookup: Lookup<'_>) -> Option<(Rc<HostRoute>, How)> {
        if let Some(prepared) = self.young.get(host)
            && prepared.generation == lookup.generation
        {
            return Some((prepared.route.clone(), How::Ready));
        }
        self.renew(host, lookup)
    }

    fn renew(&mut self, host: &str, lookup: Lookup<'_>) -> Option<(Rc<HostRoute>, How)> {
        let kept = self.young.remove_entry(host).or_else(|| self.old.remove_entry(host));
        let source = Source::of(lookup.table, self.visibility, &route::normalize(host), lookup.cluster_domain)?;
        let agrees = |kept: &Prepared| {
            kept.generation == lookup.generation || (kept.source.same(&source) && kept.route.agrees_with(lookup.table))
        };
        let (name, route, how) = match kept {
            Some((name, kept)) if agrees(&kept) => (name, kept.route, How::Confirmed),
            kept => {
                let route = Rc::new(match &source {
                    Source::Listed(host) => HostRoute::new(host, lookup.target),
                    Source::Service(service) => HostRoute::new(&route::service_host(service.clone()), lookup.target),
                });
                (kept.map_or_else(|| host.into(), |(name, _)| name), route, How::Prepared)
            }
        };
        if self.young.len() >= MAX_HOSTS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, Prepared { generation: lookup.generation, source, route: route.clone() });
        Some((route, how))
    }

    /// Lets go of hosts nobody asked for in the last turn, when a turn has passed.
    pub(crate) fn turn(&mut self, now: Instant) {
        if now.saturating_duration_since(self.turned) >= KEPT {
            self.turned = now;
            self.old = std::mem::take(&mut self.young);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use knoll_api::table::{Backend, Path, Split};

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    fn host(service: &str) -> Arc<Host> {
        let split = Split { percent: 100, service: key(service), append_headers: Vec::new() };
        Arc::new(Host { redirect_to_https: false, paths: vec![Path { splits: vec![split], ..Path::default() }] })
    }

    fn table(hosts: &[(&str, &Arc<Host>)], services: &[&str]) -> RoutingTable {
        RoutingTable {
            external: hosts.iter().map(|&(name, host)| (name.to_owned(), host.clone())).collect(),
            local: Default::default(),
            backends: services.iter().map(|name| (key(name), Arc::new(Backend::default()))).collect(),
        }
    }

    fn find(routes: &mut Routes, name: &str, table: &RoutingTable, generation: u64) -> Option<How> {
        let mut target = |_: &Key| None;
        let lookup = Lookup { table, generation, cluster_domain: "cluster.local", target: &mut target };
        routes.find(name, lookup).map(|(_, how)| how)
    }

    #[test]
    fn a_table_that_changes_others_leaves_a_host_prepared() {
        let mut routes = Routes::new(Visibility::External, Instant::now());
        let hello = host("rev");
        assert_eq!(find(&mut routes, "Hello:80", &table(&[("hello", &hello)], &[]), 1), Some(How::Prepared));
        assert_eq!(find(&mut routes, "Hello:80", &table(&[("hello", &hello)], &[]), 1), Some(How::Ready));
        let more = table(&[("hello", &hello), ("other", &host("other"))], &[]);
        assert_eq!(find(&mut routes, "Hello:80", &more, 2), Some(How::Confirmed));
        assert_eq!(find(&mut routes, "Hello:80", &more, 2), Some(How::Ready));
        assert_eq!(find(&mut routes, "Hello:80", &table(&[("hello", &host("new"))], &[]), 3), Some(How::Prepared));
        assert_eq!(find(&mut routes, "Hello:80", &table(&[], &[]), 4), None);
        assert_eq!(find(&mut routes, "Hello:80", &table(&[("hello", &hello)], &[]), 5), Some(How::Prepared));
    }

    #[test]
    fn a_service_that_comes_or_goes_changes_its_hosts() {
        let mut routes = Routes::new(Visibility::External, Instant::now());
        let hello = host("rev");
        let without = table(&[("hello", &hello)], &[]);
        assert_eq!(find(&mut routes, "hello", &without, 1), Some(How::Prepared));
        let with = table(&[("hello", &hello)], &["rev"]);
        assert_eq!(find(&mut routes, "hello", &with, 2), Some(How::Prepared));
    }

    #[test]
    fn pods_reach_services_by_name_as_long_as_there_are_some() {
        let mut routes = Routes::new(Visibility::ClusterLocal, Instant::now());
        assert_eq!(find(&mut routes, "rev.ns.svc.cluster.local", &table(&[], &["rev"]), 1), Some(How::Prepared));
        assert_eq!(find(&mut routes, "rev.ns.svc.cluster.local", &table(&[], &[]), 2), None);
        let mut outside = Routes::new(Visibility::External, Instant::now());
        assert_eq!(find(&mut outside, "rev.ns.svc.cluster.local", &table(&[], &["rev"]), 1), None);
    }

    #[test]
    fn unused_hosts_leave() {
        let start = Instant::now();
        let mut routes = Routes::new(Visibility::External, start);
        let (hello, other) = (host("a"), host("b"));
        let table = table(&[("hello", &hello), ("other", &other)], &[]);
        find(&mut routes, "hello", &table, 1);
        find(&mut routes, "other", &table, 1);
        routes.turn(start + KEPT / 2);
        assert_eq!(routes.young.len(), 2, "it is not time yet");
        routes.turn(start + KEPT);
        assert_eq!(find(&mut routes, "hello", &table, 1), Some(How::Confirmed));
        routes.turn(start + 2 * KEPT);
        assert_eq!((routes.young.len(), routes.old.len()), (0, 1));
    }

    #[test]
    fn prepared_hosts_are_bounded() {
        let mut routes = Routes::new(Visibility::External, Instant::now());
        let table = table(&[("hello", &host("a"))], &[]);
        for port in 0..3 * MAX_HOSTS {
            find(&mut routes, &format!("hello:{port}"), &table, 1);
        }
        assert!(routes.young.len() + routes.old.len() <= 2 * MAX_HOSTS);
    }
}
