//! A peer must move bytes at a least pace: a deadline that fires while bytes flow, too.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// Bytes that must move within [`PERIOD`].
const LEAST: u64 = 64 << 10;
/// How long they may take.
const PERIOD: Duration = Duration::from_secs(60);

/// The peer was too slow.
#[derive(Debug, thiserror::Error)]
#[error("fewer than {LEAST} bytes came in {} s", PERIOD.as_secs())]
pub(crate) struct TooSlow;

/// Watches over one transfer.
pub(crate) struct Pace {
    due: Instant,
    moved: u64,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { due: Instant::now() + PERIOD, moved: 0 }
    }

    /// Waits for the next piece, as long as the pace allows.
    pub(crate) async fn wait<T>(&self, piece: impl Future<Output = T>) -> Result<T, TooSlow> {
        timeout_at(self.due, piece).await.map_err(|_| TooSlow)
    }

    /// Counts a piece.
    pub(crate) fn moved(&mut self, bytes: u64) {
        self.moved += bytes;
        if self.moved >= LEAST {
            *self = Self::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_too_slow_and_a_steady_stream_is_not() {
        let drop_after = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        let mut steady = Pace::new();
        for _ in 0..10 {
            steady.wait(drop_after(50)).await.expect("comes in time");
            steady.moved(LEAST);
        }
        let mut trickle = Pace::new();
        trickle.wait(drop_after(50)).await.expect("comes in time");
        trickle.moved(1);
        trickle.wait(drop_after(50)).await.expect_err("is too little");
    }
}
