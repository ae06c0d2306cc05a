//! What an end in the middle of everything costs: time, and never an event.

mod world;

use std::{
    collections::BTreeSet,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use knoll_broker::{Config, Hooks, Topology, delivery::Delivery, topology::Subscription};
use knoll_event::{Event, filter::Filter, knative};
use knoll_journal::MemoryDisk;
use tokio::time::{Instant, sleep};
use world::*;

type Runs = Result<(), Box<dyn std::error::Error>>;

fn distinct(sinks: &Sinks, name: &str) -> usize {
    sinks.ids(name).into_iter().collect::<BTreeSet<_>>().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_in_mid_delivery_nothing_that_was_accepted_is_missing_anywhere() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let flaps = Subscription { delivery: Some(retries(1000, 0)), ..to(&sinks, "flaps") };
    let fails = Subscription {
        delivery: Some(Delivery { dead_letter_sink: Some(sinks.at("dead")), ..retries(1, 1) }),
        ..to(&sinks, "fails")
    };
    let topology = with(Topology::default(), &b, vec![flaps, to(&sinks, "slow"), fails, to(&sinks, "quick")]);
    sinks.on("flaps", |_, before| if before % 7 < 4 { Act::Status(503) } else { Act::Status(202) });
    sinks.on("slow", |_, _| Act::Slow(8));
    sinks.on("fails", |_, _| Act::Status(500));
    let (total, kills) = (1200, 6);
    for round in 0..kills {
        let world = World::start_narrow(directory.path(), topology.clone(), 4);
        world.ready(&["flaps", "slow", "fails", "quick"]).await;
        let first = round * (total / kills);
        for number in (first..first + total / kills).step_by(10) {
            world.numbers(&b, number..number + 10, "t").await;
        }
        sleep(Duration::from_millis(20 * round as u64)).await;
        world.kill().await;
    }
    let world = World::start_narrow(directory.path(), topology, 4);
    for name in ["flaps", "slow", "dead", "quick"] {
        until(name, || distinct(&sinks, name) == total).await;
    }
    until("nothing is left", || {
        ["flaps", "slow", "fails", "quick"]
            .iter()
            .all(|uid| world.plane.status(uid).is_some_and(|status| status.lag == 0))
    })
    .await;
    // What was under way, and what was done and not told yet.
    for (name, most) in [("slow", 4 + 32), ("quick", 4 + 32)] {
        let twice = sinks.seen(name).len() - total;
        assert!(twice <= kills * most, "{twice} at {name} came twice");
    }
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_takes_nothing_that_was_accepted_either() -> Runs {
    let (sinks, b) = (Sinks::start().await, broker("b"));
    let fails = Subscription {
        delivery: Some(Delivery { dead_letter_sink: Some(sinks.at("dead")), ..retries(1, 1) }),
        ..to(&sinks, "fails")
    };
    let topology = with(Topology::default(), &b, vec![to(&sinks, "slow"), fails, to(&sinks, "sinkless")]);
    sinks.on("slow", |_, _| Act::Slow(3));
    sinks.on("fails", |_, _| Act::Status(500));
    sinks.on("sinkless", |_, _| Act::Status(400));
    let config = Config { window: 16, max_concurrency: 4, ..Config::default() };
    let start = |disk: &MemoryDisk| {
        World::start_on(Arc::new(disk.clone()), topology.clone(), options(), config.clone(), Hooks::default())
    };
    let mut disk = MemoryDisk::default();
    let rounds = 8;
    for round in 0..rounds {
        let world = start(&disk);
        world.ready(&["slow", "fails", "sinkless"]).await;
        for number in 0..10 {
            world.numbers(&b, round * 100 + number * 10..round * 100 + number * 10 + 10, "t").await;
        }
        sleep(Duration::from_millis(15 * round as u64)).await;
        let left = disk.after_power_cut();
        world.kill().await;
        disk = left;
    }
    let world = start(&disk);
    for name in ["slow", "dead"] {
        until(name, || distinct(&sinks, name) == rounds * 100).await;
    }
    until("nothing is left", || {
        ["slow", "fails", "sinkless"].iter().all(|uid| world.plane.status(uid).is_some_and(|status| status.lag == 0))
    })
    .await;
    let letters = world.plane.dead_letters(&b, 0, 100_000).await?.letters;
    let ids: BTreeSet<&str> = letters.iter().map(|letter| letter.event.id()).collect();
    assert_eq!(ids.len(), rounds * 100);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_end_in_good_order_nothing_comes_twice() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let topology = with(Topology::default(), &b, vec![to(&sinks, "t"), to(&sinks, "u")]);
    for round in 0..4 {
        let world = World::start(directory.path(), topology.clone());
        world.ready(&["t", "u"]).await;
        world.numbers(&b, round * 50..round * 50 + 50, "t").await;
        world.finish().await;
    }
    let world = World::start(directory.path(), topology);
    for name in ["t", "u"] {
        sinks.wait(name, 200).await;
    }
    sleep(Duration::from_millis(100)).await;
    world.finish().await;
    assert_eq!((sinks.seen("t").len(), sinks.seen("u").len()), (200, 200));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_go_on_where_they_were_and_the_event_stays_its_triggers() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let trigger = |kind: &'static str| Subscription {
        filter: Filter::exact([("type", kind)]),
        delivery: Some(Delivery { dead_letter_sink: Some(sinks.at("dead")), ..retries(5, 30) }),
        ..to(&sinks, "t")
    };
    sinks.on("t", |_, _| Act::Status(500));
    // Another that is slow, so that the event is not the first that waits.
    let topology = |kind| with(Topology::default(), &b, vec![trigger(kind), to(&sinks, "other")]);
    let world = World::start(directory.path(), topology("t"));
    world.ready(&["t"]).await;
    world.number(&b, 1, "t").await;
    sinks.wait("t", 3).await;
    sleep(Duration::from_millis(20)).await;
    world.kill().await;
    let world = World::start(directory.path(), topology("changed"));
    let dead = sinks.wait("dead", 1).await.remove(0);
    assert_eq!(text(&dead.event, knative::ERROR_CODE).as_deref(), Some("500"));
    sleep(Duration::from_millis(200)).await;
    let attempts = sinks.seen("t").len();
    assert!((6..=7).contains(&attempts), "{attempts} attempts");
    assert_eq!((sinks.seen("dead").len(), sinks.seen("other").len()), (1, 1));
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_tried_before_stays_its_triggers_also_where_another_one_has_no_room_for_it() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let trigger = |kind: &'static str| Subscription {
        filter: Filter::exact([("type", kind)]),
        delivery: Some(Delivery { dead_letter_sink: Some(sinks.at("dead")), ..retries(5, 30) }),
        ..to(&sinks, "t")
    };
    let topology = |kind| with(Topology::default(), &b, vec![trigger(kind), to(&sinks, "full")]);
    sinks.on("t", |_, _| Act::Status(500));
    sinks.on("full", |_, _| Act::Hang);
    let world = World::start(directory.path(), topology("t"));
    world.ready(&["t", "full"]).await;
    world.number(&b, 1, "other").await;
    world.number(&b, 2, "t").await;
    sinks.wait("t", 2).await;
    sleep(Duration::from_millis(20)).await;
    world.kill().await;
    let config = Config { window: 1, grace: Duration::ZERO, ..Config::default() };
    let world = World::start_with(directory.path(), topology("changed"), options(), config, Hooks::default());
    let dead = sinks.wait("dead", 1).await.remove(0);
    assert_eq!(dead.event.id(), "2");
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_aside_is_found_again_and_comes_in_order() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let ordered = Subscription {
        ordering: knoll_broker::topology::Ordering::Key,
        delivery: Some(retries(100_000, 5)),
        ..to(&sinks, "ordered")
    };
    let topology = with(Topology::default(), &b, vec![ordered, to(&sinks, "quick")]);
    let config = Config { window: 16, max_concurrency: 3, grace: Duration::from_secs(2), ..Config::default() };
    let start = || World::start_with(directory.path(), topology.clone(), options(), config.clone(), Hooks::default());
    sinks.on("ordered", |_, _| Act::Status(503));
    let world = start();
    world.ready(&["ordered", "quick"]).await;
    let send = async |world: &World, from: usize| {
        let keyed = |number: usize| {
            let mut event = Event::new(&number.to_string(), "/s", "t").expect("an event");
            event.set("partitionkey", &*format!("k{}", number % 5)).expect("a key");
            event
        };
        world.batch(&b, &(from..from + 200).map(keyed).collect::<Vec<_>>()).await;
    };
    send(&world, 0).await;
    until("the quick one", || distinct(&sinks, "quick") == 200).await;
    until("most are put aside", || world.metric("broker_events_put_aside") > 100).await;
    world.kill().await;
    let world = start();
    world.ready(&["ordered", "quick"]).await;
    send(&world, 200).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = taken.clone();
    let refused = sinks.seen("ordered").len();
    sinks.on("ordered", move |_, _| {
        counted.fetch_add(1, Relaxed);
        Act::Status(202)
    });
    until("everything", || {
        world.plane.status("ordered").is_some_and(|status| status.lag == 0) && taken.load(Relaxed) >= 400
    })
    .await;
    world.finish().await;
    // What comes again comes in order again; the first time of each is what counts.
    let mut known = BTreeSet::new();
    let ids = sinks.ids("ordered").split_off(refused).into_iter().map(|id| id.parse().expect("a number"));
    let ids: Vec<usize> = ids.filter(|id| known.insert(*id)).collect();
    assert_eq!(ids.len(), 400);
    for key in 0..5 {
        let of_key: Vec<usize> = ids.iter().copied().filter(|id| id % 5 == key).collect();
        assert!(of_key.is_sorted(), "key {key}: {of_key:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_is_deleted_gets_nothing_more_and_a_new_one_new_events_only() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let named = |uid: &str| Subscription { uid: uid.into(), delivery: Some(retries(1000, 1)), ..to(&sinks, "t") };
    let world = World::start(directory.path(), with(Topology::default(), &b, vec![named("one"), to(&sinks, "other")]));
    world.ready(&["one", "other"]).await;
    sinks.on("t", |_, _| Act::Status(503));
    world.number(&b, 1, "t").await;
    sinks.wait("t", 2).await;
    world.change(|topology| with(topology, &b, vec![to(&sinks, "other")]));
    until("it is gone", || world.plane.status("one").is_none()).await;
    sleep(Duration::from_millis(50)).await;
    let attempts = sinks.seen("t").len();
    sinks.on("t", |_, _| Act::Status(202));
    world.change(|topology| with(topology, &b, vec![named("two"), to(&sinks, "other")]));
    world.ready(&["two"]).await;
    world.number(&b, 2, "t").await;
    until("the new event", || sinks.seen("t").len() > attempts).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(sinks.ids("t")[attempts..], ["2"]);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_deleted_under_load_answers_404_and_one_of_its_name_begins_with_nothing() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let world = Arc::new(World::start(directory.path(), with(Topology::default(), &b, vec![to(&sinks, "t")])));
    world.ready(&["t"]).await;
    sinks.on("t", |_, _| Act::Slow(5));
    let (sender, sent_to) = (world.clone(), b.clone());
    let sending = tokio::spawn(async move {
        let mut answers = Vec::new();
        for number in 0..10_000 {
            let event = Event::new(&number.to_string(), "/s", "t").expect("an event");
            answers.push(sender.send(&sent_to, &event).await.as_u16());
            if answers.ends_with(&[404]) {
                break;
            }
        }
        answers
    });
    sinks.wait("t", 50).await;
    world.change(|topology| topology.without(&b));
    let answers = sending.await?;
    assert_eq!(answers.last(), Some(&404));
    assert!(answers.iter().all(|answer| [202, 404, 503].contains(answer)), "{answers:?}");
    until("it is gone", || world.plane.status("t").is_none()).await;
    sleep(Duration::from_millis(100)).await;
    let before = sinks.seen("t").len();
    let again = knoll_broker::topology::Addressable::new(b.clone(), "another", None, vec![to(&sinks, "t")]);
    world.change(|topology| topology.with(again));
    world.ready(&["t"]).await;
    world.number(&b, 77_777, "t").await;
    until("the new event", || sinks.seen("t").len() > before).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(sinks.ids("t")[before..], ["77777"]);
    let world = Arc::into_inner(world).expect("nobody sends");
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_costs_disk_and_a_restart_with_it_no_time() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let topology = with(Topology::default(), &b, vec![to(&sinks, "stuck"), to(&sinks, "quick")]);
    sinks.on("stuck", |_, _| Act::Hang);
    let world = World::start(directory.path(), topology.clone());
    world.ready(&["stuck", "quick"]).await;
    let count = 5000;
    for from in (0..count).step_by(1000) {
        world.numbers(&b, from..from + 1000, "t").await;
    }
    until("the quick one", || world.plane.status("quick").is_some_and(|status| status.delivered == count as u64)).await;
    world.kill().await;
    let began = Instant::now();
    let world = World::start(directory.path(), topology);
    world.ready(&["stuck", "quick"]).await;
    world.number(&b, count, "t").await;
    let took = began.elapsed();
    assert!(took.as_secs() < 5, "{took:?}");
    until("all of it is known", || world.plane.status("stuck").is_some_and(|status| status.lag > count as u64)).await;
    world.kill().await;
    Ok(())
}
