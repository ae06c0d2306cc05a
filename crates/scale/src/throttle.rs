//! How many requests a gateway lets through to a revision, and to which instances.

use std::ops::Range;

/// Most requests that wait for a revision in one gateway.
pub const QUEUE_DEPTH: usize = 10_000;

/// Capacity of an open gate.
pub const UNLIMITED: u32 = i32::MAX.unsigned_abs();

/// How an instance is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The less loaded of two chosen at random: without a limit.
    LeastOfTwo,
    /// The first with a free slot, in order of address: keeps later instances idle, so they can go.
    FirstFree,
    /// The next with a free slot after the last one chosen.
    RoundRobin,
}

/// The choice that goes with a hard limit.
pub fn choice(container_concurrency: u32) -> Choice {
    match container_concurrency {
        0 => Choice::LeastOfTwo,
        1..=3 => Choice::FirstFree,
        _ => Choice::RoundRobin,
    }
}

/// Requests in flight that `instances` take together.
pub fn capacity(container_concurrency: u32, instances: u32) -> u32 {
    match (container_concurrency, instances) {
        (_, 0) => 0,
        (0, _) => UNLIMITED,
        (limit, count) => limit.saturating_mul(count).min(UNLIMITED),
    }
}

/// Which of `instances` (ordered by address) gateway `index` of `count` uses, when the limit is hard.
///
/// More gateways than instances: each has one instance, shared with others. Otherwise each has an equal run
/// of neighbours and the first ones an instance more from the tail. Returns the run and the extra instance.
/// An `index` outside of `0..count` (the gateway is not among those meant for the revision) uses all.
pub fn subset(instances: usize, index: usize, count: usize) -> (Range<usize>, Option<usize>) {
    if instances == 0 || index >= count {
        return (0..instances, None);
    }
    if count > instances {
        let one = index % instances;
        return (one..one + 1, None);
    }
    let size = instances / count;
    let leftover = instances % count;
    let extra = (index < leftover).then(|| instances - 1 - index);
    (index * size..(index + 1) * size, extra)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_is_closed_without_instances_and_open_without_a_limit() {
        assert_eq!(capacity(0, 0), 0);
        assert_eq!(capacity(10, 0), 0);
        assert_eq!(capacity(0, 1), UNLIMITED);
        assert_eq!(capacity(10, 3), 30);
        assert_eq!(capacity(u32::MAX, 3), UNLIMITED);
    }

    #[test]
    fn small_limits_fill_the_first_instance_first() {
        let choices: Vec<_> = [0, 1, 3, 4, 100].into_iter().map(choice).collect();
        use Choice::{FirstFree, LeastOfTwo, RoundRobin};
        assert_eq!(choices, [LeastOfTwo, FirstFree, FirstFree, RoundRobin, RoundRobin]);
    }

    #[test]
    fn every_instance_belongs_to_exactly_one_gateway_when_there_are_enough() {
        for (instances, count) in [(7, 3), (6, 3), (5, 5), (1, 1), (11, 4)] {
            let mut seen = vec![0; instances];
            for index in 0..count {
                let (run, extra) = subset(instances, index, count);
                run.chain(extra).for_each(|at| seen[at] += 1);
            }
            assert!(seen.iter().all(|&times| times == 1), "{instances} over {count}: {seen:?}");
        }
    }

    #[test]
    fn leftovers_come_from_the_tail() {
        assert_eq!(subset(7, 0, 3), (0..2, Some(6)));
        assert_eq!(subset(7, 1, 3), (2..4, None));
        assert_eq!(subset(7, 2, 3), (4..6, None));
    }

    #[test]
    fn more_gateways_than_instances_share() {
        assert_eq!(subset(2, 3, 5), (1..2, None));
        assert_eq!(subset(2, 4, 5), (0..1, None));
    }

    #[test]
    fn a_gateway_outside_of_the_subset_uses_all() {
        assert_eq!(subset(4, usize::MAX, 2), (0..4, None));
        assert_eq!(subset(0, 0, 2), (0..0, None));
    }
}
