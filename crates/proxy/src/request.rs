//! The life of a request, top to bottom: route, admit, pick, forward, account.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use knoll_api::table::Protocol;
use knoll_faults::chain;
use tokio::time::{Instant, timeout_at};

use crate::admit::admit;
use crate::body::{Body, Outbound, Proxied, Transit};
use crate::client::Client;
use crate::connection_pool::PooledConnection;
use crate::contain::contained;
use crate::endpoint::EndpointSet;
use crate::endpoint_pool::Permit;
use crate::errors::{self, Own, Refusal};
use crate::forward::{ForwardError, Unanswered, forward};
use crate::headers::{self, Seen};
use crate::probe;
use crate::route::{Match, Target};
use crate::thread::{NoRoute, Thread};
use crate::timeouts::Timeouts;
use crate::upgrade::{self, UpgradeRequest};

/// How long an instance that could not be reached is avoided, while there are others.
const AVOID_MILLIS: u64 = 1000;

/// Answers a client's request. A panic on the way costs the request alone.
pub(crate) async fn handle(client: Rc<Client>, request: Request<Incoming>) -> Response<Body> {
    let thread = &*client.thread;
    let counters = thread.counters();
    counters.requests.count();
    let http1 = request.version() < Version::HTTP_2;
    let answered = contained(&thread.shared.metrics, "a request", answer(&client, request)).await;
    let mut response = answered.unwrap_or(Err(Own::Panic)).unwrap_or_else(|own| {
        counters.refused(own.reason());
        own.answer(thread.shared.config.retry_after)
    });
    counters.answered(response.status());
    if http1 && thread.parked.draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // The next request goes over a connection of its own, to whoever listens then.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer(client: &Rc<Client>, mut request: Request<Incoming>) -> Result<Response<Body>, Own> {
    let thread = &*client.thread;
    let started = Instant::now();
    let seen = Seen::scan(request.headers());

    // Route.
    let draining = thread.parked.draining();
    if seen.asks_kubelet(client.visibility) {
        return Ok(probe::kubelet(draining || !thread.shared.has_table()));
    }
    let host = host_of(&request).ok_or(Own::NoHost)?;
    thread.shared.wait_for_table().await?;
    let found = match find(client, &host, &request)? {
        Found::Match(found) => found,
        Found::Redirect(redirect) => return Ok(redirect),
    };
    if seen.asks_network(client.visibility, request.headers()) {
        return Ok(probe::network(request.headers(), &found, draining));
    }
    let target = found.split().and_then(|split| split.target.as_ref());
    let target = target.ok_or(Own::Refused(Refusal::NoEndpoints))?;

    // Account from here until the response has ended.
    let in_flight = target.meter.arrive(started.into_std()).ok_or(Own::TooManyRequests)?;
    let timeouts = Timeouts::new(started, target.policy.as_deref());
    let most = thread.shared.config.max_body_bytes.map(|bytes| (bytes, Rc::<Cell<bool>>::default()));
    let upgrade = seen.upgrade_to(request.headers()).map(|protocol| UpgradeRequest::new(protocol, &mut request));
    let protocol = if upgrade.is_some() { Protocol::Http1 } else { target.protocol };
    if too_large(thread, request.headers()) {
        return Err(Own::TooLarge);
    }
    let outbound = to_instance(client, request, seen, &host, &found, protocol, upgrade.as_ref(), most.clone());
    let outbound = outbound.map_err(Own::Malformed)?;

    // Admit, pick, forward.
    let (response, pooled, permit) = match exchange(thread, target, protocol, outbound, timeouts).await {
        Ok(answered) => answered,
        Err(_) if most.is_some_and(|(_, exceeded)| exceeded.get()) => return Err(Own::TooLarge),
        Err(failed) => return Err(failed),
    };

    // Answer; what the request holds goes with the body.
    let transit = Transit { pooled, permit, in_flight };
    match (response.status(), upgrade) {
        (StatusCode::SWITCHING_PROTOCOLS, Some(upgrade)) => {
            Ok(upgrade::join(client, upgrade, response, transit, timeouts))
        }
        (StatusCode::SWITCHING_PROTOCOLS, None) => {
            Err(Own::Broken("instance switched protocols without being asked".into()))
        }
        _ => {
            let mut response = to_client(client, response, transit, timeouts);
            if seen.is_event(client.visibility)
                && let Some(capacity) = target.meter.with_endpoints(EndpointSet::capacity)
            {
                headers::tell_capacity(response.headers_mut(), capacity);
            }
            Ok(response)
        }
    }
}

impl From<ForwardError> for Own {
    fn from(error: ForwardError) -> Self {
        match &error {
            ForwardError::Unreachable(_) => Self::Unreachable(chain(&error)),
            ForwardError::Broken(_) => Self::Broken(chain(&error)),
        }
    }
}

/// Gets a place and an answer. An instance that cannot be reached costs the request nothing but time: it asks
/// for another place, a bounded number of times.
async fn exchange(
    thread: &Thread,
    target: &Target,
    protocol: Protocol,
    mut request: Request<Outbound>,
    timeouts: Timeouts,
) -> Result<(Response<Incoming>, PooledConnection, Permit), Own> {
    let deadline = timeouts.before_response();
    let mut left = thread.shared.config.connect_attempts;
    let mut pause = Duration::from_millis(5);
    loop {
        let permit = admit(thread, &target.meter, deadline).await.map_err(Own::Refused)?;
        let retried = left < thread.shared.config.connect_attempts;
        if retried && permit.endpoint().suspect() {
            // Nobody else is left: give it a moment.
            within(deadline, tokio::time::sleep(pause)).await?;
            pause *= 3;
        }
        let unanswered = match within(deadline, forward(thread, permit.endpoint(), protocol, request)).await? {
            Ok((response, pooled)) => return Ok((response, pooled, permit)),
            Err(unanswered) => unanswered,
        };
        left -= 1;
        match unanswered {
            Unanswered { error: ForwardError::Unreachable(error), request: Some(whole) } if left > 0 => {
                tracing::debug!(instance = %permit.endpoint().instance.address, %error, "instance cannot be reached");
                let now = thread.now_millis();
                permit.pool().unreachable(permit.endpoint(), now, now + AVOID_MILLIS);
                request = whole;
            }
            Unanswered { error, .. } => return Err(error.into()),
        }
    }
}

async fn within<F: Future>(deadline: Option<Instant>, future: F) -> Result<F::Output, Own> {
    match deadline {
        Some(deadline) => timeout_at(deadline, future).await.map_err(|_| Own::Refused(Refusal::Timeout)),
        None => Ok(future.await),
    }
}

/// The host a request names, in the form it names it.
fn host_of(request: &Request<Incoming>) -> Option<HeaderValue> {
    match request.uri().authority() {
        // HTTP/2, or HTTP/1.1 to a proxy: the address wins over the header.
        Some(authority) => HeaderValue::try_from(without_user(authority)).ok(),
        None => request.headers().get(header::HOST).filter(|host| !host.is_empty()).cloned(),
    }
}

fn without_user(authority: &Authority) -> &str {
    authority.as_str().rsplit('@').next().unwrap_or_default()
}

/// Where a request's host and path lead.
enum Found {
    Match(Match),
    /// To the same place over https.
    Redirect(Response<Body>),
}

fn find(client: &Client, host: &HeaderValue, request: &Request<Incoming>) -> Result<Found, Own> {
    let path = request.uri().path();
    let name = host.to_str().unwrap_or_default();
    if request.method() == Method::CONNECT {
        return Err(Own::Connect);
    }
    let found = client.thread.route(client.visibility, name, path, request.headers()).map_err(|why| match why {
        NoRoute::Host => Own::UnknownHost(name.to_owned()),
        NoRoute::Path => Own::UnknownPath,
    })?;
    if found.redirect_to_https() {
        let full = request.uri().path_and_query().map_or(path, PathAndQuery::as_str);
        return Ok(Found::Redirect(errors::to_https(name, full)));
    }
    Ok(Found::Match(found))
}

fn too_large(thread: &Thread, headers: &http::HeaderMap) -> bool {
    let Some(most) = thread.shared.config.max_body_bytes else { return false };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    announced.is_some_and(|length| length > most)
}

/// Makes a client's request into the one its instance gets.
#[expect(clippy::too_many_arguments, reason = "all that shapes a request meets here, once")]
fn to_instance(
    client: &Client,
    request: Request<Incoming>,
    seen: Seen,
    host: &HeaderValue,
    found: &Match,
    protocol: Protocol,
    upgrade: Option<&UpgradeRequest>,
    most: Option<(u64, Rc<Cell<bool>>)>,
) -> Result<Request<Outbound>, http::Error> {
    let (mut parts, body) = request.into_parts();
    headers::to_instance(&mut parts.headers, seen, &client.origin, host);
    let shown = found.path().rewrite_host.as_ref().filter(|_| !found.was_mapped()).unwrap_or(host);
    let split = found.split().map(|split| split.append.as_slice()).unwrap_or_default();
    for (name, value) in found.path().append.iter().chain(split) {
        parts.headers.insert(name, value.clone());
    }
    if let Some(upgrade) = upgrade {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        parts.headers.insert(header::UPGRADE, upgrade.protocol.clone());
    }
    match protocol {
        Protocol::Http1 => {
            if parts.uri.scheme().is_some() || parts.uri.authority().is_some() {
                parts.uri = origin_form(&parts.uri)?;
            }
            parts.headers.insert(header::HOST, shown.clone());
            parts.version = Version::HTTP_11;
        }
        Protocol::H2c => {
            parts.headers.remove(header::HOST);
            parts.uri = absolute_form(parts.uri, shown)?;
            parts.version = Version::HTTP_2;
        }
    }
    let body = match most {
        Some((bytes, exceeded)) => Outbound::limited(body, bytes, exceeded),
        None => Outbound::new(body),
    };
    Ok(Request::from_parts(parts, body))
}

fn origin_form(uri: &Uri) -> Result<Uri, http::Error> {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::builder().path_and_query(path).build()
}

fn absolute_form(uri: Uri, host: &HeaderValue) -> Result<Uri, http::Error> {
    let mut parts = uri.into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(Authority::try_from(host.as_bytes())?);
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    Ok(Uri::from_parts(parts)?)
}

/// Makes an instance's response into the one the client gets.
fn to_client(
    client: &Rc<Client>,
    response: Response<Incoming>,
    transit: Transit,
    timeouts: Timeouts,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    headers::to_client(&mut parts.headers);
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, Body::Proxied(Proxied::new(client.clone(), body, transit, timeouts)))
}
