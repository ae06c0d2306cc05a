//! What a panic costs: one request, one connection, or one turn of a task, and never a thread.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use crate::metrics::Metrics;

/// How long a task that panicked rests before it goes on, so that one that panics at once does not spin.
const REST: Duration = Duration::from_millis(100);

/// Runs `future`; `None` when it panicked, which is counted and logged.
///
/// What it held is dropped on the way, and everything shared here gives back what it lent when dropped.
pub(crate) async fn contained<F: Future>(metrics: &Metrics, what: &'static str, future: F) -> Option<F::Output> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(output) => Some(output),
        Err(panic) => {
            note(metrics, what, &*panic);
            None
        }
    }
}

/// Runs `work` the same way.
pub(crate) fn contained_now<T>(metrics: &Metrics, what: &'static str, work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| note(metrics, what, &*panic)).ok()
}

/// Runs what `make` makes, and makes it anew each time it panics, until it ends by itself.
pub(crate) async fn kept_going<F: Future<Output = ()>>(
    metrics: Arc<Metrics>,
    what: &'static str,
    mut make: impl FnMut() -> F,
) {
    while contained(&metrics, what, make()).await.is_none() {
        tokio::time::sleep(REST).await;
    }
}

fn note(metrics: &Metrics, what: &'static str, panic: &(dyn Any + Send)) {
    metrics.panics.count();
    tracing::error!(panic = knoll_faults::said(panic), "{what} panicked; the gateway goes on");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_twice_is_begun_a_third_time() {
        let metrics = Arc::new(Metrics::new(1));
        let begun = Cell::new(0);
        kept_going(metrics.clone(), "a test", || async {
            begun.set(begun.get() + 1);
            assert!(begun.get() > 2, "not yet");
        })
        .await;
        assert_eq!((begun.get(), metrics.panics.read()), (3, 2));
    }

    #[test]
    fn a_panic_that_never_awaits_is_contained_as_well() {
        let metrics = Metrics::new(1);
        assert_eq!(contained_now(&metrics, "a test", || -> u32 { panic!("{}", "formatted") }), None);
        assert_eq!(contained_now(&metrics, "a test", || 1), Some(1));
        assert_eq!(metrics.panics.read(), 1);
    }
}
