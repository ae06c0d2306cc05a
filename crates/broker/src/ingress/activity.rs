//! What goes on on one connection, and when it is over because nothing does.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, sleep_until};

/// Bytes of an answer that are handed over together.
const PIECE: usize = 64 << 10;

/// How long a connection may do nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Without a request: from its beginning until the head of the first has arrived, and from the end of the last one on.
    pub(super) idle: Duration,
    /// While nothing but answers is being written, of which the client takes nothing.
    pub(super) writing: Duration,
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Requests that are being answered.
    answering: usize,
    /// Answers that are being written.
    writing: usize,
    /// When something last happened.
    last: Instant,
}

/// What a request is at.
#[derive(Clone, Copy, Debug)]
enum At {
    Answering,
    Writing,
}

/// One request at it, until this is dropped.
#[derive(Debug)]
struct Doing(Activity, At);

/// A request that is being answered.
pub(super) struct Answering(Doing);

/// An answer that is being written, a piece at a time, each of which counts as something that happens.
#[derive(Debug)]
pub(super) struct Written {
    left: Bytes,
    doing: Doing,
}

impl Activity {
    /// A connection begins.
    pub(super) fn begin() -> Self {
        Self(Arc::new(Mutex::new(State { answering: 0, writing: 0, last: Instant::now() })))
    }

    /// A request begins to be answered.
    pub(super) fn answer(&self) -> Answering {
        Answering(self.enter(At::Answering))
    }

    /// Returns once nothing happened for as long as may be.
    pub(super) async fn over(&self, patience: Patience) {
        while let Some(due) = self.due(patience, Instant::now()) {
            sleep_until(due).await;
        }
    }

    /// When it is to be looked at again; nothing when it is over.
    fn due(&self, patience: Patience, now: Instant) -> Option<Instant> {
        let state = self.state();
        let due = match (state.answering, state.writing) {
            (0, 0) => state.last + patience.idle,
            (0, _) => state.last + patience.writing,
            // Whoever answers has bounds of its own.
            _ => return Some(now + patience.idle.min(patience.writing)),
        };
        (due > now).then_some(due)
    }

    fn enter(&self, at: At) -> Doing {
        self.change(at, |count| *count += 1);
        Doing(self.clone(), at)
    }

    fn change(&self, at: At, change: impl FnOnce(&mut usize)) {
        let mut state = self.state();
        state.last = Instant::now();
        change(match at {
            At::Answering => &mut state.answering,
            At::Writing => &mut state.writing,
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Doing {
    fn drop(&mut self) {
        self.0.change(self.1, |count| *count -= 1);
    }
}

impl Answering {
    /// The request is answered, and the answer is written from now on.
    pub(super) fn write(self, answer: Bytes) -> Written {
        let doing = self.0.0.enter(At::Writing);
        Written { left: answer, doing }
    }
}

impl Body for Written {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.left.len().min(PIECE);
        let piece = self.left.split_to(length);
        self.doing.0.change(self.doing.1, |_| {});
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;

    use super::*;

    const PATIENCE: Patience = Patience { idle: Duration::from_secs(60), writing: Duration::from_secs(10) };

    /// How long it takes until a connection is over on which nothing happens any more; nothing when it is not soon.
    async fn over_after(activity: &Activity) -> Option<Duration> {
        let begun = Instant::now();
        tokio::time::timeout(Duration::from_secs(1000), activity.over(PATIENCE)).await.ok()?;
        Some(begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_ends_and_one_with_a_request_waits_for_its_answer() {
        let activity = Activity::begin();
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(over_after(&activity).await, Some(Duration::from_secs(40)));
        let answering = activity.answer();
        assert_eq!(over_after(&activity).await, None);
        drop(answering);
        assert_eq!(over_after(&activity).await, Some(Duration::from_secs(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_ends_its_connection_and_each_piece_that_is_taken_gives_it_time() {
        let activity = Activity::begin();
        let data: Bytes = (0..PIECE + 1).map(|at| (at % 251) as u8).collect();
        let mut written = activity.answer().write(data.clone());
        assert_eq!(written.size_hint().exact(), Some(data.len() as u64));
        tokio::time::advance(Duration::from_secs(9)).await;
        let first = written.frame().now_or_never().flatten().expect("a piece").expect("data").into_data();
        assert_eq!(first.as_deref().ok(), Some(&data[..PIECE]));
        assert_eq!(over_after(&activity).await, Some(Duration::from_secs(10)));
        let rest = written.collect().await.expect("the rest").to_bytes();
        assert_eq!(rest, data[PIECE..]);
        assert_eq!(over_after(&activity).await, Some(Duration::from_secs(60)));
    }
}
