//! A client's socket: its first bytes, and how long it may refuse ours.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use knoll_bounds::Lingering;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::metrics::Metrics;

/// What every HTTP/2 connection with prior knowledge begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first bytes of a connection, enough to tell HTTP/2 from HTTP/1.1.
pub(crate) struct Beginning {
    bytes: [u8; PREFACE.len()],
    length: usize,
    given: usize,
}

impl Beginning {
    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
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

    /// Whether the client closed without a word.
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.bytes[..self.length] == PREFACE[..]
    }
}

/// A client's socket whose beginning was read already. Writing fails once the client has taken nothing for a time.
pub(crate) struct ClientStream {
    begin: Beginning,
    stream: Lingering<TcpStream>,
    stall: Stall,
}

impl ClientStream {
    /// `most` is how long the client may take nothing while something waits for it.
    pub(crate) fn new(begin: Beginning, stream: Lingering<TcpStream>, most: Duration, metrics: Arc<Metrics>) -> Self {
        Self { begin, stream, stall: Stall { most, metrics, since: None, sleep: None } }
    }
}

/// How long a client has taken nothing.
struct Stall {
    most: Duration,
    metrics: Arc<Metrics>,
    since: Option<Instant>,
    /// Made when the client first takes nothing.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// Goes on waiting for a client that takes nothing, or gives it up.
    fn poll<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let deadline = *self.since.get_or_insert_with(Instant::now) + self.most;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        ready!(sleep.as_mut().poll(cx));
        self.metrics.stalled.count();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }

    fn watch<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_pending() {
            return self.poll(cx);
        }
        self.since = None;
        written
    }
}

impl AsyncRead for ClientStream {
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

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.stall.watch(written, cx)
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
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, parts);
        this.stall.watch(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
