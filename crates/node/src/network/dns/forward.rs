//! Asking the machine's own resolvers, and remembering what they said.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::packet::{code, shape};
use crate::network::files::Resolv;

/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Rounds over all servers.
const ROUNDS: usize = 2;
/// Questions under way.
const PARALLEL: usize = 512;
/// Answers remembered, and the longest and the negative time.
const REMEMBERED: usize = 4096;
const LONGEST: u32 = 30;
const NEGATIVE: u32 = 5;
const LARGEST_UDP: usize = 4096;

/// The way to names outside the cluster.
pub(super) struct Forwarder {
    resolv_conf: PathBuf,
    ourselves: SocketAddr,
    servers: Mutex<(Option<SystemTime>, Vec<SocketAddr>)>,
    cache: Mutex<HashMap<(String, u16), Remembered>>,
    slots: Semaphore,
}

struct Remembered {
    answer: Vec<u8>,
    ttl_offsets: Vec<usize>,
    since: Instant,
    until: Instant,
}

impl Forwarder {
    /// Asks the servers that `resolv_conf` names, except `ourselves`.
    pub(super) fn new(resolv_conf: PathBuf, ourselves: SocketAddr) -> Forwarder {
        Forwarder {
            resolv_conf,
            ourselves,
            servers: Mutex::default(),
            cache: Mutex::default(),
            slots: Semaphore::new(PARALLEL),
        }
    }

    /// The answer to a question, with the question's number. `None` when nobody answers or too many wait.
    pub(super) async fn ask(&self, question: &[u8], name: &str, kind: u16, over_tcp: bool) -> Option<Vec<u8>> {
        let id = [*question.first()?, *question.get(1)?];
        let key = (name.to_owned(), kind);
        if let Some(mut answer) = self.recall(&key, over_tcp) {
            answer[..2].copy_from_slice(&id);
            return Some(answer);
        }
        let _slot = self.slots.try_acquire().ok()?;
        let servers = self.servers().await;
        for _ in 0..ROUNDS {
            for server in &servers {
                let asked = tokio::time::timeout(PATIENCE, ask_one(*server, question, over_tcp)).await;
                match asked {
                    Ok(Ok(answer)) if shape(&answer).is_some_and(|s| s.code != code::FAILURE) => {
                        self.remember(key, &answer);
                        return Some(answer);
                    }
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => tracing::debug!(%server, %error, "a resolver does not answer"),
                    Err(_) => tracing::debug!(%server, "a resolver takes too long"),
                }
            }
        }
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
            .collect();
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = (changed, servers.clone());
        servers
    }

    fn recall(&self, key: &(String, u16), over_tcp: bool) -> Option<Vec<u8>> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let held = cache.get(key).filter(|held| held.until > Instant::now())?;
        if !over_tcp && held.answer.len() > 512 {
            // Whether it fits is for the server to say, who knows the client.
            return None;
        }
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

    fn remember(&self, key: (String, u16), answer: &[u8]) {
        let Some(shape) = shape(answer) else { return };
        if shape.truncated || !matches!(shape.code, code::OK | code::NO_NAME) {
            return;
        }
        let longest = if shape.code == code::NO_NAME { NEGATIVE } else { LONGEST };
        let ttl = shape.ttl.unwrap_or(NEGATIVE).min(longest);
        if ttl == 0 {
            return;
        }
        let now = Instant::now();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= REMEMBERED {
            cache.retain(|_, held| held.until > now);
            if cache.len() >= REMEMBERED {
                cache.clear();
            }
        }
        let until = now + Duration::from_secs(ttl.into());
        cache.insert(key, Remembered { answer: answer.to_vec(), ttl_offsets: shape.ttl_offsets, since: now, until });
    }
}

async fn ask_one(server: SocketAddr, question: &[u8], over_tcp: bool) -> io::Result<Vec<u8>> {
    if over_tcp {
        let mut stream = TcpStream::connect(server).await?;
        let length = u16::try_from(question.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        return Ok(answer);
    }
    let local: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (std::net::Ipv6Addr::UNSPECIFIED, 0).into() };
    // A socket of its own: its random port is what makes answers hard to forge.
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; LARGEST_UDP];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if buffer.get(..2) == question.get(..2) && length >= 12 {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{self, Answer, Data, Query, Record, kind};
    use super::*;

    fn forwarder() -> Forwarder {
        Forwarder::new("/nonexistent".into(), ([127, 0, 0, 1], 53).into())
    }

    fn answer(id: u16, ttl: u32) -> Vec<u8> {
        let query = Query::parse(&packet::question(id, "a.test", kind::A)).expect("a question");
        let record = Record { name: String::new(), ttl, data: Data::A(Ipv4Addr::new(192, 0, 2, 1)) };
        query.answer(&Answer { answers: vec![record], ..Answer::default() }, 512)
    }

    #[tokio::test]
    async fn answers_are_remembered_under_the_new_number() {
        let forwarder = forwarder();
        forwarder.remember(("a.test".into(), kind::A), &answer(1, 10));
        let again = forwarder.ask(&packet::question(9, "a.test", kind::A), "a.test", kind::A, false).await;
        assert_eq!(again, Some(answer(9, 10)));
    }

    #[tokio::test]
    async fn without_servers_nobody_answers() {
        let asked = forwarder().ask(&packet::question(9, "b.test", kind::A), "b.test", kind::A, false).await;
        assert_eq!(asked, None);
    }

    #[test]
    fn what_does_not_last_is_not_remembered() {
        let forwarder = forwarder();
        forwarder.remember(("a.test".into(), kind::A), &answer(1, 0));
        assert_eq!(forwarder.recall(&("a.test".into(), kind::A), false), None);
    }
}
