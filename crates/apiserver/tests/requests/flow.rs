//! What one client can have of a server on real connections, what it is told beyond that, and what floods of HTTP/2 get.

use std::{
    net::{self, SocketAddr},
    os::fd::AsFd as _,
    time::Duration,
};

use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use knoll_apiserver::{Body, UserInfo, body};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::client::TlsStream;

use crate::{
    frames::{self, begin, frame, more_headers, taken_back},
    support::{Harness, config_map, dial, listen},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server on a socket, and a group whose members may do everything.
async fn served() -> (Harness, SocketAddr) {
    let h = Harness::new().await;
    let binding = json!({"metadata": {"name": "ops"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "Group", "name": "ops"}]});
    h.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.expect(201);
    let address = listen(&h).await;
    (h, address)
}

async fn connected(h: &Harness, address: SocketAddr, user: &str) -> TlsStream<TcpStream> {
    let certificate = h.pki.client(user, "ops", Timestamp::now()).unwrap();
    dial(h, address, Some(&certificate)).await.unwrap()
}

/// A user's connection that takes so many bytes of each answer before it reads.
async fn client(h: &Harness, address: SocketAddr, user: &str, window: u32) -> SendRequest<Body> {
    connection(h, address, user, window).await.0
}

/// The same, and its socket, to hang up with: hyper itself waits for bodies that never end.
async fn connection(h: &Harness, address: SocketAddr, user: &str, window: u32) -> (SendRequest<Body>, net::TcpStream) {
    let stream = connected(h, address, user).await;
    let socket = stream.get_ref().0.as_fd().try_clone_to_owned().unwrap();
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window).initial_connection_window_size(16 << 20);
    let (requests, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    (requests, socket.into())
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("in time")
}

async fn send(client: &SendRequest<Body>, method: &str, path: &str, body: Body) -> Response<Incoming> {
    let request = Request::builder().method(method).uri(format!("https://api{path}"));
    let request = request.header("content-type", "application/json").body(body).unwrap();
    let mut client = client.clone();
    soon(async {
        client.ready().await.unwrap();
        client.send_request(request).await.unwrap()
    })
    .await
}

async fn code(client: &SendRequest<Body>, method: &str, path: &str, body: &Value) -> StatusCode {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let response = send(client, method, path, body::full(text)).await;
    let code = response.status();
    soon(response.into_body().collect()).await.unwrap();
    code
}

/// Sends until the answer is refused for there being too many, and returns it.
async fn until_refused(client: &SendRequest<Body>, method: &str, path: &str) -> Response<Incoming> {
    soon(async {
        loop {
            let refused = send(client, method, path, body::empty()).await;
            if refused.status() == StatusCode::TOO_MANY_REQUESTS {
                return refused;
            }
        }
    })
    .await
}

async fn until_accepted(client: &SendRequest<Body>, method: &str, path: &str, body: &Value) -> StatusCode {
    soon(async {
        loop {
            let code = code(client, method, path, body).await;
            if code != StatusCode::TOO_MANY_REQUESTS {
                return code;
            }
        }
    })
    .await
}

/// Checks what the refusal of one request too many says.
async fn says_come_again(refused: Response<Incoming>) {
    assert_eq!(refused.headers()["retry-after"], "1");
    let body = soon(refused.into_body().collect()).await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&status["reason"], &status["code"]), (&json!("TooManyRequests"), &json!(429)));
    assert_eq!(status["details"]["retryAfterSeconds"], 1);
}

#[tokio::test]
async fn a_client_with_its_share_of_writes_in_flight_is_told_when_to_come_again() {
    let (h, address) = served().await;
    let (jane, connection) = connection(&h, address, "jane", 1 << 20).await;
    // Bodies that never end: each write waits for its own.
    for _ in 0..50 {
        let endless = Request::post(format!("https://api{MAPS}")).body(body::stream(stream::pending())).unwrap();
        tokio::spawn(jane.clone().send_request(endless));
    }
    says_come_again(until_refused(&jane, "POST", MAPS).await).await;
    assert!(h.server.counters().throttled.get() > 0);
    // What reads is counted apart, and so are others; of the same client other connections are not.
    assert_eq!(code(&jane, "GET", MAPS, &Value::Null).await, 200);
    let joe = client(&h, address, "joe", 1 << 20).await;
    assert_eq!(code(&joe, "POST", MAPS, &config_map("joes", json!({}))).await, 201);
    let again = client(&h, address, "jane", 1 << 20).await;
    assert_eq!(code(&again, "POST", MAPS, &config_map("a", json!({}))).await, 429);
    // Who hangs up gives its places back.
    connection.shutdown(net::Shutdown::Both).unwrap();
    assert_eq!(until_accepted(&again, "POST", MAPS, &config_map("a", json!({}))).await, 201);
}

#[tokio::test]
async fn a_client_that_reads_none_of_its_lists_holds_its_share_and_no_more() {
    let (h, address) = served().await;
    h.post(MAPS, config_map("large", json!({"k": "x".repeat(200_000)}))).await.expect(201);
    let jane = client(&h, address, "jane", 1).await;
    let mut held = Vec::new();
    while held.len() < 100 {
        let list = send(&jane, "GET", MAPS, body::empty()).await;
        assert_eq!(list.status(), 200, "list {}", held.len());
        held.push(list);
    }
    let refused = send(&jane, "GET", MAPS, body::empty()).await;
    assert_eq!(
        (refused.status(), &refused.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap())
    );
    let joe = client(&h, address, "joe", 1 << 20).await;
    assert_eq!(code(&joe, "GET", MAPS, &Value::Null).await, 200);
    drop(held);
    let again = client(&h, address, "jane", 1 << 20).await;
    assert_eq!(until_accepted(&again, "GET", MAPS, &Value::Null).await, 200);
}

#[tokio::test]
async fn a_client_has_its_share_of_watches_over_all_its_connections() {
    let (h, address) = served().await;
    let watch = format!("{MAPS}?watch=true");
    let connections = [client(&h, address, "jane", 1 << 16).await, client(&h, address, "jane", 1 << 16).await];
    let mut held = Vec::new();
    for at in 0..1024 {
        let answer = send(&connections[at % 2], "GET", &watch, body::empty()).await;
        assert_eq!(answer.status(), 200, "watch {at}");
        held.push(answer);
    }
    let refused = send(&connections[0], "GET", &watch, body::empty()).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    says_come_again(refused).await;
    let joe = client(&h, address, "joe", 1 << 16).await;
    let mut others = send(&joe, "GET", &watch, body::empty()).await;
    assert_eq!(others.status(), 200);
    // All of them are served.
    assert_eq!(code(&joe, "POST", MAPS, &config_map("news", json!({}))).await, 201);
    let mut last = held.pop().unwrap();
    for watch in [&mut last, &mut others] {
        let event = soon(watch.body_mut().frame()).await.unwrap().unwrap().into_data().unwrap();
        assert!(event.starts_with(b"{\"type\":\"ADDED\""), "{event:?}");
    }
    drop(held);
    assert_eq!(until_watching(&connections[1], &watch).await, 200);
}

#[tokio::test]
async fn what_is_done_inside_the_process_for_a_namespace_has_that_ones_share() {
    let h = Harness::new().await;
    let binding = json!({"metadata": {"name": "accounts"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "Group", "name": "system:serviceaccounts"}]});
    h.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.expect(201);
    let client = |namespace, name| h.server.bounded_client(UserInfo::service_account(namespace, name));
    let watch = async |client: &knoll_client::Client| {
        let request = Request::get(format!("{MAPS}?watch=true")).body(knoll_client::whole("")).unwrap();
        client.send(request).await.unwrap()
    };
    let (one, another, other) = (client("a", "one"), client("a", "another"), client("b", "one"));
    let mut held = Vec::new();
    for at in 0..1024 {
        let answer = watch(if at % 2 == 0 { &one } else { &another }).await;
        assert_eq!(answer.status(), 200, "watch {at}");
        held.push(answer);
    }
    assert_eq!(watch(&one).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(h.server.counters().throttled.get() > 0);
    assert_eq!(watch(&other).await.status(), 200);
    held.pop();
    assert_eq!(watch(&one).await.status(), 200, "it is given back");
}

async fn until_watching(client: &SendRequest<Body>, watch: &str) -> StatusCode {
    soon(async {
        loop {
            let answer = send(client, "GET", watch, body::empty()).await;
            if answer.status() != StatusCode::TOO_MANY_REQUESTS {
                return answer.status();
            }
        }
    })
    .await
}

/// A connection from an address of the loopback, `127.0.0.<last>`.
async fn from_loopback(last: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
    soon(socket.connect(to)).await.unwrap()
}

#[tokio::test]
async fn all_addresses_of_the_loopback_are_one_client() {
    let (h, address) = served().await;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let mut held = Vec::new();
    for at in 0..1024_u16 {
        held.push(from_loopback(2 + (at % 200) as u8, address).await);
    }
    let mut more = from_loopback(250, address).await;
    // Hung up on at once, and not because it did not begin to shake hands.
    assert!(!matches!(soon(more.read(&mut [0])).await, Ok(1..)));
    assert_eq!(h.server.counters().connections_refused.get(), 1);
    drop(held);
}

/// `GET https://api/version`.
fn head() -> Vec<u8> {
    frames::head("https", "api", "/version")
}

type Halves = (ReadHalf<TlsStream<TcpStream>>, WriteHalf<TlsStream<TcpStream>>);

/// An HTTP/2 connection past its preface, for frames as they are written.
async fn bare(h: &Harness, address: SocketAddr) -> Halves {
    let (read, mut write) = split(connected(h, address, "mallory").await);
    begin(&mut write).await;
    (read, write)
}

/// Sends `attack` again and again until the server hangs up.
async fn until_hung_up((read, write): Halves, attack: impl FnMut(u32) -> Vec<u8>) {
    soon(frames::until_hung_up(read, write, attack)).await;
}

async fn others_are_served(h: &Harness, address: SocketAddr) {
    let joe = client(h, address, "joe", 1 << 16).await;
    assert_eq!(code(&joe, "GET", "/version", &Value::Null).await, 200);
}

#[tokio::test]
async fn a_flood_of_requests_taken_back_costs_its_connection() {
    let (h, address) = served().await;
    until_hung_up(bare(&h, address).await, |round| taken_back(round, &head())).await;
    others_are_served(&h, address).await;
}

#[tokio::test]
async fn a_head_that_never_ends_costs_its_connection() {
    let (h, address) = served().await;
    let (read, mut write) = bare(&h, address).await;
    write.write_all(&frame(1, 0x1, 1, &head())).await.unwrap();
    until_hung_up((read, write), |_| more_headers().repeat(100)).await;
    others_are_served(&h, address).await;
}

#[tokio::test]
async fn a_head_has_the_same_most_over_either_version() {
    let (h, address) = served().await;
    for (length, code) in [(60_000, "200"), (100_000, "431")] {
        let mut stream = connected(&h, address, "jane").await;
        let long = "x".repeat(length);
        let head = format!("GET /version HTTP/1.1\r\nhost: api\r\nx-long: {long}\r\nconnection: close\r\n\r\n");
        soon(stream.write_all(head.as_bytes())).await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{length}: {answer}");
        let joe = client(&h, address, "joe", 1 << 16).await;
        let request = Request::get("https://api/version").header("x-long", &long).body(body::empty()).unwrap();
        let mut sender = joe.clone();
        let answered = soon(async {
            sender.ready().await.unwrap();
            sender.send_request(request).await
        })
        .await;
        let told = answered.map_or_else(|_| "431".to_owned(), |answer| answer.status().as_str().to_owned());
        assert_eq!(told, code, "{length} over HTTP/2");
    }
}

/// Each is to be answered: an answer that its client does not take stops the reading, so that nothing piles up.
#[tokio::test]
async fn floods_of_settings_and_pings_pile_up_nothing() {
    let (h, address) = served().await;
    for flood in [frame(4, 0, 0, &[]), frame(6, 0, 0, &[7; 8])] {
        let flood = flood.repeat(1000);
        // Read, they are answered for as long as somebody likes, beside others.
        let (mut read, mut write) = bare(&h, address).await;
        let reading = tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
        for _ in 0..50 {
            soon(write.write_all(&flood)).await.unwrap();
        }
        others_are_served(&h, address).await;
        reading.abort();
        // Unread, they come to a halt within what sockets hold.
        let (_read, mut write) = bare(&h, address).await;
        let mut sent = 0;
        while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), write.write_all(&flood)).await {
            written.unwrap();
            sent += flood.len();
            assert!(sent < 256 << 20, "{sent} bytes were taken, and none of the answers");
        }
        others_are_served(&h, address).await;
    }
}

#[tokio::test]
async fn requests_beyond_what_a_connection_may_carry_are_turned_away() {
    let (h, address) = served().await;
    let (mut read, mut write) = bare(&h, address).await;
    // Nobody takes an answer: not even the first byte has room.
    write.write_all(&frame(4, 0, 0, &[&4_u16.to_be_bytes()[..], &0_u32.to_be_bytes()].concat())).await.unwrap();
    let opened: Vec<u8> = (0..2000).flat_map(|at| frame(1, 0x5, 2 * at + 1, &head())).collect();
    write.write_all(&opened).await.unwrap();
    write.flush().await.unwrap();
    // RST_STREAM with REFUSED_STREAM.
    let refusal = [frame(3, 0, 1, &7_u32.to_be_bytes())[..5].to_vec(), 7_u32.to_be_bytes().to_vec()];
    let mut taken = Vec::new();
    soon(async {
        let is_refusal = |window: &[u8]| window[..5] == refusal[0] && window[9..] == refusal[1];
        while !taken.windows(13).any(is_refusal) {
            assert!(read.read_buf(&mut taken).await.unwrap() > 0, "the connection ended");
        }
    })
    .await;
    others_are_served(&h, address).await;
}
