//! The end of a connection whose client is still sending: what refuses a request answers before its body has come.
//!
//! A socket that is closed with bytes unread, or that more arrive at, is reset, and a reset takes the answer with it wherever
//! the client has not read it yet. So the writing side is shut first, and what comes is read and thrown away until the client
//! closes, falls silent, or has had its time.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// How long a client may be silent that was told the end: what Go's server gives it.
pub const LINGER_SILENCE: Duration = Duration::from_millis(500);
/// How long it may go on sending.
pub const LINGER: Duration = Duration::from_secs(5);
/// Bytes read at a time.
const PIECE: usize = 8 << 10;

/// A client's stream that is shut as the module says. What left HTTP closes its two sides as it likes, and is shut at once.
pub struct Lingering<S> {
    stream: S,
    upgraded: Arc<AtomicBool>,
    /// Once the writing side is shut.
    leaving: Option<Leaving>,
}

struct Leaving {
    until: Instant,
    silence: Pin<Box<Sleep>>,
}

impl Leaving {
    fn begin() -> Self {
        Self { until: Instant::now() + LINGER, silence: Box::pin(sleep(LINGER_SILENCE)) }
    }

    /// More came: there may be yet more.
    fn heard(&mut self) {
        self.silence.as_mut().reset(self.until.min(Instant::now() + LINGER_SILENCE));
    }
}

impl<S> Lingering<S> {
    /// A stream of requests and answers.
    pub fn new(stream: S) -> Self {
        Self::unless(stream, Arc::default())
    }

    /// A stream that may leave HTTP: from when `upgraded` is set.
    pub fn unless(stream: S, upgraded: Arc<AtomicBool>) -> Self {
        Self { stream, upgraded, leaving: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.leaving.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        if this.upgraded.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let leaving = this.leaving.get_or_insert_with(Leaving::begin);
        let mut piece = [0; PIECE];
        while leaving.silence.as_mut().poll(context).is_pending() {
            let mut piece = ReadBuf::new(&mut piece);
            let read = ready!(Pin::new(&mut this.stream).poll_read(context, &mut piece));
            // Whatever went wrong, it is over.
            if read.is_err() || piece.filled().is_empty() {
                break;
            }
            leaving.heard();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// A client that goes on sending after it was answered reads the answer, though more came than the system keeps unread.
    #[tokio::test]
    async fn who_is_still_sending_reads_the_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("a connection");
        let serving = tokio::spawn(async move {
            let mut stream = Lingering::new(stream);
            stream.write_all(b"no").await.expect("written");
            stream.shutdown().await.expect("shut");
        });
        for _ in 0..64 {
            client.write_all(&[7; 64 << 10]).await.expect("nobody refuses it");
        }
        client.shutdown().await.expect("shut");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("an answer");
        assert_eq!(answer, b"no");
        serving.await.expect("no panic");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_sending_for_ever_come_to_an_end() {
        let (ours, theirs) = duplex(64);
        let begun = Instant::now();
        Lingering::new(ours).shutdown().await.expect("shut");
        assert_eq!(begun.elapsed(), LINGER_SILENCE);
        drop(theirs);

        let (ours, mut theirs) = duplex(64);
        let sending = tokio::spawn(async move {
            while theirs.write_all(&[0; 64]).await.is_ok() {
                sleep(LINGER_SILENCE / 2).await;
            }
        });
        let begun = Instant::now();
        let mut ours = Lingering::new(ours);
        ours.shutdown().await.expect("shut");
        assert_eq!(begun.elapsed(), LINGER);
        drop(ours);
        sending.await.expect("no panic");
    }

    #[tokio::test(start_paused = true)]
    async fn what_left_http_keeps_its_other_side() {
        let (ours, mut theirs) = duplex(64);
        let upgraded = Arc::new(AtomicBool::new(false));
        let mut ours = Lingering::unless(ours, upgraded.clone());
        upgraded.store(true, Ordering::Relaxed);
        theirs.write_all(b"still").await.expect("written");
        ours.shutdown().await.expect("shut");
        let mut still = [0; 5];
        ours.read_exact(&mut still).await.expect("what came");
        assert_eq!(&still, b"still");
    }
}
