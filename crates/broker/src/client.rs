//! Sending one event to one place over HTTP.

mod pools;

use std::{io, net::SocketAddr, sync::Arc, task::Poll, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::dns::Name;
use knoll_event::{
    Event, knative,
    mode::{self, Format},
};

use self::pools::{PoolError, Pools};
use crate::{
    Config,
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
struct Resolver(Resolve);

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = (self.0)(name.as_str().to_owned());
        Box::pin(async move { Ok(found.await?.into_iter()) })
    }
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
}

impl Client {
    pub(crate) fn new(config: &Config, resolve: Resolve) -> Self {
        Self { pools: Pools::new(config, resolve), most_bytes: config.max_event_bytes }
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
