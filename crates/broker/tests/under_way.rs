//! What deliveries under way take together, and what one namespace takes of it.

mod world;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use knoll_broker::{
    Config, Hooks, Origin, Sender, Topology,
    delivery::Destination,
    topology::{Subscriber, Subscription},
};
use knoll_event::Event;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use world::*;

type Runs = Result<(), Box<dyn std::error::Error>>;

fn of(namespace: &str, subscription: Subscription) -> Subscription {
    Subscription { namespace: namespace.into(), ..subscription }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_answers_takes_its_namespaces_part_of_all_attempts() -> Runs {
    let (directory, sinks) = (tempfile::tempdir()?, Sinks::start().await);
    let (evil, good) = (broker("evil"), broker("good"));
    for name in ["hangs", "too"] {
        sinks.on(name, |_, _| Act::Hang);
    }
    let topology = with(Topology::default(), &evil, ["hangs", "too"].map(|name| of("evil", to(&sinks, name))).into());
    let topology = with(topology, &good, vec![of("good", to(&sinks, "good"))]);
    let config = Config { max_attempts: 16, parts: 4, ..Config::default() };
    let world = World::start_with(directory.path(), topology, options(), config, Hooks::default());
    world.ready(&["hangs", "too", "good"]).await;
    world.numbers(&evil, 0..40, "t").await;
    // A fourth of all, and one of those that are kept for who has nothing.
    let part = 5;
    until("the rest waits", || world.metric("broker_deliveries_waiting") == 64 - part).await;
    world.numbers(&good, 0..40, "t").await;
    sinks.wait("good", 40).await;
    until("theirs are done", || world.metric("broker_deliveries_in_flight") == part).await;
    until("they are with the sinks", || sinks.seen("hangs").len() + sinks.seen("too").len() == 5).await;
    world.kill().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_of_which_nothing_is_said_ends_at_last() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    sinks.on("hangs", |_, _| Act::Hang);
    let config = Config { attempt_timeout: std::time::Duration::from_millis(100), ..Config::default() };
    let topology = with(Topology::default(), &b, vec![to(&sinks, "hangs")]);
    let world = World::start_with(directory.path(), topology, options(), config, Hooks::default());
    world.ready(&["hangs"]).await;
    world.number(&b, 1, "t").await;
    until("it is a dead letter", || world.metric("broker_dead_letters_kept") == 1).await;
    world.finish().await;
    Ok(())
}

/// Bytes of a reply.
const REPLY: usize = 15 << 20;

/// A subscriber whose replies come but for their last byte, and how many are that far.
async fn almost_replies() -> std::io::Result<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, count) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut request = [0; 64 << 10];
                let _ = stream.read(&mut request).await?;
                let head = "HTTP/1.1 200 OK\r\nce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: r\r\n";
                stream.write_all(format!("{head}content-length: {REPLY}\r\n\r\n").as_bytes()).await?;
                stream.write_all(&vec![7; REPLY - 1]).await?;
                counted.fetch_add(1, SeqCst);
                // Until the other side has enough of it.
                stream.read(&mut request).await
            });
        }
    });
    Ok((address, count))
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_never_end_take_a_part_of_the_memory_for_replies() -> Runs {
    let (directory, sinks, evil, good) = (tempfile::tempdir()?, Sinks::start().await, broker("evil"), broker("good"));
    let (address, count) = almost_replies().await?;
    let at = Subscriber::At(Destination::new(format!("http://{address}/").parse()?));
    let topology = with(Topology::default(), &evil, vec![Subscription::new("evil", "almost", "almost", at)]);
    let only = |kind: &'static str| knoll_event::filter::Filter::exact([("type", kind)]);
    let (asks, hears) = (Subscription { filter: only("t"), ..to(&sinks, "asks") }, to(&sinks, "hears"));
    let topology =
        with(topology, &good, vec![of("good", asks), of("good", Subscription { filter: only("r"), ..hears })]);
    let large = |_: &Seen, _| {
        let lines = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "r")];
        Act::Say(200, lines.map(|(name, value)| (name, value.to_owned())).into(), vec![7; 1 << 20])
    };
    sinks.on("asks", large);
    let config = Config { max_delivery_bytes: 80 << 20, parts: 1, ..Config::default() };
    let world = World::start_with(directory.path(), topology, options(), config, Hooks::default());
    world.ready(&["almost", "asks", "hears"]).await;
    world.numbers(&evil, 0..16, "t").await;
    // Of the three fourths that everybody may have four have room, and one is let through beside.
    until("some replies are almost there", || count.load(SeqCst) >= 5).await;
    world.number(&good, 1, "t").await;
    let heard = sinks.wait("hears", 1).await.remove(0);
    assert_eq!(heard.event.data().map(|data| data.bytes().len()), Some(1 << 20));
    assert_eq!(count.load(SeqCst), 5);
    world.kill().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_read_again_take_a_part_of_the_memory_for_events() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    sinks.on("hangs", |_, _| Act::Hang);
    let topology = with(Topology::default(), &b, vec![to(&sinks, "hangs")]);
    let large = 2 << 20;
    let config = Config { max_event_bytes: large, max_delivery_bytes: 8 * large, parts: 1, ..Config::default() };
    let world = World::start_with(directory.path(), topology, options(), config, Hooks::default());
    world.ready(&["hangs"]).await;
    for id in 0..32 {
        let mut event = Event::new(&id.to_string(), "/s", "t")?;
        event.set_data("application/octet-stream", vec![7; large - 1024])?;
        assert_eq!(world.send(&b, &event).await, 202);
    }
    // Fifteen are at hand since they were read; of the others six have room, and one is let through beside.
    until("the rest waits", || world.metric("broker_deliveries_waiting") == 32 - 22).await;
    until("they are with the sink", || sinks.seen("hangs").len() == 22).await;
    world.kill().await;
    Ok(())
}

/// A subscriber that takes everything, and how often somebody connected to it.
async fn counts_connections() -> std::io::Result<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, count) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, SeqCst);
            tokio::spawn(async move {
                let mut request = [0; 64 << 10];
                while stream.read(&mut request).await? > 0 {
                    stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    Ok((address, count))
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_process_sends_goes_over_the_same_connections() -> Runs {
    let (directory, (address, count), b) = (tempfile::tempdir()?, counts_connections().await?, broker("b"));
    let to = Destination::new(format!("http://{address}/").parse()?);
    let topology = with(Topology::default(), &b, vec![Subscription::new("ns", "t", "t", Subscriber::At(to.clone()))]);
    let sender = Sender::new(&Config::default(), Hooks::default());
    let origin = Origin { namespace: "ns".into(), service_account: None };
    let event = Event::new("1", "/s", "t")?;
    for _ in 0..2 {
        let hooks = Hooks { sender: Some(sender.clone()), ..Hooks::default() };
        let world = World::start_with(directory.path(), topology.clone(), options(), Config::default(), hooks);
        world.ready(&["t"]).await;
        sender.send(&to, &event, &origin, std::time::Duration::from_secs(10)).await.expect("it is taken");
        world.number(&b, 1, "t").await;
        until("it is delivered", || world.metric("broker_events_delivered") == 1).await;
        world.finish().await;
    }
    assert_eq!(count.load(SeqCst), 1);
    Ok(())
}
