//! The DNS server that pods ask: names of the cluster from what the API holds, all others from the machine's own
//! resolvers.
//!
//! Every client has its share of questions, of questions under way and of connections (`clients`); nothing it sends
//! or does not read holds anything for long.

mod clients;
mod forward;
mod lookup;
pub mod packet;
mod zone;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};

use knoll_faults::{catch, caught};

use crate::config::Callbacks;
use crate::counters::Counters;
use crate::shared::{PodAddresses, Shared};
use clients::{Clients, Share};
use forward::Forwarder;
pub use lookup::lookup;
use packet::{Answer, Malformed, Query, code, kind};
pub use zone::{Names, Outcome, ServiceNames, Zone};

/// Connections, and questions that others are asked for, at a time; more are refused.
const PARALLEL: usize = 1024;
/// How long a connection may be idle, how long a question or an answer may take on its way, and how long a connection
/// may last.
const IDLE: Duration = Duration::from_secs(10);
const TRANSFER: Duration = Duration::from_secs(5);
const LIFE: Duration = Duration::from_secs(120);
/// Most bytes of a question.
const LARGEST: usize = 4096;
/// How long addresses behind an alias hold, seconds.
const ALIAS_TTL: u32 = 5;

/// A server that listens.
pub(crate) struct Server {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    answering: Arc<Answering>,
}

/// What it takes to answer.
struct Answering {
    domain: String,
    gateway: Ipv4Addr,
    names: watch::Receiver<Arc<Names>>,
    pods: Arc<PodAddresses>,
    callbacks: Callbacks,
    forwarder: Forwarder,
    clients: Arc<Clients>,
    slots: Arc<Semaphore>,
    counters: Arc<Counters>,
}

impl Server {
    /// Listens on `address`, UDP and TCP.
    pub(crate) async fn bind(
        address: SocketAddr,
        shared: &Shared,
        names: watch::Receiver<Arc<Names>>,
    ) -> io::Result<Server> {
        let udp = Arc::new(UdpSocket::bind(address).await?);
        let tcp = TcpListener::bind(address).await?;
        let counters = Arc::clone(&shared.counters);
        let answering = Answering {
            domain: shared.config.cluster_domain.to_lowercase(),
            gateway: shared.config.gateway,
            names,
            pods: Arc::clone(&shared.pod_addresses),
            callbacks: shared.callbacks.clone(),
            forwarder: Forwarder::new(shared.config.resolv_conf.clone(), address, Arc::clone(&counters)),
            clients: Arc::default(),
            slots: Arc::new(Semaphore::new(PARALLEL)),
            counters,
        };
        Ok(Server { udp, tcp, answering: Arc::new(answering) })
    }

    /// Answers for ever.
    pub(crate) async fn run(&self) {
        tokio::join!(serve_udp(&self.udp, &self.answering), serve_tcp(&self.tcp, &self.answering));
    }
}

async fn serve_udp(socket: &Arc<UdpSocket>, answering: &Arc<Answering>) {
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
        if !answering.clients.may_ask(client.ip(), Instant::now()) {
            answering.counters.dns_throttled.add();
            continue;
        }
        match answering.here(&buffer[..length], false) {
            // Sent at once or not at all: the loop waits for nobody.
            Here::Answer(answer) => drop(socket.try_send_to(&answer, client)),
            Here::Silence => {}
            Here::Ask(work) => {
                let Some(turn) = answering.turn(client.ip(), Share::Asking) else {
                    drop(socket.try_send_to(&work.query.answer(&failure(), LARGEST), client));
                    continue;
                };
                let (socket, answering) = (Arc::clone(socket), Arc::clone(answering));
                tokio::spawn(async move {
                    let answer = answering.elsewhere(work, false).await;
                    // A client that has gone away asks again.
                    drop(socket.send_to(&answer, client).await);
                    drop(turn);
                });
            }
        }
    }
}

async fn serve_tcp(listener: &TcpListener, answering: &Arc<Answering>) {
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a DNS connection was not accepted");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        // Over the bound the connection is closed; resolvers try again.
        let Some(turn) = answering.turn(client.ip(), Share::Connection) else { continue };
        let answering = Arc::clone(answering);
        tokio::spawn(async move {
            let talk = tokio::time::timeout(LIFE, converse(stream, client.ip(), &answering));
            if let Ok(Err(error)) = talk.await {
                tracing::trace!(%error, "a DNS connection ended");
            }
            drop(turn);
        });
    }
}

/// Answers one question after another.
async fn converse(mut stream: TcpStream, client: IpAddr, answering: &Answering) -> io::Result<()> {
    loop {
        let length = match tokio::time::timeout(IDLE, stream.read_u16()).await {
            Ok(length) => usize::from(length?),
            Err(_) => return Ok(()),
        };
        if length > LARGEST || !answering.clients.may_ask(client, Instant::now()) {
            answering.counters.dns_throttled.add();
            return Ok(());
        }
        let mut message = vec![0; length];
        tokio::time::timeout(TRANSFER, stream.read_exact(&mut message)).await??;
        let answer = match answering.here(&message, true) {
            Here::Answer(answer) => answer,
            Here::Silence => return Ok(()),
            Here::Ask(work) => answering.elsewhere(work, true).await,
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        tokio::time::timeout(TRANSFER, stream.write_all(&framed)).await??;
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

/// A client's place among those that are served.
type Turn = (clients::Taken, tokio::sync::OwnedSemaphorePermit);

impl Answering {
    /// A place for a client; `None` when it has its share already, or all places are taken.
    fn turn(&self, client: IpAddr, share: Share) -> Option<Turn> {
        let turn = || {
            let taken = self.clients.take(client, share, Instant::now())?;
            Some((taken, Arc::clone(&self.slots).try_acquire_owned().ok()?))
        };
        let turn = turn();
        if turn.is_none() {
            self.counters.dns_throttled.add();
        }
        turn
    }

    /// A question that makes this panic is answered with a failure, and the next one is asked.
    fn here(&self, message: &[u8], over_tcp: bool) -> Here {
        self.counters.dns_questions.add();
        catch(|| self.look(message, over_tcp)).unwrap_or_else(|panic| {
            self.counters.panics.add();
            tracing::error!(panic, "a DNS question panicked");
            match message {
                [high, low, ..] => Here::Answer(packet::refusal(u16::from_be_bytes([*high, *low]), code::FAILURE)),
                _ => Here::Silence,
            }
        })
    }

    fn look(&self, message: &[u8], over_tcp: bool) -> Here {
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
            pod_is_in: &|address, namespace| self.pods.is_in(address, namespace),
        };
        let limit = if over_tcp { usize::from(u16::MAX) } else { query.udp_limit };
        match zone.answer(&query.name, query.kind) {
            Outcome::Answered(answer) => Here::Answer(query.answer(&answer, limit)),
            Outcome::Foreign => Here::Ask(Box::new(Work { query, alias: None })),
            Outcome::Alias { answer, target } => Here::Ask(Box::new(Work { query, alias: Some((answer, target)) })),
        }
    }

    async fn elsewhere(&self, work: Box<Work>, over_tcp: bool) -> Vec<u8> {
        let failed = work.query.answer(&failure(), LARGEST);
        caught(self.ask_others(*work, over_tcp)).await.unwrap_or_else(|panic| {
            self.counters.panics.add();
            tracing::error!(panic, "a DNS question panicked");
            failed
        })
    }

    async fn ask_others(&self, work: Work, over_tcp: bool) -> Vec<u8> {
        let Work { query, alias } = work;
        let Some((mut answer, target)) = alias else {
            let asked = self.forwarder.ask(&query, over_tcp).await;
            let answer = asked.unwrap_or_else(|| query.answer(&failure(), LARGEST));
            return if over_tcp { answer } else { query.cut(answer) };
        };
        // Others follow the rest; its addresses are added under the target's name.
        if matches!(query.kind, kind::A | kind::ANY) {
            let found = match Query::of(&target, kind::A) {
                Some(question) => self.forwarder.ask(&question, over_tcp).await,
                None => None,
            };
            match found {
                Some(found) => {
                    let record =
                        |ip| packet::Record { name: target.clone(), ttl: ALIAS_TTL, data: packet::RecordData::A(ip) };
                    answer.answers.extend(packet::addresses(&found).into_iter().map(record));
                }
                None => answer.code = code::FAILURE,
            }
        }
        query.answer(&answer, if over_tcp { usize::from(u16::MAX) } else { query.udp_limit })
    }
}

#[cfg(test)]
mod tests;
