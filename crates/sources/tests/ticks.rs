//! PingSource and the timer: what is sent when.

mod world;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::HeaderValue;
use jiff::Timestamp;
use knoll_api::Kind;
use knoll_sources::{Clock, Config, Hooks, Sources};
use serde_json::json;
use tokio::time::sleep;

use self::world::{Sinks, Wall, World, at_generation, config, for_audience, id, ping, sender, timer, until};

const START: &str = "2026-11-30T12:00:00.25Z";

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// When events were made.
fn times(seen: &[world::Seen]) -> Vec<String> {
    seen.iter().map(|seen| seen.attribute("time")).collect()
}

#[tokio::test(start_paused = true)]
async fn each_tick_is_one_event_as_upstream_makes_it() {
    let (sinks, wall) = (Sinks::start().await, Wall::at(START));
    let spec = json!({"schedule": "*/2 * * * * *", "contentType": "text/plain", "data": "a b",
        "ceOverrides": {"extensions": {"who": "me"}}});
    let world = World::by(&wall, Sources::default().with(ping(&sinks, "p", spec)));
    sleep(seconds(10)).await;
    let seen = sinks.wait("p", 5).await;
    world.finish().await;
    assert_eq!(sinks.seen("p").len(), 5);
    let names = ["type", "source", "datacontenttype", "who", "subject"];
    for one in &seen {
        assert_eq!(
            names.map(|name| one.attribute(name)),
            ["dev.knative.sources.ping", "/apis/v1/namespaces/ns/pingsources/p", "text/plain", "me", "",]
        );
        assert_eq!(one.data(), "a b");
        assert_eq!(one.headers["kn-namespace"], "ns");
        assert!(!one.headers.contains_key("prefer"));
    }
    let ids: BTreeSet<String> = seen.iter().map(|seen| seen.attribute("id")).collect();
    assert_eq!(ids.len(), 5);
    let due: Vec<String> = times(&seen).iter().map(|time| time[..19].to_owned()).collect();
    assert_eq!(
        due,
        [
            "2026-11-30T12:00:02",
            "2026-11-30T12:00:04",
            "2026-11-30T12:00:06",
            "2026-11-30T12:00:08",
            "2026-11-30T12:00:10"
        ]
    );
}

/// Sinks that hang take the places of their own namespace's sources, and of no other's.
#[tokio::test(start_paused = true)]
async fn a_namespace_whose_sinks_hang_takes_no_places_of_others() {
    let (sinks, wall) = (Sinks::start().await, Wall::at(START));
    let every = json!({"schedule": "* * * * * *"});
    let mut sources = Sources::default();
    for name in ["a", "b", "c", "d"] {
        sinks.on(name, |_| None);
        sources = sources.with(ping(&sinks, name, every.clone()));
    }
    let mut elsewhere = ping(&sinks, "fine", every);
    elsewhere.id.namespace = "elsewhere".into();
    let bounded = Config { most_at_once: 4, most_of_namespace: 3, ..config() };
    let world = World::start(sources.with(elsewhere), bounded, Hooks { clock: wall.clock(), clients: None });
    sinks.wait("fine", 20).await;
    assert_eq!(["a", "b", "c", "d"].map(|name| sinks.seen(name).len()).iter().sum::<usize>(), 3);
    world.kill().await;
}

#[tokio::test(start_paused = true)]
async fn data_may_be_bytes_or_absent_and_the_hour_is_that_of_the_time_zone() {
    let (sinks, wall) = (Sinks::start().await, Wall::at(START));
    let zone = json!({"schedule": "*/2 * 21 * * *", "timezone": "Asia/Tokyo", "dataBase64": "AAH/",
        "contentType": "application/octet-stream"});
    let written = json!({"schedule": "CRON_TZ=Asia/Tokyo */2 * 21 * * *"});
    let elsewhere = json!({"schedule": "*/2 * 21 * * *", "timezone": "America/New_York"});
    let sources = Sources::default()
        .with(ping(&sinks, "zone", zone))
        .with(ping(&sinks, "written", written))
        .with(ping(&sinks, "elsewhere", elsewhere));
    let world = World::by(&wall, sources);
    let bytes = sinks.wait("zone", 1).await.remove(0).event;
    assert_eq!(bytes.data().expect("data").bytes(), &[0_u8, 1, 255][..]);
    let nothing = sinks.wait("written", 1).await.remove(0).event;
    assert_eq!((nothing.data(), nothing.data_content_type()), (None, None));
    assert_eq!(sinks.seen("elsewhere").len(), 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_upstream_sends_again_is_sent_again_and_all_else_is_lost() {
    let (sinks, wall) = (Sinks::start().await, Wall::at("2026-11-30T12:00:59.5Z"));
    sinks.on("heals", |before| Some(if before < 2 { 503 } else { 202 }));
    sinks.on("never", |_| Some(429));
    sinks.on("refuses", |_| Some(500));
    let every = json!({"schedule": "1 12 * * *"});
    let sources = ["heals", "never", "refuses"]
        .into_iter()
        .fold(Sources::default(), |sources, name| sources.with(ping(&sinks, name, every.clone())));
    let world = World::by(&wall, sources);
    until("both lost", || world.metric("sources_events_lost") == 2).await;
    let made = sinks.wait("heals", 3).await;
    assert_eq!(made.iter().map(|seen| seen.attribute("id")).collect::<BTreeSet<_>>().len(), 1, "one event");
    assert_eq!(sinks.seen("never").len(), 6);
    assert_eq!(sinks.seen("refuses").len(), 1);
    until("the third attempt is counted", || world.metric("sources_events_sent") == 1).await;
    assert_eq!(world.metric("sources_attempts_repeated"), 7);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_no_tick_is_made_up_and_none_comes_twice() {
    let (sinks, wall) = (Sinks::start().await, Wall::at(START));
    let every = json!({"schedule": "* * * * *"});
    let world = World::by(&wall, Sources::default().with(ping(&sinks, "p", every.clone())));
    sinks.wait("p", 2).await;
    world.kill().await;
    // In the very second of the last tick.
    let world = World::by(&wall, Sources::default().with(ping(&sinks, "p", every.clone())));
    sinks.wait("p", 3).await;
    world.finish().await;
    sleep(seconds(600)).await;
    let world = World::by(&wall, Sources::default().with(ping(&sinks, "p", every)));
    let seen = sinks.wait("p", 4).await;
    world.finish().await;
    let due: Vec<String> = times(&seen).iter().map(|time| time[11..16].to_owned()).collect();
    assert_eq!(due[..3], ["12:01", "12:02", "12:03"]);
    assert!(due[3].as_str() >= "12:13" && due.len() == 4, "{due:?}");
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_hangs_costs_a_bounded_number_of_events_and_nobody_else_anything() {
    let (sinks, wall) = (Sinks::start().await, Wall::at(START));
    sinks.on("stuck", |_| None);
    let every = json!({"schedule": "* * * * * *"});
    let sources = Sources::default().with(ping(&sinks, "stuck", every.clone())).with(ping(&sinks, "fine", every));
    let bounded = Config { most_of_one: 3, ..config() };
    let world = World::start(sources, bounded, Hooks { clock: wall.clock(), clients: None });
    let seen = sinks.wait("fine", 20).await;
    assert_eq!(sinks.seen("stuck").len(), 3);
    until("no more than three are in flight", || world.metric("sources_events_in_flight") == 3).await;
    let skipped = world.metric("sources_ticks_skipped");
    assert!(skipped + 4 >= seen.len() as u64, "{skipped} of {}", seen.len());
    world.kill().await;
}

#[tokio::test(start_paused = true)]
async fn events_beyond_what_may_be_sent_at_once_wait_for_their_turn() {
    let (sinks, wall) = (Sinks::start().await, Wall::at(START));
    sinks.on("stuck", |_| None);
    let bounded = Config { most_at_once: 1, attempt_timeout: seconds(5), ..config() };
    let once = |schedule: &str| json!({"schedule": schedule});
    let sources = Sources::default().with(ping(&sinks, "stuck", once("1 1 12 30 11 *"))).with(ping(
        &sinks,
        "waits",
        once("2 1 12 30 11 *"),
    ));
    let world = World::start(sources, bounded, Hooks { clock: wall.clock(), clients: None });
    let seen = sinks.wait("waits", 1).await;
    // Six attempts of five seconds, and the waits between them.
    assert!(&times(&seen)[0][11..19] > "12:01:31", "{seen:?}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_leaves_the_snapshot_sends_no_more_and_a_change_keeps_the_time() {
    let (sinks, wall) = (Sinks::start().await, Wall::at(START));
    let spec = |data: &str| json!({"schedule": "*/10 * * * * *", "data": data, "contentType": "text/plain"});
    let (stays, leaves) = (id(Kind::PingSource, "stays"), id(Kind::PingSource, "leaves"));
    let sources = Sources::default().with(ping(&sinks, "stays", spec("old"))).with(ping(&sinks, "leaves", spec("x")));
    let world = World::by(&wall, sources);
    sinks.wait("stays", 1).await;
    sinks.wait("leaves", 1).await;
    assert_eq!((world.carried(&stays), world.carried(&leaves)), (Some(Ok(1)), Some(Ok(1))));
    let changed = at_generation(ping(&sinks, "stays", spec("new")), 2);
    world.change(|sources| sources.without(&leaves).with(changed));
    until("it is carried out", || world.carried(&stays) == Some(Ok(2))).await;
    assert_eq!(world.carried(&leaves), None);
    let seen = sinks.wait("stays", 3).await;
    assert_eq!(seen[1..].iter().map(world::Seen::data).collect::<Vec<_>>(), ["new", "new"]);
    assert_eq!(times(&seen).iter().map(|time| time[17..19].to_owned()).collect::<Vec<_>>(), ["10", "20", "30"]);
    assert_eq!(sinks.seen("leaves").len(), 1);
    assert_eq!(world.metric("sources_known"), 1);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_carried_out_says_why_and_all_else_goes_on() {
    let (sinks, wall) = (Sinks::start().await, Wall::at(START));
    let bad = [
        ("schedule", json!({"schedule": "never"}), "spec.schedule: expected 5 to 6 fields, found 1: [never]"),
        ("zone", json!({"schedule": "* * * * *", "timezone": "Moon/Base"}), "spec.timezone: provided bad location"),
        ("base64", json!({"schedule": "* * * * *", "dataBase64": "?"}), "spec.dataBase64: Invalid symbol 63"),
        ("type", json!({"schedule": "* * * * *", "data": "x", "contentType": "no type"}), "datacontenttype"),
        ("override", json!({"schedule": "* * * * *", "ceOverrides": {"extensions": {"a-b": "x"}}}), "a-b"),
    ];
    let good = ping(&sinks, "good", json!({"schedule": "* * * * * *"}));
    let sources = bad
        .iter()
        .fold(Sources::default().with(good), |sources, (name, spec, _)| sources.with(ping(&sinks, name, spec.clone())));
    let world = World::by(&wall, sources);
    sinks.wait("good", 1).await;
    for (name, _, why) in &bad {
        let told = world.carried(&id(Kind::PingSource, name)).expect("told").expect_err(name);
        assert!(told.contains(why), "{name}: {told}");
    }
    until("all are known", || (world.metric("sources_known"), world.metric("sources_carried")) == (6, 1)).await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_sources_cost_an_idle_hour_a_look_at_the_clock_a_minute() {
    let (sinks, wall) = (Sinks::start().await, Wall::at("2026-11-30T01:00:00Z"));
    let sources = (0..10_000).fold(Sources::default(), |sources, number| {
        sources.with(ping(&sinks, &format!("p{number}"), json!({"schedule": "0 0 * * *"})))
    });
    let world = World::by(&wall, sources);
    until("all are carried out", || world.metric("sources_carried") == 10_000).await;
    let before = wall.looks.load(Relaxed);
    sleep(seconds(3600)).await;
    let looks = wall.looks.load(Relaxed) - before;
    assert!((60..=130).contains(&looks), "{looks}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_a_little_repeats_no_tick_and_one_that_is_set_back_far_begins_anew() {
    let (sinks, wall) = (Sinks::start().await, Wall::at("2026-11-30T12:00:30Z"));
    let world = World::by(&wall, Sources::default().with(ping(&sinks, "p", json!({"schedule": "* * * * *"}))));
    sinks.wait("p", 1).await;
    wall.set(-30);
    sleep(seconds(45)).await;
    assert_eq!(sinks.seen("p").len(), 1, "12:01 has been");
    sinks.wait("p", 2).await;
    wall.set(-3600);
    let seen = sinks.wait("p", 4).await;
    let due: Vec<String> = times(&seen).iter().map(|time| time[11..16].to_owned()).collect();
    assert_eq!(due[..2], ["12:01", "12:02"]);
    assert!(due[2].starts_with("11:0") && due[3].starts_with("11:0"), "{due:?}");
    // A machine that slept has one late tick, whatever went by.
    wall.set(7200);
    let before = sinks.seen("p").len();
    sleep(seconds(61)).await;
    let after = sinks.seen("p").len() - before;
    assert!((1..=2).contains(&after), "{after}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_one_event_and_one_of_the_clock_a_moment() {
    let (sinks, wall) = (Sinks::start().await, Wall::at(START));
    let calls = Arc::new(AtomicU64::new(0));
    let (counted, inner) = (calls.clone(), wall.clock());
    let clock: Clock = Arc::new(move || {
        let call = counted.fetch_add(1, Relaxed);
        assert!(!matches!(call, 5 | 25), "the clock breaks");
        inner()
    });
    let broken: knoll_broker::Tokens = Arc::new(|_, _, _, _| panic!("no tokens"));
    let every = json!({"schedule": "* * * * * *"});
    let sources = Sources::default()
        .with(ping(&sinks, "fine", every.clone()))
        .with(for_audience(ping(&sinks, "breaks", every), "a"));
    let world = World::start_with(sources, config(), Hooks { clock, clients: None }, Some(broken));
    sinks.wait("fine", 10).await;
    until("both panics", || calls.load(Relaxed) > 30).await;
    let before = sinks.seen("fine").len();
    sinks.wait("fine", before + 5).await;
    assert!(world.metric("sources_panics") >= 4, "{}", world.metric("sources_panics"));
    assert_eq!(sinks.seen("breaks").len(), 0);
    assert_eq!(world.carried(&id(Kind::PingSource, "fine")), Some(Ok(1)));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_is_made_for_the_sinks_audience_as_the_sources_account() {
    let (sinks, wall) = (Sinks::start().await, Wall::at(START));
    let tokens: knoll_broker::Tokens = Arc::new(|audience, namespace, account, _| {
        Box::pin(async move { Ok(HeaderValue::from_str(&format!("Bearer {audience} {namespace} {account}")).unwrap()) })
    });
    let source = for_audience(ping(&sinks, "p", json!({"schedule": "* * * * * *"})), "who");
    let hooks = Hooks { clock: wall.clock(), clients: None };
    let world = World::start_with(Sources::default().with(source), config(), hooks, Some(tokens));
    assert_eq!(sinks.wait("p", 1).await[0].headers["authorization"], "Bearer who ns sa");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_timer_begins_after_a_second_and_ends_with_its_count() {
    let (sinks, wall) = (Sinks::start().await, Wall::at(START));
    let sources = Sources::default()
        .with(timer(&sinks, "ends", json!({"message": "hi", "repeatCount": 3, "period": 500})))
        .with(timer(&sinks, "goes-on", json!({"message": "{}", "contentType": "application/json"})));
    let world = World::by(&wall, sources);
    let seen = sinks.wait("goes-on", 10).await;
    let names = ["type", "source", "subject", "datacontenttype"];
    assert_eq!(
        names.map(|name| seen[0].attribute(name)),
        ["dev.knative.eventing.timer", "dev.knative.eventing.timer-source", "timer-source", "application/json",]
    );
    let made = |seen: &[world::Seen]| -> Vec<f64> {
        let start: Timestamp = START.parse().expect("a time");
        let times = times(seen).into_iter().map(|time| time.parse::<Timestamp>().expect("a time"));
        times.map(|time| (time.duration_since(start).as_secs_f64() * 10.0).round() / 10.0).collect()
    };
    assert_eq!(made(&seen)[..4], [1.0, 2.0, 3.0, 4.0]);
    let ended = sinks.seen("ends");
    assert_eq!(made(&ended), [1.0, 1.5, 2.0]);
    assert_eq!((ended[0].attribute("datacontenttype"), ended[0].data()), ("text/plain".to_owned(), "hi".to_owned()));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn ticks_of_one_instant_are_spread_and_those_that_wait_at_the_end_are_sent() {
    let (sinks, wall) = (Sinks::start().await, Wall::at("2026-11-30T12:00:59Z"));
    let sources = (0..50).fold(Sources::default(), |sources, number| {
        let mut source = ping(&sinks, "all", json!({"schedule": "* * * * *"}));
        source.id = id(Kind::PingSource, &format!("p{number}"));
        sources.with(source)
    });
    let spread = Config { jitter: Duration::from_millis(500), ..config() };
    let world = World::start(sources, spread, Hooks { clock: wall.clock(), clients: None });
    sleep(Duration::from_millis(1001)).await;
    world.finish().await;
    assert_eq!(sinks.seen("all").len(), 50);
}

#[tokio::test]
async fn settings_out_of_range_are_refused() {
    let (_, snapshots) = tokio::sync::watch::channel(None);
    let config = Config { most_at_once: 0, ..Config::default() };
    let refused = knoll_sources::Adapters::new(snapshots, sender(None), config, Hooks::default());
    assert_eq!(refused.err().expect("refused").to_string(), "most_at_once must be at least 1");
}
