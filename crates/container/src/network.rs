//! The host's side of the network: forwarding, the gateway address, masquerading, and service addresses.
//!
//! All of it is synchronous netlink; call it from a blocking context. Everything lives in one nftables table and on
//! the loopback interface, so that it neither disturbs nor depends on other firewalls' tables.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

/// What the host needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The nftables table, of family ip; ours alone. `knoll` unless several instances share a machine.
    pub table: String,
    /// The pods' addresses.
    pub pods: (Ipv4Addr, u8),
    /// The pods' default route and the address the host answers them on; put on the loopback interface.
    pub gateway: Ipv4Addr,
}

/// One service port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceRule {
    /// The address and port clients use.
    pub service: SocketAddrV4,
    /// Its transport.
    pub protocol: Transport,
    /// Where connections go, evenly. Empty: they are refused.
    pub endpoints: Vec<SocketAddrV4>,
    /// Whether a client stays on its endpoint: by a hash of its address instead of at random.
    pub by_client: bool,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A kernel setting cannot be written.
    #[error("cannot write {path}")]
    Setting {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel refused a routing change.
    #[error("cannot {what}")]
    Route {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel refused the firewall table.
    #[error("cannot {what} with nf_tables")]
    Table {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}
