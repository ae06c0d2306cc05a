//! What brokers cost that nobody uses. A program of its own: it measures itself.

mod world;

use knoll_broker::{Config, Hooks, Topology};
use knoll_journal::MemoryDisk;
use world::*;

/// Bytes of memory that this process has for itself.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages = |at: usize| statm.split(' ').nth(at).and_then(|pages| pages.parse::<u64>().ok()).expect("a number");
    (pages(1) - pages(2)) * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_trigger_and_its_share_of_a_broker_take_less_than_ten_kilobytes() {
    let (sinks, brokers, triggers) = (Sinks::start().await, 300, 10);
    let start = |topology: Topology| {
        let disk = std::sync::Arc::new(MemoryDisk::default());
        World::start_on(disk, topology, options(), Config::default(), Hooks::default())
    };
    // What is there once, whatever comes.
    let world = start(with(Topology::default(), &broker("one"), vec![to(&sinks, "one")]));
    world.ready(&["one"]).await;
    world.number(&broker("one"), 1, "t").await;
    sinks.wait("one", 1).await;
    let before = resident();
    let name = |at: usize, trigger: usize| format!("trigger-{at}-{trigger}");
    world.change(|topology| {
        (0..brokers).fold(topology, |topology, at| {
            let subscriptions = (0..triggers).map(|trigger| to(&sinks, &name(at, trigger))).collect();
            with(topology, &broker(&format!("broker-{at}")), subscriptions)
        })
    });
    let last: Vec<String> = (0..brokers).map(|at| name(at, triggers - 1)).collect();
    world.ready(&last.iter().map(|name| &**name).collect::<Vec<_>>()).await;
    let each = resident().saturating_sub(before) / (brokers * triggers) as u64;
    assert!(each < 10_000, "{each} bytes each");
    world.finish().await;
}
