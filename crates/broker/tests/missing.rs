//! A snapshot that misses something that is there: nothing of that is lost, and the rest goes on.

mod world;

use std::{collections::BTreeSet, sync::Arc};

use http::StatusCode;
use knoll_broker::Topology;
use knoll_event::Event;
use knoll_journal::{MemoryDisk, events::EventLog};
use world::*;

fn start(disk: &MemoryDisk, topology: &Topology) -> World {
    let config = knoll_broker::Config { grace: std::time::Duration::from_millis(200), ..Default::default() };
    World::start_on(Arc::new(disk.clone()), topology.clone(), options(), config, knoll_broker::Hooks::default())
}

fn event(id: &str) -> Event {
    Event::new(id, "/s", "t").expect("an event")
}

/// Broker b with its Triggers of these names, and c with one of its own that nobody answers.
fn topology(sinks: &Sinks, names: &[&str]) -> Topology {
    let triggers = names.iter().map(|name| to(sinks, name)).collect();
    with(with(Topology::default(), &broker("b"), triggers), &broker("c"), vec![to(sinks, "other")])
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_missing_gets_what_came_before_and_meanwhile_once_it_is_known() {
    let (disk, sinks, b, c) = (MemoryDisk::default(), Sinks::start().await, broker("b"), broker("c"));
    let whole = topology(&sinks, &["known", "missed"]);
    ["missed", "other"].into_iter().for_each(|name| sinks.on(name, |_, _| Act::Hang));
    let world = start(&disk, &whole);
    world.ready(&["known", "missed", "other"]).await;
    world.numbers(&b, 0..10, "t").await;
    world.numbers(&c, 0..10, "t").await;
    sinks.wait("known", 10).await;
    world.finish().await;

    // Again and again, as a program does that cannot read them.
    let partial = topology(&sinks, &["known"]).without(&c).complete(false);
    for round in 1..3 {
        let world = start(&disk, &partial);
        world.ready(&["known"]).await;
        world.numbers(&b, round * 10..round * 10 + 10, "t").await;
        sinks.wait("known", (round + 1) * 10).await;
        assert_eq!(world.send(&c, &event("x")).await, StatusCode::SERVICE_UNAVAILABLE, "it may be there");
        world.finish().await;
    }
    let before = (sinks.seen("missed").len(), sinks.seen("other").len());
    ["missed", "other"].into_iter().for_each(|name| sinks.on(name, |_, _| Act::Status(202)));
    let world = start(&disk, &partial);
    world.ready(&["known"]).await;
    world.numbers(&b, 30..40, "t").await;
    sinks.wait("known", 40).await;
    // The one is read again before the other.
    world.change(|_| topology(&sinks, &["known", "missed"]).without(&c).complete(false));
    let since = |name: &str, before: usize| sinks.ids(name).into_iter().skip(before).collect::<BTreeSet<_>>().len();
    until("all that is missing", || since("missed", before.0) == 40).await;
    world.change(|_| whole.clone());
    until("the other broker's", || since("other", before.1) == 10).await;
    world.numbers(&b, 40..50, "t").await;
    until("what comes then", || since("missed", before.0) == 50).await;
    world.finish().await;
    assert_eq!(sinks.seen("known").len(), 50, "nothing comes twice to who was known");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_goes_once_a_snapshot_misses_nothing() {
    let (disk, sinks, b, c) = (MemoryDisk::default(), Sinks::start().await, broker("b"), broker("c"));
    let world = start(&disk, &topology(&sinks, &["stays", "went", "goes"]).complete(true));
    world.ready(&["stays", "went", "goes", "other"]).await;
    world.finish().await;
    let world = start(&disk, &topology(&sinks, &["stays", "goes"]).complete(false));
    world.ready(&["stays", "goes", "other"]).await;
    world.change(|_| topology(&sinks, &["stays"]).without(&c).complete(false));
    until("the broker is gone", || world.plane.status("other").is_none()).await;
    let held = |disk: &MemoryDisk| {
        let (log, _) = EventLog::open(Arc::new(disk.after_power_cut()), options()).expect("opens");
        let streams = log.reader().streams().into_iter();
        let cursors = streams.flat_map(|(stream, _)| log.reader().cursors(stream));
        let names = cursors.map(|(_, name)| String::from_utf8(name).expect("a name"));
        names.filter(|name| name != "matched").collect::<BTreeSet<_>>()
    };
    assert_eq!(held(&disk), ["goes", "other", "stays", "went"].map(str::to_owned).into());
    world.change(|_| topology(&sinks, &["stays"]).without(&c));
    // It is told beside the next delivery.
    let mut number = 0;
    while held(&disk) != BTreeSet::from(["stays".to_owned()]) {
        world.number(&b, number, "t").await;
        number += 1;
        sinks.wait("stays", number).await;
        assert!(number < 1000, "{:?}", held(&disk));
    }
    world.finish().await;
}
