//! Events that nobody took.

mod world;

use std::time::Duration;

use http::StatusCode;
use knoll_broker::{
    OperationError, Redriven, Start, Topology, Undeliverable, delivery::Delivery, topology::Subscription,
};
use knoll_event::{Event, filter::Filter, knative};
use tokio::time::sleep;
use world::*;

type Runs = Result<(), Box<dyn std::error::Error>>;

#[tokio::test(flavor = "multi_thread")]
async fn what_no_sink_takes_is_kept_shown_delivered_again_and_dropped_on_request() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let sinkless = Subscription { delivery: Some(retries(1, 0)), ..to(&sinks, "sinkless") };
    let useless = Subscription {
        delivery: Some(Delivery { dead_letter_sink: Some(sinks.at("closed")), ..Delivery::default() }),
        ..to(&sinks, "useless")
    };
    sinks.on("sinkless", |_, _| Act::Status(500));
    sinks.on("useless", |_, _| Act::Status(418));
    sinks.on("closed", |_, _| Act::Status(403));
    let topology = with(Topology::default(), &b, vec![sinkless, useless]);
    let world = World::start(directory.path(), topology.clone());
    world.ready(&["sinkless", "useless"]).await;
    let mut event = Event::new("1", "/s", "t")?;
    event.set("ext", "x")?;
    event.set_data("text/plain", "hello")?;
    assert_eq!(world.send(&b, &event).await, StatusCode::ACCEPTED);
    until("both", || world.plane.dead_letter_count(&b) == 2).await;
    until("both are counted", || world.metric("broker_dead_letters_kept") == 2).await;
    assert_eq!(world.plane.status("sinkless").map(|status| status.dead_letters), Some(1));
    // They outlive the process. (A crash may have one delivered again, and so become another.)
    world.finish().await;
    let world = World::start(directory.path(), topology);
    world.ready(&["sinkless", "useless"]).await;
    let page = world.plane.dead_letters(&b, 0, 10).await?;
    assert_eq!((page.letters.len(), page.next), (2, None));
    let of = |uid: &str| page.letters.iter().find(|letter| &*letter.subscription == uid).cloned();
    let (mine, other) = (of("sinkless").expect("kept"), of("useless").expect("kept"));
    assert_eq!(text(&mine.event, knative::ERROR_CODE).as_deref(), Some("500"));
    // The first failure is the one that counts, not the sink's.
    assert_eq!(text(&other.event, knative::ERROR_CODE).as_deref(), Some("418"));
    assert_eq!((mine.event.data(), text(&mine.event, "ext").as_deref()), (event.data(), Some("x")));
    let first = world.plane.dead_letters(&b, 0, 1).await?;
    assert_eq!((first.letters.len(), first.next), (1, Some(1)));

    let before = sinks.seen("sinkless").len();
    sinks.on("sinkless", |_, _| Act::Status(202));
    world.plane.redrive(&b, vec![mine.offset], Undeliverable::Stops).await?;
    let seen = sinks.wait("sinkless", before + 1).await;
    let again = &seen[before].event;
    assert_eq!((again.id(), again.data(), again.extension(knative::ERROR_CODE)), ("1", event.data(), None));
    assert_eq!(world.plane.dead_letter_count(&b), 1);
    let gone = world.plane.redrive(&b, vec![mine.offset], Undeliverable::Stops).await;
    assert!(matches!(gone, Err(OperationError::NoLetter(offset)) if offset == mine.offset), "{gone:?}");

    world.plane.drop_dead_letters(&b, &[other.offset]).await?;
    assert_eq!(world.plane.dead_letter_count(&b), 0);
    assert_eq!(world.plane.dead_letters(&b, 0, 10).await?.letters, []);
    let never = world.plane.drop_dead_letters(&b, &[99]).await;
    assert!(matches!(never, Err(OperationError::NoLetter(99))), "{never:?}");
    assert!(matches!(
        world.plane.redrive(&broker("nope"), vec![1], Undeliverable::Stays).await,
        Err(OperationError::NoAddressable)
    ));
    sleep(Duration::from_millis(100)).await;
    assert_eq!(sinks.seen("sinkless").len(), before + 1);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_events_are_read_and_delivered_again_on_request_only() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let only = Subscription { filter: Filter::exact([("type", "t")]), ..to(&sinks, "only") };
    let world = World::start(directory.path(), with(Topology::default(), &b, vec![only, to(&sinks, "all")]));
    world.ready(&["only", "all"]).await;
    world.numbers(&b, 0..600, "t").await;
    world.numbers(&b, 600..700, "other").await;
    sinks.wait("only", 600).await;
    sinks.wait("all", 700).await;
    let history = world.plane.history(&b, Start::Offset(598), 4).await?;
    let ids: Vec<&str> = history.events.iter().map(|kept| kept.event.id()).collect();
    assert_eq!((ids, history.next, history.missing), (vec!["598", "599", "600", "601"], 602, vec![]));
    let all = world.plane.history(&b, Start::Time(0), 1000).await?.events;
    assert_eq!(all.len(), 700);
    let later = world.plane.history(&b, Start::Time(all[699].time + 1), 1000).await?;
    assert_eq!((later.events.len(), later.next), (0, 700));

    assert_eq!(world.plane.replay(&b, "only", Start::Offset(100)).await?, 500);
    let seen = sinks.wait("only", 1100).await;
    assert!(seen[600..].iter().all(|seen| seen.event.kind() == "t"));
    let nobody = world.plane.replay(&b, "nobody", Start::Offset(0)).await;
    assert!(matches!(nobody, Err(OperationError::NoSubscription(_))), "{nobody:?}");
    until("nothing is left", || world.plane.status("only").is_some_and(|status| status.lag == 0)).await;
    assert_eq!((sinks.seen("only").len(), sinks.seen("all").len()), (1100, 700));
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_of_a_trigger_that_is_gone_says_so_and_stays() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    sinks.on("t", |_, _| Act::Status(400));
    let world = World::start(directory.path(), with(Topology::default(), &b, vec![to(&sinks, "t")]));
    world.ready(&["t"]).await;
    world.number(&b, 1, "t").await;
    until("it is kept", || world.plane.dead_letter_count(&b) == 1).await;
    world.change(|topology| with(topology, &b, vec![to(&sinks, "u")]));
    world.ready(&["u"]).await;
    let refused = world.plane.redrive(&b, vec![0], Undeliverable::Stops).await.expect_err("nobody to deliver to");
    assert!(
        refused.to_string().starts_with("dead letter 0 is for the subscription t, which is not there"),
        "{refused}"
    );
    assert_eq!(world.plane.dead_letter_count(&b), 1);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_delivered_again_up_to_the_first_that_cannot_be() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    sinks.on("one", |_, _| Act::Status(400));
    sinks.on("two", |_, _| Act::Status(400));
    let topology = with(Topology::default(), &b, vec![to(&sinks, "one"), to(&sinks, "two")]);
    let world = World::start(directory.path(), topology);
    world.ready(&["one", "two"]).await;
    world.numbers(&b, 0..130, "t").await;
    until("all are kept", || world.plane.dead_letter_count(&b) == 260).await;
    let before = ["one", "two"].map(|name| sinks.seen(name).len());
    sinks.on("one", |_, _| Act::Status(202));
    sinks.on("two", |_, _| Act::Status(202));
    let mut offsets: Vec<u64> = (0..260).collect();
    offsets.insert(150, 9999);
    let refused = world.plane.redrive(&b, offsets, Undeliverable::Stops).await;
    assert!(matches!(refused, Err(OperationError::NoLetter(9999))), "{refused:?}");
    assert_eq!(world.plane.dead_letter_count(&b), 110);
    let twice = world.plane.redrive(&b, vec![200, 201, 200], Undeliverable::Stops).await;
    assert!(matches!(twice, Err(OperationError::NoLetter(200))), "{twice:?}");
    world.plane.redrive(&b, (150..200).chain(202..260).collect(), Undeliverable::Stops).await?;
    assert_eq!(world.plane.dead_letter_count(&b), 0);
    until("each comes once more", || {
        let seen = ["one", "two"].map(|name| sinks.seen(name).len());
        seen[0] + seen[1] == before[0] + before[1] + 260
    })
    .await;
    assert_eq!(world.metric("broker_dead_letters_redriven"), 260);
    world.finish().await;
    for (name, before) in ["one", "two"].into_iter().zip(before) {
        let ids: std::collections::BTreeSet<String> = sinks.ids(name).split_off(before).into_iter().collect();
        assert_eq!((ids.len(), sinks.seen(name).len()), (130, before + 130), "{name}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn those_of_a_trigger_that_is_gone_keep_no_other_from_being_delivered_again() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    sinks.on("gone", |_, _| Act::Status(400));
    let world = World::start(directory.path(), with(Topology::default(), &b, vec![to(&sinks, "gone")]));
    world.ready(&["gone"]).await;
    world.numbers(&b, 0..150, "t").await;
    until("all are kept", || world.plane.dead_letter_count(&b) == 150).await;
    sinks.on("stays", |_, _| Act::Status(400));
    world.change(|topology| with(topology, &b, vec![to(&sinks, "stays")]));
    world.ready(&["stays"]).await;
    world.numbers(&b, 150..160, "t").await;
    until("these as well", || world.plane.dead_letter_count(&b) == 160).await;
    sinks.on("stays", |_, _| Act::Status(202));
    let before = sinks.seen("stays").len();
    let offsets: Vec<u64> = (0..160).chain([9999]).collect();
    let redriven = world.plane.redrive(&b, offsets, Undeliverable::Stays).await?;
    let orphans = [("gone".into(), 150)].into();
    assert_eq!(redriven, Redriven { count: 10, orphans, missing: 1 });
    until("each comes once more", || sinks.seen("stays").len() == before + 10).await;
    assert_eq!(world.plane.dead_letter_count(&b), 150);
    world.finish().await;
    Ok(())
}
