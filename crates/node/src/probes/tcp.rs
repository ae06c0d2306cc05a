//! Whether a port takes connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;

use super::Loopback;

/// Names looked up at a time: looking up blocks a thread, and a probe may name a host whose server never answers.
const PARALLEL_LOOKUPS: usize = 16;

static LOOKUPS: Semaphore = Semaphore::const_new(PARALLEL_LOOKUPS);

/// How a pod is reached.
pub(crate) struct Way<'a> {
    /// Its address.
    pub(crate) address: IpAddr,
    /// Where else, when the address refuses.
    pub(crate) loopback: Option<&'a Loopback>,
}

impl From<IpAddr> for Way<'_> {
    fn from(address: IpAddr) -> Self {
        Way { address, loopback: None }
    }
}

/// Connects and hangs up.
pub(super) async fn ask(host: Option<&str>, way: &Way<'_>, port: u16, timeout: Duration) -> Result<(), String> {
    connect(host, way, port, timeout).await.map(drop)
}

/// A connection to `host`, or to the pod when there is none.
pub(super) async fn connect(
    host: Option<&str>,
    way: &Way<'_>,
    port: u16,
    timeout: Duration,
) -> Result<TcpStream, String> {
    let name = host.map_or_else(|| SocketAddr::new(way.address, port).to_string(), |host| format!("{host}:{port}"));
    let target = async {
        match host.map(str::parse::<IpAddr>) {
            None => to_pod(way, port).await,
            Some(Ok(ip)) => TcpStream::connect((ip, port)).await,
            Some(Err(_)) => TcpStream::connect(look_up(name.clone()).await?).await,
        }
    };
    match tokio::time::timeout(timeout, target).await {
        Err(_) => Err(format!("dial tcp {name}: i/o timeout")),
        Ok(Err(error)) => Err(format!("dial tcp {name}: {}", reason(&error))),
        Ok(Ok(stream)) => {
            // Answers are small; waiting to fill packets would only make the container look slower.
            drop(stream.set_nodelay(true));
            Ok(stream)
        }
    }
}

async fn to_pod(way: &Way<'_>, port: u16) -> io::Result<TcpStream> {
    let connected = TcpStream::connect((way.address, port)).await;
    match (&connected, way.loopback) {
        (Err(error), Some(loopback)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            loopback.connect(port).await.map_or(connected, Ok)
        }
        _ => connected,
    }
}

/// The first address of `host:port`. A look-up that its caller has given up goes on until the machine's resolver gives
/// it up, too, and counts so long.
async fn look_up(name: String) -> io::Result<SocketAddr> {
    let slot = LOOKUPS.acquire().await.map_err(io::Error::other)?;
    let looked_up = tokio::spawn(async move {
        let found = lookup_host(&name).await.map(|mut found| found.next());
        drop(slot);
        found
    });
    let found = looked_up.await.map_err(io::Error::other)??;
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such host"))
}

/// A connection error in the words that users know.
pub(super) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::ConnectionReset => "read: connection reset by peer".into(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        _ => error.to_string(),
    }
}
