//! Asking the cluster's server what pods get for a name, for parts of the instance that speak to Services.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::net::UdpSocket;

use super::packet::{self, Query, code, kind, shape};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a question is asked that got no answer.
const TRIES: usize = 3;
const LONGEST_ANSWER: usize = 4096;

/// The IPv4 addresses of `name` by the server at `server`; none when it has none.
///
/// # Errors
/// When it is no name, there is no such name, or nobody answers within three seconds.
pub async fn lookup(server: SocketAddr, name: &str) -> io::Result<Vec<IpAddr>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let no_name = || io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is no host name"));
    let query = Query::of(name, kind::A).ok_or_else(no_name)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(server).await?;
    let random = rustls::crypto::ring::default_provider().secure_random;
    for _ in 0..TRIES {
        let mut id = [0; 2];
        random.fill(&mut id).map_err(|_| io::Error::other("the machine has no randomness"))?;
        let question = query.to_resolver(u16::from_be_bytes(id));
        socket.send(&question).await?;
        if let Ok(answer) = tokio::time::timeout(PATIENCE, answered(&socket, &query, &question)).await {
            return read(name, &answer?);
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("the cluster's DNS at {server} does not answer")))
}

async fn answered(socket: &UdpSocket, query: &Query, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; LONGEST_ANSWER];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What answers another question is somebody's guess, or an answer that came too late.
        if query.is_answered_by(question, &buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

fn read(name: &str, answer: &[u8]) -> io::Result<Vec<IpAddr>> {
    match shape(answer).map(|shape| shape.code) {
        Some(code::OK) => Ok(packet::addresses(answer).into_iter().map(IpAddr::V4).collect()),
        Some(code::NO_NAME) => Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no host {name}"))),
        _ => Err(io::Error::other(format!("the cluster's DNS cannot tell of {name}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::packet::{Answer, Record, RecordData},
        *,
    };

    /// Answers each question with this, after the first has been left without an answer.
    async fn server(answer: Answer) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = socket.local_addr().expect("its address");
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            for at in 0..u64::MAX {
                let (length, client) = socket.recv_from(&mut buffer).await.expect("a question");
                let query = Query::parse(&buffer[..length]).expect("a question");
                if at > 0 {
                    socket.send_to(b"a guess", client).await.expect("sent");
                    socket.send_to(&query.answer(&answer, 512), client).await.expect("sent");
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn what_a_name_stands_for_is_asked_until_it_is_answered() {
        let data = RecordData::A(Ipv4Addr::new(10, 0, 0, 1));
        let record = Record { name: String::new(), ttl: 5, data };
        let there = server(Answer { answers: vec![record], ..Answer::default() }).await;
        let found = lookup(there, "a.ns.svc.cluster.local.").await.expect("it is there");
        assert_eq!(found, [IpAddr::from([10, 0, 0, 1])]);
        let nowhere = server(Answer { code: code::NO_NAME, ..Answer::default() }).await;
        let error = lookup(nowhere, "a.ns.svc.cluster.local").await.expect_err("there is none");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(lookup(there, "a..b").await.expect_err("no name").kind(), io::ErrorKind::InvalidInput);
    }
}
