//! A panic costs the one thing it happened in: caught here, named, and handed to whoever decides what comes next.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use futures_util::FutureExt;

use crate::counters::{Counters, count};

/// First and longest pause before a task that panicked begins again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A task that lasted this long begins again after the first pause.
const HEALTHY: Duration = Duration::from_secs(60);

/// Runs `work`; a panic becomes what it said. Whatever `work` changes must be thrown away or still make sense then.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(message)
}

/// Awaits `work`; a panic becomes what it said. Whatever `work` changes must be thrown away or still make sense then.
pub(crate) async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(message)
}

/// What a panic said.
pub(crate) fn message(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast::<&str>().map_or_else(|_| "no message".into(), |text| (*text).to_owned()),
    }
}

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
