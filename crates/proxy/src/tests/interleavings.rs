//! The protocol of places and lines under a scheduler that decides at each atomic and lock which thread goes on.
//!
//! The files of the protocol are compiled a second time here, with shuttle's primitives for the standard library's.
//! Shuttle sees memory as sequentially consistent, which is what the protocol asks for where it matters. A thread
//! that is never woken is a deadlock, which shuttle reports with the schedule that led to it.

#[path = "../balance.rs"]
#[expect(clippy::duplicate_mod, reason = "compiled again on purpose")]
mod balance;
#[path = "../endpoint.rs"]
#[expect(dead_code, clippy::duplicate_mod, reason = "compiled again on purpose; the protocol uses a part")]
mod endpoint;
#[path = "../endpoint_pool.rs"]
#[expect(dead_code, clippy::duplicate_mod, reason = "compiled again on purpose; the protocol uses a part")]
mod endpoint_pool;

/// Shuttle's primitives in place of the standard library's.
mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};
}

use std::sync::Arc;

use knoll_api::Key;
use knoll_api::table::{Backend, Instance, RevisionPolicy};
use shuttle::future::block_on;
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread;
use tokio::sync::mpsc;

use crate::errors::Refusal;
use crate::metrics::Metrics;
use endpoint_pool::{Common, EndpointPool, Permit};

/// Orders tried for each test; half of them at random, half with few switches at the worst places.
const ORDERS: usize = 2000;

/// Runs `scene` in many orders.
fn in_many_orders(scene: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(scene.clone(), ORDERS / 2);
    shuttle::check_pct(scene, ORDERS / 2, 3);
}

fn key() -> Key {
    Key::new("ns", "rev")
}

fn instance(port: u16) -> Instance {
    Instance { address: ([127, 0, 0, 1], port).into(), pod: format!("pod-{port}") }
}

fn backend(limit: u32, ports: &[u16]) -> Arc<Backend> {
    let policy = RevisionPolicy { container_concurrency: limit, ..RevisionPolicy::default() };
    let instances = ports.iter().copied().map(instance).collect();
    Arc::new(Backend { revision: Some(Arc::new(policy)), instances, ..Backend::default() })
}

fn pool(depth: usize, limit: u32, ports: &[u16]) -> (Arc<EndpointPool>, mpsc::Receiver<Key>) {
    let (wakes, woken) = mpsc::channel(10);
    let pool = Arc::new(EndpointPool::new(key(), true, Common::new(1, depth, wakes, Arc::new(Metrics::new(1)))));
    pool.follow(&key(), Some(backend(limit, ports)), 1);
    (pool, woken)
}

/// A request: a place at once, or after waiting for it.
fn enter(pool: &Arc<EndpointPool>) -> Permit {
    match pool.try_admit(&pool.endpoints().1, 0, 1) {
        Some(permit) => permit,
        None => block_on(pool.wait(0, 1).expect("room in line").answer()).expect("a place"),
    }
}

/// Takes all places there are; none may be lost, and none invented.
fn count_places(pool: &Arc<EndpointPool>) -> usize {
    let endpoints = pool.endpoints().1;
    let all: Vec<Permit> = std::iter::from_fn(|| pool.try_admit(&endpoints, 0, 1)).collect();
    all.len()
}

#[test]
fn everyone_is_served_and_no_limit_is_exceeded() {
    in_many_orders(|| {
        let (pool, _woken) = pool(10, 1, &[1, 2]);
        let inside = Arc::new(AtomicUsize::new(0));
        let requests: Vec<_> = (0..4)
            .map(|_| {
                let (pool, inside) = (pool.clone(), inside.clone());
                thread::spawn(move || {
                    let permit = enter(&pool);
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < 2, "a limit was exceeded");
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                })
            })
            .collect();
        requests.into_iter().for_each(|request| request.join().expect("no panic"));
        assert!(!pool.has_waiters());
        assert_eq!(count_places(&pool), 2);
    });
}

#[test]
fn a_request_that_gives_up_loses_no_place() {
    in_many_orders(|| {
        let (pool, _woken) = pool(10, 1, &[1]);
        let held = enter(&pool);
        let impatient = {
            let pool = pool.clone();
            thread::spawn(move || {
                let waiting = pool.wait(0, 1).expect("room in line");
                thread::yield_now();
                // Perhaps before it was granted a place, perhaps just after.
                drop(waiting);
            })
        };
        let patient = {
            let pool = pool.clone();
            thread::spawn(move || drop(enter(&pool)))
        };
        drop(held);
        impatient.join().expect("no panic");
        patient.join().expect("no panic");
        assert!(!pool.has_waiters());
        assert_eq!(count_places(&pool), 1);
    });
}

#[test]
fn who_came_first_goes_first() {
    in_many_orders(|| {
        let (pool, _woken) = pool(10, 1, &[1]);
        let held = enter(&pool);
        // The line is joined in this order; whoever frees a place does it at any moment.
        let (mut first, mut second) = (pool.wait(0, 1).expect("room"), pool.wait(0, 1).expect("room"));
        let served = Arc::new(AtomicUsize::new(0));
        let freeing = thread::spawn(move || drop(held));
        let later = {
            let served = served.clone();
            thread::spawn(move || {
                let permit = block_on(second.answer()).expect("a place");
                assert_eq!(served.load(Ordering::SeqCst), 1, "the second overtook the first");
                drop(permit);
            })
        };
        let permit = block_on(first.answer()).expect("a place");
        served.fetch_add(1, Ordering::SeqCst);
        drop(permit);
        freeing.join().expect("no panic");
        later.join().expect("no panic");
    });
}

#[test]
fn the_line_is_never_longer_than_its_bound() {
    in_many_orders(|| {
        let (pool, _woken) = pool(1, 1, &[1]);
        let held = enter(&pool);
        let answers: Vec<_> = (0..3)
            .map(|_| {
                let pool = pool.clone();
                thread::spawn(move || match pool.wait(0, 1) {
                    Ok(mut waiting) => block_on(waiting.answer()).is_ok(),
                    Err(Refusal::QueueFull) => false,
                    Err(other) => panic!("{other}"),
                })
            })
            .collect();
        drop(held);
        let served = answers.into_iter().map(|answer| answer.join().expect("no panic"));
        assert!(served.filter(|served| *served).count() >= 1, "somebody had room");
        assert_eq!(count_places(&pool), 1);
    });
}

#[test]
fn instances_that_come_and_go_leave_nobody_waiting() {
    in_many_orders(|| {
        let (pool, mut woken) = pool(10, 1, &[]);
        let requests: Vec<_> = (0..2)
            .map(|_| {
                let pool = pool.clone();
                thread::spawn(move || drop(enter(&pool)))
            })
            .collect();
        let changing = {
            let pool = pool.clone();
            thread::spawn(move || {
                pool.instance_up(&instance(1), 1);
                pool.instance_down(&instance(1), 1);
                // The table brings the one that stays.
                pool.follow(&key(), Some(backend(1, &[2])), 1);
            })
        };
        requests.into_iter().for_each(|request| request.join().expect("no panic"));
        changing.join().expect("no panic");
        assert!(!pool.has_waiters());
        assert_eq!(count_places(&pool), 1);
        // A revision is called at most once for each time it slept.
        let calls = std::iter::from_fn(|| woken.try_recv().ok()).count();
        assert!(calls <= 2, "{calls} calls");
    });
}

#[test]
fn a_revision_that_is_deleted_tells_everyone() {
    in_many_orders(|| {
        let (pool, _woken) = pool(10, 1, &[]);
        let waiting = {
            let pool = pool.clone();
            thread::spawn(move || match pool.wait(0, 1) {
                Ok(mut waiting) => block_on(waiting.answer()).map(drop),
                Err(refused) => Err(refused),
            })
        };
        pool.follow(&key(), None, 1);
        pool.close();
        assert!(matches!(waiting.join().expect("no panic"), Err(Refusal::Failed(_))));
    });
}

#[test]
fn an_instance_that_is_drained_has_no_request_and_gets_none() {
    for limit in [0, 1] {
        in_many_orders(move || {
            let (pool, _woken) = pool(10, limit, &[1]);
            // As a thread keeps it, a moment longer than it is true.
            let endpoints = pool.endpoints().1;
            let inside = Arc::new(AtomicUsize::new(0));
            let requests: Vec<_> = (0..2)
                .map(|_| {
                    let (pool, endpoints, inside) = (pool.clone(), endpoints.clone(), inside.clone());
                    thread::spawn(move || {
                        let Some(permit) = pool.try_admit(&endpoints, 0, 1) else { return };
                        inside.fetch_add(1, Ordering::SeqCst);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                    })
                })
                .collect();
            pool.instance_down(&instance(1), 1);
            for endpoint in pool.leaving(&instance(1)) {
                block_on(endpoint.idle());
            }
            assert_eq!(inside.load(Ordering::SeqCst), 0, "a request is in flight at what was drained");
            assert!(pool.try_admit(&endpoints, 0, 1).is_none());
            requests.into_iter().for_each(|request| request.join().expect("no panic"));
            assert_eq!(inside.load(Ordering::SeqCst), 0);
        });
    }
}
