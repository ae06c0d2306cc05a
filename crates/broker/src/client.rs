//! Sending one event to one place over HTTP.

mod names;
mod pools;
mod reachable;

use std::{io, net::SocketAddr, sync::Arc, task::Poll, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode, Version};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::dns::Name;
use knoll_bounds::{Turn, Turns};
use knoll_event::knative;

pub use self::{names::resolve_as_the_machine_does, reachable::MachineAddresses};
use self::{
    pools::{PoolError, Pools},
    reachable::{REFUSED, Reachable},
};
use crate::{
    Config, Transport,
    delivery::{
        Destination,
        headers::{NAMESPACE, PREFER, REPLY},
        retry::{Cause, Failure},
    },
};

/// Of an answer that is not looked at, so much is read so that its connection can be used again.
const MOST_OF_NO_REPLY: usize = 64 << 10;
/// So much of a reply is read before it has to have room among all that are being read.
const FREE: usize = 16 << 10;

/// Finds the addresses of a host; ports in them count for nothing.
pub type Resolve = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

#[derive(Clone)]
struct Resolver {
    resolve: Resolve,
    reachable: Reachable,
}

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (found, reachable) = ((self.resolve)(name.as_str().to_owned()), self.reachable.clone());
        Box::pin(async move {
            let found = found.await?;
            Ok(reachable.of(found, SocketAddr::ip).await?.into_iter())
        })
    }
}

/// What is sent.
pub(crate) struct Message<'a> {
    /// The headers of an event, what travels beside it, and a token.
    pub(crate) headers: HeaderMap,
    /// The body that goes with them.
    pub(crate) body: Bytes,
    /// Whose broker or channel sends it.
    pub(crate) namespace: &'a Arc<str>,
    /// Whether a reply is asked for.
    pub(crate) wants_reply: bool,
    /// Whether what success says besides is looked at.
    pub(crate) reads_reply: bool,
}

/// What came back: any status at all.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Of what is no reply, the beginning.
    pub(crate) body: Bytes,
    /// What a long reply takes of the room for all.
    pub(crate) room: Option<Turn>,
}

/// Sends events; keeps connections.
pub(crate) struct Client {
    pools: Pools,
    most_bytes: usize,
    reachable: Reachable,
    /// For [`Config::max_delivery_bytes`], by namespace.
    replies: Turns,
}

impl Client {
    pub(crate) fn new(
        config: &Config,
        resolve: Resolve,
        machine: Option<MachineAddresses>,
        transport: Transport,
    ) -> Self {
        let reachable = Reachable::new(config, machine);
        Self {
            pools: Pools::new(config, Resolver { resolve, reachable: reachable.clone() }, transport),
            most_bytes: config.max_event_bytes,
            reachable,
            replies: Turns::of_bytes(config.max_delivery_bytes, config.parts),
        }
    }

    /// Posts an event and reads what comes back; how long that may take is up to who asks. The body is whole where it may be a
    /// reply; otherwise only the beginning of one that is long is read.
    pub(crate) async fn send(&self, to: &Destination, message: Message<'_>) -> Result<Answer, Failure> {
        let (whose, reads_reply) = (message.namespace.clone(), message.reads_reply);
        match self.reachable.has_literal(&to.uri).await {
            Ok(true) => {}
            Ok(false) => return Err(failure(to, Cause::Unsendable, REFUSED.to_owned())),
            Err(error) => return Err(failure(to, Cause::Transport, error.to_string())),
        }
        self.exchange(to, request(to, message)?, &whose, reads_reply).await
    }

    async fn exchange(
        &self,
        to: &Destination,
        request: Request<Full<Bytes>>,
        whose: &Arc<str>,
        reads_reply: bool,
    ) -> Result<Answer, Failure> {
        let broken = |error: &dyn std::error::Error| {
            failure(to, Cause::Transport, format!("dispatch error: {}", knoll_faults::chain(error)))
        };
        let asking = self.pools.request(request, to.ca_certs.as_ref(), whose);
        let response = names::for_namespace(whose.clone(), asking).await;
        let response = response.map_err(|error| match &error {
            PoolError::Exchange(error) => broken(error),
            PoolError::Trust(_) => failure(to, Cause::Unsendable, error.to_string()),
        })?;
        let (head, body) = response.into_parts();
        let reading = async {
            if !reads_reply || !head.status.is_success() {
                return Ok(Some((beginning(body).await?, None)));
            }
            self.reply(body, whose).await
        };
        let (body, room) = reading
            .await
            .map_err(|error: hyper::Error| broken(&error))?
            .ok_or_else(|| failure(to, Cause::NoEvent, format!("a reply of more than {} bytes", self.most_bytes)))?;
        Ok(Answer { status: head.status, headers: head.headers, body, room })
    }

    /// Reads a reply to somebody of this namespace; nothing when it is longer than it may be. What is long waits until there
    /// is room for it: a subscriber that announces much and sends it slowly takes no more than its namespace's part.
    async fn reply(&self, mut body: Incoming, whose: &Arc<str>) -> Result<Option<(Bytes, Option<Turn>)>, hyper::Error> {
        let (mut all, mut room) = (BytesMut::new(), None);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            let length = all.len() + data.len();
            let whole = body.size_hint().exact().and_then(|left| usize::try_from(left).ok()).map(|left| length + left);
            if whole.unwrap_or(length) > self.most_bytes {
                return Ok(None);
            }
            if length > FREE && room.is_none() {
                room = Some(self.replies.take_bytes(whose, whole.unwrap_or(self.most_bytes)).await);
            }
            all.extend_from_slice(&data);
        }
        if let Some(room) = &mut room {
            room.shrink_to_bytes(all.len());
        }
        Ok(Some((all.freeze(), room)))
    }
}

/// An attempt that failed with these words.
pub(crate) fn failure(to: &Destination, cause: Cause, said: String) -> Failure {
    Failure { destination: to.to_string().into(), cause, data: said.into(), retry_after: None }
}

/// An attempt that took longer than it may.
pub(crate) fn timed_out(to: &Destination, most: Duration) -> Failure {
    failure(to, Cause::Timeout, format!("no answer within {} milliseconds", most.as_millis()))
}

/// The request by which a message is sent.
///
/// # Errors
/// When the address is none that can be sent to.
pub(crate) fn request(to: &Destination, message: Message<'_>) -> Result<Request<Full<Bytes>>, Failure> {
    made(to, message).ok_or_else(|| {
        failure(to, Cause::Unsendable, "only absolute http and https addresses can be sent to".to_owned())
    })
}

fn made(to: &Destination, message: Message<'_>) -> Option<Request<Full<Bytes>>> {
    if !matches!(to.uri.scheme_str(), Some("http" | "https")) || to.uri.host().is_none_or(str::is_empty) {
        return None;
    }
    let Message { mut headers, body, .. } = message;
    headers.insert(NAMESPACE, (&**message.namespace).try_into().ok()?);
    if message.wants_reply {
        headers.insert(PREFER, REPLY);
    }
    let mut request = Request::post(to.uri.clone()).version(Version::HTTP_11).body(Full::from(body)).ok()?;
    *request.headers_mut() = headers;
    Some(request)
}

/// What a dead letter tells of an answer's body. The rest is read up to a bound, and not kept.
async fn beginning(mut body: Incoming) -> Result<Bytes, hyper::Error> {
    let (mut kept, mut length) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = knative::LONGEST_ERROR_DATA - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
        length += data.len();
        if length > MOST_OF_NO_REPLY {
            break;
        }
    }
    Ok(kept.freeze())
}

/// What of an answer's body a dead letter tells.
pub(crate) fn told(body: &Bytes) -> Bytes {
    Bytes::copy_from_slice(&body[..body.len().min(knative::LONGEST_ERROR_DATA)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_leads_to_the_machine_leads_nowhere() {
        use tower::Service as _;
        let reachable = |loopback| Reachable::new(&Config { loopback, ..Config::default() }, None);
        let resolve: Resolve = Arc::new(|_| {
            Box::pin(async { Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0)), SocketAddr::from(([10, 0, 0, 1], 0))]) })
        });
        let name: Name = "x".parse().expect("a name");
        let found: Vec<_> = Resolver { resolve: resolve.clone(), reachable: reachable(false) }
            .call(name.clone())
            .await
            .expect("one")
            .collect();
        assert_eq!(found, [SocketAddr::from(([10, 0, 0, 1], 0))]);
        assert_eq!(Resolver { resolve, reachable: reachable(true) }.call(name.clone()).await.expect("both").count(), 2);
        let resolve: Resolve = Arc::new(|_| Box::pin(async { Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))]) }));
        let refused = Resolver { resolve, reachable: reachable(false) }.call(name).await.expect_err("nobody else's");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }
}
