//! Which instance takes a request.

use std::cell::Cell;
use std::sync::Arc;

use knoll_scale::throttle::{Choice, choice};

use super::endpoint::{Endpoint, EndpointSet};
use super::sync::{AtomicUsize, Ordering};

/// Takes a place in one of the set's endpoints: the less loaded of two without a limit, else the first or
/// the next with a free place. Instances that could not be reached are taken only when there is no other.
pub(crate) fn pick(set: &EndpointSet, cursor: &AtomicUsize, thread: usize, now: u64) -> Option<Arc<Endpoint>> {
    let endpoints = set.endpoints.as_slice();
    match (choice(set.limit), endpoints) {
        (_, []) => None,
        (Choice::LeastOfTwo, endpoints) => {
            let endpoint = least_of_two(endpoints, now);
            endpoint.enter(thread);
            Some(endpoint.clone())
        }
        (Choice::FirstFree, endpoints) => first_free(endpoints, 0, set.limit, now),
        (Choice::RoundRobin, endpoints) => {
            let start = cursor.fetch_add(1, Ordering::Relaxed) % endpoints.len();
            first_free(endpoints, start, set.limit, now)
        }
    }
}

fn first_free(endpoints: &[Arc<Endpoint>], start: usize, limit: u32, now: u64) -> Option<Arc<Endpoint>> {
    let (before, from) = endpoints.split_at(start);
    let mut avoided = false;
    for endpoint in from.iter().chain(before) {
        if endpoint.avoided(now) {
            avoided = true;
        } else if endpoint.take(limit) {
            return Some(endpoint.clone());
        }
    }
    if !avoided {
        return None;
    }
    endpoints.iter().find(|endpoint| endpoint.avoided(now) && endpoint.take(limit)).cloned()
}

fn least_of_two(endpoints: &[Arc<Endpoint>], now: u64) -> &Arc<Endpoint> {
    if let [only] = endpoints {
        return only;
    }
    let one = below(endpoints.len());
    let step = 1 + below(endpoints.len() - 1);
    let two = (one + step) % endpoints.len();
    let (one, two) = (&endpoints[one], &endpoints[two]);
    match (one.avoided(now), two.avoided(now)) {
        (false, true) => one,
        (true, false) => two,
        (false, false) => less_loaded(one, two),
        (true, true) => endpoints.iter().find(|endpoint| !endpoint.avoided(now)).unwrap_or(one),
    }
}

fn less_loaded<'a>(one: &'a Arc<Endpoint>, two: &'a Arc<Endpoint>) -> &'a Arc<Endpoint> {
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
