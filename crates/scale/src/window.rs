//! Averages over the last seconds: what was seen, in buckets of one second.
//!
//! A window allocates its buckets with the first write and gives them back once all of it is silence, so an
//! idle revision costs a few words.

use std::time::Duration;

/// Smallest smoothing coefficient of a weighted window.
const MIN_ALPHA: f64 = 0.2;

/// How the buckets of a window become one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Arithmetic mean over the seconds since the first write, without trailing silence.
    #[default]
    Linear,
    /// Newer seconds weigh more, each older one by a constant factor less. Not normalised: a window that is
    /// only partly filled reads low.
    WeightedExponential,
}

/// A sliding window of sums a second.
#[derive(Clone, Debug)]
pub struct Window {
    algorithm: Algorithm,
    length: u64,
    /// Empty or `length` long; second `s` is at `s % length`.
    buckets: Vec<f64>,
    first_write: u64,
    last_write: u64,
    total: f64,
}

impl Window {
    /// An empty window. `length` is rounded up to whole seconds and is at least one.
    pub fn new(length: Duration, algorithm: Algorithm) -> Self {
        Self {
            algorithm,
            length: whole_seconds(length),
            buckets: Vec::new(),
            first_write: 0,
            last_write: 0,
            total: 0.0,
        }
    }

    /// Length of the window.
    pub fn length(&self) -> Duration {
        Duration::from_secs(self.length)
    }

    /// Adds `value` to the second of `now`. Values older than the window are dropped.
    pub fn record(&mut self, now: Duration, value: f64) {
        let second = now.as_secs();
        if self.buckets.is_empty() || second >= self.last_write.saturating_add(self.length) {
            self.buckets.clear();
            self.buckets.resize(usize::try_from(self.length).unwrap_or(usize::MAX), 0.0);
            self.total = 0.0;
            self.first_write = second;
            self.last_write = second;
        } else if second > self.last_write {
            for passed in self.last_write + 1..=second {
                let at = self.index(passed);
                self.total -= std::mem::replace(&mut self.buckets[at], 0.0);
            }
            self.last_write = second;
        } else if second + self.length <= self.last_write {
            return;
        } else {
            self.first_write = self.first_write.min(second);
        }
        let at = self.index(second);
        self.buckets[at] += value;
        self.total += value;
    }

    /// Whether nothing was written for a whole window.
    pub fn is_empty(&self, now: Duration) -> bool {
        self.buckets.is_empty() || now.as_secs() >= self.last_write.saturating_add(self.length)
    }

    /// The average at `now`; 0 when the window is empty.
    pub fn average(&self, now: Duration) -> f64 {
        if self.is_empty(now) {
            return 0.0;
        }
        // A clock a little behind the newest write reads as the newest write.
        let silence = now.as_secs().saturating_sub(self.last_write);
        match self.algorithm {
            Algorithm::Linear => self.linear(silence),
            Algorithm::WeightedExponential => self.weighted(silence),
        }
    }

    /// Frees the buckets when all of the window is silence.
    pub fn trim(&mut self, now: Duration) {
        if self.is_empty(now) {
            self.buckets = Vec::new();
        }
    }

    /// Changes the length and keeps the newest seconds that fit.
    pub fn resize(&mut self, length: Duration) {
        let length = whole_seconds(length);
        if length == self.length {
            return;
        }
        if self.buckets.is_empty() {
            self.length = length;
            return;
        }
        let kept = length.min(self.length);
        let oldest = self.last_write.saturating_sub(kept - 1).max(self.first_write);
        let mut next = Self::new(Duration::from_secs(length), self.algorithm);
        for second in oldest..=self.last_write {
            next.record(Duration::from_secs(second), self.buckets[self.index(second)]);
        }
        *self = next;
    }

    fn linear(&self, silence: u64) -> f64 {
        let slid_out: f64 = (1..=silence).map(|ahead| self.buckets[self.index(self.last_write + ahead)]).sum();
        let written = self.last_write - self.first_write + 1;
        let divisor = written.min(self.length - silence);
        round_to_micro((self.total - slid_out) / divisor as f64)
    }

    fn weighted(&self, silence: u64) -> f64 {
        let alpha = smoothing(self.length);
        let mut weight = alpha * (1.0 - alpha).powf(silence as f64);
        let mut sum = 0.0;
        for back in 0..self.length - silence {
            // Seconds before the epoch hold nothing.
            let Some(second) = self.last_write.checked_sub(back) else { break };
            sum += self.buckets[self.index(second)] * weight;
            weight *= 1.0 - alpha;
        }
        sum
    }

    fn index(&self, second: u64) -> usize {
        usize::try_from(second % self.length).unwrap_or(0)
    }
}

/// The panic window of a stable window: `percent` of it, rounded to a whole second, at least one.
pub fn panic_window(stable: Duration, percent: f64) -> Duration {
    let seconds = (stable.as_secs_f64() * percent / 100.0).round().max(1.0);
    Duration::from_secs_f64(seconds)
}

fn whole_seconds(length: Duration) -> u64 {
    let up = u64::from(length.subsec_nanos() > 0);
    (length.as_secs() + up).max(1)
}

/// α so that the weights of `buckets` seconds add up to 0.9999, but never below [`MIN_ALPHA`].
fn smoothing(buckets: u64) -> f64 {
    (1.0 - (1.0_f64 - 0.9999).powf(1.0 / buckets as f64)).max(MIN_ALPHA)
}

fn round_to_micro(value: f64) -> f64 {
    // Sums and differences of floats leave dust around zero; a negative average must not come of it.
    ((value * 1e6).round() / 1e6).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn linear(length: u64, writes: &[(u64, f64)]) -> Window {
        let mut window = Window::new(at(length), Algorithm::Linear);
        writes.iter().for_each(|&(second, value)| window.record(at(second), value));
        window
    }

    #[track_caller]
    fn close(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-9, "{left} is not {right}");
    }

    #[test]
    fn a_young_window_divides_by_the_seconds_since_the_first_write() {
        close(linear(60, &[(100, 10.0)]).average(at(100)), 10.0);
        close(linear(60, &[(100, 10.0), (101, 20.0)]).average(at(101)), 15.0);
    }

    #[test]
    fn writes_of_one_second_add_up() {
        let mut window = linear(60, &[]);
        window.record(Duration::from_millis(100_100), 2.0);
        window.record(Duration::from_millis(100_900), 3.0);
        close(window.average(at(100)), 5.0);
    }

    #[test]
    fn seconds_without_a_write_between_writes_count_as_zero() {
        // 100, 101 and 102 are silent: 10 / 4.
        close(linear(60, &[(99, 4.0), (102, 6.0)]).average(at(102)), 2.5);
    }

    #[test]
    fn trailing_silence_is_left_out_of_the_divisor() {
        let window = linear(6, &[(10, 6.0), (11, 6.0), (12, 6.0)]);
        close(window.average(at(12)), 6.0);
        close(window.average(at(14)), 6.0);
        // At 16 second 10 has slid out: (6 + 6) / min(3, 6 - 4).
        close(window.average(at(16)), 6.0);
        // At 17 only second 12 is left: 6 / min(3, 1).
        close(window.average(at(17)), 6.0);
        close(window.average(at(18)), 0.0);
        assert!(window.is_empty(at(18)));
    }

    #[test]
    fn a_full_window_forgets_its_oldest_second() {
        let window = linear(3, &[(1, 3.0), (2, 6.0), (3, 9.0), (4, 12.0)]);
        close(window.average(at(4)), 9.0);
    }

    #[test]
    fn a_window_of_silence_starts_over() {
        let window = linear(3, &[(1, 100.0), (4, 5.0)]);
        close(window.average(at(4)), 5.0);
    }

    #[test]
    fn late_writes_land_in_their_second_or_are_dropped() {
        let mut window = linear(3, &[(10, 3.0)]);
        window.record(at(9), 3.0);
        close(window.average(at(10)), 3.0);
        window.record(at(7), 1000.0);
        close(window.average(at(10)), 3.0);
    }

    #[test]
    fn a_clock_behind_the_newest_write_reads_the_newest_write() {
        close(linear(3, &[(10, 3.0)]).average(at(8)), 3.0);
    }

    #[test]
    fn averages_are_rounded_to_six_decimals() {
        let third = linear(60, &[(1, 1.0), (2, 0.0), (3, 0.0)]).average(at(3));
        assert_eq!(third, 0.333333);
    }

    #[test]
    fn shrinking_keeps_the_newest_seconds_and_growing_keeps_all() {
        let mut window = linear(4, &[(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]);
        window.resize(at(2));
        close(window.average(at(4)), 3.5);
        window.resize(at(10));
        close(window.average(at(4)), 3.5);
        window.record(at(5), 8.0);
        close(window.average(at(5)), 5.0);
        close(window.average(at(13)), 6.0);
    }

    #[test]
    fn alpha_makes_the_weights_of_a_window_add_up_to_nearly_one() {
        // 1 - 0.0001^(1/6) = 1 - e^(-9.2103/6) = 1 - e^-1.53506
        assert!((smoothing(6) - 0.784_556_530_9).abs() < 1e-8, "{}", smoothing(6));
        // A minute would have 0.142; the floor holds.
        assert_eq!(smoothing(60), 0.2);
    }

    #[test]
    fn a_weighted_window_prefers_new_seconds() {
        let mut window = Window::new(at(60), Algorithm::WeightedExponential);
        window.record(at(100), 10.0);
        close(window.average(at(100)), 2.0);
        window.record(at(101), 20.0);
        // 20 * 0.2 + 10 * 0.2 * 0.8
        close(window.average(at(101)), 5.6);
        // Two silent seconds: * 0.8^2
        close(window.average(at(103)), 3.584);
        close(window.average(at(161)), 0.0);
    }

    #[test]
    fn a_weighted_window_that_starts_at_the_epoch_has_no_past() {
        let mut window = Window::new(at(60), Algorithm::WeightedExponential);
        window.record(at(0), 10.0);
        close(window.average(at(0)), 2.0);
    }

    #[test]
    fn trimming_frees_only_silence() {
        let mut window = linear(3, &[(10, 3.0)]);
        window.trim(at(12));
        close(window.average(at(12)), 3.0);
        window.trim(at(13));
        assert!(window.buckets.capacity() == 0);
        close(window.average(at(13)), 0.0);
        window.record(at(20), 4.0);
        close(window.average(at(20)), 4.0);
    }

    #[test]
    fn the_panic_window_is_whole_seconds_and_never_none() {
        assert_eq!(panic_window(at(60), 10.0), at(6));
        assert_eq!(panic_window(at(6), 10.0), at(1));
        assert_eq!(panic_window(at(15), 10.0), at(2));
        assert_eq!(panic_window(at(3600), 100.0), at(3600));
    }
}
