//! Whether `grpc.health.v1.Health/Check` answers SERVING, over HTTP/2 in clear text.
//!
//! The two messages have one field each, so they are written and read by hand.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::tcp::{self, Way};

/// Most bytes of an answer.
const LONGEST: usize = 64 * 1024;
const SERVING: u64 = 1;

/// Asks once.
pub(super) async fn ask(way: &Way<'_>, port: u16, service: &str, timeout: Duration) -> Result<(), String> {
    let whom = SocketAddr::new(way.address, port);
    let late =
        || format!("timeout: failed to connect service \"{whom}\" within {timeout:?}: context deadline exceeded");
    match tokio::time::timeout(timeout, check(way, whom, service, timeout)).await {
        Err(_) => Err(late()),
        Ok(outcome) => outcome,
    }
}

async fn check(way: &Way<'_>, whom: SocketAddr, service: &str, timeout: Duration) -> Result<(), String> {
    let stream = tcp::connect(None, way, whom.port(), timeout).await?;
    let failed = |error: hyper::Error| format!("error: health rpc failed: {error}");
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(failed)?;
    let connection = tokio::spawn(connection);
    let _hang_up = HangUp(connection.abort_handle());
    let request = http::Request::post(format!("http://{whom}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.35")
        .body(Full::new(question(service)))
        .map_err(|error| error.to_string())?;
    let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
    if !head.status.is_success() {
        return Err(format!("error: health rpc failed: unexpected HTTP status code {}", head.status.as_u16()));
    }
    let body = Limited::new(body, LONGEST).collect().await.map_err(|e| format!("error: health rpc failed: {e}"))?;
    // A server that has nothing to say puts its status into the headers.
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = |name: &str| trailers.get(name).or_else(|| head.headers.get(name)).and_then(|v| v.to_str().ok());
    match status("grpc-status").unwrap_or("0") {
        "0" => verdict(&body.to_bytes()),
        "12" => Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): "
            .to_owned()
            + status("grpc-message").unwrap_or_default()),
        code => {
            let message = status("grpc-message").unwrap_or_default();
            Err(format!("error: health rpc failed: rpc error: code = {code} desc = {message}"))
        }
    }
}

struct HangUp(tokio::task::AbortHandle);

impl Drop for HangUp {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `HealthCheckRequest { string service = 1 }`, framed.
fn question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).expect("seven bits fit") | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).expect("seven bits fit"));
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

/// `HealthCheckResponse { ServingStatus status = 1 }`, framed.
fn verdict(frame: &[u8]) -> Result<(), String> {
    let message = frame.get(5..).unwrap_or_default();
    let status = match message {
        [] => 0,
        [0x08, rest @ ..] => {
            let mut value = 0;
            for (index, byte) in rest.iter().take(9).enumerate() {
                value |= u64::from(byte & 0x7f) << (7 * index);
                if byte & 0x80 == 0 {
                    break;
                }
            }
            value
        }
        _ => return Err("error: health rpc failed: the answer cannot be read".into()),
    };
    let name = match status {
        SERVING => return Ok(()),
        0 => "UNKNOWN",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNRECOGNIZED",
    };
    Err(format!("service unhealthy (responded with \"{name}\")"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::net::Ipv4Addr;

    use hyper::service::service_fn;

    async fn server(answer: &'static [u8], status: &'static str) -> u16 {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("accepts");
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let asked = request.into_body().collect().await.expect("a body").to_bytes();
                assert_eq!(&asked[..], b"\0\0\0\0\x05\x0a\x03svc");
                let head = http::Response::builder().header("grpc-status", status);
                Ok::<_, Infallible>(head.body(Full::new(Bytes::from_static(answer))).expect("valid"))
            });
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await
        });
        port
    }

    async fn outcome(answer: &'static [u8], status: &'static str) -> Result<(), String> {
        let port = server(answer, status).await;
        ask(
            &Way { address: Ipv4Addr::LOCALHOST.into(), loopback: None, on_host: true },
            port,
            "svc",
            Duration::from_secs(5),
        )
        .await
    }

    #[tokio::test]
    async fn only_serving_is_yes() {
        assert_eq!(outcome(b"\0\0\0\0\x02\x08\x01", "0").await, Ok(()));
        assert_eq!(
            outcome(b"\0\0\0\0\x02\x08\x02", "0").await,
            Err("service unhealthy (responded with \"NOT_SERVING\")".into())
        );
        assert!(
            outcome(b"", "12")
                .await
                .expect_err("unimplemented")
                .contains("does not implement the grpc health protocol")
        );
        assert!(outcome(b"", "5").await.expect_err("not found").contains("code = 5"));
    }

    #[test]
    fn long_names_are_framed_right() {
        let frame = question(&"x".repeat(300));
        assert_eq!(&frame[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(frame.len(), 308);
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
    }
}
