//! Connections: how many, how slow, how long.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use knoll_bounds::{Lingering, Share, Shares, network};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};

use super::{Locality, Registry};

/// Connections served at once; more wait in the listener's queue.
const CONNECTIONS: usize = 256;
/// Of them, to one client, by address.
const PER_PEER: usize = 64;
/// Connections of the machine's own command line.
const COMMANDS: usize = 16;
/// Longest wait for a request's head, and so between two requests.
const HEAD: Duration = Duration::from_secs(30);
/// Bytes that a reader must take within [`STALL`].
const LEAST: usize = 64 << 10;
/// How long it may take for them.
const STALL: Duration = Duration::from_secs(60);

/// A connection whose peer must keep reading what is sent: slowly, but not at a pace that holds it for ever.
struct Paced<S> {
    stream: S,
    /// Since when something waits to be taken, and how much was taken since.
    waiting: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S: AsyncWrite + Unpin> Paced<S> {
    fn new(stream: S) -> Self {
        Self { stream, waiting: None }
    }

    fn took(&mut self, written: usize) {
        if let Some((due, taken)) = &mut self.waiting {
            *taken += written;
            if *taken >= LEAST {
                due.as_mut().reset(Instant::now() + STALL);
                *taken = 0;
            }
        }
    }

    /// What came of a write: when it has to wait, the clock runs.
    fn judge(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(outcome) = outcome {
            self.took(*outcome.as_ref().unwrap_or(&0));
            return Poll::Ready(outcome);
        }
        let (due, _) = self.waiting.get_or_insert_with(|| (Box::pin(tokio::time::sleep(STALL)), 0));
        ready!(due.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        // All that there was to send has been taken.
        self.waiting = None;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Another machine's address, unless pods or this machine itself have it.
fn side_of(peer: SocketAddr, local: SocketAddr, inside: bool) -> Locality {
    let peer = peer.ip().to_canonical();
    if inside || peer.is_loopback() || peer == local.ip().to_canonical() { Locality::Local } else { Locality::Remote }
}

impl Registry {
    /// Serves connections until `shutdown` ends, then lets requests under way finish. `inside` says that only this
    /// machine and its pods can reach the listener; else it is seen from each connection's address.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve(
        &self,
        listener: &TcpListener,
        inside: bool,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        let (graceful, slots, peers) =
            (GracefulShutdown::new(), Arc::new(Semaphore::new(CONNECTIONS)), Shares::new(CONNECTIONS, PER_PEER));
        let mut shutdown = std::pin::pin!(shutdown);
        let expiring = self.expire_uploads();
        let mut expiring = std::pin::pin!(expiring);
        loop {
            let accepted = async {
                let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>((listener.accept().await, slot))
            };
            let (accepted, slot) = tokio::select! {
                accepted = accepted => accepted?,
                never = &mut expiring => match never {},
                () = &mut shutdown => break,
            };
            let (stream, peer, local) = match accepted.and_then(|(s, peer)| Ok((s.local_addr()?, s, peer))) {
                Ok((local, stream, peer)) => (stream, peer, local),
                Err(error) => {
                    tracing::warn!(%error, "accept a registry connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            match peers.take(network(peer.ip())) {
                Some(entered) => self.run(stream, side_of(peer, local, inside), &graceful, (slot, Some(entered))),
                None => tracing::debug!(%peer, "a client has too many connections to the registry"),
            }
        }
        graceful.shutdown().await;
        Ok(())
    }

    /// Serves the machine's own command line until `shutdown` ends: loading images, and what is here. Only the user
    /// whose process this is, and root, are served.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve_commands(
        &self,
        listener: &UnixListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        let (graceful, slots) = (GracefulShutdown::new(), Arc::new(Semaphore::new(COMMANDS)));
        let ours = nix::unistd::geteuid().as_raw();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = async {
                let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>((listener.accept().await, slot))
            };
            let (accepted, slot) = tokio::select! {
                accepted = accepted => accepted?,
                () = &mut shutdown => break,
            };
            let peer = accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?.uid(), stream)));
            match peer {
                Ok((uid, stream)) if uid == 0 || uid == ours => self.run_commands(stream, &graceful, slot),
                Ok((uid, _)) => tracing::warn!(uid, "another user's process asked to load an image"),
                Err(error) => {
                    tracing::warn!(%error, "accept a connection of the command line");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        graceful.shutdown().await;
        Ok(())
    }

    fn run(
        &self,
        stream: tokio::net::TcpStream,
        side: Locality,
        graceful: &GracefulShutdown,
        kept: (OwnedSemaphorePermit, Option<Share<IpAddr>>),
    ) {
        let registry = self.clone();
        let service = hyper::service::service_fn(move |request| {
            let registry = registry.clone();
            async move { Ok::<_, Infallible>(registry.handle(request, side).await) }
        });
        let connection = builder().serve_connection(TokioIo::new(Paced::new(Lingering::new(stream))), service);
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                tracing::debug!(%error, "a registry connection ended");
            }
            drop(kept);
        });
    }

    fn run_commands(&self, stream: tokio::net::UnixStream, graceful: &GracefulShutdown, slot: OwnedSemaphorePermit) {
        let registry = self.clone();
        let service = hyper::service::service_fn(move |request| {
            let registry = registry.clone();
            async move { Ok::<_, Infallible>(registry.command(request).await) }
        });
        let connection = builder().serve_connection(TokioIo::new(Paced::new(Lingering::new(stream))), service);
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                tracing::debug!(%error, "a connection of the command line ended");
            }
            drop(slot);
        });
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_reading_or_only_sips_is_left() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut paced = Paced::new(near);
        let sips = async {
            let mut sip = [0; 16];
            while far.read_exact(&mut sip).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        };
        let sent = async {
            let outcome = paced.write_all(&vec![0; 1 << 20]).await;
            drop(paced);
            outcome
        };
        let (outcome, ()) = tokio::join!(sent, sips);
        assert_eq!(outcome.expect_err("is too slow").kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn another_machine_is_outside() {
        let side = |peer: &str, local: &str| side_of(peer.parse().expect("one"), local.parse().expect("one"), false);
        assert_eq!(side("127.0.0.1:1", "127.0.0.1:5000"), Locality::Local);
        assert_eq!(side("[::ffff:127.0.0.1]:1", "[::]:5000"), Locality::Local);
        assert_eq!(side("192.0.2.1:1", "192.0.2.1:5000"), Locality::Local);
        assert_eq!(side("192.0.2.2:1", "192.0.2.1:5000"), Locality::Remote);
    }
}
