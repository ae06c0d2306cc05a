//! What one Ingress adds to the table.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use knoll_api::{
    Key, Resource,
    labels::serving as keys,
    names,
    networking::{CLUSTER_LOCAL, EXTERNAL_IP, HttpIngressPath, Ingress, IngressRule},
    table::{Host, Path, Split},
};

use super::{super::ingress::is_ours, backend};
use crate::World;

const ORIGINAL_HOST: &str = "K-Original-Host";

/// Hosts by name, in order.
pub(super) type Hosts = Box<[(String, Arc<Host>)]>;

/// What one Ingress adds to the table, and what it was made from. One is kept for every Ingress there is, so it holds plain
/// lists: trees of one or two members are mostly empty nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct IngressRoutes {
    pub(super) generation: i64,
    pub(super) external: Hosts,
    pub(super) local: Hosts,
    /// Backends that its splits name.
    pub(super) backends: Box<[Key]>,
    /// Services that it names: what they are decides about the above.
    pub(super) services: Box<[Key]>,
    /// The Ingress whose paths it took over.
    pub(super) follows: Box<[Key]>,
}

/// What was met while an Ingress was read.
#[derive(Default)]
struct Met {
    backends: BTreeSet<Key>,
    services: BTreeSet<Key>,
    follows: BTreeSet<Key>,
}

impl IngressRoutes {
    /// The host of this name in a list.
    pub(super) fn host<'a>(hosts: &'a [(String, Arc<Host>)], name: &str) -> Option<&'a Arc<Host>> {
        let at = hosts.binary_search_by(|(host, _)| host.as_str().cmp(name)).ok()?;
        Some(&hosts[at].1)
    }
}

/// What the Ingress of this key adds; nothing when it is not for us.
pub(super) fn ingress_routes(world: &World, key: &Key) -> Option<IngressRoutes> {
    let ingress = world.ingresses.get(key)?;
    if ingress.is_deleting() || !is_ours(world, &ingress) {
        return None;
    }
    let mut met = Met::default();
    let (mut external, mut local) = (BTreeMap::new(), BTreeMap::new());
    for rule in &ingress.spec.rules {
        let hosts = if is_external(rule) { &mut external } else { &mut local };
        let paths = paths(world, rule, &mut met);
        for name in &rule.hosts {
            let host: &mut Host = hosts.entry(name.to_ascii_lowercase()).or_default();
            host.redirect_to_https = is_external(rule) && ingress.spec.http_option == "Redirected";
            host.paths.extend(paths.iter().cloned());
        }
    }
    Some(IngressRoutes {
        generation: ingress.metadata.generation.unwrap_or_default(),
        external: finished(external),
        local: finished(local),
        backends: met.backends.into_iter().collect(),
        services: met.services.into_iter().collect(),
        follows: met.follows.into_iter().collect(),
    })
}

fn is_external(rule: &IngressRule) -> bool {
    rule.visibility.is_empty() || rule.visibility == EXTERNAL_IP
}

/// Hosts with their paths in the order in which they are tried. Names of one rule share what they lead to.
fn finished(hosts: BTreeMap<String, Host>) -> Hosts {
    let mut finished: Vec<(String, Arc<Host>)> = Vec::with_capacity(hosts.len());
    for (name, mut host) in hosts {
        host.paths.sort_by_key(|path| (Reverse(path.prefix.len()), Reverse(path.headers.len())));
        host.paths.shrink_to_fit();
        let same = finished.last().filter(|(_, last)| **last == host).map(|(_, last)| Arc::clone(last));
        finished.push((name, same.unwrap_or_else(|| Arc::new(host))));
    }
    finished.into()
}

fn paths(world: &World, rule: &IngressRule, met: &mut Met) -> Vec<Path> {
    let paths = rule.http.iter().flat_map(|http| &http.paths);
    paths.flat_map(|path| follow(world, path, met).unwrap_or_else(|| vec![convert(world, path, met)])).collect()
}

fn convert(world: &World, path: &HttpIngressPath, met: &mut Met) -> Path {
    let single = path.splits.len() == 1;
    let mut splits = Vec::with_capacity(path.splits.len());
    for split in &path.splits {
        let service = Key::new(&split.service_namespace, &split.service_name);
        let backend = backend::key_of(world, &service, &split.service_port);
        met.services.insert(service);
        met.backends.insert(backend.clone());
        let percent = u32::try_from(split.percent).unwrap_or_default();
        splits.push(Split {
            percent: if single && percent == 0 { 100 } else { percent },
            service: backend,
            append_headers: headers(&split.append_headers),
        });
    }
    let exact = path.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.exact.clone()));
    Path {
        prefix: path.path.clone(),
        headers: exact.collect(),
        rewrite_host: Some(path.rewrite_host.clone()).filter(|host| !host.is_empty()),
        append_headers: headers(&path.append_headers),
        splits,
    }
}

fn headers(headers: &BTreeMap<String, String>) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}

/// A path that rewrites its host to a Route's would come back to this gateway: it takes over the paths of that
/// Route instead, and the application sees the host that was asked for.
fn follow(world: &World, path: &HttpIngressPath, met: &mut Met) -> Option<Vec<Path>> {
    let [split] = path.splits.as_slice() else { return None };
    if path.rewrite_host.is_empty() {
        return None;
    }
    let service = Key::new(&split.service_namespace, &split.service_name);
    met.services.insert(service.clone());
    let route = world.core_services.get(&service)?.label(keys::ROUTE)?.to_owned();
    let target = service.sibling(names::child(&route, ""));
    met.follows.insert(target.clone());
    let ingress = world.ingresses.get(&target).filter(|ingress| is_ours(world, ingress))?;
    let rule = rule_of(&ingress, &path.rewrite_host)?;
    let targets: Vec<&HttpIngressPath> = rule.http.iter().flat_map(|http| &http.paths).collect();
    // Only one step: a chain of rewrites is left to requests that come back.
    if targets.iter().any(|target| !target.rewrite_host.is_empty()) {
        return None;
    }
    let own = path.append_headers.iter().chain(&split.append_headers).filter(|(name, _)| *name != ORIGINAL_HOST);
    let own: Vec<_> = own.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    let taken = targets.into_iter().map(|target| {
        let mut taken = convert(world, target, met);
        taken.append_headers.extend(own.iter().cloned());
        taken
    });
    Some(taken.collect())
}

fn rule_of<'a>(ingress: &'a Ingress, host: &str) -> Option<&'a IngressRule> {
    let mut rules = ingress.spec.rules.iter().filter(|rule| rule.visibility == CLUSTER_LOCAL);
    rules.find(|rule| rule.hosts.iter().any(|name| name == host))
}
