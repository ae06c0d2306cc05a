//! Chance that can be had again.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// A small generator (SplitMix64): the same seed, the same sequence.
#[derive(Clone, Debug)]
pub struct Seed {
    state: u64,
}

impl Seed {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Seed {
        Seed { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678) }
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 {
            return 0;
        }
        usize::try_from(self.number() % bound as u64).unwrap_or_default()
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { from.get(self.below(from.len())) }
    }
}

/// Runs `check` for the first `count` seeds and for `more`, on as many threads as the machine has processors. As many
/// seeds as `KNOLL_SIM_SEEDS` says instead, when that is set.
///
/// # Panics
/// As `check` does; seeds that were not begun by then are left out.
pub fn each_seed(count: u64, more: &[u64], check: impl Fn(u64) + Sync) {
    let asked = std::env::var("KNOLL_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    let all: Vec<u64> = (0..asked.unwrap_or(count)).chain(more.iter().copied()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(seed) = all.get(next.fetch_add(1, Relaxed)) {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(*seed))) {
                next.store(all.len(), Relaxed);
                resume_unwind(panic);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in running {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
}
