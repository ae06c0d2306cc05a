//! How many containers are waited for at the same time: they share the processors, so each takes longer to come up, and
//! asking all of them as often as one alone would take from them what they need for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Containers that are asked whether they are there yet. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Crowd {
    members: Arc<AtomicU32>,
    processors: u32,
}

/// One of them, as long as it lives.
#[derive(Debug)]
pub(super) struct Member(Crowd);

impl Default for Crowd {
    fn default() -> Crowd {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Crowd { members: Arc::default(), processors: u32::try_from(processors).unwrap_or(u32::MAX) }
    }
}

impl Crowd {
    /// One more.
    pub(super) fn join(&self) -> Member {
        self.members.fetch_add(1, Relaxed);
        Member(self.clone())
    }

    /// How many of them share a processor, at least one.
    pub(super) fn share(&self) -> u32 {
        (self.members.load(Relaxed) / self.processors).max(1)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.members.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_do_not_wait_for_each_other_and_who_has_left_does_not_count() {
        let crowd = Crowd::default();
        assert_eq!(crowd.share(), 1);
        let one = crowd.join();
        assert_eq!(crowd.share(), 1);
        let many: Vec<_> = (0..10_000).map(|_| crowd.join()).collect();
        assert!(crowd.share() > 1);
        drop(many);
        assert_eq!(crowd.share(), 1);
        drop(one);
        assert_eq!(crowd.members.load(Relaxed), 0);
    }
}
