//! Looking at every key of a controller again, a few at a time: at the start, when its kinds appear, and when the
//! configuration changed. However many keys there are, they are never all in line at once, and what follows from a
//! change of the configuration takes at most a fifth of the loop.

use std::{collections::VecDeque, time::Duration};

use knoll_api::{Key, Kind};
use knoll_plan::World;

use crate::queue::Lane;

/// Keys that are put in line together.
const CHUNK: usize = 64;
/// After a chunk without hurry, this many times what it cost is left to everything else.
const REST: u32 = 4;

/// Whose keys are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// A controller's, by its index.
    Row(usize),
    /// The autoscaler's: every revision it may follow.
    Autoscaler,
}

#[derive(Debug)]
struct Sweep {
    whose: Whose,
    of: Kind,
    lane: Lane,
    /// Up to here, it was done.
    after: Option<Key>,
}

/// What is to be looked at again.
#[derive(Debug, Default)]
pub(crate) struct Sweeps {
    left: VecDeque<Sweep>,
    /// What the keys of the last chunk cost so far.
    cost: Duration,
    /// Nothing without hurry before this.
    not_before: Duration,
}

impl Sweeps {
    /// Has every key looked at again. One that is under way begins anew.
    pub(crate) fn begin(&mut self, whose: Whose, of: Kind, lane: Lane) {
        let earlier = self.left.iter().position(|sweep| sweep.whose == whose);
        let lane = earlier.and_then(|at| self.left.remove(at)).map_or(lane, |earlier| earlier.lane.min(lane));
        self.left.push_back(Sweep { whose, of, lane, after: None });
    }

    /// How many are under way.
    pub(crate) fn len(&self) -> usize {
        self.left.len()
    }

    /// A key without hurry cost this much.
    pub(crate) fn spent(&mut self, cost: Duration) {
        self.cost += cost;
    }

    /// The lane of the next chunk, and the time before which it may not come.
    pub(crate) fn next(&self) -> Option<(Lane, Duration)> {
        let lane = self.left.iter().map(|sweep| sweep.lane).min()?;
        let pause = if self.cost.is_zero() { Duration::ZERO } else { self.cost * REST };
        Some((lane, if lane == Lane::Spread { self.not_before + pause } else { Duration::ZERO }))
    }

    /// The next chunk, the most urgent first.
    pub(crate) fn chunk(&mut self, world: &World, now: Duration) -> Option<(Whose, Lane, Vec<Key>)> {
        let (lane, _) = self.next()?;
        let at = self.left.iter().position(|sweep| sweep.lane == lane)?;
        let sweep = &mut self.left[at];
        let keys = world.keys_after(sweep.of, sweep.after.as_ref(), CHUNK);
        sweep.after = keys.last().cloned();
        let (whose, done) = (sweep.whose, keys.len() < CHUNK);
        if done {
            self.left.remove(at);
        }
        (self.cost, self.not_before) = (Duration::ZERO, now);
        Some((whose, lane, keys))
    }
}
