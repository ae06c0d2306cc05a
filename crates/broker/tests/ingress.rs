//! What senders are answered.

mod world;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::TokioIo;
use knoll_broker::{
    Config, DataPlane, Denied, Hooks, Log, Origin, Sender, Topology,
    delivery::{Destination, retry::Cause},
    serve,
    topology::{
        Addressable, Subscription,
        access::{Access, Mode},
    },
};
use knoll_event::Event;
use knoll_journal::{MemoryDisk, events::EventOptions};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    time::timeout,
};
use world::*;

type Runs = Result<(), Box<dyn std::error::Error>>;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value"))).collect()
}

const BINARY: [(&str, &str); 4] = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
const STRUCTURED: &str = "application/cloudevents+json";
const BATCHED: &str = "application/cloudevents-batch+json";

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_has_its_answer_and_says_what_is_wrong() -> Runs {
    let (directory, sinks) = (tempfile::tempdir()?, Sinks::start().await);
    let topology = with(Topology::default(), &broker("b"), vec![to(&sinks, "t")]);
    let world = World::start(directory.path(), with(topology, &channel("c"), vec![]));
    world.ready(&["t"]).await;
    let host = "http://broker-ingress.knative-eventing.svc.cluster.local";
    let good = structured("");
    let cases: Vec<(Method, String, HeaderMap, Bytes, u16, &str)> = vec![
        (Method::POST, format!("{host}/ns/b"), headers(&BINARY), Bytes::new(), 202, ""),
        (Method::POST, format!("{host}/ns/b/"), headers(&[("content-type", STRUCTURED)]), good.clone(), 202, ""),
        (Method::POST, "http://c-kn-channel.ns.svc.cluster.local/".into(), headers(&BINARY), Bytes::new(), 202, ""),
        (Method::POST, "http://imc-dispatcher.knative-eventing/ns/c".into(), headers(&BINARY), Bytes::new(), 202, ""),
        (Method::GET, format!("{host}/ns/b"), headers(&BINARY), Bytes::new(), 405, "posted"),
        (Method::PUT, format!("{host}/ns/nope"), headers(&BINARY), Bytes::new(), 405, "posted"),
        (Method::POST, format!("{host}/"), headers(&[]), Bytes::new(), 404, "status.address.url"),
        (Method::POST, format!("{host}/ns"), headers(&BINARY), Bytes::new(), 400, "/<namespace>/<name>"),
        (Method::POST, format!("{host}/ns/b/x"), headers(&BINARY), Bytes::new(), 400, "/<namespace>/<name>"),
        (Method::POST, format!("{host}/ns/nope"), headers(&BINARY), Bytes::new(), 404, "no broker, channel"),
        (Method::POST, format!("{host}/ns/b?x=y"), headers(&BINARY), Bytes::new(), 404, "no broker, channel"),
        // The path is taken as it stands: one slash at its end is nothing, and nothing is decoded.
        (Method::POST, format!("{host}/ns/"), headers(&BINARY), Bytes::new(), 400, "/<namespace>/<name>"),
        (Method::POST, format!("{host}/ns/b//"), headers(&BINARY), Bytes::new(), 400, "/<namespace>/<name>"),
        (Method::POST, format!("{host}/ns//b"), headers(&BINARY), Bytes::new(), 400, "/<namespace>/<name>"),
        (Method::POST, format!("{host}//b"), headers(&BINARY), Bytes::new(), 404, "no broker, channel"),
        (Method::POST, format!("{host}/ns/%62"), headers(&BINARY), Bytes::new(), 404, "no broker, channel"),
        // The method comes before the path, and the path before the event.
        (Method::DELETE, format!("{host}/"), headers(&[]), Bytes::new(), 405, "posted"),
        (Method::PATCH, format!("{host}/ns"), headers(&[]), Bytes::new(), 405, "posted"),
        (Method::HEAD, format!("{host}/ns/b"), headers(&[]), Bytes::new(), 405, "posted"),
        (Method::POST, format!("{host}/ns"), headers(&[]), Bytes::new(), 400, "/<namespace>/<name>"),
        (Method::POST, format!("{host}/ns/b"), headers(&[("content-type", BATCHED)]), "[1]".into(), 400, "batch"),
        // What is no event is said before who it is for is looked up.
        (Method::POST, format!("{host}/ns/nope"), headers(&BINARY[1..]), Bytes::new(), 400, "no CloudEvent"),
        (Method::POST, format!("{host}/ns/b"), headers(&BINARY[..3]), Bytes::new(), 400, "\"type\" is missing"),
        (Method::POST, format!("{host}/ns/b"), headers(&[("content-type", STRUCTURED)]), "{".into(), 400, "byte 1"),
        (
            Method::POST,
            format!("{host}/ns/b"),
            headers(&[("content-type", "text/plain")]),
            "hi".into(),
            400,
            "no CloudEvent",
        ),
        (
            Method::POST,
            format!("{host}/ns/b"),
            headers(&[("content-type", STRUCTURED)]),
            structured(r#","knativebrokerttl":1"#),
            400,
            "no hops are left",
        ),
        (
            Method::POST,
            "http://c-kn-channel.ns.svc.cluster.local/x".into(),
            headers(&BINARY),
            Bytes::new(),
            400,
            "in /",
        ),
        (
            Method::POST,
            "http://d-kn-channel.ns.svc.cluster.local/".into(),
            headers(&BINARY),
            Bytes::new(),
            404,
            "no broker",
        ),
        (Method::POST, "http://example.org/ns/b".into(), headers(&BINARY), Bytes::new(), 404, "status.address.url"),
    ];
    for (method, uri, headers, body, status, says) in cases {
        let shown = format!("{method} {uri} {headers:?}");
        let mut request = Request::builder().method(method).uri(uri).body(Full::from(body))?;
        *request.headers_mut() = headers;
        let answer = world.plane.ingress().answer(request).await;
        assert_eq!(answer.headers()["allow"], "POST, OPTIONS", "{shown}");
        assert_eq!(answer.status(), StatusCode::from_u16(status)?, "{shown}");
        let body = answer.into_body().collect().await?.to_bytes();
        assert!(String::from_utf8_lossy(&body).contains(says), "{shown}: {body:?}");
        assert_eq!(body.is_empty(), status == 202, "{shown}");
    }
    sinks.wait("t", 2).await;
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_may_post_as_often_as_they_like() -> Runs {
    let directory = tempfile::tempdir()?;
    let world = World::start(directory.path(), Topology::default());
    let request = Request::builder().method(Method::OPTIONS).uri("http://x/").header("webhook-request-origin", "o");
    let answer = world.plane.ingress().answer(request.body(Empty::new())?).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let header = |name: &str| answer.headers()[name].to_str().unwrap_or_default().to_owned();
    let wanted = ["POST, OPTIONS", "*", "*"].map(str::to_owned);
    assert_eq!(["allow", "webhook-allowed-origin", "webhook-allowed-rate"].map(header), wanted);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_taken_whole_or_not_at_all() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let world = World::start(directory.path(), with(Topology::default(), &b, vec![to(&sinks, "t")]));
    world.ready(&["t"]).await;
    let uri = Topology::default().address(&b).expect("an address");
    let event = |id: usize| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t"}}"#);
    let batch = |events: &[String]| format!("[{}]", events.join(","));
    let of = |headers| [(CONTENT_TYPE, headers)].into_iter().collect::<HeaderMap>();
    let batched = || of(http::HeaderValue::from_static(BATCHED));
    let broken = batch(&[event(1), "{}".to_owned(), event(3)]);
    let answer = world.post(&uri, batched(), broken).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let body = answer.into_body().collect().await?.to_bytes();
    assert!(String::from_utf8_lossy(&body).starts_with("event 1 of the batch"), "{body:?}");
    let events: Vec<String> = (10..310).map(event).collect();
    assert_eq!(world.post(&uri, batched(), batch(&events)).await.status(), StatusCode::ACCEPTED);
    assert_eq!(world.post(&uri, batched(), "[]").await.status(), StatusCode::ACCEPTED);
    sinks.wait("t", 300).await;
    world.finish().await;
    assert!(sinks.ids("t").iter().all(|id| id.parse::<usize>().is_ok_and(|id| id >= 10)));
    assert_eq!(sinks.seen("t").len(), 300);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_travels_beside_the_events_of_a_batch_is_bounded_and_named() -> Runs {
    let (directory, b) = (tempfile::tempdir()?, broker("b"));
    let world = World::start(directory.path(), with(Topology::default(), &b, vec![]));
    let uri = Topology::default().address(&b).expect("an address");
    let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
    let before = world.metric("broker_log_bytes");
    for (events, beside, status, says) in [
        (1, 100 << 10, 431, "knative-x"),
        (1000, 100 << 10, 431, "knative-x"),
        (2000, 10 << 10, 413, "send fewer at a time"),
        (100, 10 << 10, 202, ""),
    ] {
        let body = format!("[{}]", vec![event; events].join(","));
        let (beside, small) = ("x".repeat(beside), "y".repeat(100));
        let lines = [("content-type", BATCHED), ("knative-x", &beside), ("knative-y", &small)];
        let answer = world.post(&uri, headers(&lines), body).await;
        assert_eq!(answer.status().as_u16(), status, "{events}");
        let said = answer.into_body().collect().await?.to_bytes();
        assert!(String::from_utf8_lossy(&said).contains(says), "{said:?}");
        let grown = world.metric("broker_log_bytes") - before;
        assert!(grown < if status == 202 { 2 << 20 } else { 64 << 10 }, "{events}: {grown}");
    }
    assert_eq!(world.metric("broker_events_accepted"), 100);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_events_pass_and_larger_ones_are_413_announced_or_not() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let config = Config { max_event_bytes: 6 << 20, max_bytes_in_flight: 7 << 20, ..Config::default() };
    let topology = with(Topology::default(), &b, vec![to(&sinks, "t")]);
    let world = World::start_with(directory.path(), topology, options(), config, Hooks::default());
    world.ready(&["t"]).await;
    let uri = Topology::default().address(&b).expect("an address");
    let data: Vec<u8> = (0..5 << 20).map(|at| u8::try_from(at % 251).unwrap_or_default()).collect();
    assert_eq!(world.post(&uri, headers(&BINARY), data.clone()).await.status(), StatusCode::ACCEPTED);
    let seen = sinks.wait("t", 1).await.remove(0);
    assert_eq!(seen.event.data().map(|data| data.bytes().to_vec()), Some(data.clone()));
    let large = [&data[..], &data[..]].concat();
    assert_eq!(world.post(&uri, headers(&BINARY), large.clone()).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let frames = large
        .chunks(1 << 16)
        .map(|chunk| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::copy_from_slice(chunk))));
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>()));
    let mut request = Request::post(uri.clone()).body(body)?;
    *request.headers_mut() = headers(&BINARY);
    assert_eq!(world.plane.ingress().answer(request).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    // What was held for them was given back.
    assert_eq!(world.post(&uri, headers(&BINARY), data).await.status(), StatusCode::ACCEPTED);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_disks_budget_senders_are_told_when_to_come_back_and_deliveries_make_room() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let retention = knoll_journal::events::Retention { age_ms: 0, bytes: 0 };
    let options = EventOptions { segment_bytes: 64 << 10, budget_bytes: 1 << 20, retention, ..options() };
    let config = Config { retry_after: Duration::from_millis(1500), ..Config::default() };
    let stuck = knoll_broker::topology::Subscription { delivery: Some(retries(100_000, 0)), ..to(&sinks, "t") };
    let topology = with(Topology::default(), &b, vec![stuck]);
    let world = World::start_with(directory.path(), topology, options, config, Hooks::default());
    world.ready(&["t"]).await;
    sinks.on("t", |_, _| Act::Slow(300));
    let uri = Topology::default().address(&b).expect("an address");
    let mut taken = 0;
    let refused = loop {
        let answer = world.post(&uri, headers(&BINARY), vec![7; 16 << 10]).await;
        if answer.status() != StatusCode::ACCEPTED {
            break answer;
        }
        taken += 1;
        assert!(taken < 1000, "nothing is refused");
    };
    assert_eq!((refused.status(), refused.headers()["retry-after"].to_str()?), (StatusCode::SERVICE_UNAVAILABLE, "2"));
    sinks.wait("t", taken).await;
    until("nothing is left", || world.plane.status("t").is_some_and(|status| status.lag == 0)).await;
    assert_eq!(sinks.seen("t").len(), taken);
    // Whoever comes back finds room, once what was delivered is removed.
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while world.post(&uri, headers(&BINARY), Bytes::new()).await.status() != StatusCode::ACCEPTED {
        assert!(tokio::time::Instant::now() < end, "there is no room again");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_snapshot_nobody_is_told_no() -> Runs {
    let (log, _thread, _) = Log::open(std::sync::Arc::new(MemoryDisk::default()), EventOptions::default())?;
    let topology = watch::Sender::new(None);
    let plane = DataPlane::new(log, topology.subscribe(), Config::default(), Hooks::default())?;
    let mut request = Request::post("http://broker-ingress.knative-eventing/ns/b").body(Full::<Bytes>::default())?;
    *request.headers_mut() = headers(&BINARY);
    let answer = plane.ingress().answer(request).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lets_senders_in_decides_once_the_event_is_known() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let authorize: knoll_broker::Authorize = std::sync::Arc::new(|into, headers, events| {
        Box::pin(async move {
            let status = match headers.get("authorization").map(|token| token.as_bytes()) {
                None => StatusCode::UNAUTHORIZED,
                Some(b"Bearer good") if events[0].kind() == "t" => return Ok(()),
                Some(_) => StatusCode::FORBIDDEN,
            };
            Err(Denied { status, reason: format!("not into {}", into.namespace()) })
        })
    });
    let hooks = Hooks { authorize: Some(authorize), ..Hooks::default() };
    let listens = Addressable::new(b.clone(), "uid-b", None, vec![to(&sinks, "t")]);
    let topology = Topology::default().with(listens.for_those_of(Access::Otherwise(Mode::AllowAll)));
    let topology = with(topology, &broker("open"), vec![]);
    let world = World::start_with(directory.path(), topology, options(), Config::default(), hooks);
    world.ready(&["t"]).await;
    let uri = Topology::default().address(&broker("open")).expect("an address");
    let answer = world.post(&uri, headers(&BINARY), Bytes::new()).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED, "where everybody may post nobody is asked");
    let uri = Topology::default().address(&b).expect("an address");
    for (token, status) in [(None, 401), (Some("Bearer bad"), 403), (Some("Bearer good"), 202)] {
        let mut headers = headers(&BINARY);
        headers.extend(token.map(|token| (http::header::AUTHORIZATION, token.parse().expect("a value"))));
        let answer = world.post(&uri, headers, Bytes::new()).await;
        assert_eq!(answer.status().as_u16(), status, "{token:?}");
    }
    assert_eq!(sinks.wait("t", 1).await[0].headers.get("authorization"), None);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_served_bounded_and_ended_in_good_order() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let config = Config {
        body_read_timeout: Duration::from_millis(200),
        grace: Duration::from_millis(500),
        max_connections: 4,
        parts: 2,
        ..Config::default()
    };
    let topology = with(Topology::default(), &b, vec![to(&sinks, "t")]);
    let world = World::start_with(directory.path(), topology, options(), config, Hooks::default());
    world.ready(&["t"]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (end, ended) = oneshot::channel::<()>();
    let serving = tokio::spawn(serve(world.plane.ingress(), listener, Box::pin(async { drop(ended.await) })));
    let connect = async || -> Result<_, Box<dyn std::error::Error>> {
        let stream = TcpStream::connect(address).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    };
    let request = |lines: &[(&'static str, &str)]| {
        let mut request = Request::post("/ns/b").body(Full::new(Bytes::from_static(b"{}"))).expect("a request");
        *request.headers_mut() = headers(lines);
        request.headers_mut().insert("host", "broker-ingress.knative-eventing.svc.cluster.local".parse().unwrap());
        request
    };
    // An event of two hundred extensions, as many headers.
    let names: Vec<String> = (0..200).map(|at| format!("ce-ext{at}")).collect();
    let mut many = request(&BINARY);
    for name in &names {
        many.headers_mut().insert(name.parse::<HeaderName>()?, "x".parse()?);
    }
    let mut first = connect().await?;
    assert_eq!(first.send_request(many).await?.status(), StatusCode::ACCEPTED);
    // A body that does not come is given up, whatever its sender thinks.
    let mut slow = TcpStream::connect(address).await?;
    let head = "POST /ns/b HTTP/1.1\r\nhost: broker-ingress.knative-eventing\r\nce-specversion: 1.0\r\ncontent-length: 10\r\n\r\nx";
    tokio::io::AsyncWriteExt::write_all(&mut slow, head.as_bytes()).await?;
    let mut answer = vec![0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut slow, &mut answer).await?;
    assert_eq!(answer, b"HTTP/1.1 408");
    drop(slow);
    // Once it has been seen to be gone, its place is another's.
    let mut second = loop {
        let mut second = connect().await?;
        match second.send_request(request(&BINARY)).await {
            Ok(answer) => assert_eq!(answer.status(), StatusCode::ACCEPTED),
            Err(_) => continue,
        }
        break second;
    };
    // The third connection is one too many for one client.
    let mut third = TcpStream::connect(address).await?;
    let mut nothing = Vec::new();
    let read = timeout(Duration::from_secs(5), tokio::io::AsyncReadExt::read_to_end(&mut third, &mut nothing)).await?;
    assert!(read.is_err() || nothing.is_empty(), "{nothing:?}");
    drop(end);
    serving.await?;
    assert!(first.send_request(request(&BINARY)).await.is_err());
    assert!(second.send_request(request(&BINARY)).await.is_err());
    let extensions = |event: &Event| event.attributes().filter(|(name, _)| name.starts_with("ext")).count();
    assert!(sinks.wait("t", 2).await.iter().any(|seen| extensions(&seen.event) == 200));
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_before_the_body_has_come_reads_why() -> Runs {
    let directory = tempfile::tempdir()?;
    let world = World::start(directory.path(), Topology::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut sender = TcpStream::connect(listener.local_addr()?).await?;
    let serving = tokio::spawn(serve(world.plane.ingress(), listener, Box::pin(std::future::pending())));
    let length = 4 << 20;
    let head =
        format!("GET /ns/b HTTP/1.1\r\nhost: broker-ingress.knative-eventing\r\ncontent-length: {length}\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut sender, head.as_bytes()).await?;
    tokio::io::AsyncWriteExt::write_all(&mut sender, &vec![0; length]).await?;
    let mut answer = String::new();
    timeout(Duration::from_secs(10), tokio::io::AsyncReadExt::read_to_string(&mut sender, &mut answer)).await??;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    serving.abort();
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_is_told_of_what_was_taken_and_costs_nobody_anything() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let taken: knoll_broker::Taken = std::sync::Arc::new(move |into, event| {
        drop(tell.lock().expect("not poisoned").send((into.name().name.to_string(), event.kind().to_owned())));
        assert_ne!(event.id(), "panics");
    });
    let hooks = Hooks { taken: Some(taken), ..Hooks::default() };
    let replies = knoll_broker::topology::Subscription {
        filter: knoll_event::filter::Filter::exact([("type", "t")]),
        ..to(&sinks, "t")
    };
    sinks.on("t", |_, _| Act::Reply("reply"));
    let topology = with(Topology::default(), &b, vec![replies]);
    let world = World::start_with(directory.path(), topology, options(), Config::default(), hooks);
    world.ready(&["t"]).await;
    world.number(&b, 1, "t").await;
    sinks.wait("t", 1).await;
    until("the reply", || world.metric("broker_replies_delivered") == 1).await;
    let kinds: Vec<(String, String)> = told.try_iter().collect();
    assert_eq!(kinds, ["t", "reply"].map(|kind| ("b".to_owned(), kind.to_owned())));
    let panics = Event::new("panics", "/s", "other")?;
    assert_eq!(world.send(&b, &panics).await, StatusCode::ACCEPTED);
    until("the panic is counted", || world.metric("broker_panics") == 1).await;
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_version_is_delivered_as_it_came_and_so_is_structured_mode() -> Runs {
    let (directory, sinks, b) = (tempfile::tempdir()?, Sinks::start().await, broker("b"));
    let world = World::start(directory.path(), with(Topology::default(), &b, vec![to(&sinks, "t")]));
    world.ready(&["t"]).await;
    let uri = Topology::default().address(&b).expect("an address");
    let mut old = headers(&BINARY);
    old.insert("ce-specversion", "0.3".parse()?);
    assert_eq!(world.post(&uri, old, Bytes::new()).await.status(), StatusCode::ACCEPTED);
    sinks.wait("t", 1).await;
    let of_json = headers(&[("content-type", STRUCTURED)]);
    assert_eq!(
        world.post(&uri, of_json, structured(r#","n":5,"data":{"a":1.0}"#)).await.status(),
        StatusCode::ACCEPTED
    );
    let seen = sinks.wait("t", 2).await;
    assert_eq!(text(&seen[0].event, "specversion").as_deref(), Some("0.3"));
    assert!(seen[1].headers["content-type"].to_str()?.starts_with(STRUCTURED));
    let read: &Event = &seen[1].event;
    assert_eq!(read.extension("n"), Some(&knoll_event::Value::Integer(5)));
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_nothing_is_acknowledged_and_deliveries_end_with_the_reason() -> Runs {
    let (disk, sinks, b) = (MemoryDisk::default(), Sinks::start().await, broker("b"));
    let (log, _thread, _) = Log::open(std::sync::Arc::new(disk.clone()), options())?;
    let topology = watch::Sender::new(Some(with(Topology::default(), &b, vec![to(&sinks, "t")])));
    let plane = DataPlane::new(log, topology.subscribe(), Config::default(), Hooks::default())?;
    let delivering = plane.clone();
    let delivering = tokio::spawn(async move { delivering.deliver(Box::pin(std::future::pending())).await });
    until("the subscription", || plane.status("t").is_some()).await;
    disk.fail_syncs();
    let post = async || {
        let mut request =
            Request::post(Topology::default().address(&b).expect("an address")).body(Full::<Bytes>::default())?;
        *request.headers_mut() = headers(&BINARY);
        Ok::<_, http::Error>(plane.ingress().answer(request).await.status())
    };
    assert_eq!([post().await?, post().await?], [StatusCode::SERVICE_UNAVAILABLE; 2]);
    // Deliveries notice when they next have something to say.
    topology.send_modify(|topology| {
        *topology = topology.take().map(|topology| with(topology, &b, vec![to(&sinks, "t"), to(&sinks, "new")]));
    });
    let ended = timeout(Duration::from_secs(20), delivering).await??;
    assert!(ended.is_err_and(|error| error.to_string().starts_with("the event log stopped")));
    assert_eq!(sinks.seen("t").len(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_and_asks_nothing_gives_the_place_back() -> Runs {
    let (directory, b) = (tempfile::tempdir()?, broker("b"));
    let wait = Duration::from_millis(300);
    let config = Config { header_read_timeout: wait, max_connections: 3, parts: 1, ..Config::default() };
    let topology = with(Topology::default(), &b, vec![]);
    let world = World::start_with(directory.path(), topology, options(), config, Hooks::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(serve(world.plane.ingress(), listener, Box::pin(std::future::pending())));
    // One says nothing, one the beginning of HTTP/2's first words, and one speaks HTTP/2 and answers when it is asked whether it
    // is there.
    let mut silent = [TcpStream::connect(address).await?, TcpStream::connect(address).await?];
    tokio::io::AsyncWriteExt::write_all(&mut silent[1], b"PRI * HT").await?;
    let stream = TokioIo::new(TcpStream::connect(address).await?);
    let (asks, idle) = hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
        .handshake::<_, Empty<Bytes>>(stream)
        .await?;
    let idle = tokio::spawn(idle);
    for stream in &mut silent {
        let mut nothing = [0; 64];
        let end = tokio::io::AsyncReadExt::read(stream, &mut nothing);
        assert!(timeout(Duration::from_secs(30), end).await?.map_or(true, |read| read == 0));
    }
    drop(timeout(Duration::from_secs(30), idle).await??);
    drop(asks);
    let mut asks = TcpStream::connect(address).await?;
    tokio::io::AsyncWriteExt::write_all(&mut asks, b"OPTIONS / HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let mut answer = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut asks, &mut answer).await?;
    assert_eq!(&answer, b"HTTP/1.1 200");
    serving.abort();
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_has_a_part_of_the_connections_requests_and_bytes() -> Runs {
    let (directory, b) = (tempfile::tempdir()?, broker("b"));
    let config = Config {
        max_event_bytes: 64 << 10,
        max_header_bytes: 8 << 10,
        max_bytes_in_flight: 128 << 10,
        max_delivery_bytes: 64 << 10,
        parts: 2,
        ..Config::default()
    };
    let topology = with(Topology::default(), &b, vec![]);
    let world = World::start_with(directory.path(), topology, options(), config, Hooks::default());
    let uri = Topology::default().address(&b).expect("an address");
    let post = async |length: usize| world.post(&uri, headers(&BINARY), vec![7; length]).await.status();
    assert_eq!(post(60 << 10).await, StatusCode::ACCEPTED);
    // One sends most of its body, and then nothing.
    let (stalls, body) = tokio::sync::mpsc::unbounded_channel();
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = asked.clone();
    let frames = futures_util::stream::unfold(body, move |mut body| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move { body.recv().await.map(|data: Bytes| (Ok::<_, std::io::Error>(http_body::Frame::data(data)), body)) }
    });
    let mut request = Request::post(uri.clone()).body(http_body_util::StreamBody::new(frames))?;
    *request.headers_mut() = headers(&BINARY);
    stalls.send(Bytes::from(vec![7; 60 << 10]))?;
    let ingress = world.plane.ingress();
    let stalled = tokio::spawn(async move { ingress.answer(request).await.status() });
    until("it waits for more", || asked.load(std::sync::atomic::Ordering::SeqCst) == 2).await;
    assert_eq!(post(10 << 10).await, StatusCode::SERVICE_UNAVAILABLE, "together they are more than a part");
    drop(stalls);
    assert_eq!(stalled.await?, StatusCode::ACCEPTED);
    assert_eq!(post(10 << 10).await, StatusCode::ACCEPTED);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_process_sends_for_one_namespace_takes_its_own_places() -> Runs {
    let (directory, sinks) = (tempfile::tempdir()?, Sinks::start().await);
    // No worker can make a cursor of this name: events for it wait.
    let never = Subscription { uid: "x".repeat(2000).into(), ..to(&sinks, "never") };
    let topology = with(Topology::default(), &broker("good"), vec![to(&sinks, "t")]);
    let topology = with(topology, &channel("evil"), vec![never]);
    let bounded = Config { max_requests: 16, ..Config::default() };
    let world = World::start_with(directory.path(), topology, options(), bounded, Hooks::default());
    world.ready(&["t"]).await;
    let (here, ingress) = watch::channel(Some(world.plane.ingress()));
    let sender = Sender::new(&Config::default(), Hooks::default()).beside(ingress);
    let send = |namespace: &str, to: &str| {
        let origin = Origin { namespace: namespace.into(), service_account: None };
        let (sender, to) = (sender.clone(), Destination::new(to.parse().expect("a URI")));
        let event = Event::new("1", "/s", "t").expect("an event");
        async move { sender.send(&to, &event, &origin, Duration::from_secs(60)).await }
    };
    let evil = "http://evil-kn-channel.ns.svc.cluster.local/";
    let waiting: Vec<_> = (0..4).map(|_| tokio::spawn(send("evil", evil))).collect();
    until("they wait", || world.metric("broker_requests") == 4).await;
    let refused = send("evil", evil).await.expect_err("its places are taken");
    let said = String::from_utf8_lossy(&refused.data);
    assert_eq!(
        (refused.cause, said.contains("as many requests")),
        (Cause::Status(StatusCode::SERVICE_UNAVAILABLE), true)
    );
    let good = "http://broker-ingress.knative-eventing.svc.cluster.local/ns/good";
    assert_eq!(send("good", good).await.map_err(|failure| failure.cause), Ok(StatusCode::ACCEPTED));
    sinks.wait("t", 1).await;
    let missing = "http://broker-ingress.knative-eventing.svc.cluster.local/ns/missing";
    let missing = send("good", missing).await.map_err(|failure| failure.cause);
    assert_eq!(missing, Err(Cause::Status(StatusCode::NOT_FOUND)));
    here.send_replace(None);
    for waiting in waiting {
        assert_eq!(waiting.await?.map_err(|failure| failure.cause), Err(Cause::Transport), "it ended");
    }
    world.kill().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_ends_with_what_it_was_handed_to() -> Runs {
    let (directory, sinks) = (tempfile::tempdir()?, Sinks::start().await);
    let never = Subscription { uid: "x".repeat(2000).into(), ..to(&sinks, "never") };
    let world = World::start(directory.path(), with(Topology::default(), &channel("c"), vec![never]));
    let (here, ingress) = watch::channel(Some(world.plane.ingress()));
    let sender = Sender::new(&Config::default(), Hooks::default()).beside(ingress);
    let origin = Origin { namespace: "ns".into(), service_account: None };
    let to = Destination::new("http://c-kn-channel.ns.svc.cluster.local/".parse()?);
    let event = Event::new("1", "/s", "t")?;
    let sent = async { sender.send(&to, &event, &origin, Duration::from_secs(60)).await };
    let ends = async {
        until("it waits", || world.metric("broker_requests") == 1).await;
        here.send_replace(None);
    };
    let (sent, ()) = tokio::join!(sent, ends);
    assert_eq!(sent.map_err(|failure| failure.cause), Err(Cause::Transport));
    world.kill().await;
    Ok(())
}
