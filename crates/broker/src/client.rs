//! Sending one event to one place over HTTP.

mod pools;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::dns::Name;
use knoll_event::{
    Event, knative,
    mode::{self, Format},
};

use self::pools::{PoolError, Pools};
use crate::{
    Config, Transport,
    delivery::{
        Destination,
        headers::{NAMESPACE, PREFER, REPLY},
        retry::{Cause, Failure},
    },
};

/// Of an answer that is no reply, so much is read so that its connection can be used again.
const MOST_OF_NO_REPLY: usize = 64 << 10;

/// Finds the addresses of a host; ports in them count for nothing.
pub type Resolve = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// As the machine resolves names.
pub fn resolve_as_the_machine_does() -> Resolve {
    Arc::new(|host| Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) }))
}

#[derive(Clone)]
struct Resolver {
    resolve: Resolve,
    loopback: bool,
}

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (found, loopback) = ((self.resolve)(name.as_str().to_owned()), self.loopback);
        Box::pin(async move {
            let mut found = found.await?;
            let there = found.len();
            found.retain(|address| loopback || !is_the_machines_alone(address.ip()));
            if found.is_empty() && there > 0 {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, MACHINES));
            }
            Ok(found.into_iter())
        })
    }
}

/// Why an address is not sent to.
const MACHINES: &str = "it is an address of the machine's own, which events are not sent to: name a Service, or an address that pods reach";

/// Whether only the machine itself reaches an address: what listens there trusts whoever comes.
fn is_the_machines_alone(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.octets()[0] == 0,
        // Those that mean one of version 4, and `::` and `::1`, which read as 0.0.0.0 and 0.0.0.1.
        IpAddr::V6(address) => address.to_ipv4().is_some_and(|address| is_the_machines_alone(address.into())),
    }
}

/// The address that a URI names, if it names none by a name.
fn literal(uri: &Uri) -> Option<IpAddr> {
    let host = uri.host()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// What is sent.
pub(crate) struct Message<'a> {
    pub(crate) event: &'a Event,
    pub(crate) format: Format,
    /// What travels beside it, and a token.
    pub(crate) headers: HeaderMap,
    /// Whose broker or channel sends it.
    pub(crate) namespace: &'a str,
    /// Whether a reply is asked for.
    pub(crate) wants_reply: bool,
}

/// What came back: any status at all.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Sends events; keeps connections.
pub(crate) struct Client {
    pools: Pools,
    most_bytes: usize,
    loopback: bool,
}

impl Client {
    pub(crate) fn new(config: &Config, resolve: Resolve, transport: Transport) -> Self {
        Self {
            pools: Pools::new(config, resolve, transport),
            most_bytes: config.max_event_bytes,
            loopback: config.loopback,
        }
    }

    /// Posts an event and reads what comes back, within `timeout` if there is one. The body is whole where it may be a
    /// reply; otherwise only the beginning of one that is long is read.
    pub(crate) async fn send(
        &self,
        to: &Destination,
        message: Message<'_>,
        timeout: Option<Duration>,
    ) -> Result<Answer, Failure> {
        let wants_reply = message.wants_reply;
        if !self.loopback && literal(&to.uri).is_some_and(is_the_machines_alone) {
            return Err(failure(to, Cause::Unsendable, MACHINES.to_owned()));
        }
        let request = request(to, message).ok_or_else(|| {
            failure(to, Cause::Unsendable, "only absolute http and https addresses can be sent to".to_owned())
        })?;
        let exchange = self.exchange(to, request, wants_reply);
        let Some(timeout) = timeout else { return exchange.await };
        tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| {
            let said = format!("no answer within {} milliseconds", timeout.as_millis());
            Err(failure(to, Cause::Timeout, said))
        })
    }

    async fn exchange(
        &self,
        to: &Destination,
        request: Request<Full<Bytes>>,
        wants_reply: bool,
    ) -> Result<Answer, Failure> {
        let broken = |error: &dyn std::error::Error| {
            failure(to, Cause::Transport, format!("dispatch error: {}", knoll_faults::chain(error)))
        };
        let response = self.pools.request(request, to.ca_certs.as_ref()).await;
        let response = response.map_err(|error| match &error {
            PoolError::Exchange(error) => broken(error),
            PoolError::Trust(_) => failure(to, Cause::Unsendable, error.to_string()),
        })?;
        let (head, body) = response.into_parts();
        let may_reply = wants_reply && head.status.is_success();
        let most = if may_reply { self.most_bytes } else { MOST_OF_NO_REPLY };
        let (body, is_whole) = up_to(most, body).await.map_err(|error| broken(&error))?;
        if may_reply && !is_whole {
            return Err(failure(to, Cause::NoEvent, format!("a reply of more than {most} bytes")));
        }
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

/// An attempt that failed with these words.
pub(crate) fn failure(to: &Destination, cause: Cause, said: String) -> Failure {
    Failure { destination: to.uri.to_string().into(), cause, data: said.into(), retry_after: None }
}

fn request(to: &Destination, message: Message<'_>) -> Option<Request<Full<Bytes>>> {
    if !matches!(to.uri.scheme_str(), Some("http" | "https")) || to.uri.host().is_none_or(str::is_empty) {
        return None;
    }
    let mut headers = message.headers;
    let body = mode::write(message.event, message.format, &mut headers);
    headers.insert(NAMESPACE, message.namespace.try_into().ok()?);
    if message.wants_reply {
        headers.insert(PREFER, REPLY);
    }
    let mut request = Request::post(to.uri.clone()).version(Version::HTTP_11).body(Full::from(body)).ok()?;
    *request.headers_mut() = headers;
    Some(request)
}

/// Reads at most so many bytes. Whether that was all.
async fn up_to(most: usize, mut body: Incoming) -> Result<(Bytes, bool), hyper::Error> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if all.len() + data.len() > most {
            all.extend_from_slice(&data[..most - all.len()]);
            return Ok((all.freeze(), false));
        }
        all.extend_from_slice(&data);
    }
    Ok((all.freeze(), true))
}

/// What of an answer's body a dead letter tells.
pub(crate) fn told(body: &Bytes) -> Bytes {
    Bytes::copy_from_slice(&body[..body.len().min(knative::LONGEST_ERROR_DATA)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_machine_reaches_is_told_from_the_rest() {
        for (uri, alone) in [
            ("http://127.0.0.1:8080/", true),
            ("http://127.9.9.9/", true),
            ("http://0.0.0.0/", true),
            ("http://[::1]/", true),
            ("http://[::]/", true),
            ("http://[::ffff:127.0.0.1]/", true),
            ("http://[::127.0.0.1]/", true),
            ("http://10.96.0.1/", false),
            ("http://169.254.77.1/", false),
            ("http://[2001:db8::1]/", false),
            ("http://[fe80::1]/", false),
            ("http://localhost/", false),
        ] {
            let found = literal(&Uri::from_static(uri)).is_some_and(is_the_machines_alone);
            assert_eq!(found, alone, "{uri}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_the_machine_leads_nowhere() {
        use tower::Service as _;
        let resolve: Resolve = Arc::new(|_| {
            Box::pin(async { Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0)), SocketAddr::from(([10, 0, 0, 1], 0))]) })
        });
        let name: Name = "x".parse().expect("a name");
        let found: Vec<_> =
            Resolver { resolve: resolve.clone(), loopback: false }.call(name.clone()).await.expect("one").collect();
        assert_eq!(found, [SocketAddr::from(([10, 0, 0, 1], 0))]);
        assert_eq!(Resolver { resolve, loopback: true }.call(name.clone()).await.expect("both").count(), 2);
        let resolve: Resolve = Arc::new(|_| Box::pin(async { Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))]) }));
        let refused = Resolver { resolve, loopback: false }.call(name).await.expect_err("nobody else's");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }
}
