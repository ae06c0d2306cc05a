//! The components that processes are made of: `up` assembles all of them in one, each role of [`crate::roles`] some.

pub(crate) mod api;
pub(crate) mod events;
pub(crate) mod gateway;
pub(crate) mod local_node;
pub(crate) mod monitor;
pub(crate) mod node;
mod objects;
mod proxies;
pub(crate) mod registry;
pub(crate) mod resolver;
pub(crate) mod sources;
mod typed;

use std::{net::Ipv4Addr, path::PathBuf};

use knoll_cli::Exit;
use tokio::net::TcpListener;

use crate::failure::Failure;

/// Addresses of pods.
pub(crate) const PODS: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 244, 0, 0), 16);
/// Addresses of Services.
pub(crate) const SERVICES: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 96, 0, 0), 12);

/// A failure of the system's.
pub(crate) fn system<E: std::error::Error + 'static>(error: E) -> Failure {
    Failure::new(Exit::System, &error)
}

/// Where the machine keeps its own registry credentials.
pub(crate) fn docker_config() -> Option<PathBuf> {
    let directory = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    Some(directory.or_else(home)?.join("config.json"))
}

/// The port of a socket.
pub(crate) fn port_of(listener: &TcpListener) -> Result<u16, Failure> {
    listener.local_addr().map(|address| address.port()).map_err(|e| Failure::io("find the address of a socket", &e))
}
