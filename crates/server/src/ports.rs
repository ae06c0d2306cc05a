//! The sockets, bound before anything else is started, so that a port in use is told at once.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use knoll_cli::{Exit, UpArguments};
use tokio::net::TcpListener;

use crate::failure::Failure;

/// The sockets of an instance.
pub(crate) struct Ports {
    /// The Kubernetes API for the outside.
    pub(crate) api: TcpListener,
    /// The gateway for the outside; the first is the one URLs speak of.
    pub(crate) http: Vec<TcpListener>,
    /// The image registry.
    pub(crate) registry: TcpListener,
}

/// The sockets that pods use, on the gateway's address.
pub(crate) struct PodPorts {
    pub(crate) api: TcpListener,
    pub(crate) http: TcpListener,
    /// The gateway as the outside sees it. The LoadBalancer's Service leads here.
    pub(crate) outside: TcpListener,
    pub(crate) registry: TcpListener,
}

async fn bind(address: SocketAddr, what: &str, option: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            let text = format!("{what}: {address} is in use: stop what uses it, or choose another with {option}");
            Failure::text(Exit::Unavailable, text)
        }
        io::ErrorKind::AddrNotAvailable => {
            let text = format!("{what}: {address} is no address of this machine: correct {option}");
            Failure::text(Exit::Unavailable, text)
        }
        _ => Failure::io(format!("{what}: listen on {address}"), &error),
    })
}

impl Ports {
    /// Binds what the arguments say.
    pub(crate) async fn bind(arguments: &UpArguments) -> Result<Self, Failure> {
        let api = bind(arguments.api_addr, "Kubernetes API", "--api-addr").await?;
        let registry = bind(arguments.registry_addr, "image registry", "--registry-addr").await?;
        let mut http = Vec::new();
        for address in &arguments.http_addr {
            http.push(bind(*address, "gateway", "--http-addr").await?);
        }
        let host = arguments.http_addr.first().map_or(Ipv4Addr::LOCALHOST.into(), SocketAddr::ip);
        let standard = SocketAddr::new(host, 80);
        if !arguments.no_port_80 && !arguments.http_addr.contains(&standard) {
            match TcpListener::bind(standard).await {
                Ok(listener) => http.insert(0, listener),
                Err(error) => tracing::info!(%error, "port 80 cannot be had, so URLs show a port"),
            }
        }
        Ok(Self { api, http, registry })
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
    /// Binds the ports that pods use on `gateway`, which must be an address of this machine by now.
    pub(crate) async fn bind(gateway: Ipv4Addr, api: u16, registry: u16) -> Result<Self, Failure> {
        let at = |port| SocketAddr::from((gateway, port));
        Ok(Self {
            api: bind(at(api), "Kubernetes API for pods", "--api-addr").await?,
            http: bind(at(80), "gateway for pods", "a free port 80 there").await?,
            outside: bind(at(0), "gateway's Service", "a free port there").await?,
            registry: bind(at(registry), "image registry for pods", "--registry-addr").await?,
        })
    }
}
