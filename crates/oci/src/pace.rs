//! A peer must move bytes at a least pace: a deadline that fires while bytes flow, too.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

/// Bytes that must move within [`PERIOD`].
const LEAST: u64 = 64 << 10;
/// How long they may take.
const PERIOD: Duration = Duration::from_secs(60);

/// Bytes a second that all transfers for one purpose must reach on average while there is one.
const AVERAGE: u64 = 64 << 10;
/// How much longer than that they may take.
const SETTLED: Duration = Duration::from_secs(120);

/// The peer was too slow.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TooSlow {
    /// It has all but stopped.
    #[error("fewer than {LEAST} bytes came in {} s", PERIOD.as_secs())]
    Now,
    /// It goes on, and would for ever.
    #[error("fewer than {AVERAGE} bytes a second came on average")]
    Throughout,
}

/// What several transfers for one purpose come to.
#[derive(Default)]
struct Sum {
    moved: u64,
    /// How long there was one, before the present ones.
    spent: Duration,
    running: usize,
    /// Since when there has been one.
    since: Option<Instant>,
}

/// Watches over transfers for one purpose together: that they are many makes none of them slower.
#[derive(Clone, Default)]
pub(crate) struct Average(Arc<Mutex<Sum>>);

impl Average {
    fn sum(&self) -> MutexGuard<'_, Sum> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, now: Instant) {
        let mut sum = self.sum();
        sum.running += 1;
        sum.since.get_or_insert(now);
    }

    fn end(&self, now: Instant) {
        let mut sum = self.sum();
        sum.running = sum.running.saturating_sub(1);
        if sum.running == 0
            && let Some(since) = sum.since.take()
        {
            sum.spent += now - since;
        }
    }

    /// When it will have been too slow if nothing more comes.
    fn due(&self, now: Instant) -> Instant {
        let sum = self.sum();
        let allowed = SETTLED + Duration::from_secs(sum.moved / AVERAGE);
        sum.since.unwrap_or(now) + allowed.saturating_sub(sum.spent)
    }
}

/// Watches over one transfer.
pub(crate) struct Pace {
    due: Instant,
    moved: u64,
    average: Average,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self::within(Average::default())
    }

    /// One of several transfers.
    pub(crate) fn within(average: Average) -> Self {
        let now = Instant::now();
        average.begin(now);
        Self { due: now + PERIOD, moved: 0, average }
    }

    /// Waits for the next piece, as long as the pace allows.
    pub(crate) async fn wait<T>(&self, piece: impl Future<Output = T>) -> Result<T, TooSlow> {
        let throughout = self.average.due(Instant::now());
        let (at, slow) =
            if throughout < self.due { (throughout, TooSlow::Throughout) } else { (self.due, TooSlow::Now) };
        timeout_at(at, piece).await.map_err(|_| slow)
    }

    /// Counts a piece.
    pub(crate) fn moved(&mut self, bytes: u64) {
        self.average.sum().moved += bytes;
        self.moved += bytes;
        if self.moved >= LEAST {
            self.moved = 0;
            self.due = Instant::now() + PERIOD;
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.average.end(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_too_slow_and_a_steady_stream_is_not() {
        let drop_after = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        let mut steady = Pace::new();
        for _ in 0..100 {
            steady.wait(drop_after(50)).await.expect("comes in time");
            steady.moved(50 * AVERAGE);
        }
        let mut trickle = Pace::new();
        trickle.wait(drop_after(50)).await.expect("comes in time");
        trickle.moved(1);
        trickle.wait(drop_after(50)).await.expect_err("is too little");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_sends_just_enough_to_go_on_is_too_slow_after_a_while_however_many_pieces_it_makes_of_it() {
        let average = Average::default();
        let begun = Instant::now();
        let slow = loop {
            let mut each = Pace::within(average.clone());
            let piece = tokio::time::sleep(Duration::from_secs(50));
            if let Err(slow) = each.wait(piece).await {
                break slow;
            }
            each.moved(LEAST);
        };
        assert!(matches!(slow, TooSlow::Throughout), "{slow}");
        assert_eq!(begun.elapsed(), SETTLED + Duration::from_secs(2), "two pieces were worth a second each");
    }
}
