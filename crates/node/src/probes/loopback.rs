//! Programs that listen on 127.0.0.1 alone.
//!
//! Beside Knative's containers there usually is a sidecar of the same pod, which reaches them at 127.0.0.1; many
//! frameworks listen nowhere else by default. Here no sidecar exists, so a readiness probe whose port the pod's address
//! refuses looks at 127.0.0.1 inside the pod's network, and when something listens there, and only there, the pod's
//! address is led to it ([`knoll_container::loopback`]): the probe and all requests reach it without a hop. Pods whose
//! programs listen on the pod's address are never asked this way.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use knoll_api::labels::serving;
use knoll_container::client::Client;
use knoll_container::loopback;
use knoll_container::protocol::SandboxId;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::Crowd;

/// Looks begin after a container has had this long to listen as others do, and as much longer as it shares its processor
/// with more of them: they must not pay for the few.
const FIRST: Duration = Duration::from_millis(20);
/// Longest pause between two looks.
const LONGEST: Duration = Duration::from_millis(500);
/// How long the machine may take for one connection to itself.
const PATIENCE: Duration = Duration::from_millis(500);

/// The way to a container's ports on 127.0.0.1.
pub struct Loopback {
    monitor: watch::Receiver<Client>,
    sandbox: SandboxId,
    address: Ipv4Addr,
    /// The ports that take requests.
    ports: Vec<u16>,
    crowd: Crowd,
    look: Mutex<Look>,
}

struct Look {
    begun: Instant,
    next: Instant,
    pause: Duration,
    led: Vec<u16>,
}

impl Loopback {
    /// The way for a container of a Knative revision; `None` for any other, whose probes are the kubelet's and mean the
    /// pod's address.
    pub fn of(
        pod: &Pod,
        container: &Container,
        address: Ipv4Addr,
        sandbox: SandboxId,
        monitor: watch::Receiver<Client>,
        crowd: Crowd,
    ) -> Option<Loopback> {
        pod.metadata.labels.as_ref()?.get(serving::REVISION)?;
        let tcp = |protocol: Option<&str>| matches!(protocol, None | Some("" | "TCP"));
        let ports = container.ports.iter().flatten().filter(|p| tcp(p.protocol.as_deref()));
        let ports: Vec<u16> = ports.filter_map(|p| u16::try_from(p.container_port).ok()).collect();
        if ports.is_empty() {
            return None;
        }
        let begun = Instant::now();
        let look = Look { begun, next: begun + FIRST, pause: FIRST, led: Vec::new() };
        Some(Loopback { monitor, sandbox, address, ports, crowd, look: Mutex::new(look) })
    }

    /// A connection to a port that the pod's address has refused; `None` when 127.0.0.1 refuses it too, or it is too
    /// early to ask again.
    pub(super) async fn connect(&self, port: u16) -> Option<TcpStream> {
        let mut look = self.look.lock().await;
        let first = look.begun + (FIRST * self.crowd.share()).min(LONGEST);
        if Instant::now() < look.next.max(first) {
            return None;
        }
        look.pause = (look.pause * 2).min(LONGEST);
        look.next = Instant::now() + look.pause;
        let mut alone = Vec::new();
        for port in &self.ports {
            if self.listens_inside_alone(*port).await {
                alone.push(*port);
            }
        }
        if !alone.is_empty() && look.led != alone {
            match self.lead(alone.clone()).await {
                Ok(()) => look.led = alone,
                Err(error) => {
                    tracing::warn!(sandbox = %self.sandbox, %error, "a program on 127.0.0.1 cannot be reached");
                }
            }
        }
        match self.dial(port).await {
            Some(stream) => Some(stream),
            // The probe asks a port that takes no requests: it alone goes this way.
            None if !self.ports.contains(&port) => self.dial_inside(port).await,
            None => None,
        }
    }

    /// Forgets what was led to 127.0.0.1 for a program that has ended: the next one may listen elsewhere.
    pub(super) async fn reset(&self) {
        let outcome = async {
            let namespace = self.namespace().await?;
            tokio::task::spawn_blocking(move || loopback::stop(&namespace)).await.map_err(io::Error::other)?
        };
        if let Err(error) = outcome.await {
            tracing::warn!(sandbox = %self.sandbox, %error, "what led to 127.0.0.1 stays");
        }
    }

    /// Asked in this order, a program that begins to listen everywhere meanwhile is not mistaken.
    async fn listens_inside_alone(&self, port: u16) -> bool {
        self.dial_inside(port).await.is_some() && self.dial(port).await.is_none()
    }

    async fn dial(&self, port: u16) -> Option<TcpStream> {
        within(TcpStream::connect(SocketAddr::new(IpAddr::V4(self.address), port))).await
    }

    async fn dial_inside(&self, port: u16) -> Option<TcpStream> {
        let monitor = self.monitor.borrow().clone();
        let socket = monitor.socket(self.sandbox.clone()).await.ok()?;
        within(socket.connect((Ipv4Addr::LOCALHOST, port).into())).await
    }

    async fn lead(&self, ports: Vec<u16>) -> io::Result<()> {
        let namespace = self.namespace().await?;
        tracing::info!(sandbox = %self.sandbox, ?ports, "a program listens on 127.0.0.1 alone: its pod leads there");
        let address = self.address;
        let led = tokio::task::spawn_blocking(move || loopback::lead(&namespace, address, &ports)).await;
        led.map_err(io::Error::other)?
    }

    async fn namespace(&self) -> io::Result<PathBuf> {
        let monitor = self.monitor.borrow().clone();
        let listing = monitor.list().await.map_err(io::Error::other)?;
        let found = listing.sandboxes.into_iter().find(|s| s.spec.id == self.sandbox);
        found.and_then(|s| s.network_namespace).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

async fn within(connecting: impl Future<Output = io::Result<TcpStream>>) -> Option<TcpStream> {
    tokio::time::timeout(PATIENCE, connecting).await.ok()?.ok()
}
