//! How a task of the loop that panicked begins again.

use std::time::Duration;

use knoll_faults::Pauses;

use crate::counters::{Counters, count};

/// First and longest pause before a task that panicked begins again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A task that lasted this long begins again after the first pause.
const HEALTHY: Duration = Duration::from_secs(60);

/// Pauses between the lives of a task that panics.
pub(crate) struct Lives {
    task: String,
    begun: tokio::time::Instant,
    pauses: Pauses,
}

impl Lives {
    /// The first life begins.
    pub(crate) fn new(task: impl Into<String>) -> Self {
        Self { task: task.into(), begun: tokio::time::Instant::now(), pauses: Pauses::new(PAUSE.0, PAUSE.1, HEALTHY) }
    }

    /// A life ended in a panic: counts and tells, then waits until the next may begin.
    pub(crate) async fn ended(&mut self, message: &str, counters: &Counters) {
        count(&counters.task_panics);
        let pause = self.pauses.after(self.begun.elapsed());
        tracing::error!(task = self.task, panic = message, ?pause, "a task panicked and begins again");
        tokio::time::sleep(pause).await;
        self.begun = tokio::time::Instant::now();
    }
}
