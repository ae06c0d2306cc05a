//! Bounds of what the autoscaler can be asked for.

use std::{ops::RangeInclusive, time::Duration};

/// Smallest target.
pub const TARGET_MIN: f64 = 0.01;
/// Shortest stable window.
pub const WINDOW_MIN: Duration = Duration::from_secs(6);
/// Longest stable window, and longest delay of scaling down or to zero.
pub const WINDOW_MAX: Duration = Duration::from_secs(3600);
/// Panic window in percent of the stable window.
pub const PANIC_WINDOW_PERCENT: RangeInclusive<f64> = 1.0..=100.0;
/// Load that begins panic, in percent of capacity.
pub const PANIC_THRESHOLD_PERCENT: RangeInclusive<f64> = 110.0..=1000.0;
/// Share of the target to aim at, in percent.
pub const UTILIZATION_PERCENT: RangeInclusive<f64> = 1.0..=100.0;
