//! How long something that ended badly waits before it begins again.

use std::time::Duration;

/// Pauses between the lives of something that ends badly: the first, then each twice the one before, up to the longest; the
/// first again after a life so long that it had recovered.
#[derive(Clone, Debug)]
pub struct Pauses {
    first: Duration,
    longest: Duration,
    healthy: Duration,
    next: Duration,
}

impl Pauses {
    /// A life that lasted `healthy` counts as recovered.
    pub const fn new(first: Duration, longest: Duration, healthy: Duration) -> Self {
        Self { first, longest, healthy, next: first }
    }

    /// The pause after a life of this length.
    pub fn after(&mut self, life: Duration) -> Duration {
        if life >= self.healthy {
            self.next = self.first;
        }
        let pause = self.next;
        self.next = self.next.saturating_mul(2).min(self.longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_longest_and_begin_anew_after_a_healthy_life() {
        let second = Duration::from_secs(1);
        let mut pauses = Pauses::new(second, 3 * second, 60 * second);
        let after = |pauses: &mut Pauses, life: u32| pauses.after(life * second).as_secs();
        let grown: Vec<_> = [0, 59, 0].map(|life| after(&mut pauses, life)).into();
        assert_eq!(grown, [1, 2, 3]);
        assert_eq!((after(&mut pauses, 0), after(&mut pauses, 60), after(&mut pauses, 0)), (3, 1, 2));
    }
}
