//! Hard limits, and the line in front of them.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Response, StatusCode};
use knoll_api::table::Instance;
use knoll_proxy::Config;
use support::*;
use tokio::sync::Semaphore;

/// An instance that holds each request until it is given a ticket, and knows the most it ever held.
struct Holding {
    instance: Instance,
    tickets: Arc<Semaphore>,
    inside: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

async fn holding() -> Holding {
    let tickets = Arc::new(Semaphore::new(0));
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (shared, counted, greatest) = (tickets.clone(), inside.clone(), most.clone());
    let instance = instance(move |_| {
        let (tickets, inside, most) = (shared.clone(), counted.clone(), greatest.clone());
        async move {
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tickets.acquire().await.expect("open").forget();
            inside.fetch_sub(1, Ordering::SeqCst);
            Response::new(full("done"))
        }
    })
    .await;
    Holding { instance, tickets, inside, most }
}

fn spawn_get(world: &World) -> tokio::task::JoinHandle<Answer> {
    let external = world.external;
    tokio::spawn(async move { Client1::open(external).await.get("/").await })
}

#[tokio::test]
async fn no_instance_ever_holds_more_than_its_limit() {
    let (one, two) = (holding().await, holding().await);
    let instances = [one.instance.clone(), two.instance.clone()];
    let world = world(table(vec![Revision { limit: 2, ..revision("rev", &instances) }]));
    let all: Vec<_> = (0..40).map(|_| spawn_get(&world)).collect();
    until(|| one.inside.load(Ordering::SeqCst) + two.inside.load(Ordering::SeqCst) == 4).await;
    one.tickets.add_permits(40);
    two.tickets.add_permits(40);
    for answer in all {
        assert_eq!(soon(answer).await.expect("no panic").status, StatusCode::OK);
    }
    assert_eq!((one.most.load(Ordering::SeqCst), two.most.load(Ordering::SeqCst)), (2, 2));
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_place_back() {
    let held = holding().await;
    let world = world(table(vec![Revision { limit: 1, ..revision("rev", std::slice::from_ref(&held.instance)) }]));
    let first = spawn_get(&world);
    until(|| held.inside.load(Ordering::SeqCst) == 1).await;
    let second = spawn_get(&world);
    until(|| world.gateway.connections() == 2).await;
    first.abort();
    // The instance still works on what nobody waits for; the gateway's own count has ended.
    until(|| held.inside.load(Ordering::SeqCst) == 2).await;
    held.tickets.add_permits(2);
    assert_eq!(soon(second).await.expect("no panic").body, "done");
}

#[tokio::test]
async fn one_too_many_in_line_is_sent_away() {
    let held = holding().await;
    let config = Config { queue_depth: 1, ..config() };
    let limited = Revision { limit: 1, ..revision("rev", std::slice::from_ref(&held.instance)) };
    let world = world_with(config, table(vec![limited]));
    let all: Vec<_> = (0..3).map(|_| spawn_get(&world)).collect();
    // One runs, one waits, one is refused: whichever comes back first is the refused one.
    let (refused, _, others) = soon(futures_util::future::select_all(all)).await;
    let refused = refused.expect("no panic");
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.body, "pending request queue full");
    assert_eq!(refused.headers["retry-after"], "1");
    held.tickets.add_permits(2);
    for answer in others {
        assert_eq!(soon(answer).await.expect("no panic").status, StatusCode::OK);
    }
}

#[tokio::test]
async fn statistics_count_who_runs_and_who_waits() {
    let held = holding().await;
    let limited = Revision { limit: 1, ..revision("rev", std::slice::from_ref(&held.instance)) };
    let mut world = world(table(vec![limited]));
    let all: Vec<_> = (0..3).map(|_| spawn_get(&world)).collect();
    let mut arrived = 0.0;
    soon(async {
        loop {
            let report = world.feeds.stats.recv().await.expect("gateway lives");
            let [stat] = report.as_slice() else { panic!("one revision: {report:?}") };
            assert_eq!(stat.revision, key("rev"));
            arrived += stat.request_count;
            // Three in the system for the whole of a period.
            if arrived == 3.0 && (stat.average_concurrency - 3.0).abs() < 0.01 {
                return;
            }
        }
    })
    .await;
    held.tickets.add_permits(3);
    for answer in all {
        soon(answer).await.expect("no panic");
    }
    soon(async { while world.feeds.stats.recv().await.expect("gateway lives")[0].average_concurrency > 0.0 {} }).await;
}

/// A report costs what runs and what happened, however many revisions there are.
#[tokio::test]
async fn a_report_visits_who_has_an_instance_or_counted_something_and_nobody_else() {
    let name = |at| -> &'static str { format!("idle{at}").leak() };
    let mut all: Vec<Revision> = (0..10_000).map(|at| revision(name(at), &[])).collect();
    all.push(revision("rev", &[saying("hello").await]));
    let mut world = world(table(all));
    assert_eq!(number(&world.gateway, "gateway_endpoint_pools", None), 10_001.0);
    assert_eq!(number(&world.gateway, "gateway_endpoint_pools_populated", None), 1.0);
    for _ in 0..3 {
        let report = soon(world.feeds.stats.recv()).await.expect("gateway lives");
        assert_eq!(report.iter().map(|stat| &stat.revision).collect::<Vec<_>>(), [&key("rev")]);
    }
}

#[tokio::test]
async fn who_sends_events_is_told_how_many_requests_are_taken_at_a_time() {
    let instances = [saying("one").await, saying("two").await];
    let world = world(table(vec![Revision { limit: 3, ..revision("rev", &instances) }]));
    let capacity = async |address, name: &'static str| {
        let mut request = request("/");
        request.headers_mut().insert(name, http::HeaderValue::from_static("ns"));
        let answer = Answer::read(Client1::open(address).await.send(request).await).await;
        assert_eq!(answer.status, StatusCode::OK);
        answer.headers.get("knoll-capacity").map(|value| value.to_str().expect("text").to_owned())
    };
    assert_eq!(capacity(world.local, "kn-namespace").await.as_deref(), Some("6"));
    assert_eq!(capacity(world.local, "x-other").await, None, "nobody asked");
    assert_eq!(capacity(world.external, "kn-namespace").await, None, "strangers are not told");
    world.publish(table(vec![Revision { limit: 3, ..revision("rev", &instances[..1]) }])).await;
    assert_eq!(capacity(world.local, "kn-namespace").await.as_deref(), Some("3"));
    world.publish(table(vec![revision("rev", &instances)])).await;
    assert_eq!(capacity(world.local, "kn-namespace").await, None, "there is no limit");
}
