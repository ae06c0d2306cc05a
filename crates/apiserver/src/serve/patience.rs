//! A connection that does not wait for ever for its client to read.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::counters::Counters;

/// How long a client may let bytes wait.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// The same on a connection that carries a command: somebody may have paused their terminal.
const PATIENCE_OF_COMMANDS: Duration = Duration::from_secs(600);

/// A stream whose writes fail when nothing was taken for too long.
pub(super) struct Patient<S> {
    stream: S,
    /// Since when bytes wait.
    waiting: Option<Pin<Box<Sleep>>>,
    commands: Arc<AtomicBool>,
    counters: Arc<Counters>,
}

impl<S> Patient<S> {
    /// `commands` says whether the connection carries a command by now.
    pub(super) fn new(stream: S, commands: Arc<AtomicBool>, counters: Arc<Counters>) -> Self {
        Self { stream, waiting: None, commands, counters }
    }

    /// Passes on what a write came to, unless it waits for too long.
    fn bounded<T>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.waiting = None;
            return result;
        }
        let patience = if self.commands.load(Ordering::Relaxed) { PATIENCE_OF_COMMANDS } else { PATIENCE };
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + patience)));
        if waiting.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.counters.stalled.add();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
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
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_given_up() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let counters = Arc::<Counters>::default();
        let mut stream = Patient::new(ours, Arc::default(), counters.clone());
        stream.write_all(&[0; 16]).await.unwrap();
        let begun = Instant::now();
        let error = stream.write_all(&[0; 16]).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, PATIENCE));
        assert_eq!(counters.stalled.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_slowly_is_not() {
        use tokio::io::AsyncReadExt as _;
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut stream = Patient::new(ours, Arc::default(), Arc::default());
        let reader = tokio::spawn(async move {
            let mut taken = [0; 8];
            for _ in 0..20 {
                tokio::time::sleep(PATIENCE / 2).await;
                theirs.read_exact(&mut taken).await.unwrap();
            }
        });
        stream.write_all(&[0; 160]).await.unwrap();
        reader.await.unwrap();
    }
}
