//! What a server is given besides its store.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use crate::{authority::Authority, node_backend::NodeBackend};

/// What a server needs besides its store.
pub struct Config {
    /// Who is asking, and what they may do.
    pub authority: Arc<dyn Authority>,
    /// The machine that runs pods.
    pub node: Arc<dyn NodeBackend>,
    /// Certificate of the authority that signs the server's certificate, PEM; goes into every namespace.
    pub root_ca: String,
    /// Where pods reach the server: the endpoint of `default/kubernetes`. Its address is the gateway's.
    pub advertise: SocketAddr,
    /// The machine's own addresses at this moment: users lead no traffic to them.
    pub machine: Arc<dyn Fn() -> io::Result<Vec<IpAddr>> + Send + Sync>,
    /// The pods' network: its first address, and how many bits are the same in all.
    pub pod_network: (Ipv4Addr, u8),
}
