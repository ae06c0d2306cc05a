//! How a task of the loop that panicked begins again.

use std::time::Duration;

use crate::counters::{Counters, count};

/// First and longest pause before a task that panicked begins again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A task that lasted this long begins again after the first pause.
const HEALTHY: Duration = Duration::from_secs(60);

/// Pauses between the lives of a task that panics.
pub(crate) struct Lives {
    task: String,
    begun: tokio::time::Instant,
    pause: Duration,
}

impl Lives {
    /// The first life begins.
    pub(crate) fn new(task: impl Into<String>) -> Self {
        Self { task: task.into(), begun: tokio::time::Instant::now(), pause: PAUSE.0 }
    }

    /// A life ended in a panic: counts and tells, then waits until the next may begin.
    pub(crate) async fn ended(&mut self, message: &str, counters: &Counters) {
        count(&counters.task_panics);
        if self.begun.elapsed() >= HEALTHY {
            self.pause = PAUSE.0;
        }
        tracing::error!(task = self.task, panic = message, pause = ?self.pause, "a task panicked and begins again");
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE.1);
        self.begun = tokio::time::Instant::now();
    }
}
