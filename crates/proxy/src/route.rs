//! Which revision a request goes to.
//!
//! A prepared host needs no parsing: header names and values are ready to insert, splits stand next to the endpoint pools
//! behind them. When hosts are prepared, and for how long, is the matter of `routes.rs`.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use knoll_api::Key;
use knoll_api::table::{self, Backend, Protocol, RevisionPolicy, RoutingTable};

use crate::balance;
use crate::headers::{NETWORK_HASH, is_internal};
use crate::meter::Meter;

/// Headers ready to set.
pub(crate) type Set = Vec<(HeaderName, HeaderValue)>;

/// A host, ready to answer for.
#[derive(Debug)]
pub(crate) struct HostRoute {
    redirect_to_https: bool,
    paths: Vec<PathRoute>,
}

/// A path of a host.
#[derive(Debug)]
pub(crate) struct PathRoute {
    prefix: String,
    headers: Set,
    /// Host to send on instead of the client's.
    pub(crate) rewrite_host: Option<HeaderValue>,
    /// The rewritten host as text, to route again with when no split is known here.
    pub(crate) rewrite_name: Option<String>,
    /// Headers to set.
    pub(crate) append: Set,
    /// Configuration a network probe reads back.
    pub(crate) network_hash: Option<HeaderValue>,
    splits: Vec<SplitRoute>,
    total: usize,
}

/// A share of a path.
#[derive(Debug)]
pub(crate) struct SplitRoute {
    percent: usize,
    service: Key,
    /// Headers to set.
    pub(crate) append: Set,
    /// Who answers; `None` when the table knows nobody.
    pub(crate) target: Option<Target>,
}

/// Who answers: what of a [`Backend`] stays the same while instances come and go, and the meter that knows those.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) protocol: Protocol,
    pub(crate) policy: Option<Arc<RevisionPolicy>>,
    pub(crate) meter: Rc<Meter>,
}

impl Target {
    fn agrees_with(&self, backend: &Backend) -> bool {
        let same_policy = match (&self.policy, &backend.revision) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two) || one == two,
            (None, None) => true,
            _ => false,
        };
        same_policy && self.protocol == backend.protocol && !self.meter.pool.is_closed()
    }
}

/// The place of a host, a path and a split that a request takes.
#[derive(Clone, Debug)]
pub(crate) struct Match {
    host: Rc<HostRoute>,
    path: usize,
    split: Option<usize>,
    /// Whether another host led here.
    mapped: bool,
}

impl Match {
    pub(crate) fn redirect_to_https(&self) -> bool {
        self.host.redirect_to_https
    }

    /// Whether the client asked for a host that is mapped to this one; the container sees the client's.
    pub(crate) fn was_mapped(&self) -> bool {
        self.mapped
    }

    /// This match, found by way of another host.
    pub(crate) fn by_mapping(self) -> Self {
        Self { mapped: true, ..self }
    }

    pub(crate) fn path(&self) -> &PathRoute {
        &self.host.paths[self.path]
    }

    pub(crate) fn split(&self) -> Option<&SplitRoute> {
        self.split.map(|split| &self.path().splits[split])
    }
}

impl HostRoute {
    /// Prepares `host`; `target` finds who answers for a Service.
    pub(crate) fn new(host: &table::Host, target: &mut dyn FnMut(&Key) -> Option<Target>) -> Self {
        Self {
            redirect_to_https: host.redirect_to_https,
            paths: host.paths.iter().map(|path| PathRoute::new(path, target)).collect(),
        }
    }

    /// Whether every Service is answered for in `table` as it was when this was prepared.
    pub(crate) fn agrees_with(&self, table: &RoutingTable) -> bool {
        self.paths.iter().flat_map(|path| &path.splits).all(|split| {
            match (&split.target, table.backends.get(&split.service)) {
                (Some(target), Some(backend)) => target.agrees_with(backend),
                (None, None) => true,
                _ => false,
            }
        })
    }

    /// Takes the first path that fits, and one of its splits by percent.
    pub(crate) fn find(self: &Rc<Self>, path: &str, headers: &HeaderMap) -> Option<Match> {
        let at = self.paths.iter().position(|candidate| candidate.fits(path, headers))?;
        Some(Match { host: self.clone(), path: at, split: self.paths[at].choose(), mapped: false })
    }
}

impl PathRoute {
    fn new(path: &table::Path, target: &mut dyn FnMut(&Key) -> Option<Target>) -> Self {
        let splits: Vec<SplitRoute> = path
            .splits
            .iter()
            .map(|split| SplitRoute {
                percent: split.percent as usize,
                service: split.service.clone(),
                append: settable(&split.append_headers),
                target: target(&split.service),
            })
            .collect();
        let all_appended = path.append_headers.iter().chain(path.splits.iter().flat_map(|split| &split.append_headers));
        Self {
            prefix: if path.prefix == "/" { String::new() } else { path.prefix.clone() },
            headers: parsed(&path.headers).collect(),
            rewrite_host: path.rewrite_host.as_deref().and_then(|host| HeaderValue::try_from(host).ok()),
            rewrite_name: path.rewrite_host.clone(),
            append: settable(&path.append_headers),
            network_hash: all_appended
                .filter(|(name, _)| name.eq_ignore_ascii_case(NETWORK_HASH.as_str()))
                .find_map(|(_, value)| HeaderValue::try_from(value.as_str()).ok()),
            total: splits.iter().map(|split| split.percent).sum(),
            splits,
        }
    }

    fn fits(&self, path: &str, headers: &HeaderMap) -> bool {
        path.starts_with(&self.prefix)
            && self.headers.iter().all(|(name, wanted)| headers.get_all(name).iter().any(|value| value == wanted))
    }

    fn choose(&self) -> Option<usize> {
        if self.splits.len() < 2 || self.total == 0 {
            return (!self.splits.is_empty()).then_some(0);
        }
        let mut left = balance::below(self.total);
        self.splits.iter().position(|split| match left.checked_sub(split.percent) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        })
    }
}

/// Headers to set, without those no container sees.
fn settable(headers: &[(String, String)]) -> Set {
    parsed(headers).filter(|(name, _)| !is_internal(name.as_str())).collect()
}

fn parsed(headers: &[(String, String)]) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::try_from(value.as_str()).ok()?))
    })
}

/// A host as the table knows it: lower-case, without port and final dot.
pub(crate) fn normalize(host: &str) -> String {
    let without_port = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or(bracketed),
        None => host.split(':').next().unwrap_or(host),
    };
    without_port.strip_suffix('.').unwrap_or(without_port).to_ascii_lowercase()
}

/// The Service a name inside the cluster means: `<service>.<namespace>[.svc[.<domain>]]`.
pub(crate) fn service_of(host: &str, cluster_domain: &str) -> Option<Key> {
    let short = host.strip_suffix(cluster_domain).and_then(|rest| rest.strip_suffix('.')).unwrap_or(host);
    let short = short.strip_suffix(".svc").unwrap_or(short);
    match short.split_once('.') {
        Some((service, namespace)) if !namespace.contains('.') && !service.is_empty() && !namespace.is_empty() => {
            Some(Key::new(namespace, service))
        }
        _ => None,
    }
}

/// A host that stands for one Service, for names inside the cluster that no route claims.
pub(crate) fn service_host(service: Key) -> table::Host {
    table::Host {
        redirect_to_https: false,
        paths: vec![table::Path {
            splits: vec![table::Split { percent: 100, service, append_headers: Vec::new() }],
            ..table::Path::default()
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use knoll_api::table::{Host, Path, Split};

    fn no_target(_: &Key) -> Option<Target> {
        None
    }

    fn split(percent: u32, tag: &str) -> Split {
        let append_headers = vec![("X-Tag".to_owned(), tag.to_owned())];
        Split { percent, service: Key::new("ns", tag), append_headers }
    }

    fn tag(found: &Match) -> &str {
        let split = found.split().expect("a split");
        split.append[0].1.to_str().expect("text")
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("header value")))
            .collect()
    }

    #[test]
    fn hosts_lose_case_port_and_dot() {
        let names = ["Hello.Example.COM:8080", "hello.example.com.", "[::1]:80", "10.0.0.1:80"].map(normalize);
        assert_eq!(names, ["hello.example.com", "hello.example.com", "::1", "10.0.0.1"]);
    }

    #[test]
    fn names_inside_the_cluster_mean_services() {
        for name in ["rev.ns", "rev.ns.svc", "rev.ns.svc.cluster.local"] {
            assert_eq!(service_of(name, "cluster.local"), Some(Key::new("ns", "rev")), "{name}");
        }
        for name in ["rev", "a.b.c", "rev.ns.svc.example.com", ".ns", "rev."] {
            assert_eq!(service_of(name, "cluster.local"), None, "{name}");
        }
    }

    #[test]
    fn the_first_path_whose_prefix_and_headers_fit_wins() {
        let path = |prefix: &str, headers: &[(&str, &str)], tag: &str| Path {
            prefix: prefix.into(),
            headers: headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            splits: vec![split(100, tag)],
            ..Path::default()
        };
        let tagged = [("knative-serving-tag", "blue")];
        let paths = vec![path("/deep/", &[], "deep"), path("/", &tagged, "blue"), path("/", &[], "main")];
        let host = Rc::new(HostRoute::new(&Host { redirect_to_https: false, paths }, &mut no_target));
        let found = |path, pairs| host.find(path, &headers(pairs)).map(|found| tag(&found).to_owned());
        assert_eq!(found("/deep/er", &[]).as_deref(), Some("deep"));
        assert_eq!(found("/", &tagged).as_deref(), Some("blue"));
        assert_eq!(found("/", &[("knative-serving-tag", "red")]).as_deref(), Some("main"));
    }

    #[test]
    fn traffic_splits_by_percent() {
        let splits = vec![split(80, "old"), split(20, "new"), split(0, "never")];
        let host = Host { redirect_to_https: false, paths: vec![Path { splits, ..Path::default() }] };
        let host = Rc::new(HostRoute::new(&host, &mut no_target));
        let mut new = 0;
        for _ in 0..10_000 {
            match tag(&host.find("/", &HeaderMap::new()).expect("a path")) {
                "new" => new += 1,
                "old" => {}
                other => panic!("{other} has no share"),
            }
        }
        // Six standard deviations of a fair split.
        assert!((1760..2240).contains(&new), "{new}");
    }

    #[test]
    fn internal_headers_are_not_set_but_the_hash_is_kept_for_probes() {
        let append_headers = ["Knative-Serving-Revision", "K-Network-Hash", "X-Mine"]
            .map(|name| (name.to_owned(), "value".to_owned()))
            .to_vec();
        let host = Host {
            redirect_to_https: false,
            paths: vec![Path { append_headers, splits: vec![split(100, "a")], ..Path::default() }],
        };
        let host = Rc::new(HostRoute::new(&host, &mut no_target));
        let found = host.find("/", &HeaderMap::new()).expect("a path");
        let names: Vec<_> = found.path().append.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["x-mine"]);
        assert_eq!(found.path().network_hash.as_ref().map(HeaderValue::as_bytes), Some(&b"value"[..]));
    }
}
