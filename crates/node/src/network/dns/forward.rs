//! Asking the machine's own resolvers, and remembering what they said.
//!
//! A question goes out in our words, not in the client's: with a random number, from a random port, and only what was
//! asked. An answer is taken when all of that comes back from the server that was asked.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::crypto::SecureRandom;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::packet::{Query, code, shape};
use crate::counters::Counters;
use crate::network::files::Resolv;

/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Rounds over all servers, and servers that are asked.
const ROUNDS: usize = 2;
const MOST_SERVERS: usize = 3;
/// Questions under way.
const PARALLEL: usize = 512;
/// Answers remembered, their bytes together, and the bytes of one.
const REMEMBERED: usize = 4096;
const MOST_BYTES: usize = 4 << 20;
const LONGEST_ANSWER: usize = 4096;
/// The longest and the negative time they are remembered for, in seconds.
const LONGEST: u32 = 30;
const NEGATIVE: u32 = 5;
/// Answers remembered that are looked at when room is needed.
const LOOKS: usize = 64;

/// The way to names outside the cluster.
pub(super) struct Forwarder {
    resolv_conf: PathBuf,
    ourselves: SocketAddr,
    servers: Mutex<(Option<SystemTime>, Vec<SocketAddr>)>,
    memory: Mutex<Memory>,
    slots: Semaphore,
    random: &'static dyn SecureRandom,
    counters: Arc<Counters>,
}

/// What the answer depends on: name, type, and what the client's extensions ask for.
type Topic = (String, u16, Option<bool>);

#[derive(Default)]
struct Memory {
    answers: HashMap<Topic, Remembered>,
    bytes: usize,
}

struct Remembered {
    answer: Vec<u8>,
    ttl_offsets: Vec<usize>,
    since: Instant,
    until: Instant,
}

impl Forwarder {
    /// Asks the servers that `resolv_conf` names, except `ourselves`.
    pub(super) fn new(resolv_conf: PathBuf, ourselves: SocketAddr, counters: Arc<Counters>) -> Forwarder {
        Forwarder {
            resolv_conf,
            ourselves,
            servers: Mutex::default(),
            memory: Mutex::default(),
            slots: Semaphore::new(PARALLEL),
            random: rustls::crypto::ring::default_provider().secure_random,
            counters,
        }
    }

    /// The answer to a question, in the client's own words. `None` when nobody answers or too many wait.
    pub(super) async fn ask(&self, query: &Query, over_tcp: bool) -> Option<Vec<u8>> {
        if let Some(answer) = self.recall(query) {
            return query.adopt(answer);
        }
        let _slot = self.slots.try_acquire().ok()?;
        let servers = self.servers().await;
        for server in (0..ROUNDS).flat_map(|_| &servers) {
            let asked = tokio::time::timeout(PATIENCE, self.ask_one(*server, query, over_tcp)).await;
            match asked {
                Ok(Ok(answer)) if shape(&answer).is_some_and(|s| s.code != code::FAILURE) => {
                    self.remember(query, &answer);
                    return query.adopt(answer);
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(%server, %error, "a resolver does not answer"),
                Err(_) => tracing::debug!(%server, "a resolver takes too long"),
            }
        }
        self.counters.dns_failed.add();
        None
    }

    /// The servers, read again when the file changes.
    async fn servers(&self) -> Vec<SocketAddr> {
        let changed = tokio::fs::metadata(&self.resolv_conf).await.and_then(|m| m.modified()).ok();
        {
            let held = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
            if held.0.is_some() && held.0 == changed {
                return held.1.clone();
            }
        }
        let text = tokio::fs::read_to_string(&self.resolv_conf).await.unwrap_or_default();
        let servers: Vec<_> = Resolv::parse(&text)
            .servers
            .iter()
            .filter_map(|s| s.parse::<IpAddr>().ok())
            .map(|ip| SocketAddr::new(ip, 53))
            .filter(|server| *server != self.ourselves)
            .take(MOST_SERVERS)
            .collect();
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = (changed, servers.clone());
        servers
    }

    async fn ask_one(&self, server: SocketAddr, query: &Query, over_tcp: bool) -> io::Result<Vec<u8>> {
        let mut id = [0; 2];
        self.random.fill(&mut id).map_err(|_| io::Error::other("the machine has no randomness"))?;
        let question = query.to_resolver(u16::from_be_bytes(id));
        if over_tcp {
            let answer = ask_over_tcp(server, &question).await?;
            return if query.is_answered_by(&question, &answer) { Ok(answer) } else { Err(self.forged()) };
        }
        let local: IpAddr =
            if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
        // A socket of its own, connected: its random port is what makes answers hard to forge, and the kernel drops
        // what comes from elsewhere.
        let socket = UdpSocket::bind((local, 0)).await?;
        socket.connect(server).await?;
        socket.send(&question).await?;
        let mut buffer = vec![0; LONGEST_ANSWER];
        loop {
            let length = socket.recv(&mut buffer).await?;
            if query.is_answered_by(&question, &buffer[..length]) {
                buffer.truncate(length);
                return Ok(buffer);
            }
            // Somebody guesses; the true answer may still come.
            drop(self.forged());
        }
    }

    fn forged(&self) -> io::Error {
        let forged = self.counters.dns_forged.add();
        if forged.is_power_of_two() {
            tracing::warn!(forged, "answers of resolvers belong to no question that was asked");
        }
        io::Error::new(io::ErrorKind::InvalidData, "the answer belongs to another question")
    }

    fn recall(&self, query: &Query) -> Option<Vec<u8>> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let held = memory.answers.get(&topic(query)).filter(|held| held.until > Instant::now())?;
        let age = u32::try_from(held.since.elapsed().as_secs()).unwrap_or(u32::MAX);
        let mut answer = held.answer.clone();
        for at in &held.ttl_offsets {
            if let Some(field) = answer.get_mut(*at..*at + 4) {
                let ttl = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
                field.copy_from_slice(&ttl.saturating_sub(age).to_be_bytes());
            }
        }
        Some(answer)
    }

    fn remember(&self, query: &Query, answer: &[u8]) {
        let Some(shape) = shape(answer) else { return };
        if shape.truncated || answer.len() > LONGEST_ANSWER || !matches!(shape.code, code::OK | code::NO_NAME) {
            return;
        }
        let longest = if shape.code == code::NO_NAME { NEGATIVE } else { LONGEST };
        let ttl = shape.ttl.unwrap_or(NEGATIVE).min(longest);
        if ttl == 0 {
            return;
        }
        let now = Instant::now();
        let until = now + Duration::from_secs(ttl.into());
        let held = Remembered { answer: answer.to_vec(), ttl_offsets: shape.ttl_offsets, since: now, until };
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).put(topic(query), held, now);
    }
}

fn topic(query: &Query) -> Topic {
    (query.name.clone(), query.kind, query.extended.then_some(query.secured))
}

impl Memory {
    fn put(&mut self, topic: Topic, held: Remembered, now: Instant) {
        self.forget(&topic);
        while self.answers.len() >= REMEMBERED || self.bytes + held.answer.len() > MOST_BYTES {
            // What is old first, of a few; somebody who asks for thousands of names must not push all others out.
            let looked_at = self.answers.iter().take(LOOKS);
            let oldest =
                looked_at.min_by_key(|(_, held)| (held.until > now, held.until)).map(|(topic, _)| topic.clone());
            let Some(oldest) = oldest else { break };
            self.forget(&oldest);
        }
        self.bytes += held.answer.len();
        self.answers.insert(topic, held);
    }

    fn forget(&mut self, topic: &Topic) {
        if let Some(held) = self.answers.remove(topic) {
            self.bytes -= held.answer.len();
        }
    }
}

async fn ask_over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::super::packet::{self, Answer, Record, RecordData, kind};
    use super::*;

    fn forwarder() -> Forwarder {
        Forwarder::new("/nonexistent".into(), ([127, 0, 0, 1], 53).into(), Arc::default())
    }

    fn query(id: u16, name: &str) -> Query {
        Query::parse(&packet::question(id, name, kind::A)).expect("a question")
    }

    fn answer(query: &Query, ttl: u32) -> Vec<u8> {
        let record = Record { name: String::new(), ttl, data: RecordData::A(Ipv4Addr::new(192, 0, 2, 1)) };
        query.answer(&Answer { answers: vec![record], ..Answer::default() }, 512)
    }

    #[tokio::test]
    async fn answers_are_remembered_and_age() {
        let forwarder = forwarder();
        let asked = query(1, "a.test");
        forwarder.remember(&asked, &answer(&asked, 300));
        let again = query(0x0203, "A.test");
        let recalled = forwarder.ask(&again, false).await.expect("remembered");
        assert_eq!((recalled[0], recalled[1]), (2, 3));
        assert_eq!(recalled[13], b'A', "a client hears its own words again");
        assert_eq!(shape(&recalled).expect("an answer").ttl, Some(300));
        assert!(forwarder.ask(&query(1, "b.test"), false).await.is_none());
        assert_eq!(forwarder.counters.read().dns_failed, 1);
    }

    #[test]
    fn what_may_not_be_kept_is_not_kept() {
        let forwarder = forwarder();
        let asked = query(1, "a.test");
        forwarder.remember(&asked, &answer(&asked, 0));
        let failed = asked.answer(&Answer { code: code::FAILURE, ..Answer::default() }, 512);
        forwarder.remember(&asked, &failed);
        assert!(forwarder.recall(&asked).is_none());
    }

    #[test]
    fn many_names_fill_the_memory_and_no_more() {
        let forwarder = forwarder();
        for n in 0..2 * REMEMBERED {
            let asked = query(1, &format!("n{n}.test"));
            forwarder.remember(&asked, &answer(&asked, 300));
        }
        let memory = forwarder.memory.lock().expect("no panic");
        assert_eq!(memory.answers.len(), REMEMBERED);
        assert_eq!(memory.bytes, memory.answers.values().map(|held| held.answer.len()).sum::<usize>());
    }

    #[tokio::test]
    async fn a_forged_answer_is_not_taken_for_the_true_one() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
        let address = server.local_addr().expect("bound");
        let serving = tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, from) = server.recv_from(&mut buffer).await.expect("receives");
            let asked = Query::parse(&buffer[..length]).expect("a question");
            let mut wrong_number = answer(&asked, 60);
            wrong_number[1] ^= 1;
            let other_name =
                answer(&Query::parse(&packet::question(asked.id, "b.test", kind::A)).expect("a question"), 60);
            let mut no_answer = answer(&asked, 60);
            no_answer[2] &= 0x7f;
            for message in [wrong_number, other_name, no_answer, vec![0; 4], answer(&asked, 60)] {
                server.send_to(&message, from).await.expect("sends");
            }
            asked.id
        });
        let forwarder = forwarder();
        let got = forwarder.ask_one(address, &query(7, "a.test"), false).await.expect("the true answer");
        assert_eq!(forwarder.counters.read().dns_forged, 4);
        assert_eq!(u16::from_be_bytes([got[0], got[1]]), serving.await.expect("served"));
    }
}
