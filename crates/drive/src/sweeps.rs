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

#[cfg(test)]
mod tests {
    use knoll_api::Object;
    use knoll_plan::{Change, Settings};
    use serde_json::json;

    use super::*;

    fn world_of(services: usize) -> World {
        let mut world = World::new(Settings::default());
        for at in 0..services {
            let value = json!({"metadata": {"namespace": "a", "name": format!("s{at:05}")}, "spec": {}});
            world.apply(Change::Put(Object::from_json(Kind::Service, value).expect("an object")));
        }
        world
    }

    #[test]
    fn what_concerns_all_keys_takes_a_few_at_a_time_and_leaves_the_loop_to_others() {
        for services in [1_000, 10_000] {
            let (world, mut sweeps) = (world_of(services), Sweeps::default());
            sweeps.begin(Whose::Row(0), Kind::Service, Lane::Spread);
            let (mut seen, mut chunks, mut now) = (0, 0, Duration::ZERO);
            while let Some((lane, at)) = sweeps.next() {
                assert_eq!(lane, Lane::Spread);
                now = now.max(at);
                let (_, _, keys) = sweeps.chunk(&world, now).expect("one is under way");
                assert!(keys.len() <= CHUNK);
                keys.iter().for_each(|_| sweeps.spent(Duration::from_millis(1)));
                (seen, chunks) = (seen + keys.len(), chunks + 1);
                // Four times as long as these keys took, nothing of it comes.
                let rest = Duration::from_millis(keys.len() as u64) * REST;
                assert!(sweeps.next().is_none_or(|(_, at)| at == now + rest));
            }
            assert_eq!((seen, chunks), (services, services / CHUNK + 1));
        }
    }

    #[test]
    fn who_begins_is_served_before_what_is_merely_looked_at_again() {
        let (world, mut sweeps) = (world_of(200), Sweeps::default());
        sweeps.begin(Whose::Row(0), Kind::Service, Lane::Spread);
        sweeps.begin(Whose::Row(1), Kind::Service, Lane::Normal);
        let order: Vec<_> = std::iter::from_fn(|| sweeps.chunk(&world, Duration::ZERO)).map(|chunk| chunk.0).collect();
        assert_eq!(order[..4], [Whose::Row(1); 4]);
        assert_eq!(order[4..], [Whose::Row(0); 4]);
    }
}
