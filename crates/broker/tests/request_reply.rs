//! Requests over HTTP that are answered by events.

mod world;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use knoll_broker::{
    Config, Hooks, Topology,
    delivery::Destination,
    topology::{RequestReply, Subscriber, Subscription},
};
use knoll_event::{
    Event,
    cesql::Expression,
    filter::Filter,
    mode::{self, Format},
};
use tokio::time::Instant;
use world::*;

type Runs = Result<(), Box<dyn std::error::Error>>;

fn request_reply(name: &str, milliseconds: u64) -> RequestReply {
    RequestReply {
        namespace: "ns".into(),
        name: name.into(),
        uid: format!("uid-{name}").into(),
        broker: broker("b"),
        correlation_attribute: "correlationid".into(),
        reply_attribute: "replyid".into(),
        timeout: Duration::from_millis(milliseconds),
    }
}

/// The Trigger that brings answers to a RequestReply.
fn answers(of: &RequestReply) -> Subscription {
    let expression = Expression::parse(&format!("EXISTS {}", of.reply_attribute)).expect("an expression");
    let subscriber = Subscriber::At(Destination::new(replies(&of.name)));
    Subscription { filter: Filter::cesql(expression), ..Subscription::new("ns", &of.name, &of.uid, subscriber) }
}

/// A broker with these subscriptions and those of these RequestReplies.
fn topology(subscriptions: Vec<Subscription>, of: Vec<RequestReply>) -> Topology {
    let topology = Topology::default();
    let theirs = of.iter().map(answers);
    let all = subscriptions.into_iter().chain(theirs).collect();
    of.into_iter().fold(with(topology, &broker("b"), all), Topology::with_request_reply)
}

fn address(name: &str) -> Uri {
    format!("http://request-reply.knative-eventing.svc.cluster.local/ns/{name}").parse().expect("a URI")
}

fn replies(name: &str) -> Uri {
    format!("{}/reply", address(name)).parse().expect("a URI")
}

/// A request, or an answer to it.
fn event(id: &str, kind: &str, answers: Option<&str>) -> Event {
    let mut event = Event::new(id, "/caller", kind).expect("an event");
    if let Some(correlation) = answers {
        event.set("replyid", correlation).expect("an extension");
    }
    event
}

async fn post(world: &World, uri: &Uri, event: &Event) -> (StatusCode, HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    let body = mode::write(event, Format::Binary, &mut headers);
    let (head, body) = world.post(uri, headers, body).await.into_parts();
    (head.status, head.headers, body.collect().await.expect("it is whole").to_bytes())
}

/// A subscriber of requests that answers each by its id.
fn service(sinks: &Sinks) -> Subscription {
    sinks.on("service", |seen, _| {
        let correlation = text(&seen.event, "correlationid").unwrap_or_default();
        let lines = [
            ("ce-specversion", "1.0".to_owned()),
            ("ce-id", format!("answer-{}", seen.event.id())),
            ("ce-source", "/service".into()),
            ("ce-type", "answer".into()),
            ("ce-replyid", correlation),
            ("content-type", "text/plain".into()),
        ];
        Act::Say(200, lines.into(), seen.event.id().as_bytes().to_vec())
    });
    Subscription { filter: Filter::exact([("type", "request")]), ..to(sinks, "service") }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_gets_the_event_that_answers_it_though_ids_are_the_same() -> Runs {
    let (directory, sinks) = (tempfile::tempdir()?, Sinks::start().await);
    let both = vec![request_reply("one", 30_000), request_reply("other", 30_000)];
    let world = World::start(directory.path(), topology(vec![service(&sinks)], both));
    world.ready(&["service", "uid-one", "uid-other"]).await;
    let (one, other) = (address("one"), address("other"));
    let ask = async |uri: &Uri, id: &str| {
        let (status, headers, body) = post(&world, uri, &event(id, "request", None)).await;
        assert_eq!(status, StatusCode::OK, "{id}");
        let answer = mode::read(&headers, body).expect("an event");
        assert_eq!((answer.id(), answer.kind()), (&*format!("answer-{id}"), "answer"));
        assert_eq!(answer.data().map(|data| data.bytes().to_vec()), Some(id.as_bytes().to_vec()));
        assert_eq!(text(&answer, "knativebrokerttl"), None);
        text(&answer, "replyid").expect("it says what it answers")
    };
    let ids = ["1", "1", "a:b:c", "z"];
    let asked = ids.iter().flat_map(|id| [ask(&one, id), ask(&other, id)]);
    let mut correlations = futures_util::future::join_all(asked).await;
    assert!(correlations[0].starts_with("1:") && correlations[0].ends_with(":0"), "{correlations:?}");
    correlations.sort();
    correlations.dedup();
    assert_eq!(correlations.len(), 8);
    assert_eq!(world.metric("broker_requests_answered"), 8);
    assert_eq!(world.metric("broker_requests_waiting"), 0);
    until("answers are taken", || {
        ["uid-one", "uid-other"].iter().all(|uid| world.plane.status(uid).is_some_and(|status| status.lag == 0))
    })
    .await;
    // The answers of one are none of the other's, and no dead letters.
    assert_eq!(world.plane.dead_letter_count(&broker("b")), 0);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_in_time_there_is_none_and_a_late_one_is_taken_and_dropped() -> Runs {
    let (directory, sinks) = (tempfile::tempdir()?, Sinks::start().await);
    let world = World::start(directory.path(), topology(vec![to(&sinks, "t")], vec![request_reply("rr", 200)]));
    world.ready(&["t", "uid-rr"]).await;
    let begun = Instant::now();
    let (status, headers, body) = post(&world, &address("rr"), &event("1", "request", None)).await;
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert_eq!((status, body.is_empty(), headers.get("ce-id")), (StatusCode::OK, true, None));
    let correlation = text(&sinks.wait("t", 1).await[0].event, "correlationid").expect("it is marked");
    let late = event("2", "answer", Some(&correlation));
    assert_eq!(post(&world, &replies("rr"), &late).await.0, StatusCode::ACCEPTED);
    assert_eq!(world.metric("broker_requests_unanswered"), 1);
    assert_eq!(world.metric("broker_answers_late"), 1);
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_over_http_is_taken_once_and_a_forged_one_never() -> Runs {
    let (directory, sinks) = (tempfile::tempdir()?, Sinks::start().await);
    let both = vec![request_reply("rr", 30_000), request_reply("other", 30_000)];
    let world = World::start(directory.path(), topology(vec![to(&sinks, "t")], both));
    world.ready(&["t"]).await;
    let (uri, request) = (address("rr"), event("1", "request", None));
    let asking = post(&world, &uri, &request);
    let answering = async {
        let correlation = text(&sinks.wait("t", 1).await[0].event, "correlationid").expect("it is marked");
        let answers = |uri: Uri, id: &'static str, correlation: &str| {
            let event = event(id, "answer", (!correlation.is_empty()).then_some(correlation));
            let world = &world;
            async move { post(world, &uri, &event).await }
        };
        let changed = correlation.replacen("1:", "2:", 1);
        for (uri, correlation, says) in [
            (replies("rr"), "", "has the correlation id of its request as replyid"),
            (replies("rr"), "1:AAAA:0", "is no correlation id of this"),
            (replies("rr"), &*changed, "is no correlation id of this"),
            (replies("other"), &*correlation, "is no correlation id of this"),
        ] {
            let (status, _, body) = answers(uri, "forged", correlation).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{correlation}");
            assert!(String::from_utf8_lossy(&body).contains(says), "{body:?}");
        }
        assert_eq!(answers(replies("rr"), "first", &correlation).await.0, StatusCode::ACCEPTED);
        assert_eq!(answers(replies("rr"), "second", &correlation).await.0, StatusCode::ACCEPTED);
    };
    let ((status, headers, _), ()) = tokio::join!(asking, answering);
    assert_eq!((status, headers["ce-id"].to_str()?), (StatusCode::OK, "first"));
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_has_upstreams_answer() -> Runs {
    let directory = tempfile::tempdir()?;
    let nowhere = RequestReply { broker: broker("gone"), ..request_reply("nowhere", 100) };
    let world =
        World::start(directory.path(), topology(vec![], vec![request_reply("rr", 100)]).with_request_reply(nowhere));
    world.ready(&["uid-rr"]).await;
    let host = "http://request-reply.knative-eventing.svc.cluster.local";
    let mut good = HeaderMap::new();
    mode::write(&event("1", "request", None), Format::Binary, &mut good);
    let batch: HeaderMap =
        [(http::header::CONTENT_TYPE, "application/cloudevents-batch+json".parse()?)].into_iter().collect();
    let cases = [
        (Method::GET, "/ns/rr", &good, "", 405),
        (Method::OPTIONS, "/ns/rr", &good, "", 200),
        (Method::POST, "/", &good, "", 404),
        (Method::POST, "/ns", &good, "", 400),
        (Method::POST, "/ns/rr/reply/x", &good, "", 400),
        (Method::POST, "/ns/none", &good, "", 404),
        (Method::POST, "/ns/none", &HeaderMap::new(), "", 400),
        (Method::POST, "/ns/none/reply", &good, "", 404),
        (Method::POST, "/ns/rr", &batch, "[]", 400),
        (Method::POST, "/ns/nowhere", &good, "", 500),
        (Method::POST, "/ns/rr", &good, "", 200),
    ];
    for (method, path, headers, body, status) in cases {
        let mut request = Request::builder().method(&method).uri(format!("{host}{path}")).body(Full::from(body))?;
        *request.headers_mut() = headers.clone();
        let answer = world.plane.ingress().answer(request).await;
        assert_eq!(answer.headers()["allow"], "POST, OPTIONS", "{method} {path}");
        assert_eq!(answer.status().as_u16(), status, "{method} {path}");
    }
    world.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_are_bounded_take_nobodys_place_and_end_with_their_connections() -> Runs {
    let (directory, sinks) = (tempfile::tempdir()?, Sinks::start().await);
    let config = Config { max_waiting: 2, max_requests: 2, parts: 1, ..Config::default() };
    let topology = topology(vec![to(&sinks, "t")], vec![request_reply("rr", 30_000)]);
    let world = World::start_with(directory.path(), topology, options(), config, Hooks::default());
    world.ready(&["t"]).await;
    let (uri, request) = (address("rr"), event("1", "request", None));
    let mut two = Box::pin(async { tokio::join!(post(&world, &uri, &request), post(&world, &uri, &request)) });
    let wait = until("both wait", || world.metric("broker_requests_waiting") == 2);
    tokio::select! { () = wait => (), _ = &mut two => panic!("nobody answered") }
    let (status, headers, _) = post(&world, &uri, &request).await;
    assert_eq!((status, headers.contains_key("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, true));
    // Once they are taken, which they are a moment after they wait.
    let other = event("2", "t", None);
    let taken = async {
        while world.send(&broker("b"), &other).await != StatusCode::ACCEPTED {
            // A refusal waits for nothing, and those that wait have to get their turn.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        taken = tokio::time::timeout(Duration::from_secs(20), taken) => taken.expect("who waits takes nobody's place"),
        _ = &mut two => panic!("nobody answered"),
    }
    drop(two);
    assert_eq!(world.metric("broker_requests_waiting"), 0);
    world.finish().await;
    Ok(())
}

/// Bytes of an answer: more than sockets hold.
const LARGE: usize = 15 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_its_client_does_not_read_holds_room_and_is_given_up() -> Runs {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (directory, sinks) = (tempfile::tempdir()?, Sinks::start().await);
    let config = Config {
        max_bytes_in_flight: 20 << 20,
        parts: 1,
        body_read_timeout: Duration::from_secs(5),
        ..Config::default()
    };
    let topology = topology(vec![to(&sinks, "t")], vec![request_reply("rr", 60_000)]);
    let topology = with(topology, &broker("other"), vec![]);
    let world = World::start_with(directory.path(), topology, options(), config, Hooks::default());
    world.ready(&["t"]).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let mut stream = tokio::net::TcpStream::connect(listener.local_addr()?).await?;
    let serving = tokio::spawn(knoll_broker::serve(world.plane.ingress(), listener, Box::pin(std::future::pending())));
    let uri = address("rr");
    let (path, host) = (uri.path(), uri.host().unwrap_or_default());
    let head = "ce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: request\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(format!("POST {path} HTTP/1.1\r\nhost: {host}\r\n{head}").as_bytes()).await?;
    let asked = sinks.wait("t", 1).await.remove(0);
    let mut answer = event("2", "answer", text(&asked.event, "correlationid").as_deref());
    answer.set_data("application/octet-stream", vec![7; LARGE])?;
    assert_eq!(post(&world, &replies("rr"), &answer).await.0, StatusCode::ACCEPTED);
    until("the answer is found", || world.metric("broker_requests_answered") == 1).await;
    let mut large = event("3", "t", None);
    large.set_data("application/octet-stream", vec![7; 6 << 20])?;
    let status = async || world.send(&broker("other"), &large).await;
    let end = Instant::now() + Duration::from_secs(30);
    while status().await != StatusCode::SERVICE_UNAVAILABLE {
        assert!(Instant::now() < end, "the answer holds no room");
        // What is posted holds room as well.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    while status().await != StatusCode::ACCEPTED {
        assert!(Instant::now() < end, "the answer is not given up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut read = Vec::new();
    let ended = stream.read_to_end(&mut read).await;
    assert!(read.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&read[..read.len().min(300)]));
    assert!(ended.is_err() || read.len() < LARGE, "{}", read.len());
    serving.abort();
    world.finish().await;
    Ok(())
}
