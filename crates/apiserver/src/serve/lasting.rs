//! Answers that last: each keeps its place in flight until it ends, and one whose client does not take what is ready
//! for it is given up, though nobody asks it for anything any more.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::{task::AbortHandle, time::Instant};

use super::{flow::Place, patience::PATIENCE};
use crate::{
    body::{Body, BodyError},
    counters::Counters,
};

/// A body that lasts.
pub(super) struct Lasting<G> {
    shared: Arc<Mutex<Option<Held<G>>>>,
    watchdog: AbortHandle,
}

struct Held<G> {
    body: Body,
    /// When something was handed over after which nothing was asked for yet.
    handed: Option<Instant>,
    _place: Place,
    _guard: G,
}

impl<G: Send + 'static> Lasting<G> {
    /// Keeps `place` and `guard` for as long as `body` lasts.
    pub(super) fn new(body: Body, place: Place, guard: G, counters: Arc<Counters>) -> Self {
        let held = Held { body, handed: None, _place: place, _guard: guard };
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
        let polled = Pin::new(&mut held.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(_)) => held.handed = Some(Instant::now()),
            Poll::Ready(None) => drop(shared.take()),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.shared).as_ref().is_some_and(|held| held.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.shared).as_ref().map(|held| held.body.size_hint()).unwrap_or_default()
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

    use super::*;
    use crate::{body, serve::shares::Shares};

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_taken_gives_its_place_back() {
        let shares = Shares::new(1, 1);
        let place = Arc::new(shares.take("a".to_owned()).unwrap());
        let endless = body::stream(stream::repeat_with(|| Ok(Bytes::from_static(b"x"))));
        let mut lasting = Lasting::new(endless, place, (), Arc::default());
        assert!(lasting.frame().await.unwrap().is_ok());
        assert!(shares.take("a".to_owned()).is_none());
        tokio::time::sleep(PATIENCE * 2).await;
        assert!(shares.take("a".to_owned()).is_some(), "given back while nobody asks");
        assert!(lasting.frame().await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_with_nothing_to_say_stays() {
        let shares = Shares::new(1, 1);
        let place = Arc::new(shares.take("a".to_owned()).unwrap());
        let mut lasting = Lasting::new(body::stream(stream::pending()), place, (), Arc::default());
        assert!(tokio::time::timeout(PATIENCE * 60, lasting.frame()).await.is_err());
        assert!(shares.take("a".to_owned()).is_none());
    }
}
