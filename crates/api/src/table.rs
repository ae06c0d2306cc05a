//! The routing snapshot that the control plane hands to the gateway.
//!
//! Immutable; a request reads one snapshot from start to end. Snapshots share all that did not change between them, the
//! maps' own nodes too, so that making one and comparing two cost what changed, however many hosts there are.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use imbl::OrdMap;

use crate::Key;

/// The header by which whoever sends events says of which namespace they are, as upstream names it.
pub const SENDER_HEADER: &str = "kn-namespace";
/// The header by which a gateway, or an app, tells who sends it events how many requests it takes at a time.
pub const CAPACITY_HEADER: &str = "knoll-capacity";

/// Everything the gateway needs to answer requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutingTable {
    /// Hosts by lower-case name without port, for requests from outside.
    pub external: OrdMap<String, Arc<Host>>,
    /// Hosts by lower-case name without port, for requests from inside (pods see these and `external`).
    pub local: OrdMap<String, Arc<Host>>,
    /// Who answers for a Service, by namespace and name of the Kubernetes Service.
    pub backends: OrdMap<Key, Arc<Backend>>,
}

/// A host name and its paths.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// Answer plain http with 301 to https.
    pub redirect_to_https: bool,
    /// Paths in the order they are tried: longest prefix first, more header matches before fewer.
    pub paths: Vec<Path>,
}

/// A path of a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Path {
    /// Prefix; `/` or empty matches all.
    pub prefix: String,
    /// Headers that must be exactly so; names are lower-case.
    pub headers: Vec<(String, String)>,
    /// Host to send on instead.
    pub rewrite_host: Option<String>,
    /// Headers to set on the request.
    pub append_headers: Vec<(String, String)>,
    /// Shares; percents add up to 100.
    pub splits: Vec<Split>,
}

/// A share of a path's traffic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Split {
    /// 0 to 100.
    pub percent: u32,
    /// The Kubernetes Service that takes it (see [`RoutingTable::backends`]).
    pub service: Key,
    /// Headers to set on requests that take this split.
    pub append_headers: Vec<(String, String)>,
}

/// How the user's container speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge, clear text.
    H2c,
}

/// Who answers for a Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backend {
    /// How instances speak.
    pub protocol: Protocol,
    /// Limits and identity when the Service belongs to a Revision; `None` for any other Service.
    pub revision: Option<Arc<RevisionPolicy>>,
    /// Instances that take requests, ordered by address.
    pub instances: Vec<Instance>,
    /// Why no instance can ever come, when the revision failed: `reason: message`, shown with the 503.
    pub failure: Option<String>,
}

/// Limits and identity of a Revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RevisionPolicy {
    /// The Revision.
    pub revision: Key,
    /// uid of the Revision.
    pub uid: String,
    /// Its Service's name; empty without one.
    pub service: String,
    /// Its Configuration's name.
    pub configuration: String,
    /// Most requests in flight in one instance; 0 is unlimited.
    pub container_concurrency: u32,
    /// Most time for a whole request.
    pub timeout: Duration,
    /// Most time until the response starts.
    pub response_start_timeout: Option<Duration>,
    /// Most time between two writes of the response.
    pub idle_timeout: Option<Duration>,
}

/// One place that takes requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its pod's name; empty for an address that is not a pod.
    pub pod: String,
}
