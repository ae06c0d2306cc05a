//! A client that asks once.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks once over a new connection; from before it is made to the first byte of the answer, which must be a success.
pub(crate) fn ask(address: SocketAddr, host: &str) -> Result<Duration, Box<dyn Error>> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = [0; 512];
    let mut length = stream.read(&mut answer[..1])?;
    let took = begun.elapsed();
    while let more @ 1.. = stream.read(&mut answer[length..])? {
        length += more;
    }
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        return Err(format!("{host} answered {}", String::from_utf8_lossy(&answer[..length])).into());
    }
    Ok(took)
}
