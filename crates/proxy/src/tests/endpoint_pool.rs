//! Places and lines of one endpoint pool, one step at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::endpoint_pool::{Answer, Common, EndpointPool, Permit, Waiting};
use crate::errors::Refusal;
use crate::metrics::Metrics;
use knoll_api::Key;
use knoll_api::table::RevisionPolicy;
use knoll_api::table::{Backend, Instance};
use tokio::sync::mpsc;

const NOW: u64 = 1;

struct Bench {
    pool: Arc<EndpointPool>,
    wakes: mpsc::Receiver<Key>,
}

fn key() -> Key {
    Key::new("ns", "rev")
}

fn instance(port: u16) -> Instance {
    Instance { address: ([127, 0, 0, 1], port).into(), pod: format!("pod-{port}") }
}

fn backend(limit: u32, ports: &[u16]) -> Arc<Backend> {
    let policy = RevisionPolicy { container_concurrency: limit, ..RevisionPolicy::default() };
    Arc::new(Backend {
        revision: Some(Arc::new(policy)),
        instances: ports.iter().copied().map(instance).collect(),
        ..Backend::default()
    })
}

fn common(threads: usize, depth: usize, wakes: mpsc::Sender<Key>) -> Arc<Common> {
    Common::new(threads, depth, wakes, Arc::new(Metrics::new(threads)))
}

/// An endpoint pool without instances, for tests of others.
pub(crate) fn alone() -> Arc<EndpointPool> {
    Arc::new(EndpointPool::new(key(), true, common(1, 3, mpsc::channel(1).0)))
}

fn bench(limit: u32, ports: &[u16]) -> Bench {
    let (sender, wakes) = mpsc::channel(10);
    let pool = Arc::new(EndpointPool::new(key(), true, common(1, 3, sender)));
    pool.follow(&key(), Some(backend(limit, ports)), NOW);
    Bench { pool, wakes }
}

impl Bench {
    fn take(&self) -> Option<Permit> {
        self.pool.try_admit(&self.pool.endpoints().1, 0, NOW)
    }

    fn wait(&self) -> Waiting {
        self.pool.wait(0, NOW).expect("queue has room")
    }

    fn follow(&self, limit: u32, ports: &[u16]) {
        self.pool.follow(&key(), Some(backend(limit, ports)), NOW);
    }
}

fn answer(waiting: &mut Waiting) -> Option<Answer> {
    waiting.receiver.try_recv().ok()
}

fn port(permit: &Permit) -> u16 {
    permit.endpoint().instance.address.port()
}

#[test]
fn a_place_given_back_goes_to_the_first_in_line() {
    let bench = bench(1, &[1]);
    let held = bench.take().expect("a place");
    assert!(bench.take().is_none());
    let (mut first, mut second) = (bench.wait(), bench.wait());
    drop(held);
    let permit = answer(&mut first).expect("an answer").expect("a place");
    assert!(answer(&mut second).is_none());
    assert!(bench.take().is_none(), "nobody overtakes the line");
    drop(permit);
    assert!(answer(&mut second).expect("an answer").is_ok());
}

#[test]
fn who_leaves_the_line_takes_nothing_along() {
    let bench = bench(1, &[1]);
    let held = bench.take().expect("a place");
    let (first, mut second) = (bench.wait(), bench.wait());
    drop(first);
    drop(held);
    assert!(answer(&mut second).expect("an answer").is_ok());
}

#[test]
fn a_place_granted_to_one_who_just_left_goes_on() {
    let bench = bench(1, &[1]);
    let held = bench.take().expect("a place");
    let (first, mut second) = (bench.wait(), bench.wait());
    drop(held);
    // `first` holds the granted place unread.
    assert!(answer(&mut second).is_none());
    drop(first);
    assert!(answer(&mut second).expect("an answer").is_ok());
}

#[test]
fn the_line_is_bounded() {
    let bench = bench(0, &[]);
    let _line = [bench.wait(), bench.wait(), bench.wait()];
    let refused = bench.pool.wait(0, NOW).expect_err("line is full");
    assert_eq!(refused.to_string(), "pending request queue full");
}

#[test]
fn a_revision_is_woken_once_and_served_by_its_first_instance() {
    let mut bench = bench(0, &[]);
    let (mut first, mut second) = (bench.wait(), bench.wait());
    assert_eq!(bench.wakes.try_recv(), Ok(key()));
    assert!(bench.wakes.try_recv().is_err(), "once is enough");
    bench.pool.instance_up(&instance(7), NOW);
    for waiting in [&mut first, &mut second] {
        assert_eq!(answer(waiting).and_then(Result::ok).as_ref().map(port), Some(7));
    }
    bench.pool.instance_down(&instance(7), NOW);
    let _third = bench.wait();
    assert_eq!(bench.wakes.try_recv(), Ok(key()), "it sleeps again, so it is woken again");
}

#[test]
fn losing_the_last_instance_with_a_line_wakes_again() {
    let mut bench = bench(1, &[1]);
    let _held = bench.take().expect("a place");
    let _waiting = bench.wait();
    assert!(bench.wakes.try_recv().is_err());
    bench.follow(1, &[]);
    assert_eq!(bench.wakes.try_recv(), Ok(key()));
}

#[test]
fn reminders_repeat_the_call_only_while_someone_waits() {
    let mut bench = bench(0, &[]);
    bench.pool.remind();
    assert!(bench.wakes.try_recv().is_err());
    let waiting = bench.wait();
    bench.pool.remind();
    assert_eq!([bench.wakes.try_recv(), bench.wakes.try_recv()], [Ok(key()), Ok(key())]);
    drop(waiting);
    bench.pool.remind();
    assert!(bench.wakes.try_recv().is_err());
}

#[test]
fn a_new_table_disturbs_neither_places_nor_the_line() {
    let bench = bench(1, &[1, 2]);
    let held = [bench.take().expect("a place"), bench.take().expect("a place")];
    let mut waiting = bench.wait();
    bench.follow(1, &[2, 3]);
    // Instance 3 is new and free, so the line moves; 2 keeps its load.
    let permit = answer(&mut waiting).expect("an answer").expect("a place");
    assert_eq!(port(&permit), 3);
    assert!(bench.take().is_none());
    drop(held);
    assert_eq!(bench.take().as_ref().map(port), Some(2), "1 has left");
}

#[test]
fn hints_last_until_the_table_decides() {
    let bench = bench(0, &[]);
    let ports = || {
        bench.pool.endpoints().1.endpoints.iter().map(|endpoint| endpoint.instance.address.port()).collect::<Vec<_>>()
    };
    bench.pool.instance_up(&instance(1), NOW);
    bench.follow(0, &[2]);
    assert_eq!(ports(), [1, 2], "the table does not know 1 yet");
    bench.follow(0, &[1, 2]);
    bench.follow(0, &[2]);
    assert_eq!(ports(), [2], "the table knew 1, and dropped it");
    bench.pool.instance_down(&instance(2), NOW);
    bench.follow(0, &[2, 3]);
    assert_eq!(ports(), [3], "the table is late");
    bench.follow(0, &[3]);
    bench.follow(0, &[2, 3]);
    assert_eq!(ports(), [2, 3], "the table caught up, and 2 is back");
}

#[test]
fn only_pools_with_instances_are_listed() {
    let bench = bench(0, &[]);
    let listed = || bench.pool.common.populated().len();
    assert_eq!(listed(), 0);
    bench.pool.instance_up(&instance(1), NOW);
    bench.pool.instance_up(&instance(2), NOW);
    assert_eq!(listed(), 1);
    bench.pool.instance_down(&instance(1), NOW);
    assert_eq!(listed(), 1);
    bench.pool.instance_down(&instance(2), NOW);
    assert_eq!(listed(), 0);
    bench.follow(0, &[3]);
    assert_eq!(listed(), 1);
    bench.pool.close();
    assert_eq!((listed(), bench.pool.is_closed()), (0, true));
}

#[test]
fn a_hint_that_cannot_be_reached_is_dropped() {
    let bench = bench(0, &[]);
    bench.pool.instance_up(&instance(1), NOW);
    let permit = bench.take().expect("a place");
    bench.pool.unreachable(permit.endpoint(), NOW, NOW + 10);
    assert!(bench.take().is_none());
}

#[test]
fn failure_answers_everyone() {
    let bench = bench(0, &[]);
    let mut waiting = bench.wait();
    let failed =
        Backend { failure: Some("ContainerMissing: no such image".into()), ..Backend::clone(&backend(0, &[])) };
    bench.pool.follow(&key(), Some(Arc::new(failed)), NOW);
    let refusal = answer(&mut waiting).expect("an answer").expect_err("it failed");
    assert_eq!(refusal.to_string(), "ContainerMissing: no such image");
    assert!(bench.pool.wait(0, NOW).is_err());
}

#[test]
fn a_deleted_revision_answers_everyone() {
    let bench = bench(0, &[]);
    let mut waiting = bench.wait();
    assert!(!bench.pool.follow(&key(), None, NOW));
    bench.pool.close();
    assert!(matches!(answer(&mut waiting), Some(Err(Refusal::Failed(_)))));
}

#[test]
fn places_are_never_exceeded_nor_lost_under_contention() {
    let bench = bench(2, &[1, 2]);
    let running = AtomicUsize::new(0);
    let runtime = || tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let pool = &Arc::new(EndpointPool::new(key(), true, common(4, 10_000, mpsc::channel(1).0)));
    pool.follow(&key(), Some(backend(2, &[1, 2])), NOW);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let running = &running;
            scope.spawn(move || {
                runtime().block_on(async {
                    for _ in 0..2000 {
                        let quick = pool.try_admit(&pool.endpoints().1, thread, NOW);
                        let permit = match quick {
                            Some(permit) => permit,
                            None => pool.wait(thread, NOW).expect("room").answer().await.expect("a place"),
                        };
                        assert!(running.fetch_add(1, Ordering::SeqCst) < 4);
                        std::thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            });
        }
    });
    assert!(!pool.has_waiters());
    drop(bench);
}
