//! Events from the sender to subscribers, over a real log and real connections.

mod world;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderMap, StatusCode};
use knoll_broker::{
    Config, Hooks, Topology,
    delivery::{Delivery, Destination},
    topology::{Addressable, Ordering, Subscriber, Subscription},
};
use knoll_event::{Event, cesql::Expression, filter::Filter, knative, mode::Format};
use tokio::time::{Instant, sleep};
use world::*;

type Runs = Result<(), Box<dyn std::error::Error>>;

fn event(id: &str) -> Event {
    Event::new(id, "/sender", "t").expect("an event")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_comes_to_whom_it_is_for_as_it_was_sent_with_what_travels_beside_it() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let only =
        |name: &str, kind: &'static str| Subscription { filter: Filter::exact([("type", kind)]), ..to(&sinks, name) };
    let topology = with(Topology::default(), &b, vec![to(&sinks, "all"), only("these", "t"), only("others", "o")]);
    let world = World::start(directory.path(), topology);
    world.ready(&["all", "these", "others"]).await;
    let mut sent = event("1");
    sent.set("subject", "Euro € 100%")?;
    sent.set_data("text/plain", "hello")?;
    let mut headers = HeaderMap::new();
    let body = knoll_event::mode::write(&sent, Format::Binary, &mut headers);
    for (name, value) in
        [("authorization", "Bearer secret"), ("x-request-id", "r1"), ("knative-foo", "f"), ("x-custom", "c")]
    {
        headers.insert(name, value.parse()?);
    }
    let answer = world.post(&Topology::default().address(&b).expect("an address"), headers, body).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let seen = sinks.wait("all", 1).await.remove(0);
    assert_eq!((seen.event.data(), text(&seen.event, "subject")), (sent.data(), Some("Euro € 100%".to_owned())));
    assert_eq!(seen.event.extension(knative::TTL), None);
    assert!(seen.event.extension(knative::ARRIVAL_TIME).is_some());
    let header = |name: &str| seen.headers.get(name).map(|value| value.to_str().unwrap_or_default().to_owned());
    let wanted = [("prefer", "reply"), ("kn-namespace", "ns"), ("x-request-id", "r1"), ("knative-foo", "f")];
    for (name, value) in wanted {
        assert_eq!(header(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!([header("authorization"), header("x-custom")], [None, None]);
    sinks.wait("these", 1).await;
    world.finish().await;
    assert_eq!((sinks.seen("all").len(), sinks.seen("these").len(), sinks.seen("others").len()), (1, 1, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_follow_the_delivery_and_then_the_dead_letter_sink_learns_why() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let delivery = |sink: &str, retry| Delivery { dead_letter_sink: Some(sinks.at(sink)), ..retries(retry, 50) };
    let with_delivery = |name: &str, retry| Subscription {
        delivery: Some(delivery(&format!("{name}-dead"), retry)),
        ..to(&sinks, name)
    };
    let topology = with(
        Topology::default(),
        &b,
        vec![
            with_delivery("fails", 2),
            with_delivery("refuses", 5),
            with_delivery("chats", 1),
            with_delivery("heals", 3),
        ],
    );
    sinks.on("fails", |_, _| Act::Say(500, vec![], b"no".to_vec()));
    sinks.on("refuses", |_, _| Act::Status(400));
    sinks.on("chats", |_, _| Act::Say(200, vec![("content-type", "application/json".to_owned())], b"{}".to_vec()));
    sinks.on("heals", |_, before| if before < 2 { Act::Close } else { Act::Status(200) });
    let world = World::start(directory.path(), topology);
    world.ready(&["fails", "refuses", "chats", "heals"]).await;
    assert_eq!(world.send(&b, &event("1")).await, StatusCode::ACCEPTED);
    for (name, attempts, code, data) in
        [("fails", 3, "500", Some("bm8=")), ("refuses", 1, "400", None), ("chats", 2, "502", Some("e30="))]
    {
        let dead = sinks.wait(&format!("{name}-dead"), 1).await.remove(0);
        assert_eq!(sinks.seen(name).len(), attempts, "{name}");
        let said = [knative::ERROR_DESTINATION, knative::ERROR_CODE, knative::ERROR_DATA]
            .map(|attribute| text(&dead.event, attribute));
        assert_eq!(said, [Some(sinks.uri(name).to_string()), Some(code.to_owned()), data.map(str::to_owned)], "{name}");
        assert_eq!((dead.headers.get("prefer"), dead.event.extension(knative::TTL)), (None, None));
    }
    let healed = sinks.wait("heals", 3).await;
    assert!(healed[2].at - healed[0].at >= Duration::from_millis(140), "50 and 100 milliseconds are waited");
    sleep(Duration::from_millis(100)).await;
    assert_eq!((sinks.seen("heals").len(), sinks.seen("heals-dead").len()), (3, 0));
    assert_eq!(world.plane.dead_letter_count(&b), 0);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_an_attempt_and_without_one_it_takes_what_it_takes() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let timeout = Some(Duration::from_millis(100));
    let sink = Some(sinks.at("dead"));
    let hasty = Subscription {
        delivery: Some(Delivery { timeout, dead_letter_sink: sink, ..retries(1, 0) }),
        ..to(&sinks, "hasty")
    };
    let topology = with(Topology::default(), &b, vec![hasty, to(&sinks, "patient")]);
    sinks.on("hasty", |_, _| Act::Hang);
    sinks.on("patient", |_, _| Act::Slow(600));
    let world = World::start(directory.path(), topology);
    world.ready(&["hasty", "patient"]).await;
    world.number(&b, 1, "t").await;
    let dead = sinks.wait("dead", 1).await.remove(0);
    assert_eq!((sinks.seen("hasty").len(), text(&dead.event, knative::ERROR_CODE).as_deref()), (2, Some("500")));
    until("the patient one", || world.plane.status("patient").is_some_and(|status| status.delivered == 1)).await;
    assert_eq!(sinks.seen("patient").len(), 1);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_comes_back_to_the_broker_and_a_loop_of_them_ends() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let only =
        |name: &str, kind: &'static str| Subscription { filter: Filter::exact([("type", kind)]), ..to(&sinks, name) };
    let loops = Subscription {
        delivery: Some(Delivery { dead_letter_sink: Some(sinks.at("dead")), ..Delivery::default() }),
        ..only("loops", "loop")
    };
    let topology = with(Topology::default(), &b, vec![only("asks", "question"), only("hears", "answer"), loops]);
    sinks.on("asks", |_, _| Act::Reply("answer"));
    sinks.on("loops", |_, _| Act::Reply("loop"));
    let world = World::start(directory.path(), topology);
    world.ready(&["asks", "hears", "loops"]).await;
    world.number(&b, 7, "question").await;
    let heard = sinks.wait("hears", 1).await.remove(0);
    assert_eq!((heard.event.id(), heard.event.source()), ("7", "/reply"));
    world.number(&b, 8, "loop").await;
    // The first hop gives 255, and each reply takes one.
    let dead = sinks.wait("dead", 1).await.remove(0);
    assert_eq!((sinks.seen("loops").len(), text(&dead.event, knative::ERROR_CODE).as_deref()), (255, Some("400")));
    until("it is counted", || world.metric("broker_events_out_of_hops") == 1).await;
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_across_replies_and_dead_letters() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let dead_letter_sink = Some(sinks.at("dead"));
    let only = |name: &str, kind: &'static str| Subscription {
        filter: Filter::exact([("type", kind)]),
        delivery: Some(Delivery { dead_letter_sink: dead_letter_sink.clone(), ..Delivery::default() }),
        ..to(&sinks, name)
    };
    sinks.on("asks", |_, _| Act::Reply("answer"));
    sinks.on("hears", |_, _| Act::Status(400));
    let topology = with(Topology::default(), &b, vec![only("asks", "t"), only("hears", "answer")]);
    let world = World::start(directory.path(), topology);
    world.ready(&["asks", "hears"]).await;
    let trace = [
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "a=1"),
        ("baggage", "b=2"),
    ];
    let mut headers = HeaderMap::new();
    let body = knoll_event::mode::write(&event("1"), Format::Binary, &mut headers);
    for (name, value) in trace {
        headers.insert(name, value.parse()?);
    }
    let address = Topology::default().address(&b).expect("an address");
    assert_eq!(world.post(&address, headers, body).await.status(), StatusCode::ACCEPTED);
    for hop in ["asks", "hears", "dead"] {
        let seen = sinks.wait(hop, 1).await.remove(0);
        for (name, value) in trace {
            assert_eq!(seen.headers.get(name).map(|value| value.as_bytes()), Some(value.as_bytes()), "{hop}: {name}");
        }
    }
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_changes_nothing_and_its_replies_go_where_its_subscription_says() -> Runs {
    let (directory, sinks) = (tempfile::tempdir()?, Sinks::start().await);
    let (first, second) = (channel("first"), channel("second"));
    let address = Topology::default().address(&second).expect("an address");
    let step = Subscription { reply: Some(Destination::new(address)), ..to(&sinks, "step") };
    let plain = to(&sinks, "plain");
    let pass = Subscription { subscriber: Subscriber::Nobody, reply: Some(sinks.at("passed")), ..to(&sinks, "nobody") };
    let topology = with(with(Topology::default(), &first, vec![step, plain, pass]), &second, vec![to(&sinks, "last")]);
    sinks.on("step", |_, _| Act::Reply("answer"));
    sinks.on("plain", |_, _| Act::Say(200, vec![], b"whatever".to_vec()));
    let world = World::start(directory.path(), topology);
    world.ready(&["step", "plain", "nobody", "last"]).await;
    let mut sent = event("1");
    sent.set("ext", "x")?;
    assert_eq!(world.send(&first, &sent).await, StatusCode::ACCEPTED);
    assert_eq!(sinks.wait("plain", 1).await[0].event, sent);
    assert_eq!(sinks.wait("passed", 1).await[0].event, sent);
    assert_eq!(sinks.wait("last", 1).await[0].event.kind(), "answer");
    sleep(Duration::from_millis(50)).await;
    assert_eq!(sinks.seen("plain").len(), 1);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_says_how_much_it_takes_gets_that_and_as_much_to_wait_in_front_of_it() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    sinks.on("narrow", |_, _| Act::Takes(10, "1"));
    let world = World::start(directory.path(), with(Topology::default(), &b, vec![to(&sinks, "narrow")]));
    world.ready(&["narrow"]).await;
    let status = || world.plane.status("narrow").expect("it is there");
    world.numbers(&b, 0..1, "t").await;
    until("it is known", || status().concurrency == 2).await;
    world.numbers(&b, 1..20, "t").await;
    until("all are delivered", || status().delivered == 20).await;
    assert_eq!(sinks.busiest("narrow"), 2);
    // There are more of it now.
    sinks.on("narrow", |_, _| Act::Takes(10, "3"));
    world.numbers(&b, 20..60, "t").await;
    until("all of these, too", || status().delivered == 60).await;
    assert_eq!((sinks.busiest("narrow"), status().concurrency), (6, 6));
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_subscriber_holds_up_nobody_and_gets_everything_once_it_is_free() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let timeout = Some(Duration::from_millis(300));
    let stuck = Subscription { delivery: Some(Delivery { timeout, ..retries(100_000, 1) }), ..to(&sinks, "stuck") };
    let world = World::start(directory.path(), with(Topology::default(), &b, vec![stuck, to(&sinks, "quick")]));
    world.ready(&["stuck", "quick"]).await;
    sinks.on("stuck", |_, _| Act::Hang);
    let began = Instant::now();
    world.numbers(&b, 0..1000, "t").await;
    until("the quick one", || distinct(&sinks, "quick") == 1000).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    until("it holds up nobody", || world.metric("broker_events_put_aside") >= 700).await;
    assert_eq!(world.plane.status("stuck").expect("there").lag, 1000);
    sinks.on("stuck", |_, _| Act::Status(202));
    until("the stuck one", || distinct(&sinks, "stuck") == 1000).await;
    until("nothing is left", || world.plane.status("stuck").is_some_and(|status| status.lag == 0)).await;
    // What comes now is not put aside any more.
    let before = world.metric("broker_events_put_aside");
    world.number(&b, 1000, "t").await;
    until("the last one", || distinct(&sinks, "stuck") == 1001).await;
    assert_eq!(world.metric("broker_events_put_aside"), before);
    world.finish().await;
    Ok(())
}

fn distinct(sinks: &Sinks, name: &str) -> usize {
    sinks.ids(name).into_iter().collect::<BTreeSet<_>>().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_one_key_come_in_order_whatever_fails() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let ordered = Subscription { ordering: Ordering::Key, delivery: Some(retries(50, 1)), ..to(&sinks, "ordered") };
    sinks.on("ordered", |seen, before| match (seen.event.id().len() + before) % 3 {
        0 => Act::Status(503),
        _ => Act::Slow(1),
    });
    let world = World::start(directory.path(), with(Topology::default(), &b, vec![ordered, to(&sinks, "quick")]));
    world.ready(&["ordered", "quick"]).await;
    let keyed = |number: usize| {
        let mut event = event(&number.to_string());
        event.set("partitionkey", &*format!("k{}", number % 7)).expect("a key");
        event
    };
    world.batch(&b, &(0..900).map(keyed).collect::<Vec<_>>()).await;
    until("everything", || world.plane.status("ordered").is_some_and(|status| status.delivered == 900)).await;
    for key in 0..7 {
        let ids = sinks.ids("ordered").into_iter().map(|id| id.parse::<usize>().expect("a number"));
        let mut of_key: Vec<usize> = ids.filter(|id| id % 7 == key).collect();
        of_key.dedup();
        assert!(of_key.is_sorted(), "key {key}: {of_key:?}");
    }
    assert!(sinks.busiest("ordered") > 1, "keys go beside each other");
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_costs_an_attempt_twice_and_nobody_else_anything() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let panics = Arc::new(AtomicUsize::new(0));
    let counted = panics.clone();
    let resolve: knoll_broker::Resolve = Arc::new(move |host| {
        assert!(host != "panics.test" || counted.fetch_add(1, Relaxed) >= 2, "on purpose");
        Box::pin(async { Ok(vec![([127, 0, 0, 1], 0).into()]) })
    });
    let port = sinks.uri("x").port_u16().expect("a port");
    let at = Destination::new(format!("http://panics.test:{port}/panics").parse()?);
    let panicking = Subscription { subscriber: Subscriber::At(at), ..to(&sinks, "panics") };
    let topology = with(Topology::default(), &b, vec![panicking, to(&sinks, "other")]);
    let hooks = Hooks { resolve, ..Hooks::default() };
    let world = World::start_with(directory.path(), topology, options(), Config::default(), hooks);
    world.ready(&["panics", "other"]).await;
    world.number(&b, 1, "t").await;
    sinks.wait("other", 1).await;
    sinks.wait("panics", 1).await;
    assert_eq!(world.metric("broker_panics"), 2);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_has_too_much_to_do_is_sent_less() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let busy = Subscription { delivery: Some(retries(1000, 1)), ..to(&sinks, "busy") };
    let world = World::start(directory.path(), with(Topology::default(), &b, vec![busy]));
    world.ready(&["busy"]).await;
    sinks.on("busy", |_, _| Act::Status(503));
    world.numbers(&b, 0..50, "t").await;
    until("one at a time", || world.plane.status("busy").is_some_and(|status| status.concurrency == 1)).await;
    sinks.on("busy", |_, _| Act::Status(202));
    until("all are delivered", || world.plane.status("busy").is_some_and(|status| status.delivered == 50)).await;
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_is_replaced_once_before_the_attempt_has_failed() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let asks = |name: &str| Subscription {
        subscriber: Subscriber::At(Destination { audience: Some(name.into()), ..sinks.at(name) }),
        service_account: Some("account".into()),
        ..to(&sinks, name)
    };
    // Each that was refused has a next one, but for whom there is one alone.
    let tokens: knoll_broker::Tokens = Arc::new(|audience, _, _, refused| {
        let next = refused.filter(|_| &*audience != "one").map_or(1, |refused| refused.len() + 1);
        Box::pin(async move { http::HeaderValue::from_bytes(&vec![b'x'; next]).map_err(|error| error.to_string()) })
    });
    let hooks = Hooks { tokens: Some(tokens), ..Hooks::default() };
    let topology = with(Topology::default(), &b, vec![asks("revoked"), asks("never"), asks("one")]);
    let world = World::start_with(directory.path(), topology, options(), Config::default(), hooks);
    let is = |seen: &Seen, token: &str| seen.headers["authorization"] == token;
    sinks.on("revoked", move |seen, _| Act::Status(if is(seen, "x") { 401 } else { 202 }));
    sinks.on("never", |_, _| Act::Status(401));
    sinks.on("one", |_, _| Act::Status(401));
    world.ready(&["revoked", "never", "one"]).await;
    world.number(&b, 1, "t").await;
    until("the others are kept", || world.plane.dead_letter_count(&b) == 2).await;
    until("it is delivered", || world.plane.status("revoked").is_some_and(|status| status.delivered == 1)).await;
    let tokens = |name: &str| -> Vec<usize> {
        sinks.seen(name).iter().map(|seen| seen.headers["authorization"].len()).collect()
    };
    assert_eq!((tokens("revoked"), tokens("never"), tokens("one")), (vec![1, 2], vec![1, 2], vec![1]));
    assert_eq!(world.plane.status("revoked").expect("there").failed_attempts, 0);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_token_is_asked_for_gets_one_made_for_the_triggers_account() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let audience = |name: &str| Destination { audience: Some("them".into()), ..sinks.at(name) };
    let known = Subscription {
        subscriber: Subscriber::At(audience("known")),
        service_account: Some("account".into()),
        ..to(&sinks, "known")
    };
    let unknown = Subscription { subscriber: Subscriber::At(audience("unknown")), ..to(&sinks, "unknown") };
    let tokens: knoll_broker::Tokens = Arc::new(|audience, namespace, account, _| {
        Box::pin(async move {
            format!("Bearer {audience} {namespace} {account}").try_into().map_err(|_| "no value".to_owned())
        })
    });
    let hooks = Hooks { tokens: Some(tokens), ..Hooks::default() };
    let topology = with(Topology::default(), &b, vec![known, unknown]);
    let world = World::start_with(directory.path(), topology, options(), Config::default(), hooks);
    world.ready(&["known", "unknown"]).await;
    world.number(&b, 1, "t").await;
    assert_eq!(sinks.wait("known", 1).await[0].headers["authorization"], "Bearer them ns account");
    until("the other is kept", || world.plane.dead_letter_count(&b) == 1).await;
    let letter = world.plane.dead_letters(&b, 0, 1).await?.letters.remove(0);
    assert_eq!(text(&letter.event, knative::ERROR_CODE).as_deref(), Some("-1"));
    assert_eq!(sinks.seen("unknown").len(), 0);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_deliver_to_each_other_come_to_an_end() -> Runs {
    let (directory, sinks) = (tempfile::tempdir()?, Sinks::start().await);
    let (one, other) = (broker("one"), broker("other"));
    let into = |name: &str, to: &knoll_broker::topology::Name| {
        let address = Destination::new(Topology::default().address(to).expect("an address"));
        Subscription::new("ns", name, name, Subscriber::At(address))
    };
    let config = Config { max_hops: 20, ..Config::default() };
    let topology = with(Topology::default(), &one, vec![into("there", &other), to(&sinks, "seen")]);
    let topology = with(topology, &other, vec![into("back", &one)]);
    let world = World::start_with(directory.path(), topology, options(), config, Hooks::default());
    world.ready(&["there", "back", "seen"]).await;
    world.number(&one, 1, "t").await;
    until("the last hop", || world.plane.dead_letter_count(&one) + world.plane.dead_letter_count(&other) == 1).await;
    until("all are seen", || world.plane.status("seen").is_some_and(|status| status.lag == 0)).await;
    assert_eq!(sinks.seen("seen").len(), 10);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_takes_too_much_work_delivers_nothing_and_holds_up_nobody() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let like = Expression::parse(&["subject LIKE '%b%'"; 8].join(" OR "))?;
    let hard = Filter::not(Filter::cesql(like))?;
    let hostile = |at: usize| Subscription { filter: hard.clone(), ..to(&sinks, &format!("hostile-{at}")) };
    let subscriptions: Vec<Subscription> = (0..20).map(hostile).chain([to(&sinks, "t")]).collect();
    let world = World::start(directory.path(), with(Topology::default(), &b, subscriptions));
    world.ready(&["t", "hostile-19"]).await;
    let mut large = event("1");
    large.set("subject", &*"a".repeat(64 << 10))?;
    assert_eq!(world.send(&b, &large).await, StatusCode::ACCEPTED);
    assert_eq!(world.send(&b, &event("2")).await, StatusCode::ACCEPTED);
    assert_eq!(sinks.wait("t", 2).await.len(), 2);
    // What they can look at is theirs.
    assert_eq!(sinks.wait("hostile-0", 1).await[0].event.id(), "2");
    until("all are counted", || world.metric("broker_filters_exhausted") == 20).await;
    world.finish().await;
    Ok(())
}

/// Whether the kernel asks whether the other side of a connection to this port is still there (its keepalive timer runs).
fn is_kept_alive(port: u16) -> std::io::Result<bool> {
    const ESTABLISHED: &str = "01";
    let all = std::fs::read_to_string("/proc/self/net/tcp")?;
    let to = format!(":{port:04X}");
    Ok(all.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[2].ends_with(&to) && fields[3] == ESTABLISHED && fields[5].starts_with("02:")
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_went_away_without_a_word_is_found_out_while_an_answer_is_waited_for() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    sinks.on("hangs", |_, _| Act::Hang);
    let world = World::start(directory.path(), with(Topology::default(), &b, vec![to(&sinks, "hangs")]));
    world.ready(&["hangs"]).await;
    world.number(&b, 1, "t").await;
    sinks.wait("hangs", 1).await;
    let port = sinks.uri("hangs").port_u16().expect("a port");
    until("the connection is kept alive", || is_kept_alive(port).is_ok_and(|kept| kept)).await;
    world.kill().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_that_deliver_to_each_other_come_to_an_end_and_nobody_sees_why() -> Runs {
    let (directory, sinks) = (tempfile::tempdir()?, Sinks::start().await);
    let into = |name: &str, of: &str| {
        let address = Topology::default().address(&channel(of)).expect("an address");
        Subscription::new("ns", name, name, Subscriber::At(Destination::new(address)))
    };
    let topology = with(Topology::default(), &channel("one"), vec![into("there", "two")]);
    let back = Subscription { subscriber: Subscriber::Nobody, ..into("back", "one") };
    let reply = Topology::default().address(&channel("one")).map(Destination::new);
    let topology = with(topology, &channel("two"), vec![Subscription { reply, ..back }, to(&sinks, "sees")]);
    let world = World::start(directory.path(), topology);
    world.ready(&["there", "back", "sees"]).await;
    let sent = event("1");
    assert_eq!(world.send(&channel("one"), &sent).await, StatusCode::ACCEPTED);
    until("it ends", || world.metric("broker_dead_letters_kept") == 1).await;
    assert_eq!([world.metric("broker_events_out_of_hops"), world.metric("broker_events_accepted")], [1, 256]);
    let seen = sinks.wait("sees", 128).await;
    assert!(seen.iter().all(|seen| seen.event == sent && !seen.headers.contains_key("knoll-hops")));
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_round_and_multiplies_leaves_room_for_the_replies_of_others() -> Runs {
    let (directory, sinks, b, c) = (tempfile::tempdir()?, Sinks::start().await, broker("b"), channel("c"));
    let is_full = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let replies = is_full.clone();
    sinks.on("asks", move |_, _| match replies.load(std::sync::atomic::Ordering::SeqCst) {
        true => Act::Reply("answer"),
        false => Act::Status(503),
    });
    let only = |name: &str, kind: &'static str| Subscription {
        filter: Filter::exact([("type", kind)]),
        delivery: Some(retries(100_000, 10)),
        ..to(&sinks, name)
    };
    let round = |name: &str| {
        let address = Topology::default().address(&c).expect("an address");
        let subscription = Subscription::new("ns", name, name, Subscriber::At(Destination::new(address)));
        Subscription { delivery: Some(retries(100_000, 100)), ..subscription }
    };
    let topology = with(Topology::default(), &b, vec![only("asks", "t"), only("hears", "answer")]);
    let topology = with(topology, &c, vec![round("once"), round("twice")]);
    let retention = knoll_journal::events::Retention { age_ms: 0, bytes: 0 };
    let options =
        knoll_journal::events::EventOptions { segment_bytes: 64 << 10, budget_bytes: 1 << 20, retention, ..options() };
    let world = World::start_with(directory.path(), topology, options, Config::default(), Hooks::default());
    world.ready(&["asks", "hears", "once", "twice"]).await;
    world.number(&b, 1, "t").await;
    sinks.wait("asks", 1).await;
    let mut large = event("large");
    large.set_data("application/octet-stream", vec![7; 16 << 10])?;
    assert_eq!(world.send(&c, &large).await, StatusCode::ACCEPTED);
    let end = Instant::now() + Duration::from_secs(30);
    while world.send(&b, &event("other")).await != StatusCode::SERVICE_UNAVAILABLE {
        assert!(Instant::now() < end, "the log is not full");
        sleep(Duration::from_millis(5)).await;
    }
    is_full.store(true, std::sync::atomic::Ordering::SeqCst);
    sinks.wait("hears", 1).await;
    world.kill().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_triggers_format_is_what_its_subscriber_gets_and_nobody_else() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let json = |name: &str, sink: &str| Subscription {
        delivery: Some(Delivery {
            format: Some(Format::Json),
            dead_letter_sink: Some(sinks.at(sink)),
            ..Delivery::default()
        }),
        filter: Filter::exact([("type", "t")]),
        ..to(&sinks, name)
    };
    // The dead letter, and the reply, which comes to the broker and on from there, are as they came.
    let hears = Subscription { filter: Filter::exact([("type", "reply")]), ..to(&sinks, "hears") };
    let all = vec![json("replies", "unused"), json("fails", "dead"), hears];
    sinks.on("replies", |_, _| Act::Reply("reply"));
    sinks.on("fails", |_, _| Act::Status(400));
    // A broker's counts for nothing.
    let above = Delivery { format: Some(Format::Json), ..Delivery::default() };
    let topology = Topology::default().with(Addressable::new(b.clone(), "b", Some(&above), all));
    let world = World::start(directory.path(), topology);
    world.ready(&["replies", "fails", "hears"]).await;
    assert_eq!(world.send(&b, &event("1")).await, StatusCode::ACCEPTED);
    for (name, is_json) in [("replies", true), ("fails", true), ("dead", false), ("hears", false)] {
        let seen = sinks.wait(name, 1).await.remove(0);
        assert_eq!(is_structured(&seen), is_json, "{name}: {:?}", seen.headers);
    }
    world.finish().await;
    Ok(())
}

fn is_structured(seen: &Seen) -> bool {
    seen.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/cloudevents+json"))
}
