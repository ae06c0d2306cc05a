//! Sandboxes: a network namespace with an address, a host name, shared IPC, and a cgroup for what runs in them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Resources, SandboxId};

/// What a sandbox should be. Nothing here depends on an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Its name.
    pub id: SandboxId,
    /// What `hostname` prints inside; at most 63 bytes are used. Ignored on the host's network.
    pub hostname: String,
    /// Where its network comes from.
    #[serde(default)]
    pub network: Network,
    /// One process-id namespace for all containers.
    #[serde(default)]
    pub shared_pid: bool,
    /// The host's process-id namespace for all containers.
    #[serde(default)]
    pub host_pid: bool,
    /// The host's IPC namespace for all containers.
    #[serde(default)]
    pub host_ipc: bool,
    /// A user namespace of its own for all containers: their ids are none of the machine's or another sandbox's. Not
    /// together with a namespace of the host.
    #[serde(default)]
    pub user_namespace: bool,
    /// Kernel settings of its namespaces, `net.ipv4.tcp_syncookies` style. Only namespaced ones are accepted.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Limits for everything in it together.
    #[serde(default)]
    pub resources: Resources,
    /// Whatever the caller wants back from List; the monitor does not read it. At most 1 MiB in all.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl SandboxSpec {
    /// A sandbox with a pooled network, no limits and nothing special.
    pub fn new(id: SandboxId, hostname: impl Into<String>) -> SandboxSpec {
        SandboxSpec {
            id,
            hostname: hostname.into(),
            network: Network::Pod,
            shared_pid: false,
            host_pid: false,
            host_ipc: false,
            user_namespace: false,
            sysctls: BTreeMap::new(),
            resources: Resources::default(),
            annotations: BTreeMap::new(),
        }
    }
}

/// A range of user and group ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// What is 0 inside.
    pub first: u32,
    /// How many there are.
    pub length: u32,
}

/// Where a sandbox's network comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Its own namespace with the address that belongs to it.
    #[default]
    Pod,
    /// The host's.
    Host,
    /// Its own namespace with loopback alone.
    None,
}

/// How pods are connected: each has `eth0` with a /32 address, routed over one veth pair to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNetwork {
    /// Addresses for pods; the first is never used. Prefix length at most 30.
    pub address: Ipv4Addr,
    /// The prefix length of `address`.
    pub prefix: u8,
    /// The default route of every pod; on the host's loopback (see `network::setup`).
    pub gateway: Ipv4Addr,
    /// What host interfaces are called: this text and up to eight hex digits. 1 to 7 letters.
    pub interface_prefix: String,
    /// The largest packet, in bytes.
    pub mtu: u32,
}

/// A sandbox that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// As asked for.
    pub spec: SandboxSpec,
    /// Its address; none on the host's network or without one.
    pub address: Option<Ipv4Addr>,
    /// The bind-mounted network namespace; none on the host's network.
    pub network_namespace: Option<PathBuf>,
    /// The host's end of the veth.
    pub interface: Option<String>,
    /// Its cgroup, below every hierarchy's mount point.
    pub cgroup: String,
    /// When it was claimed.
    pub created_at: Timestamp,
    /// The boot it lives in.
    pub boot_id: String,
    /// The machine's ids behind those of its user namespace; none without one.
    #[serde(default)]
    pub ids: Option<IdRange>,
    /// Whether it is frozen.
    #[serde(default)]
    pub frozen: bool,
}
