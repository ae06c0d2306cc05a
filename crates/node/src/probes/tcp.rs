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
    /// Whether its network is the machine's, loopback included.
    pub(crate) on_host: bool,
}

/// Whoever writes a pod says by `host` whom the node asks in its name. What listens on the machine's loopback trusts who
/// comes from there, and that is not for pods.
const LOOPBACK: &str = "the node's loopback is not reached for a pod that has a network of its own";

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
        let address = match host.map(str::parse::<IpAddr>) {
            None => return to_pod(way, port).await,
            Some(Ok(ip)) => SocketAddr::new(ip, port),
            Some(Err(_)) => look_up(name.clone()).await?,
        };
        if !way.on_host && leads_to_loopback(address.ip()) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, LOOPBACK));
        }
        TcpStream::connect(address).await
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

/// Whether the machine connects to its own loopback when it is asked for this address.
fn leads_to_loopback(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || ip.is_unspecified()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_probe_reaches_the_nodes_loopback_only_for_a_pod_of_the_nodes_network() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let port = listener.local_addr().expect("it has one").port();
        let way = |on_host| Way { address: [10, 244, 0, 9].into(), loopback: None, on_host };
        let wait = Duration::from_secs(10);
        for host in ["127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "localhost"] {
            let refused = ask(Some(host), &way(false), port, wait).await.expect_err("it is refused");
            assert_eq!(refused, format!("dial tcp {host}:{port}: {LOOPBACK}"));
        }
        ask(Some("127.0.0.1"), &way(true), port, wait).await.expect("it is asked");
    }

    #[tokio::test]
    async fn so_many_names_are_looked_up_at_a_time_and_the_next_waits() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let port = listener.local_addr().expect("it has one").port();
        let way = Way { address: [10, 244, 0, 9].into(), loopback: None, on_host: true };
        let all = LOOKUPS.acquire_many(16).await.expect("there are so many");
        let late = ask(Some("localhost"), &way, port, Duration::from_millis(50)).await;
        assert_eq!(late, Err(format!("dial tcp localhost:{port}: i/o timeout")));
        // An address is no name.
        ask(Some("127.0.0.1"), &way, port, Duration::from_secs(10)).await.expect("it is asked");
        drop(all);
        ask(Some("localhost"), &way, port, Duration::from_secs(10)).await.expect("it is asked");
    }
}
