//! The server on sockets.
//!
//! What a client costs is bounded: connections by address, requests in flight by identity, and both in all. A client
//! that shakes hands, sends or reads too slowly, or asks for nothing, is let go. The server's own parts come in process
//! ([`ApiServer::client`]) and are not counted; what they do for users counts as those users'
//! ([`ApiServer::bounded_client`]).

mod lasting;
mod patience;

use std::{
    convert::Infallible,
    future::Future,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, StatusCode};
use http_body::Body as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use knoll_bounds::{Lingering, Patient, Shares, network};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tracing::debug;

use self::{
    lasting::{Kept, Lasting},
    patience::OfConnection,
};
use crate::{
    ApiServer, UserInfo, auth,
    body::{self, Body},
    flow::{LONGEST, RequestKind, who},
    panics, respond,
    status::Status,
};

/// Most connections at once, and most of one client, by address.
const CONNECTIONS: (usize, usize) = (4096, 1024);
/// Most requests at once on one connection: as many as one client may have in flight for long.
const STREAMS: u32 = 1024;
/// Most bytes of a request's head.
const HEAD: usize = 64 * 1024;
/// Most bytes of one answer that wait for their client.
const WAITING: usize = 256 * 1024;
/// How long a client may take to shake hands, and then to send the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEAD_TIME: Duration = Duration::from_secs(32);
/// How long a connection may stay on which nothing is asked.
const IDLE: Duration = Duration::from_secs(90);
/// How often a silent HTTP/2 connection is asked whether it lives.
const PING: Duration = Duration::from_secs(30);
/// How long connections may finish what they began.
const DRAIN: Duration = Duration::from_secs(2);

/// What happens on one connection.
struct Traffic {
    address: IpAddr,
    certificate: Option<UserInfo>,
    /// Whether it carries a command by now.
    commands: Arc<AtomicBool>,
    asked: Mutex<Asked>,
}

struct Asked {
    under_way: usize,
    last: Instant,
    /// How long it may stay without a request.
    patience: Duration,
}

/// A request under way.
struct UnderWay(Arc<Traffic>);

impl Traffic {
    /// A connection begins, on which the head of the first request has to come as soon as that of any other.
    fn new(address: IpAddr, certificate: Option<UserInfo>, commands: Arc<AtomicBool>) -> Arc<Self> {
        let asked = Mutex::new(Asked { under_way: 0, last: Instant::now(), patience: HEAD_TIME });
        Arc::new(Self { address, certificate, commands, asked })
    }

    fn begin(self: &Arc<Self>) -> UnderWay {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.under_way += 1;
        asked.patience = IDLE;
        UnderWay(self.clone())
    }

    fn is_quiet(&self) -> bool {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).under_way == 0
    }

    /// Returns when nothing was asked for too long.
    async fn idle(&self) {
        loop {
            let until = {
                let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
                let from = if asked.under_way > 0 { Instant::now() } else { asked.last };
                from + asked.patience
            };
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.under_way -= 1;
        asked.last = Instant::now();
    }
}

impl ApiServer {
    /// Serves TLS connections until `stop` is ready, then lets what runs finish for a moment.
    pub async fn serve_tls(
        self: &Arc<Self>,
        listener: TcpListener,
        config: Arc<ServerConfig>,
        stop: impl Future<Output = ()> + Send,
    ) {
        let acceptor = TlsAcceptor::from(config);
        let shares = Shares::new(CONNECTIONS.0, CONNECTIONS.1);
        let (stopping, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let (stream, address) = tokio::select! {
                biased;
                () = &mut stop => break,
                Some(ended) = connections.join_next() => {
                    self.connection_ended(ended);
                    continue;
                }
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => (stream, network(address.ip())),
                    Err(error) => {
                        // Out of descriptors, most likely: others must close first.
                        debug!(%error, "accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let Some(share) = shares.take(address) else {
                self.counters.connections_refused.add();
                debug!(%address, "a connection too many");
                continue;
            };
            let (server, acceptor, stopped) = (self.clone(), acceptor.clone(), stopped.clone());
            connections.spawn(async move {
                let _share = share;
                server.connection(stream, address, acceptor, stopped).await;
            });
        }
        drop(stopped);
        stopping.send_replace(true);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            debug!("connections that did not finish are cut");
        }
    }

    /// A panic costs one connection.
    fn connection_ended(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            panics::note(&self.counters, &*panic, "", "carry a connection");
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        address: IpAddr,
        acceptor: TlsAcceptor,
        mut stopped: watch::Receiver<bool>,
    ) {
        let commands = Arc::<AtomicBool>::default();
        // Below TLS, where it is seen what the client takes.
        let Some((stream, certificate)) =
            shake_hands(acceptor, stream, OfConnection { commands: commands.clone(), counters: self.counters.clone() })
                .await
        else {
            return;
        };
        let traffic = Traffic::new(address, certificate, commands);
        let (server, requests) = (self.clone(), traffic.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (server, traffic) = (server.clone(), requests.clone());
            async move { Ok::<_, Infallible>(server.outside(request, &traffic).await) }
        });
        let builder = builder();
        let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let mut leaving = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        debug!(error = %error, "a connection ended");
                    }
                    return;
                }
                () = traffic.idle(), if !leaving => {
                    self.counters.connections_idle.add();
                    leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
                // A client that does not say goodbye, or never began, holds nothing for long.
                () = tokio::time::sleep(DRAIN), if leaving => {
                    if traffic.is_quiet() {
                        return;
                    }
                }
                () = told(&mut stopped), if !leaving => {
                    connection.as_mut().graceful_shutdown();
                    // What runs has as long as the listener gives it.
                    if let Err(error) = connection.as_mut().await {
                        debug!(error = %error, "a connection ended");
                    }
                    return;
                }
            }
        }
    }

    /// Answers a request from outside, whose sender is to be found out.
    async fn outside(self: &Arc<Self>, request: Request<Incoming>, traffic: &Arc<Traffic>) -> http::Response<Body> {
        let under_way = traffic.begin();
        let identity = match self.config.authority.authenticate(request.headers(), traffic.certificate.clone()) {
            Ok(identity) => identity,
            Err(status) => return respond::failure(&status),
        };
        let kind = RequestKind::of(&request);
        let who = who(&identity, traffic.address);
        // As with kube-apiserver, who is in charge is never kept out.
        let in_charge = kind != RequestKind::Long && identity.groups.iter().any(|group| group == "system:masters");
        let place = match self.flow.enter(kind, &who) {
            Ok(place) => Some(place),
            Err(_) if in_charge => None,
            Err(status) => {
                self.counters.throttled.add();
                return respond::failure(&status);
            }
        };
        let mut request = request.map(body::wrap);
        if kind != RequestKind::Long {
            let response = tokio::time::timeout(LONGEST, self.handle(request, identity)).await.unwrap_or_else(|_| {
                self.counters.overdue.add();
                respond::failure(&Status::overdue())
            });
            let room = match lasting::is_short(response.body()) {
                true => None,
                false => match self.flow.answer(response.body().size_hint().upper().unwrap_or_default(), &who) {
                    Ok(room) => Some(room),
                    Err(_) if in_charge => None,
                    Err(status) => {
                        self.counters.throttled.add();
                        return respond::failure(&status);
                    }
                },
            };
            return self.held(response, (place, under_way, room));
        }
        // A command outlives its answer, and holds its place itself.
        if let Some(place) = &place {
            request.extensions_mut().insert(place.clone());
        }
        let response = self.handle(request, identity).await;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            traffic.commands.store(true, Ordering::Relaxed);
            return response;
        }
        self.held(response, (place, under_way))
    }

    /// Answers a request from inside that counts as its sender's. Whoever sends it may take as long as it likes over the answer.
    pub(crate) async fn inside(self: &Arc<Self>, request: Request<Body>, identity: UserInfo) -> http::Response<Body> {
        let kind = RequestKind::of(&request);
        let place = match self.flow.enter(kind, &who(&identity, Ipv4Addr::LOCALHOST.into())) {
            Ok(place) => place,
            Err(status) => {
                self.counters.throttled.add();
                return respond::failure(&status);
            }
        };
        let response = self.handle(request, identity).await;
        response.map(|inner| body::wrap(Kept::new(inner, place)))
    }

    /// Keeps `guard` until the answer was handed over.
    fn held<G: Send + Unpin + 'static>(&self, response: http::Response<Body>, guard: G) -> http::Response<Body> {
        if lasting::is_short(response.body()) {
            return response.map(|inner| body::wrap(Kept::new(inner, guard)));
        }
        let counters = self.counters.clone();
        response.map(|inner| body::wrap(Lasting::new(inner, guard, counters)))
    }
}

/// Returns when the server stops.
async fn told(stopped: &mut watch::Receiver<bool>) {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        debug!("the listener is gone");
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD as u32)
        .max_send_buf_size(WAITING)
        .keep_alive_interval(PING)
        .adaptive_window(true);
    builder
}

type Encrypted = tokio_rustls::server::TlsStream<Patient<Lingering<TcpStream>, OfConnection>>;

/// TLS, and whom the client's certificate names. `None` when it fails: that is the client's affair.
async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    patience: OfConnection,
) -> Option<(Encrypted, Option<UserInfo>)> {
    // Small answers must not wait for more.
    stream.set_nodelay(true).ok()?;
    let stream = Patient::new(Lingering::unless(stream, patience.commands.clone()), patience);
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await.ok()?.ok()?;
    let certificates = stream.get_ref().1.peer_certificates();
    let identity = certificates.and_then(|c| c.first()).and_then(|leaf| auth::user_of_certificate(leaf));
    Some((stream, identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_was_asked_yet_is_let_go_as_soon_as_one_whose_head_does_not_come() {
        let traffic = Traffic::new(IpAddr::from([192, 0, 2, 1]), None, Arc::default());
        let begun = Instant::now();
        traffic.idle().await;
        assert_eq!(begun.elapsed(), HEAD_TIME);
        drop(traffic.begin());
        let begun = Instant::now();
        traffic.idle().await;
        assert_eq!(begun.elapsed(), IDLE);
    }

    #[test]
    fn the_accounts_of_a_namespace_share_one_part() {
        let of = |user: &str| who(&UserInfo::new(user, &[]), IpAddr::from([192, 0, 2, 1]));
        assert_eq!(of("system:serviceaccount:a:one"), of("system:serviceaccount:a:two"));
        assert_ne!(of("system:serviceaccount:a:one"), of("system:serviceaccount:b:one"));
        assert_eq!((of("ann"), of("system:anonymous")), ("ann".into(), "192.0.2.1".into()));
        assert_ne!(of("system:serviceaccount:a:one"), of("system:serviceaccount:a"));
    }
}
