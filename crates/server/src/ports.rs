//! The sockets, bound before anything else is started, so that a port in use is told at once.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use knoll_cli::{ApiSockets, Exit, GatewaySockets, UpArguments};
use knoll_container::protocol::{GATEWAY, ListenerName};
use nix::sys::socket::{setsockopt, sockopt::IpFreebind};
use tokio::net::{TcpListener, TcpSocket};

use crate::{
    failure::Failure,
    kept::{self, Kept},
};

/// The sockets of the API server and the registry.
pub(crate) struct ApiPorts {
    /// The Kubernetes API for the outside.
    pub(crate) api: TcpListener,
    /// The image registry.
    pub(crate) registry: TcpListener,
    /// The admin endpoint, where it is wanted.
    pub(crate) admin: Option<TcpListener>,
}

/// The sockets of the API server and the registry for pods, on the gateway's address.
pub(crate) struct PodApiPorts {
    pub(crate) api: TcpListener,
    pub(crate) registry: TcpListener,
}

/// The sockets of the gateway for pods, on its address.
pub(crate) struct PodGatewayPorts {
    pub(crate) http: TcpListener,
    /// The gateway as the outside sees it. The LoadBalancer's Service leads here.
    pub(crate) outside: TcpListener,
}

/// The sockets on the gateway's address where brokers and channels take events.
pub(crate) struct EventPorts {
    pub(crate) http: TcpListener,
    pub(crate) https: TcpListener,
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
    let socket = beside(address)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Listens so on an address that the machine need not have yet: where the node is a process of its own, it adds it.
fn listen_ahead(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = beside(address)?;
    setsockopt(&socket, IpFreebind, &true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn beside(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    Ok(socket)
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
fn standard(wanted: &GatewaySockets) -> Option<SocketAddr> {
    let host = wanted.http_addr.first().map_or(Ipv4Addr::LOCALHOST.into(), SocketAddr::ip);
    let standard = SocketAddr::new(host, 80);
    (!wanted.no_port_80 && !wanted.http_addr.contains(&standard)).then_some(standard)
}

/// What the sockets that these arguments ask for are kept as. A pods' socket of a port that is to be bound at every address
/// is not among them, unless that one was left, too: beside it the port could not be seen to be free.
pub(crate) fn names(arguments: &UpArguments, left: &Kept) -> Vec<ListenerName> {
    let (api, gateway) = (&arguments.api, &arguments.gateway);
    let mut outside = vec![("api", api.api_addr), ("registry", api.registry_addr)];
    outside.extend(api.admin_addr.map(|address| ("admin", address)));
    outside.extend(gateway.http_addr.iter().copied().chain(standard(gateway)).map(|address| ("http", address)));
    let fresh = |(what, address): &(&str, SocketAddr)| {
        (address.ip().is_unspecified() && !left.has(&kept::name(what, *address))).then(|| address.port())
    };
    let fresh: Vec<u16> = outside.iter().filter_map(fresh).collect();
    let pods = [("pods-api", api.api_addr.port()), ("pods-registry", api.registry_addr.port())];
    let pods = pods.into_iter().chain([("pods-http", 80), ("pods-outside", 0), ("events", 0), ("events-tls", 0)]);
    let pods = pods.filter(|(_, port)| !fresh.contains(port));
    let pods = pods.map(|(what, port)| (what, SocketAddr::from((GATEWAY, port))));
    outside.into_iter().chain(pods).map(|(what, address)| kept::name(what, address)).collect()
}

impl ApiPorts {
    /// Takes up, or binds, what the arguments say.
    pub(crate) fn bind(wanted: &ApiSockets, kept: &mut Kept) -> Result<Self, Failure> {
        let api = bind(kept, wanted.api_addr, "Kubernetes API", "api", "--api-addr")?;
        let registry = bind(kept, wanted.registry_addr, "image registry", "registry", "--registry-addr")?;
        let admin = wanted.admin_addr;
        let admin = admin.map(|address| bind(kept, address, "admin endpoint", "admin", "--admin-addr")).transpose()?;
        Ok(Self { api, registry, admin })
    }
}

/// The gateway's sockets for the outside; the first is the one URLs speak of.
pub(crate) fn bind_gateway(wanted: &GatewaySockets, kept: &mut Kept) -> Result<Vec<TcpListener>, Failure> {
    let mut http = Vec::new();
    for address in &wanted.http_addr {
        http.push(bind(kept, *address, "gateway", "http", "--http-addr")?);
    }
    if let Some(standard) = standard(wanted) {
        match kept.take_or(kept::name("http", standard), || listen(standard)) {
            Ok(listener) => http.insert(0, listener),
            Err(error) => tracing::info!(%error, "port 80 cannot be had, so URLs show a port"),
        }
    }
    Ok(http)
}

/// Addresses of sockets.
pub(crate) fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

/// Whether the gateway's address is one of this machine already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PodAddress {
    /// It is.
    Present,
    /// The node, a process of its own, adds it.
    ToCome,
}

impl PodAddress {
    fn bind(self, kept: &mut Kept, port: u16, name: &str, what: &str, option: &str) -> Result<TcpListener, Failure> {
        let address = SocketAddr::from((GATEWAY, port));
        let listener = kept.take_or(kept::name(name, address), || match self {
            PodAddress::Present => listen_beside(address),
            PodAddress::ToCome => listen_ahead(address),
        });
        listener.map_err(|error| refused(address, what, option, &error))
    }
}

impl PodApiPorts {
    /// Binds the same ports as for the outside.
    pub(crate) fn bind(at: PodAddress, kept: &mut Kept, api: u16, registry: u16) -> Result<Self, Failure> {
        Ok(Self {
            api: at.bind(kept, api, "pods-api", "Kubernetes API for pods", "--api-addr")?,
            registry: at.bind(kept, registry, "pods-registry", "image registry for pods", "--registry-addr")?,
        })
    }
}

impl PodGatewayPorts {
    /// Binds port 80, and one that is free.
    pub(crate) fn bind(at: PodAddress, kept: &mut Kept) -> Result<Self, Failure> {
        Ok(Self {
            http: at.bind(kept, 80, "pods-http", "gateway for pods", "a free port 80 there")?,
            outside: at.bind(kept, 0, "pods-outside", "gateway's Service", "a free port there")?,
        })
    }
}

impl EventPorts {
    /// Binds ports that are free.
    pub(crate) fn bind(at: PodAddress, kept: &mut Kept) -> Result<Self, Failure> {
        let mut bind = |name| at.bind(kept, 0, name, "brokers and channels", "a free port there");
        Ok(Self { http: bind("events")?, https: bind("events-tls")? })
    }
}
