//! Waiting for a state.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Longest wait for a state that should come.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Looks until `look` finds something, at most [`PATIENCE`].
///
/// # Panics
/// When it does not come; `what` says what was waited for.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}
