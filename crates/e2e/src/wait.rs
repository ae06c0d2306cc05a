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
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look)
}

/// Looks until `look` finds something, at most `patience`.
///
/// # Panics
/// When it does not come; `what` says what was waited for.
pub fn until_within<T>(patience: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    found_within(patience, look).unwrap_or_else(|| panic!("waited {patience:?} in vain: {what}"))
}

/// Looks until `look` finds something; `None` when it does not within `patience`.
pub fn found_within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if start.elapsed() >= patience {
            return None;
        }
        thread::sleep(Duration::from_millis(50));
    }
}
