//! Which instance takes a request.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use knoll_scale::throttle::{Choice, choice};

use crate::fleet::{Fleet, Slot};

/// Takes a place in one of the fleet's instances: the less loaded of two without a limit, else the first or
/// the next with a free place. Instances that could not be reached are taken only when there is no other.
pub(crate) fn pick(fleet: &Fleet, cursor: &AtomicUsize, thread: usize, now: u64) -> Option<Arc<Slot>> {
    let slots = fleet.slots.as_slice();
    match (choice(fleet.limit), slots) {
        (_, []) => None,
        (Choice::LeastOfTwo, slots) => {
            let slot = least_of_two(slots, now);
            slot.enter(thread);
            Some(slot.clone())
        }
        (Choice::FirstFree, slots) => first_free(slots, 0, fleet.limit, now),
        (Choice::RoundRobin, slots) => {
            let start = cursor.fetch_add(1, Ordering::Relaxed) % slots.len();
            first_free(slots, start, fleet.limit, now)
        }
    }
}

fn first_free(slots: &[Arc<Slot>], start: usize, limit: u32, now: u64) -> Option<Arc<Slot>> {
    let (before, from) = slots.split_at(start);
    let mut avoided = false;
    for slot in from.iter().chain(before) {
        if slot.avoided(now) {
            avoided = true;
        } else if slot.take(limit) {
            return Some(slot.clone());
        }
    }
    if !avoided {
        return None;
    }
    slots.iter().find(|slot| slot.avoided(now) && slot.take(limit)).cloned()
}

fn least_of_two(slots: &[Arc<Slot>], now: u64) -> &Arc<Slot> {
    if let [only] = slots {
        return only;
    }
    let one = below(slots.len());
    let step = 1 + below(slots.len() - 1);
    let two = (one + step) % slots.len();
    let (one, two) = (&slots[one], &slots[two]);
    match (one.avoided(now), two.avoided(now)) {
        (false, true) => one,
        (true, false) => two,
        (false, false) => less_loaded(one, two),
        (true, true) => slots.iter().find(|slot| !slot.avoided(now)).unwrap_or(one),
    }
}

fn less_loaded<'a>(one: &'a Arc<Slot>, two: &'a Arc<Slot>) -> &'a Arc<Slot> {
    if two.load() < one.load() { two } else { one }
}

thread_local! {
    /// State of a xorshift generator: cheap, and good enough to spread load.
    static RANDOM: Cell<u64> = Cell::new(seed());
}

fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library's hasher keys are the one source of randomness at hand.
    std::collections::hash_map::RandomState::new().build_hasher().finish() | 1
}

/// A random number.
pub(crate) fn random() -> u64 {
    RANDOM.with(|state| {
        let mut x = state.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    })
}

/// A random number below `bound`, which must not be 0.
pub(crate) fn below(bound: usize) -> usize {
    // Multiply and keep the high part: no division, and a bias far below what balancing could notice.
    ((u128::from(random()) * bound as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use knoll_api::table::Instance;

    fn fleet(limit: u32, count: u16) -> Fleet {
        let instance = |port| Instance { address: ([127, 0, 0, 1], port).into(), pod: format!("pod-{port}") };
        Fleet { limit, slots: (1..=count).map(|port| Arc::new(Slot::new(instance(port), 1))).collect() }
    }

    fn picks(fleet: &Fleet, times: usize) -> Vec<u16> {
        let cursor = AtomicUsize::new(0);
        (0..times).map_while(|_| pick(fleet, &cursor, 0, 1000)).map(|slot| slot.instance.address.port()).collect()
    }

    #[test]
    fn small_limits_fill_the_first_instance_first() {
        assert_eq!(picks(&fleet(2, 3), 7), [1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn large_limits_go_round() {
        assert_eq!(picks(&fleet(4, 3), 5), [1, 2, 3, 1, 2]);
        assert_eq!(picks(&fleet(4, 3), 100).len(), 12);
    }

    #[test]
    fn a_place_given_back_is_taken_again() {
        let fleet = fleet(1, 2);
        assert_eq!(picks(&fleet, 5), [1, 2]);
        fleet.slots[1].give_back();
        assert_eq!(picks(&fleet, 5), [2]);
    }

    #[test]
    fn without_a_limit_load_evens_out() {
        let fleet = fleet(0, 4);
        let cursor = AtomicUsize::new(0);
        for _ in 0..4000 {
            pick(&fleet, &cursor, 0, 0).expect("instances never fill");
        }
        for slot in &fleet.slots {
            assert!((950..1050).contains(&slot.load()), "{}", slot.load());
        }
    }

    #[test]
    fn unreachable_instances_are_the_last_resort() {
        for limit in [0, 1, 10] {
            let fleet = fleet(limit, 3);
            fleet.slots[0].avoid(2000);
            fleet.slots[2].avoid(2000);
            assert_eq!(picks(&fleet, 1), [2], "limit {limit}");
            fleet.slots[1].avoid(2000);
            assert_eq!(picks(&fleet, 1).len(), 1, "limit {limit}");
        }
    }

    #[test]
    fn random_numbers_stay_below_their_bound() {
        let mut seen = [false; 5];
        (0..1000).for_each(|_| seen[below(5)] = true);
        assert_eq!(seen, [true; 5]);
    }
}
