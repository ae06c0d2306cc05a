//! How long is waited before an event is tried again.

use std::time::Duration;

/// No wait is longer, whatever a policy or an answer says: it is beyond what anybody waits for, and within what clocks
/// can add.
pub const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// How waits grow from retry to retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackoffPolicy {
    /// The delay times the number of retries that were made: the first comes at once, as upstream has it.
    Linear,
    /// The delay, doubled at each retry.
    Exponential,
}

/// A policy and its delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// How waits grow.
    pub policy: BackoffPolicy,
    /// The wait that grows.
    pub delay: Duration,
}

impl Backoff {
    /// The wait before the retry that `made` others came before, at most [`LONGEST_WAIT`].
    pub fn wait(self, made: u32) -> Duration {
        let factor = match self.policy {
            BackoffPolicy::Linear => made,
            BackoffPolicy::Exponential => 2_u32.saturating_pow(made),
        };
        self.delay.saturating_mul(factor).min(LONGEST_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waits(policy: BackoffPolicy, delay: u64) -> [u64; 5] {
        let backoff = Backoff { policy, delay: Duration::from_millis(delay) };
        [0, 1, 2, 3, 4].map(|made| u64::try_from(backoff.wait(made).as_millis()).expect("a day"))
    }

    #[test]
    fn linear_begins_with_nothing_and_exponential_with_the_delay() {
        assert_eq!(waits(BackoffPolicy::Linear, 1000), [0, 1000, 2000, 3000, 4000]);
        assert_eq!(waits(BackoffPolicy::Exponential, 500), [500, 1000, 2000, 4000, 8000]);
        assert_eq!(waits(BackoffPolicy::Exponential, 0), [0; 5]);
    }

    proptest! {
        #[test]
        fn waits_never_shrink_and_never_pass_the_longest(
            is_linear: bool,
            delay in 0_u64..=u64::MAX / 2,
            made in 0_u32..=u32::MAX - 1,
        ) {
            let policy = if is_linear { BackoffPolicy::Linear } else { BackoffPolicy::Exponential };
            let backoff = Backoff { policy, delay: Duration::from_nanos(delay) };
            prop_assert!(backoff.wait(made) <= backoff.wait(made + 1));
            prop_assert!(backoff.wait(u32::MAX) <= LONGEST_WAIT);
            let small = made % 20;
            let exact = backoff.delay * if is_linear { small } else { 1 << small };
            prop_assert_eq!(backoff.wait(small), exact.min(LONGEST_WAIT));
        }
    }
}
