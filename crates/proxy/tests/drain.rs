//! Ending without cutting anyone off.

mod support;

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use knoll_api::table::Instance;
use knoll_proxy::{Drained, Visibility};
use support::*;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// An instance that answers one request a ticket, after saying that it has it.
async fn held() -> (Instance, Arc<Semaphore>, Arc<Semaphore>) {
    let (tickets, taken) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (ticket, take) = (tickets.clone(), taken.clone());
    let instance = instance(move |_| {
        let (tickets, taken) = (ticket.clone(), take.clone());
        async move {
            taken.add_permits(1);
            tickets.acquire().await.expect("open").forget();
            Response::new(full("done"))
        }
    })
    .await;
    (instance, tickets, taken)
}

#[tokio::test]
async fn a_shutdown_waits_for_requests_in_flight() {
    let (instance, tickets, taken) = held().await;
    let world = world(table(vec![revision("rev", &[instance])]));
    let external = world.external;
    let idle = world.http1().await;
    let request = tokio::spawn(async move { Client1::open(external).await.get("/").await });
    soon(taken.acquire()).await.expect("open").forget();
    let gateway = world.gateway;
    let ended = tokio::spawn(gateway.shutdown(PATIENCE));
    // New clients are refused while the old one is still served.
    soon(async { while TcpStream::connect(external).await.is_ok() {} }).await;
    assert!(!ended.is_finished());
    tickets.add_permits(1);
    let answer = soon(request).await.expect("no panic");
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "done"));
    assert_eq!(soon(ended).await.expect("no panic"), Drained::Clean);
    until(|| idle.0.is_closed()).await;
}

#[tokio::test]
async fn grace_ends() {
    let (instance, _tickets, taken) = held().await;
    let world = world(table(vec![revision("rev", &[instance])]));
    let external = world.external;
    let mut client = Client1::open(external).await;
    let request = tokio::spawn(async move { client.0.send_request(request("/")).await });
    soon(taken.acquire()).await.expect("open").forget();
    assert_eq!(soon(world.gateway.shutdown(Duration::from_millis(50))).await, Drained::Cut(1));
    soon(request).await.expect("no panic").expect_err("cut off");
}

#[tokio::test]
async fn an_instance_that_leaves_finishes_its_requests() {
    let (leaving, tickets, taken) = held().await;
    let world = world(table(vec![revision("rev", &[leaving])]));
    let external = world.external;
    let first = tokio::spawn(async move { Client1::open(external).await.get("/").await });
    soon(taken.acquire()).await.expect("open").forget();
    world.publish(table(vec![revision("rev", &[saying("next").await])])).await;
    assert_eq!(world.get().await.body, "next");
    tickets.add_permits(1);
    assert_eq!(soon(first).await.expect("no panic").body, "done");
}

#[tokio::test]
async fn an_instance_announced_as_gone_gets_nothing_more() {
    let instances = [saying("stays").await, saying("goes").await];
    let world = world(table(vec![revision("rev", &instances)]));
    world.gateway.instance_down(&key("rev"), &instances[1]);
    let mut client = world.http1().await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.body, "stays");
    }
}

#[tokio::test]
async fn a_dropped_gateway_frees_its_port() {
    let world = world(table(vec![revision("rev", &[saying("hello").await])]));
    assert_eq!(world.get().await.body, "hello");
    let external = world.external;
    drop(world);
    soon(async { while TcpStream::connect(external).await.is_ok() {} }).await;
}

#[tokio::test]
async fn an_instance_said_to_be_down_is_drained_once_its_requests_are_answered() {
    let (leaving, tickets, taken) = held().await;
    let world = world(table(vec![revision("rev", std::slice::from_ref(&leaving))]));
    let external = world.external;
    let request = tokio::spawn(async move { Client1::open(external).await.get("/").await });
    soon(taken.acquire()).await.expect("open").forget();
    let hints = world.gateway.hints();
    hints.instance_down(&key("rev"), &leaving);
    let drained = tokio::spawn({
        let (hints, leaving) = (hints.clone(), leaving.clone());
        async move { hints.drained(&key("rev"), &leaving).await }
    });
    // As long as the request is held, so is the end.
    tokio::task::yield_now().await;
    assert!(!drained.is_finished());
    tickets.add_permits(1);
    assert_eq!(soon(request).await.expect("no panic").body, "done");
    soon(drained).await.expect("no panic");
    soon(hints.drained(&key("rev"), &saying("idle").await)).await;
}

#[tokio::test]
async fn an_idle_connection_gets_its_last_request_answered_while_the_gateway_drains() {
    let (instance, tickets, taken) = held().await;
    let world = world(table(vec![revision("rev", &[instance])]));
    let external = world.external;
    let mut idle = world.http1().await;
    tickets.add_permits(1);
    assert_eq!(idle.get("/").await.body, "done");
    taken.acquire().await.expect("open").forget();
    // A request in flight keeps the gateway from ending at once; a client that was let in has said nothing yet.
    let silent = Client1::open(external).await;
    let busy = tokio::spawn(async move { Client1::open(external).await.get("/").await });
    soon(taken.acquire()).await.expect("open").forget();
    let ended = tokio::spawn(world.gateway.shutdown(PATIENCE));
    soon(async { while TcpStream::connect(external).await.is_ok() {} }).await;
    tickets.add_permits(3);
    for mut client in [idle, silent] {
        let answer = client.get("/").await;
        assert_eq!((answer.body.as_str(), &answer.headers["connection"]), ("done", &"close".parse().expect("value")));
    }
    assert_eq!(soon(busy).await.expect("no panic").body, "done");
    assert_eq!(soon(ended).await.expect("no panic"), Drained::Clean);
}

#[tokio::test]
async fn whoever_shares_the_socket_takes_over_its_backlog() {
    let (instance, tickets, taken) = held().await;
    let routes = || table(vec![revision("rev", std::slice::from_ref(&instance))]);
    let first = begin(config(), Some(routes()));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let (address, successors) = (listener.local_addr().expect("address"), listener.try_clone().expect("a descriptor"));
    first.gateway.serve(listener, Visibility::External).expect("gateway listens");
    let busy = tokio::spawn(async move { Client1::open(address).await.get("/").await });
    soon(taken.acquire()).await.expect("open").forget();
    let other_door = first.external;
    let ended = tokio::spawn(first.gateway.shutdown(PATIENCE));
    // The sockets nobody shares close when the gateway has stopped accepting.
    soon(async { while TcpStream::connect(other_door).await.is_ok() {} }).await;
    let between: Vec<_> =
        (0..20).map(|_| tokio::spawn(async move { Client1::open(address).await.get("/").await })).collect();
    let second = begin(config(), Some(routes()));
    second.gateway.serve(successors, Visibility::External).expect("gateway listens");
    tickets.add_permits(21);
    for answer in between.into_iter().chain([busy]) {
        assert_eq!(soon(answer).await.expect("no panic").body, "done");
    }
    assert_eq!(soon(ended).await.expect("no panic"), Drained::Clean);
}

#[tokio::test]
async fn a_deleted_revision_is_drained_once_its_requests_are_answered() {
    let (leaving, tickets, taken) = held().await;
    let world = world(table(vec![revision("rev", std::slice::from_ref(&leaving))]));
    let external = world.external;
    let request = tokio::spawn(async move { Client1::open(external).await.get("/").await });
    soon(taken.acquire()).await.expect("open").forget();
    world.publish(table(vec![])).await;
    let (hints, rev) = (world.gateway.hints(), key("rev"));
    let drained = hints.drained(&rev, &leaving);
    tokio::pin!(drained);
    // Longer than an idle instance takes to be found so.
    let early = tokio::time::timeout(Duration::from_millis(100), &mut drained).await;
    assert!(early.is_err(), "a request is in flight");
    tickets.add_permits(1);
    assert_eq!(soon(request).await.expect("no panic").body, "done");
    soon(drained).await;
}

#[tokio::test]
async fn an_operator_sees_who_serves_and_who_waits() {
    let (busy, tickets, taken) = held().await;
    let revisions = vec![Revision { limit: 1, ..revision("rev", std::slice::from_ref(&busy)) }, revision("idle", &[])];
    let world = world(table(revisions));
    let external = world.external;
    let ask = || tokio::spawn(async move { Client1::open(external).await.get("/").await });
    let first = ask();
    soon(taken.acquire()).await.expect("open").forget();
    let second = ask();
    let hints = world.gateway.hints();
    until(|| hints.endpoint_pools().first().is_some_and(|pool| pool.waiting == 1)).await;
    let pools = hints.endpoint_pools();
    let [pool] = &pools[..] else { panic!("one pool has something to show") };
    assert_eq!((&pool.key, pool.limit, pool.called), (&key("rev"), 1, false));
    let [endpoint] = &pool.endpoints[..] else { panic!("one endpoint") };
    assert_eq!((&endpoint.instance, endpoint.in_flight, endpoint.suspect), (&busy, 1, false));
    tickets.add_permits(2);
    for answer in [first, second] {
        assert_eq!(soon(answer).await.expect("no panic").body, "done");
    }
}
