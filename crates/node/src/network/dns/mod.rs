//! The DNS server that pods ask: names of the cluster from what the API holds, all others from the machine's own
//! resolvers.

mod forward;
pub mod packet;
mod zone;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};

use crate::config::Callbacks;
use crate::shared::Shared;
use forward::Forwarder;
use packet::{Answer, Malformed, Query, code};
pub use zone::{Names, Outcome, ServiceNames, Zone};

/// Connections and forwarded questions at a time; more are refused.
const PARALLEL: usize = 1024;
/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(10);
const LARGEST: usize = 4096;

/// A server that listens.
pub(crate) struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
    answering: Arc<Answering>,
}

/// What it takes to answer.
struct Answering {
    domain: String,
    gateway: Ipv4Addr,
    names: watch::Receiver<Arc<Names>>,
    callbacks: Callbacks,
    forwarder: Forwarder,
    slots: Arc<Semaphore>,
}

impl Server {
    /// Listens on `address`, UDP and TCP.
    pub(crate) async fn bind(
        address: SocketAddr,
        shared: &Shared,
        names: watch::Receiver<Arc<Names>>,
    ) -> io::Result<Server> {
        let udp = UdpSocket::bind(address).await?;
        let tcp = TcpListener::bind(address).await?;
        let answering = Answering {
            domain: shared.config.cluster_domain.to_lowercase(),
            gateway: shared.config.gateway,
            names,
            callbacks: shared.callbacks.clone(),
            forwarder: Forwarder::new(shared.config.resolv_conf.clone(), address),
            slots: Arc::new(Semaphore::new(PARALLEL)),
        };
        Ok(Server { udp, tcp, answering: Arc::new(answering) })
    }

    /// Answers for ever.
    pub(crate) async fn run(self) {
        let Server { udp, tcp, answering } = self;
        tokio::join!(serve_udp(Arc::new(udp), Arc::clone(&answering)), serve_tcp(tcp, answering));
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, answering: Arc<Answering>) {
    let mut buffer = vec![0; LARGEST];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An earlier answer that nobody took is reported here; the socket itself is fine.
            Err(error) => {
                tracing::debug!(%error, "a DNS question was not received");
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
        };
        let message = &buffer[..length];
        match answering.here(message, false) {
            Here::Answer(answer) => drop(socket.send_to(&answer, client).await),
            Here::Silence => {}
            Here::Ask(work) => {
                let Ok(slot) = Arc::clone(&answering.slots).try_acquire_owned() else {
                    drop(socket.send_to(&work.query.answer(&failure(), LARGEST), client).await);
                    continue;
                };
                let (socket, answering, message) = (Arc::clone(&socket), Arc::clone(&answering), message.to_vec());
                tokio::spawn(async move {
                    let answer = answering.elsewhere(&message, work, false).await;
                    // A client that has gone away asks again.
                    drop(socket.send_to(&answer, client).await);
                    drop(slot);
                });
            }
        }
    }
}

async fn serve_tcp(listener: TcpListener, answering: Arc<Answering>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a DNS connection was not accepted");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        // Over the bound the connection is closed; resolvers try again.
        let Ok(slot) = Arc::clone(&answering.slots).try_acquire_owned() else { continue };
        let answering = Arc::clone(&answering);
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &answering).await {
                tracing::trace!(%error, "a DNS connection ended");
            }
            drop(slot);
        });
    }
}

async fn converse(mut stream: TcpStream, answering: &Answering) -> io::Result<()> {
    loop {
        let length = match tokio::time::timeout(IDLE, stream.read_u16()).await {
            Ok(length) => usize::from(length?),
            Err(_) => return Ok(()),
        };
        let mut message = vec![0; length];
        tokio::time::timeout(IDLE, stream.read_exact(&mut message)).await.map_err(io::Error::other)??;
        let answer = match answering.here(&message, true) {
            Here::Answer(answer) => answer,
            Here::Silence => return Ok(()),
            Here::Ask(work) => answering.elsewhere(&message, work, true).await,
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await?;
    }
}

fn failure() -> Answer {
    Answer { code: code::FAILURE, ..Answer::default() }
}

/// What can be said without asking others.
enum Here {
    Answer(Vec<u8>),
    Silence,
    Ask(Box<Work>),
}

/// A question for others.
struct Work {
    query: Query,
    /// Aliases that lead out of the cluster, and where to.
    alias: Option<(Answer, String)>,
}

impl Answering {
    fn here(&self, message: &[u8], over_tcp: bool) -> Here {
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(Malformed::Hopeless) => return Here::Silence,
            Err(Malformed::Refused(id, code)) => return Here::Answer(packet::refusal(id, code)),
        };
        let names = Arc::clone(&self.names.borrow());
        let zone = Zone {
            domain: &self.domain,
            names: &names,
            gateway: self.gateway,
            gateway_serves: &*self.callbacks.gateway_serves,
        };
        let limit = if over_tcp { usize::from(u16::MAX) } else { query.udp_limit };
        match zone.answer(&query.name, query.kind) {
            Outcome::Answered(answer) => Here::Answer(query.answer(&answer, limit)),
            Outcome::Foreign => Here::Ask(Box::new(Work { query, alias: None })),
            Outcome::Alias { answer, target } => Here::Ask(Box::new(Work { query, alias: Some((answer, target)) })),
        }
    }

    async fn elsewhere(&self, message: &[u8], work: Box<Work>, over_tcp: bool) -> Vec<u8> {
        let Work { query, alias } = *work;
        let Some((mut answer, target)) = alias else {
            let asked = self.forwarder.ask(message, &query.name, query.kind, over_tcp).await;
            return asked.unwrap_or_else(|| query.answer(&failure(), LARGEST));
        };
        // The system's resolver follows the rest; its addresses are added under the target's name.
        let limit = if over_tcp { usize::from(u16::MAX) } else { query.udp_limit };
        let found = tokio::time::timeout(Duration::from_secs(4), tokio::net::lookup_host((target.as_str(), 0))).await;
        match found {
            Ok(Ok(addresses)) if query.kind == packet::kind::A => {
                let v4 = addresses.filter_map(|a| match a {
                    SocketAddr::V4(a) => Some(*a.ip()),
                    SocketAddr::V6(_) => None,
                });
                let record = |ip| packet::Record { name: target.clone(), ttl: 5, data: packet::Data::A(ip) };
                answer.answers.extend(v4.map(record));
            }
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => answer.code = code::FAILURE,
        }
        query.answer(&answer, limit)
    }
}
