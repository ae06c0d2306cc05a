//! Whether a port takes connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};

/// Connects and hangs up.
pub(super) async fn ask(host: Option<&str>, address: IpAddr, port: u16, timeout: Duration) -> Result<(), String> {
    connect(host, address, port, timeout).await.map(drop)
}

/// A connection to `host`, or to the pod when there is none.
pub(super) async fn connect(
    host: Option<&str>,
    address: IpAddr,
    port: u16,
    timeout: Duration,
) -> Result<TcpStream, String> {
    let name = host.map_or_else(|| SocketAddr::new(address, port).to_string(), |host| format!("{host}:{port}"));
    let target = async {
        match host.map(str::parse::<IpAddr>) {
            None => TcpStream::connect((address, port)).await,
            Some(Ok(ip)) => TcpStream::connect((ip, port)).await,
            Some(Err(_)) => {
                let mut found = lookup_host(&name).await?;
                let first = found.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such host"))?;
                TcpStream::connect(first).await
            }
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
