//! Connections that leave HTTP: WebSockets and their like.

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::body::{Body, Transit};
use crate::client::Live;

/// A client's wish to upgrade.
pub(crate) struct Wish {
    pub(crate) protocol: HeaderValue,
    pub(crate) client: OnUpgrade,
}

impl Wish {
    /// Takes the client's side of the connection to come.
    pub(crate) fn new(protocol: HeaderValue, request: &mut Request<Incoming>) -> Self {
        Self { protocol, client: hyper::upgrade::on(request) }
    }
}

/// Joins both sides once the instance has agreed. The place in the instance is held until either side ends, or
/// `deadline`, when both are cut off.
pub(crate) fn join(
    wish: Wish,
    mut response: Response<Incoming>,
    transit: Transit,
    live: Live,
    deadline: Option<Instant>,
) -> Response<Body> {
    let instance = hyper::upgrade::on(&mut response);
    tokio::task::spawn_local(async move {
        let joined = copy(wish.client, instance);
        let result = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, joined).await.unwrap_or(Ok(())),
            None => joined.await,
        };
        if let Err(error) = result {
            tracing::debug!(%error, "upgraded connection ended");
        }
        drop((transit, live));
    });
    let (mut parts, _) = response.into_parts();
    let protocol = parts.headers.remove(header::UPGRADE).unwrap_or(wish.protocol);
    crate::headers::to_client(&mut parts.headers);
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    parts.headers.insert(header::UPGRADE, protocol);
    parts.status = StatusCode::SWITCHING_PROTOCOLS;
    Response::from_parts(parts, Body::empty())
}

async fn copy(client: OnUpgrade, instance: OnUpgrade) -> Result<(), Box<dyn std::error::Error>> {
    let (client, instance) = futures_util::future::try_join(client, instance).await?;
    let (mut client, mut instance) = (TokioIo::new(client), TokioIo::new(instance));
    tokio::io::copy_bidirectional(&mut client, &mut instance).await?;
    Ok(())
}
