//! A client's connection: which HTTP it speaks, its bounds, and its life until drained.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Poll;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use knoll_bounds::Lingering;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

use crate::client_stream::{Beginning, ClientStream};
use crate::contain::contained;
use crate::drain::Ticket;
use crate::gateway::{Shared, Visibility};
use crate::headers::{Origin, Trusted};
use crate::request::handle;
use crate::responses::Responses;
use crate::thread::{LocalExecutor, Thread};

/// Requests that a client took back before they were looked at, most of them waiting on one connection. The library's
/// own bound, said here because it is what stands between a flood of resets and the gateway.
const MOST_RESETS_WAITING: usize = 20;
/// Requests of one connection that were reset for breaking the protocol, before the connection ends.
const MOST_RESETS_FOR_ERRORS: usize = 1024;

/// A client, as its requests see it.
pub(crate) struct Client {
    pub(crate) thread: Rc<Thread>,
    pub(crate) visibility: Visibility,
    pub(crate) origin: Origin,
    pub(crate) live: Live,
    /// Whether its connection has left HTTP.
    pub(crate) upgraded: Arc<AtomicBool>,
    pub(crate) responses: Responses,
}

/// A connection that is alive; the gateway waits for the last one when it drains.
#[derive(Clone, Debug)]
pub(crate) struct Live(#[expect(dead_code, reason = "held for its drop")] Arc<Alive>);

#[derive(Debug)]
struct Alive {
    shared: Arc<Shared>,
    thread: usize,
    address: IpAddr,
}

impl Live {
    /// Counts a connection that `Shared::admit_connection` let in for `thread`.
    pub(crate) fn new(shared: Arc<Shared>, thread: usize, address: IpAddr) -> Self {
        Self(Arc::new(Alive { shared, thread, address }))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.shared.connection_ended(self.thread, self.address);
    }
}

/// Why the gateway ended a connection.
#[derive(Debug, Error)]
enum Ended {
    /// Its client did not take a response whose time was up.
    #[error("the client did not take a response whose time was up")]
    Unread,
}

/// Serves a dealt connection until it ends.
pub(crate) fn serve(thread: &Rc<Thread>, stream: std::net::TcpStream, peer: SocketAddr, visibility: Visibility) {
    let live = Live::new(thread.shared.clone(), thread.index, peer.ip());
    let thread = thread.clone();
    tokio::task::spawn_local(async move {
        let shared = thread.shared.clone();
        let talk = async move {
            let stream = TcpStream::from_std(stream)?;
            talk(thread, stream, peer, visibility, live).await
        };
        if let Some(Err(error)) = contained(&shared.metrics, "a client's connection", talk).await {
            tracing::debug!(%error, %peer, "client connection ended");
        }
    });
}

async fn talk(
    thread: Rc<Thread>,
    mut stream: TcpStream,
    peer: SocketAddr,
    visibility: Visibility,
    live: Live,
) -> Result<(), Box<dyn std::error::Error>> {
    let shared = thread.shared.clone();
    let config = &shared.config;
    let begin = Beginning::read(&mut stream);
    let mut ticket = thread.parked.ticket();
    let begin = tokio::select! {
        biased;
        begin = timeout(config.header_read_timeout, begin) => begin??,
        // A client that was let in may be about to say something.
        () = async { ticket.called().await; sleep(config.drain_linger).await } => return Ok(()),
    };
    if begin.is_empty() {
        return Ok(());
    }
    let http2 = begin.is_http2();
    let upgraded = Arc::<AtomicBool>::default();
    let stream = Lingering::unless(stream, upgraded.clone());
    let io = TokioIo::new(ClientStream::new(begin, stream, config.client_write_timeout, shared.metrics.clone()));
    let trusted = match visibility {
        Visibility::ClusterLocal => Trusted::All,
        Visibility::External => Trusted::Hops(config.trusted_hops),
    };
    let origin = Origin::new(peer.ip().to_canonical(), false, trusted);
    let patience = (!http2).then_some(config.client_write_timeout);
    let client = Rc::new(Client { thread, visibility, origin, live, upgraded, responses: Responses::new(patience) });
    let service = service_fn({
        let client = client.clone();
        move |request: Request<Incoming>| {
            let client = client.clone();
            async move { Ok::<_, Infallible>(handle(client, request).await) }
        }
    });
    let most_bytes = config.max_header_bytes;
    if http2 {
        let connection = http2::Builder::new(LocalExecutor(shared.metrics.clone()))
            .timer(TokioTimer::new())
            .max_concurrent_streams(config.max_streams)
            .max_header_list_size(u32::try_from(most_bytes).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(MOST_RESETS_WAITING)
            .max_local_error_reset_streams(MOST_RESETS_FOR_ERRORS)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .keep_alive_interval(Some(config.header_read_timeout))
            .serve_connection(io, service);
        watched(connection, ticket, &client, Duration::ZERO, |it| it.graceful_shutdown()).await
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(config.header_read_timeout)
            .max_buf_size(most_bytes)
            .serve_connection(io, service)
            .with_upgrades();
        watched(connection, ticket, &client, config.drain_linger, |it| it.graceful_shutdown()).await
    }
}

/// Runs a connection, minds the clocks of its responses and, once the gateway drains, asks it to end after its
/// present requests; one without any ends after `linger`, since a request may be on its way to it.
async fn watched<C, E>(
    connection: C,
    mut ticket: Ticket,
    client: &Client,
    linger: Duration,
    mut end: impl FnMut(Pin<&mut C>),
) -> Result<(), Box<dyn std::error::Error>>
where
    C: Future<Output = Result<(), E>>,
    E: std::error::Error + 'static,
{
    let mut connection = std::pin::pin!(connection);
    let (responses, counters) = (&client.responses, client.thread.counters());
    let (mut told, mut lingering, mut timer): (bool, Option<Pin<Box<Sleep>>>, _) = (false, None, None);
    std::future::poll_fn(|cx| {
        if !told && ticket.poll_called(cx).is_ready() {
            let lingering = lingering.get_or_insert_with(|| Box::pin(sleep(linger)));
            if linger.is_zero() || lingering.as_mut().poll(cx).is_ready() {
                told = true;
                end(connection.as_mut());
            }
        }
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended.map_err(Into::into));
            }
            match responses.poll_late(cx, &mut timer) {
                Poll::Ready(late) => {
                    counters.expired.add(late.expired as u64);
                    if late.hopeless {
                        return Poll::Ready(Err(Ended::Unread.into()));
                    }
                    // A client that reads after all is told at once.
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}
