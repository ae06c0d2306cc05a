//! A client's stream that fails when the client takes nothing for too long of what is written to it.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How long a client is waited for that does not read.
pub trait Patience {
    /// So long from when bytes begin to wait.
    fn patience(&self) -> Duration;

    /// Is told that the client is given up.
    fn lost(&self) {}
}

impl Patience for Duration {
    fn patience(&self) -> Duration {
        *self
    }
}

/// See the module.
pub struct Patient<S, P = Duration> {
    stream: S,
    patience: P,
    /// Until when bytes may wait that do.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S, P: Patience> Patient<S, P> {
    /// A stream that takes nothing for no longer than this.
    pub fn new(stream: S, patience: P) -> Self {
        Self { stream, patience, waiting: None }
    }

    /// Passes on what a write came to, unless it waits for too long.
    fn bounded<T>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.waiting = None;
            return result;
        }
        let patience = self.patience.patience();
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        if waiting.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.patience.lost();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin, P: Unpin> AsyncRead for Patient<S, P> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin, P: Patience + Unpin> AsyncWrite for Patient<S, P> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounded(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.bounded(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.bounded(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.bounded(context, result)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::Instant,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_reads_now_and_then_is_waited_for_and_who_does_not_is_not() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut near = Patient::new(near, Duration::from_secs(60));
        let reading = tokio::spawn(async move {
            for _ in 0..3 {
                sleep(Duration::from_secs(50)).await;
                far.read_exact(&mut [0; 16]).await.expect("bytes");
            }
            far
        });
        let failed = near.write_all(&[7; 80]).await.expect_err("nobody reads the last");
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        drop(reading.await.expect("no panic"));
    }

    /// One that is asked anew each time bytes begin to wait, and counts whom it gave up.
    #[derive(Default)]
    struct Changing {
        seconds: Cell<u64>,
        lost: Cell<u32>,
    }

    impl Patience for &Changing {
        fn patience(&self) -> Duration {
            Duration::from_secs(self.seconds.get())
        }

        fn lost(&self) {
            self.lost.set(self.lost.get() + 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn patience_is_that_of_the_moment_and_its_end_is_told() {
        let (near, _far) = tokio::io::duplex(16);
        let changing = Changing { seconds: Cell::new(1), ..Changing::default() };
        let mut near = Patient::new(near, &changing);
        near.write_all(&[0; 16]).await.expect("room");
        changing.seconds.set(600);
        let begun = Instant::now();
        near.write_all(&[0; 16]).await.expect_err("nobody reads");
        assert_eq!((begun.elapsed(), changing.lost.get()), (Duration::from_secs(600), 1));
    }
}
