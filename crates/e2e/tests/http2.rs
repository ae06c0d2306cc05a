//! HTTP/2 without TLS, and gRPC on it: its project's own client against its own server, through the gateway.

use std::{
    fs,
    io::{Read as _, Write as _},
    process::{Command, Output, Stdio},
};

use knoll_e2e::{Namespace, until};
use serde_json::{Value, json};

/// A ready service of gRPC's test server; its host.
fn server(space: &Namespace, annotations: &Value) -> String {
    let archive = space.cluster.images.join("grpc.tar").display().to_string();
    space.cluster.succeed(&space.cluster.knoll, &["image", "load", &archive], "");
    let container = json!({
        "image": "localhost:5000/e2e/grpc:1", "args": ["--port=8080"], "ports": [{"name": "h2c", "containerPort": 8080}],
    });
    let service = json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "grpc"},
        "spec": {"template": {"metadata": {"annotations": annotations}, "spec": {"containers": [container]}}},
    });
    until("the service is taken", || {
        let output = space.cluster.try_kubectl(&["-n", &space.name, "apply", "-f", "-"], &service.to_string());
        output.status.success().then_some(())
    });
    space.ready("grpc");
    space.host("grpc")
}

/// Runs a case of gRPC's client, which takes the host's name from its address and so must be able to resolve it.
fn client(space: &Namespace, host: &str, case: &str) -> Output {
    let (address, port) = space.cluster.gateway.rsplit_once(':').expect("an address and a port");
    let hosts = tempfile::NamedTempFile::new().expect("a file");
    fs::write(hosts.path(), format!("{address} {host}\n")).expect("it is written");
    let script = "mount --bind \"$0\" /etc/hosts && exec grpc-client \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(hosts.path());
    command.arg(format!("--server_host={host}")).arg(format!("--server_port={port}"));
    command.arg(format!("--test_case={case}")).output().expect("unshare runs")
}

/// A `curl` that makes one call of gRPC's test service.
fn curl(space: &Namespace, host: &str, method: &str) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--no-buffer", "--http2-prior-knowledge", "--max-time", "60"])
        .args(["--header", "content-type: application/grpc", "--header", "te: trailers"])
        .args(["--header", &format!("host: {host}"), "--dump-header", "/dev/stderr", "--data-binary", "@-"])
        .arg(format!("http://{}/grpc.testing.TestService/{method}", space.cluster.gateway))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A message on gRPC's wire: not compressed, its length, its bytes.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("it is short");
    [&[0], &length.to_be_bytes()[..], message].concat()
}

/// What asks for one byte, later: `response_parameters { size: 1 interval_us: LATER }`.
fn one_byte(later: &[u8]) -> Vec<u8> {
    let parameters = if later.is_empty() { vec![8, 1] } else { [&[8, 1, 16], later].concat() };
    [&[0x12, u8::try_from(parameters.len()).expect("it is short")], &parameters[..]].concat()
}

/// The answer to that: `payload { body: "\\0" }`.
const ONE_BYTE: [u8; 10] = [0, 0, 0, 0, 5, 10, 3, 18, 1, 0];

#[test]
fn every_case_of_grpcs_own_client_passes() {
    let space = Namespace::new("grpc");
    let host = server(&space, &json!({}));
    let cases = [
        "empty_unary",
        "large_unary",
        "client_streaming",
        "server_streaming",
        "ping_pong",
        "empty_stream",
        "timeout_on_sleeping_server",
        "cancel_after_begin",
        "cancel_after_first_response",
        "status_code_and_message",
        "special_status_message",
        "custom_metadata",
        "unimplemented_method",
        "unimplemented_service",
    ];
    for case in cases {
        let output = client(&space, &host, case);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{case}: {said}");
    }
}

#[test]
fn a_streams_messages_come_one_by_one() {
    let space = Namespace::new("onebyone");
    let host = server(&space, &json!({}));
    let mut child = curl(&space, &host, "StreamingOutputCall").spawn().expect("curl runs");
    // One at once, the other 1800 seconds later.
    let request = [one_byte(&[]), one_byte(&[0x80, 0xa4, 0xa7, 0xda, 6])].concat();
    child.stdin.take().expect("piped").write_all(&framed(&request)).expect("it is sent");
    let mut first = [0; ONE_BYTE.len()];
    child.stdout.take().expect("piped").read_exact(&mut first).expect("the first comes without the second");
    assert_eq!(first, ONE_BYTE);
    child.kill().expect("it is stopped");
    child.wait().expect("it ends");
}

#[test]
fn a_status_after_messages_passes_unchanged() {
    let space = Namespace::new("status");
    let host = server(&space, &json!({}));
    let mut child = curl(&space, &host, "FullDuplexCall").spawn().expect("curl runs");
    // `response_status { code: 9 message: "no & no" }`, after an answer.
    let status = b"\x3a\x0b\x08\x09\x12\x07no & no";
    let requests = [framed(&one_byte(&[])), framed(status)].concat();
    child.stdin.take().expect("piped").write_all(&requests).expect("they are sent");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.stdout, ONE_BYTE);
    let heads = String::from_utf8_lossy(&output.stderr).replace('\r', "");
    let (head, trailers) = heads.trim_end().split_once("\n\n").unwrap_or((&heads, ""));
    assert!(head.starts_with("HTTP/2 200") && !head.contains("grpc-status"), "{heads}");
    let mut trailers: Vec<_> = trailers.lines().collect();
    trailers.sort_unstable();
    assert_eq!(trailers, ["grpc-message: no & no", "grpc-status: 9"], "{heads}");
}

#[test]
fn a_call_wakes_a_service_at_zero() {
    let space = Namespace::new("callzero");
    let _allowed = space.cluster.configure("config-autoscaler", json!({"allow-zero-initial-scale": "true"}));
    let host = server(&space, &json!({"autoscaling.knative.dev/initial-scale": "0"}));
    assert_eq!(space.pods("grpc").len(), 0, "none was asked for");
    let output = client(&space, &host, "large_unary");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(space.pods("grpc").len(), 1);
}

#[test]
fn clients_of_http2_reach_servers_of_http1() {
    let space = Namespace::new("older");
    space.apply_example("hello.yaml");
    space.ready("hello");
    let arguments = ["--silent", "--http2-prior-knowledge", "--write-out", " by %{http_version}", "--header"];
    let host = format!("host: {}", space.host("hello"));
    let url = format!("http://{}/", space.cluster.gateway);
    let said = space.cluster.succeed("curl", &[&arguments[..], &[&host, &url]].concat(), "");
    assert_eq!(said, "Hello World!\n by 2");
}
