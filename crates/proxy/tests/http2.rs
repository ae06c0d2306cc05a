//! HTTP/2 with prior knowledge on either side, and gRPC.

mod support;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use knoll_api::table::{Instance, Protocol};
use knoll_proxy::Config;
use socket2::{Domain, Socket, Type};
use support::*;

fn h2(name: &'static str, instance: Instance) -> Revision {
    Revision { protocol: Protocol::H2c, ..revision(name, &[instance]) }
}

async fn versions() -> Instance {
    instance(|request| async move {
        let host = request.uri().host().map(str::to_owned);
        let host = host.or_else(|| Some(request.headers().get("host")?.to_str().ok()?.to_owned()));
        Response::new(full(format!("{:?} {}", request.version(), host.unwrap_or_default())))
    })
    .await
}

fn absolute(path: &str) -> Request<Body> {
    Request::builder().uri(format!("http://hello.test{path}")).body(empty()).expect("request")
}

#[tokio::test]
async fn either_version_reaches_either_instance() {
    for (protocol, wanted) in [(Protocol::Http1, "HTTP/1.1 hello.test"), (Protocol::H2c, "HTTP/2.0 hello.test")] {
        let world = world(table(vec![Revision { protocol, ..revision("rev", &[versions().await]) }]));
        assert_eq!(world.get().await.body, wanted);
        let mut client = http2(world.external).await;
        let answer = Answer::read(soon(client.send_request(absolute("/"))).await.expect("an answer")).await;
        assert_eq!(answer.body, wanted);
    }
}

#[tokio::test]
async fn many_streams_share_one_connection_to_the_instance() {
    let world = world(table(vec![h2("rev", versions().await)]));
    let client = http2(world.external).await;
    let all = (0..200).map(|_| {
        let mut client = client.clone();
        async move { Answer::read(soon(client.send_request(absolute("/"))).await.expect("an answer")).await.status }
    });
    let statuses = futures_util::future::join_all(all).await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK));
}

/// An address that takes no more connections and refuses none. Open for as long as what comes with it is kept.
fn silent() -> (SocketAddr, impl Sized) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("binds");
    socket.listen(0).expect("listens");
    let address = socket.local_addr().expect("bound").as_socket().expect("of IP");
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let waiting = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            waiting.set_nonblocking(true).expect("as asked");
            waiting.connect(&address.into()).ok();
            waiting
        })
        .collect();
    (address, (socket, waiting))
}

#[tokio::test]
async fn requests_that_wait_for_one_connection_hear_at_once_that_it_failed() {
    let (address, _open) = silent();
    let config = Config { connect_timeout: Duration::from_secs(1), connect_attempts: 1, ..config() };
    let world = world_with(config, table(vec![h2("rev", Instance { address, pod: "silent".into() })]));
    let client = http2(world.external).await;
    // One after another they would take four minutes.
    let all = (0..240).map(|_| {
        let mut client = client.clone();
        async move { Answer::read(client.send_request(absolute("/")).await.expect("an answer")).await.status }
    });
    let statuses = soon(futures_util::future::join_all(all)).await;
    assert!(statuses.iter().all(|status| status.is_server_error()), "{statuses:?}");
}

/// Echoes each message and ends with trailers, as gRPC does.
async fn grpc() -> Instance {
    instance(|request| async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let te = request.headers().get("te").cloned();
        let data = request.into_body().into_data_stream();
        let echoed = futures_util::StreamExt::map(data, |data| Ok(http_body::Frame::data(data.unwrap_or_default())));
        let last = futures_util::stream::iter([Ok(http_body::Frame::trailers(trailers))]);
        let body = frames(futures_util::StreamExt::chain(echoed, last));
        let te = te.unwrap_or(HeaderValue::from_static("none"));
        Response::builder()
            .header("content-type", "application/grpc")
            .header("seen-te", te)
            .body(body)
            .expect("response")
    })
    .await
}

#[tokio::test]
async fn grpc_streams_both_ways_and_ends_with_trailers() {
    let world = world(table(vec![h2("rev", grpc().await)]));
    let mut client = http2(world.external).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let messages = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let message = receiver.recv().await?;
        Some((Ok(http_body::Frame::data(message)), receiver))
    });
    let call = Request::builder()
        .method("POST")
        .uri("http://hello.test/ping.Ping/Stream")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(frames(messages))
        .expect("request");
    let response = soon(client.send_request(call)).await.expect("an answer");
    assert_eq!(response.headers()["seen-te"], "trailers");
    let mut body = response.into_body();
    for text in ["one", "two", "three"] {
        sender.send(Bytes::from_static(text.as_bytes())).await.expect("gateway listens");
        let frame = soon(body.frame()).await.expect("not the end").expect("whole");
        assert_eq!(frame.into_data().expect("data"), text);
    }
    drop(sender);
    let trailers = soon(body.frame()).await.expect("not the end").expect("whole").into_trailers().expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn trailers_pass_from_http1_as_well() {
    let chunked = raw_instance(|mut stream| async move {
        use tokio::io::AsyncWriteExt;
        while read_head(&mut stream).await.is_some() {
            let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.expect("gateway listens");
        }
    })
    .await;
    let world = world(table(vec![revision("rev", &[chunked])]));
    let mut asked = request("/");
    asked.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    let answer = Answer::read(world.http1().await.send(asked).await).await;
    assert_eq!(answer.body, "abc");
    assert_eq!(answer.trailers.expect("trailers")["x-sum"], "6");
}
