//! Which instance takes a request.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::balance::{below, pick};
use crate::endpoint::{Endpoint, EndpointSet};
use knoll_api::table::Instance;

fn set(limit: u32, count: u16) -> EndpointSet {
    let instance = |port| Instance { address: ([127, 0, 0, 1], port).into(), pod: format!("pod-{port}") };
    EndpointSet { limit, endpoints: (1..=count).map(|port| Arc::new(Endpoint::new(instance(port), 1))).collect() }
}

fn picks(set: &EndpointSet, times: usize) -> Vec<u16> {
    let cursor = AtomicUsize::new(0);
    (0..times).map_while(|_| pick(set, &cursor, 0, 1000)).map(|endpoint| endpoint.instance.address.port()).collect()
}

#[test]
fn small_limits_fill_the_first_instance_first() {
    assert_eq!(picks(&set(2, 3), 7), [1, 1, 2, 2, 3, 3]);
}

#[test]
fn large_limits_go_round() {
    assert_eq!(picks(&set(4, 3), 5), [1, 2, 3, 1, 2]);
    assert_eq!(picks(&set(4, 3), 100).len(), 12);
}

#[test]
fn a_place_given_back_is_taken_again() {
    let set = set(1, 2);
    assert_eq!(picks(&set, 5), [1, 2]);
    set.endpoints[1].give_back();
    assert_eq!(picks(&set, 5), [2]);
}

#[test]
fn without_a_limit_load_evens_out() {
    let set = set(0, 4);
    let cursor = AtomicUsize::new(0);
    for _ in 0..4000 {
        pick(&set, &cursor, 0, 0).expect("instances never fill");
    }
    for endpoint in &set.endpoints {
        assert!((950..1050).contains(&endpoint.load()), "{}", endpoint.load());
    }
}

#[test]
fn unreachable_instances_are_the_last_resort() {
    for limit in [0, 1, 10] {
        let set = set(limit, 3);
        set.endpoints[0].avoid(2000);
        set.endpoints[2].avoid(2000);
        assert_eq!(picks(&set, 1), [2], "limit {limit}");
        set.endpoints[1].avoid(2000);
        assert_eq!(picks(&set, 1).len(), 1, "limit {limit}");
    }
}

#[test]
fn random_numbers_stay_below_their_bound() {
    let mut seen = [false; 5];
    (0..1000).for_each(|_| seen[below(5)] = true);
    assert_eq!(seen, [true; 5]);
}
