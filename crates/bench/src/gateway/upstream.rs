//! The server behind the contestants: eleven bytes, as fast as they come.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::{Response, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::runtime::{Builder, LocalOptions};

/// Starts the server on threads that live as long as the process.
pub(crate) fn start(threads: usize) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    for _ in 0..threads {
        let listener = listener.try_clone()?;
        std::thread::spawn(move || -> io::Result<()> {
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
            runtime.block_on(accept(listener))
        });
    }
    Ok(address)
}

async fn accept(listener: TcpListener) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::task::spawn_local(async move {
            let hello =
                service_fn(async |_| Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello world")))));
            // A client that hangs up is how every run ends.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), hello).await);
        });
    }
}
