//! The sockets, bound before anything else is started, so that a port in use is told at once.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use knoll_cli::{Exit, UpArguments};
use knoll_container::protocol::{GATEWAY, ListenerName};
use tokio::net::{TcpListener, TcpSocket};

use crate::{
    failure::Failure,
    kept::{self, Kept},
};

/// The sockets of an instance.
pub(crate) struct Ports {
    /// The Kubernetes API for the outside.
    pub(crate) api: TcpListener,
    /// The gateway for the outside; the first is the one URLs speak of.
    pub(crate) http: Vec<TcpListener>,
    /// The image registry.
    pub(crate) registry: TcpListener,
    /// The admin endpoint, where it is wanted.
    pub(crate) admin: Option<TcpListener>,
    /// What an earlier instance left, and what this one leaves.
    pub(crate) kept: Kept,
}

/// The sockets that pods use, on the gateway's address.
pub(crate) struct PodPorts {
    pub(crate) api: TcpListener,
    pub(crate) http: TcpListener,
    /// The gateway as the outside sees it. The LoadBalancer's Service leads here.
    pub(crate) outside: TcpListener,
    pub(crate) registry: TcpListener,
}

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Listens, beside sockets of one address where this one is for all.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    // First without sharing: who has the port already must be noticed.
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let alone = socket.listen(BACKLOG)?;
    if !address.ip().is_unspecified() {
        return Ok(alone);
    }
    drop(alone);
    listen_beside(address)
}

/// Listens on an address whose port another socket may have for all addresses; connections to this one come here.
fn listen_beside(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Says what is wrong with the address an option gave.
fn refused(address: SocketAddr, what: &str, option: &str, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let text = format!("{what}: {address} is in use: stop what uses it, or choose another with {option}");
            Failure::text(Exit::Unavailable, text)
        }
        io::ErrorKind::AddrNotAvailable => {
            let text = format!("{what}: {address} is no address of this machine: correct {option}");
            Failure::text(Exit::Unavailable, text)
        }
        _ => Failure::io(format!("{what}: listen on {address}"), error),
    }
}

fn bind(kept: &mut Kept, address: SocketAddr, what: &str, name: &str, option: &str) -> Result<TcpListener, Failure> {
    kept.take_or(kept::name(name, address), || listen(address)).map_err(|error| refused(address, what, option, &error))
}

/// The gateway's port that URLs need not show, where it is to be tried.
fn standard(arguments: &UpArguments) -> Option<SocketAddr> {
    let host = arguments.http_addr.first().map_or(Ipv4Addr::LOCALHOST.into(), SocketAddr::ip);
    let standard = SocketAddr::new(host, 80);
    (!arguments.no_port_80 && !arguments.http_addr.contains(&standard)).then_some(standard)
}

/// What the sockets that these arguments ask for are kept as. A pods' socket of a port that is to be bound at every address
/// is not among them, unless that one was left, too: beside it the port could not be seen to be free.
pub(crate) fn names(arguments: &UpArguments, left: &Kept) -> Vec<ListenerName> {
    let mut outside = vec![("api", arguments.api_addr), ("registry", arguments.registry_addr)];
    outside.extend(arguments.admin_addr.map(|address| ("admin", address)));
    outside.extend(arguments.http_addr.iter().copied().chain(standard(arguments)).map(|address| ("http", address)));
    let fresh = |(what, address): &(&str, SocketAddr)| {
        (address.ip().is_unspecified() && !left.has(&kept::name(what, *address))).then(|| address.port())
    };
    let fresh: Vec<u16> = outside.iter().filter_map(fresh).collect();
    let pods = [("pods-api", arguments.api_addr.port()), ("pods-registry", arguments.registry_addr.port())];
    let pods = pods.into_iter().chain([("pods-http", 80), ("pods-outside", 0)]);
    let pods = pods.filter(|(_, port)| !fresh.contains(port));
    let pods = pods.map(|(what, port)| (what, SocketAddr::from((GATEWAY, port))));
    outside.into_iter().chain(pods).map(|(what, address)| kept::name(what, address)).collect()
}

impl Ports {
    /// Takes up, or binds, what the arguments say.
    pub(crate) fn bind(arguments: &UpArguments, mut left: Kept) -> Result<Self, Failure> {
        let kept = &mut left;
        let api = bind(kept, arguments.api_addr, "Kubernetes API", "api", "--api-addr")?;
        let registry = bind(kept, arguments.registry_addr, "image registry", "registry", "--registry-addr")?;
        let admin = arguments.admin_addr;
        let admin = admin.map(|address| bind(kept, address, "admin endpoint", "admin", "--admin-addr")).transpose()?;
        let mut http = Vec::new();
        for address in &arguments.http_addr {
            http.push(bind(kept, *address, "gateway", "http", "--http-addr")?);
        }
        if let Some(standard) = standard(arguments) {
            match kept.take_or(kept::name("http", standard), || listen(standard)) {
                Ok(listener) => http.insert(0, listener),
                Err(error) => tracing::info!(%error, "port 80 cannot be had, so URLs show a port"),
            }
        }
        Ok(Self { api, http, registry, admin, kept: left })
    }

    /// The port that URLs speak of.
    pub(crate) fn http_port(&self) -> u16 {
        self.http_addresses().first().map_or(80, SocketAddr::port)
    }

    /// Addresses of the gateway for the outside.
    pub(crate) fn http_addresses(&self) -> Vec<SocketAddr> {
        self.http.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

impl PodPorts {
    /// Binds the ports that pods use on the gateway's address, which must be one of this machine by now.
    pub(crate) fn bind(kept: &mut Kept, api: u16, registry: u16) -> Result<Self, Failure> {
        let mut bind = |port, name: &str, what: &str, option: &str| {
            let address = SocketAddr::from((GATEWAY, port));
            let listener = kept.take_or(kept::name(name, address), || listen_beside(address));
            listener.map_err(|error| refused(address, what, option, &error))
        };
        Ok(Self {
            api: bind(api, "pods-api", "Kubernetes API for pods", "--api-addr")?,
            http: bind(80, "pods-http", "gateway for pods", "a free port 80 there")?,
            outside: bind(0, "pods-outside", "gateway's Service", "a free port there")?,
            registry: bind(registry, "pods-registry", "image registry for pods", "--registry-addr")?,
        })
    }
}
