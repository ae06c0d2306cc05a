//! Commands in containers, over a real connection.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use jiff::Timestamp;
use knoll_apiserver::{
    Status,
    node_backend::{
        ContainerRef, ExecInput, ExecOutput, ExecRequest, ExecStreams, LogRequest, NodeBackend, PortStream,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};
use tokio_rustls::client::TlsStream;

use crate::{
    mines,
    support::{Harness, dial, listen, pod},
};

/// A machine whose commands say what they are told, and end with 7 when their input ends.
struct Echo;

impl NodeBackend for Echo {
    fn logs(&self, _: LogRequest) -> BoxFuture<'_, Result<BoxStream<'static, std::io::Result<Bytes>>, Status>> {
        Box::pin(async { Err(Status::bad_request("no logs here")) })
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecStreams, Status>> {
        if request.command == ["missing"] {
            return Box::pin(async { Err(Status::bad_request("exec: \"missing\": no such file")) });
        }
        let (input, mut inputs) = mpsc::channel(8);
        let (outputs, output) = mpsc::channel(8);
        tokio::spawn(async move {
            outputs.send(ExecOutput::Stderr(request.command.join(" ").into())).await.unwrap();
            while let Some(ExecInput::Stdin(bytes)) = inputs.recv().await {
                outputs.send(ExecOutput::Stdout(bytes)).await.unwrap();
            }
            outputs.send(ExecOutput::Exit(7)).await.unwrap();
        });
        Box::pin(async { Ok(ExecStreams { input, output }) })
    }

    fn connect(&self, _: ContainerRef, _: u16) -> BoxFuture<'_, Result<PortStream, Status>> {
        Box::pin(async { Err(Status::bad_request("no ports here")) })
    }
}

async fn connect(h: &Harness) -> TlsStream<TcpStream> {
    let address = listen(h).await;
    let client = h.pki.client("kubernetes-admin", "system:masters", Timestamp::now()).unwrap();
    dial(h, address, Some(&client)).await.unwrap()
}

/// One unmasked frame of the server: its code and payload.
async fn frame(stream: &mut TlsStream<TcpStream>) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.unwrap();
    let length = match head[1] {
        126 => usize::from(stream.read_u16().await.unwrap()),
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.unwrap();
    (head[0] & 0x0f, payload)
}

/// The next message with data: its channel and text.
async fn message(stream: &mut TlsStream<TcpStream>) -> (u8, String) {
    loop {
        let (code, payload) = frame(stream).await;
        assert_eq!(code, 2);
        if payload.len() > 1 {
            return (payload[0], String::from_utf8(payload[1..].to_vec()).unwrap());
        }
    }
}

/// A frame of the client, masked with zeros.
async fn send(stream: &mut TlsStream<TcpStream>, payload: &[u8]) {
    let mut frame = vec![0x82, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    stream.write_all(&frame).await.unwrap();
}

/// Asks for a command over WebSocket; the head of the answer, in lower case.
async fn ask(stream: &mut TlsStream<TcpStream>, query: &str) -> String {
    let request = format!(
        "GET /api/v1/namespaces/default/pods/p/exec?{query} HTTP/1.1\r\n\
        host: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: v5.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

#[tokio::test]
async fn why_a_command_does_not_start_is_told_on_the_channel_of_errors() {
    let h = Harness::with_node(Arc::new(Echo)).await;
    h.post("/api/v1/namespaces/default/pods", pod("p")).await.expect(201);
    let mut stream = connect(&h).await;
    let head = ask(&mut stream, "command=missing&stdout=true").await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    let (channel, status) = message(&mut stream).await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!((channel, &status["status"], &status["code"]), (3, &"Failure".into(), &400.into()));
    assert_eq!(status["message"], "exec: \"missing\": no such file");
    assert_eq!(frame(&mut stream).await.0, 8);
}

#[tokio::test]
async fn a_command_talks_over_channels_and_tells_its_exit_code() {
    let h = Harness::with_node(Arc::new(Echo)).await;
    h.post("/api/v1/namespaces/default/pods", pod("p")).await.expect(201);
    let mut stream = connect(&h).await;
    let head = ask(&mut stream, "command=say&command=it&stdin=true&stdout=true").await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("sec-websocket-protocol: v5.channel.k8s.io"), "{head}");
    assert_eq!(message(&mut stream).await, (2, "say it".into()));
    send(&mut stream, b"\0hello").await;
    assert_eq!(message(&mut stream).await, (1, "hello".into()));
    send(&mut stream, b"\xff\0").await;
    let (channel, status) = message(&mut stream).await;
    assert_eq!(channel, 3);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "7");
    assert_eq!(frame(&mut stream).await.0, 8);
}

#[tokio::test]
async fn a_request_that_does_not_upgrade_is_refused_as_a_status() {
    let h = Harness::with_node(Arc::new(Echo)).await;
    h.post("/api/v1/namespaces/default/pods", pod("p")).await.expect(201);
    let path = "/api/v1/namespaces/default/pods/p/exec?command=x";
    assert_eq!(h.get(path).await.failure(400), "Upgrade request required: only WebSocket is spoken");
    let message = h.get("/api/v1/namespaces/default/pods/p/log?container=zz").await.failure(400);
    assert_eq!(message, "container zz is not valid for pod p");
}

#[tokio::test]
async fn a_command_whose_streams_panic_ends_with_its_connection_and_leaves_the_others_alone() {
    let h = Harness::with_node(Arc::new(Echo)).await;
    h.post("/api/v1/namespaces/default/pods", pod("p")).await.expect(201);
    mines::arm("carry a command's streams", 2);
    for round in 1..=2 {
        let mut stream = connect(&h).await;
        let head = ask(&mut stream, "command=echo&stdout=true&stderr=true").await;
        assert!(head.starts_with("http/1.1 101"), "{head}");
        assert!(stream.read_u8().await.is_err(), "nothing more comes");
        assert_eq!(h.server.counters().panics.get(), round);
    }
    let mut stream = connect(&h).await;
    ask(&mut stream, "command=echo&stdout=true&stderr=true").await;
    assert_eq!(message(&mut stream).await, (2, "echo".into()));
}
