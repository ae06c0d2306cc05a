//! A client's connection: which HTTP it speaks, and its life until drained.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::drain::Ticket;
use crate::gateway::{Shared, Side};
use crate::headers::Origin;
use crate::life::life;
use crate::thread::{LocalExecutor, Thread};

/// What every HTTP/2 connection with prior knowledge begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client, as its requests see it.
pub(crate) struct Client {
    pub(crate) thread: Rc<Thread>,
    pub(crate) side: Side,
    pub(crate) origin: Origin,
    pub(crate) live: Live,
}

/// A connection that is alive; the gateway waits for the last one when it drains.
#[derive(Clone, Debug)]
pub(crate) struct Live(#[expect(dead_code, reason = "held for its drop")] Arc<Alive>);

#[derive(Debug)]
struct Alive {
    shared: Arc<Shared>,
    thread: usize,
}

impl Live {
    /// Counts a connection that `Shared::admit_connection` let in for `thread`.
    pub(crate) fn new(shared: Arc<Shared>, thread: usize) -> Self {
        Self(Arc::new(Alive { shared, thread }))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.shared.connection_ended(self.thread);
    }
}

/// Serves a dealt connection until it ends.
pub(crate) fn serve(thread: &Rc<Thread>, stream: std::net::TcpStream, peer: SocketAddr, side: Side) {
    let live = Live::new(thread.shared.clone(), thread.index);
    let thread = thread.clone();
    tokio::task::spawn_local(async move {
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, %peer, "cannot watch a client's socket");
                return;
            }
        };
        let trusted = side == Side::Local || thread.shared.config.trust_forwarded;
        let origin = Origin::new(peer.ip().to_canonical(), false, trusted);
        let client = Rc::new(Client { thread, side, origin, live });
        if let Err(error) = talk(client, stream).await {
            tracing::debug!(%error, %peer, "client connection ended");
        }
    });
}

async fn talk(client: Rc<Client>, mut stream: TcpStream) -> Result<(), Box<dyn std::error::Error>> {
    let config = &client.thread.shared.config;
    let begin = Beginning::read(&mut stream);
    let mut ticket = client.thread.parked.ticket();
    let begin = tokio::select! {
        begin = tokio::time::timeout(config.header_read_timeout, begin) => begin??,
        () = ticket.called() => return Ok(()),
    };
    if begin.length == 0 {
        return Ok(());
    }
    let io = TokioIo::new(Begun { begin, stream });
    let timeout = config.header_read_timeout;
    let (most_bytes, most_streams) = (config.max_header_bytes, config.max_streams);
    let service = service_fn(move |request: Request<Incoming>| {
        let client = client.clone();
        async move { Ok::<_, Infallible>(life(client, request).await) }
    });
    if io.inner().begin.is_http2() {
        let connection = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .max_concurrent_streams(most_streams)
            .max_header_list_size(u32::try_from(most_bytes).unwrap_or(u32::MAX))
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .keep_alive_interval(Some(timeout))
            .serve_connection(io, service);
        drained(connection, ticket, |connection| connection.graceful_shutdown()).await?;
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(timeout)
            .max_buf_size(most_bytes)
            .serve_connection(io, service)
            .with_upgrades();
        drained(connection, ticket, |connection| connection.graceful_shutdown()).await?;
    }
    Ok(())
}

/// Runs a connection and, once the gateway drains, asks it to end after its present requests.
async fn drained<C: Future>(connection: C, mut ticket: Ticket, mut end: impl FnMut(Pin<&mut C>)) -> C::Output {
    let mut connection = std::pin::pin!(connection);
    let mut told = false;
    std::future::poll_fn(|cx| {
        if !told && ticket.poll_called(cx).is_ready() {
            told = true;
            end(connection.as_mut());
        }
        connection.as_mut().poll(cx)
    })
    .await
}

/// The first bytes of a connection, enough to tell HTTP/2 from HTTP/1.1.
struct Beginning {
    bytes: [u8; PREFACE.len()],
    length: usize,
    given: usize,
}

impl Beginning {
    async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut begin = Self { bytes: [0; PREFACE.len()], length: 0, given: 0 };
        loop {
            let read = stream.read(&mut begin.bytes[begin.length..]).await?;
            begin.length += read;
            let could_be = PREFACE.starts_with(&begin.bytes[..begin.length]);
            if read == 0 || !could_be || begin.length == PREFACE.len() {
                return Ok(begin);
            }
        }
    }

    fn is_http2(&self) -> bool {
        self.bytes[..self.length] == PREFACE[..]
    }
}

/// A stream whose beginning was read already.
struct Begun {
    begin: Beginning,
    stream: TcpStream,
}

impl AsyncRead for Begun {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let rest = &this.begin.bytes[this.begin.given..this.begin.length];
        if rest.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let give = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..give]);
        this.begin.given += give;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
