//! Answers that last, because they go on or because they are long: each keeps its place in flight until it ends, and one
//! whose client does not take what is ready for it is given up, though nobody asks it for anything any more.
//!
//! Long answers are handed over in pieces: whatever is handed over at once waits where nothing of ours sees it.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::{task::AbortHandle, time::Instant};

use super::patience::PATIENCE;
use crate::{
    body::{Body, BodyError},
    counters::Counters,
};

/// Most bytes that are handed over at once.
const PIECE: usize = 64 * 1024;

/// Whether an answer is over once its first piece is handed over.
pub(super) fn is_short(body: &Body) -> bool {
    body.size_hint().upper().is_some_and(|most| most <= PIECE as u64)
}

/// A body that lasts.
pub(super) struct Lasting<G> {
    shared: Arc<Mutex<Option<Held<G>>>>,
    watchdog: AbortHandle,
}

struct Held<G> {
    body: Body,
    /// What is left of the last piece of the body.
    rest: Bytes,
    /// When something was handed over after which nothing was asked for yet.
    handed: Option<Instant>,
    _guard: G,
}

impl<G: Send + 'static> Lasting<G> {
    /// Keeps `guard` for as long as `body` lasts.
    pub(super) fn new(body: Body, guard: G, counters: Arc<Counters>) -> Self {
        let held = Held { body, rest: Bytes::new(), handed: None, _guard: guard };
        let shared = Arc::new(Mutex::new(Some(held)));
        let watched = Arc::downgrade(&shared);
        let watchdog = tokio::spawn(async move {
            let mut next = Instant::now() + PATIENCE;
            loop {
                tokio::time::sleep_until(next).await;
                let Some(shared) = watched.upgrade() else { return };
                let mut held = lock(&shared);
                let Some(handed) = held.as_ref().map(|held| held.handed) else { return };
                let now = Instant::now();
                next = handed.unwrap_or(now) + PATIENCE;
                if next <= now {
                    counters.stalled.add();
                    let given_up = held.take();
                    drop(held);
                    drop(given_up);
                    return;
                }
            }
        });
        Self { shared, watchdog: watchdog.abort_handle() }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<G> Drop for Lasting<G> {
    fn drop(&mut self) {
        self.watchdog.abort();
    }
}

impl<G> http_body::Body for Lasting<G> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = lock(&self.shared);
        let Some(held) = shared.as_mut() else {
            return Poll::Ready(Some(Err("the client was too slow".into())));
        };
        held.handed = None;
        let polled = held.piece(context);
        match &polled {
            Poll::Ready(Some(_)) => held.handed = Some(Instant::now()),
            Poll::Ready(None) => drop(shared.take()),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.shared).as_ref().is_some_and(|held| held.rest.is_empty() && held.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let shared = lock(&self.shared);
        let Some(held) = shared.as_ref() else { return SizeHint::default() };
        let (rest, inner) = (held.rest.len() as u64, held.body.size_hint());
        let mut hint = SizeHint::default();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

impl<G> Held<G> {
    /// The next piece.
    fn piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return other,
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(self.rest.len().min(PIECE))))))
    }
}

/// A body that keeps something until it was handed over.
pub(super) struct Kept<G> {
    body: Body,
    _guard: G,
}

impl<G> Kept<G> {
    pub(super) fn new(body: Body, guard: G) -> Self {
        Self { body, _guard: guard }
    }
}

impl<G: Unpin> http_body::Body for Kept<G> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::BodyExt as _;
    use knoll_bounds::Shares;

    use super::*;
    use crate::body;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_taken_gives_its_place_back() {
        let shares = Shares::new(1, 1);
        let place = shares.take("a".to_owned()).unwrap();
        let endless = body::stream(stream::repeat_with(|| Ok(Bytes::from_static(b"x"))));
        let mut lasting = Lasting::new(endless, place, Arc::default());
        assert!(lasting.frame().await.unwrap().is_ok());
        assert!(shares.take("a".to_owned()).is_none());
        tokio::time::sleep(PATIENCE * 2).await;
        assert!(shares.take("a".to_owned()).is_some(), "given back while nobody asks");
        assert!(lasting.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_long_answer_is_handed_over_in_pieces_and_stays_as_long_as_it_said() {
        let shares = Shares::new(1, 1);
        let place = shares.take("a".to_owned()).unwrap();
        let long = body::full(vec![b'x'; 3 * PIECE + 1]);
        assert!(!is_short(&long) && is_short(&body::full(vec![0; PIECE])));
        let mut lasting = Lasting::new(long, place, Arc::default());
        assert_eq!(http_body::Body::size_hint(&lasting).exact(), Some(3 * PIECE as u64 + 1));
        let first = lasting.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first.len(), PIECE);
        assert_eq!(http_body::Body::size_hint(&lasting).exact(), Some(2 * PIECE as u64 + 1));
        assert_eq!(lasting.collect().await.unwrap().to_bytes().len(), 2 * PIECE + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_with_nothing_to_say_stays() {
        let shares = Shares::new(1, 1);
        let place = shares.take("a".to_owned()).unwrap();
        let mut lasting = Lasting::new(body::stream(stream::pending()), place, Arc::default());
        assert!(tokio::time::timeout(PATIENCE * 60, lasting.frame()).await.is_err());
        assert!(shares.take("a".to_owned()).is_none());
    }
}
