//! The API server over its store.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use jiff::Timestamp;
use knoll_apiserver::{
    ApiServer,
    auth::{LocalAuthority, Pki, TokenKey},
    authority::Authority,
    node_backend::NodeBackend,
};
use knoll_container::protocol::GATEWAY;
use knoll_store::Store;
use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};
use tokio::net::TcpListener;

use super::{PODS, system};
use crate::{
    failure::{Failure, chain},
    paths::Paths,
    store,
    supervise::Tasks,
};

/// The API server, with the keys it knows people by.
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) server: Arc<ApiServer>,
    pub(crate) authority: Arc<dyn Authority>,
}

impl Api {
    /// Opens the store, makes what every cluster has, and keeps what follows from the objects up to date. `port` is
    /// where pods reach it; `node` is asked for what containers say.
    pub(crate) async fn start(
        paths: &Paths,
        pki: &Pki,
        node: Arc<dyn NodeBackend>,
        port: u16,
        tasks: &mut Tasks,
    ) -> Result<Self, Failure> {
        let store = open_store(paths)?;
        tracing::debug!("store opened");
        let authority = authority(&store, pki)?;
        let config = knoll_apiserver::Config {
            authority: authority.clone(),
            node,
            root_ca: pki.ca_pem().to_owned(),
            advertise: SocketAddr::from((GATEWAY, port)),
            machine: Arc::new(machine_addresses),
            pod_network: PODS,
        };
        let server = ApiServer::new(store.clone(), config);
        server.bootstrap().await.map_err(system)?;
        let (tending, stop) = (server.clone(), tasks.stop());
        tasks.critical("tending", async move { tending.tend(stop.wait()).await.map_err(|e| chain(&e)) });
        let (roles, stop) = (server.clone(), tasks.stop());
        tasks.restartable("role aggregation", move || {
            let (roles, stop) = (roles.clone(), stop.clone());
            async move { roles.aggregate_roles(stop.wait()).await.map_err(|e| chain(&e)) }
        });
        Ok(Self { store, server, authority })
    }

    /// Answers clients of these sockets.
    pub(crate) fn serve(
        &self,
        listeners: impl IntoIterator<Item = TcpListener>,
        certificate: &Arc<rustls::ServerConfig>,
        tasks: &mut Tasks,
    ) {
        for listener in listeners {
            let (server, certificate, stop) = (self.server.clone(), certificate.clone(), tasks.stop());
            tasks.critical("API server", async move {
                server.serve_tls(listener, certificate, stop.wait()).await;
                Ok(())
            });
        }
    }
}

fn open_store(paths: &Paths) -> Result<Store, Failure> {
    Store::open(&paths.store(), knoll_store::Options::default())
        .map_err(|error| Failure::new(store::exit_of(&error), &error))
}

fn authority(store: &Store, pki: &Pki) -> Result<Arc<dyn Authority>, Failure> {
    let key = pki.token_key_pem().map_err(system)?;
    let issuer = "https://kubernetes.default.svc.cluster.local";
    let tokens = TokenKey::from_pem(&key, issuer).map_err(system)?;
    Ok(Arc::new(LocalAuthority::new(store.clone(), tokens, Timestamp::now).with_clients(pki.clients())))
}

/// Every address the machine has now.
pub(crate) fn machine_addresses() -> std::io::Result<Vec<IpAddr>> {
    let interfaces = getifaddrs()?;
    let ip = |address: SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    Ok(interfaces.filter_map(|interface| ip(interface.address?)).collect())
}
