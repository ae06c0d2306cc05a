//! Durable ingest: events of 1 KB posted to a Broker of a running instance, which answers 202 once they are on disk; by one
//! sender and by 64, one at a time and in batches.
//!
//! Beside it stand what a machine gives at most, a bare HTTP server that discards what it reads; what durable ingest over
//! HTTP can be at most, the same server awaiting one `fdatasync` of a plain file for all that waits; and NATS JetStream
//! with file storage, synced always and as it comes, through its own client. All take turns, each mode by itself.

mod jet_stream;

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use self::jet_stream::{JetStream, Synced};
use crate::cpu::Whose;
use crate::figures::{Spread, figure};
use crate::instance::Instance;
use crate::peer::Peer;
use crate::senders::{self, Post};
use crate::{block_on, brokers};

/// Events of a batch.
const BATCH: usize = 20;
/// Senders, and events of a request.
const MODES: [(usize, usize); 4] = [(1, 1), (64, 1), (1, BATCH), (64, BATCH)];
/// Rounds in which all take turns.
const ROUNDS: usize = 3;
/// Until what was sent is no more worked on.
const REST: Duration = Duration::from_millis(300);
/// The broker.
const BROKER: &str = "ingest";

/// One round of one contestant.
struct Round {
    /// Events a second.
    rate: f64,
    /// Microseconds until a request was answered.
    p50: f64,
    p99: f64,
    /// Processor time of the server, microseconds an event.
    cpu: f64,
}

/// Who takes events.
enum Contestant<'a> {
    /// Over HTTP: an address, and the host and path that are asked for.
    Http(SocketAddr, &'a str, String),
    /// JetStream.
    Nats(&'a JetStream),
}

/// Measures rounds of so many seconds.
pub(crate) fn run(seconds: u32) -> Result<String, Box<dyn Error>> {
    let folder = tempfile::Builder::new().prefix("knoll-bench").tempdir_in("/var/tmp")?;
    let instance = Instance::start(&folder.path().join("data"), &[])?;
    let ingress = block_on(async {
        let mut client = instance.credentials.connect().await?;
        brokers::create(&mut client, &[BROKER.to_owned()]).await?;
        brokers::ingress(&mut client).await
    })?;
    let discarding = Peer::discarding()?;
    let syncing = Peer::syncing(&folder.path().join("plain"))?;
    let always = JetStream::start(&folder.path().join("nats-always"), Synced::Always)?;
    let default = JetStream::start(&folder.path().join("nats-default"), Synced::AsItComes)?;
    let bare = |peer: &Peer| (Contestant::Http(peer.address, "bench", "/".to_owned()), peer.process());
    let ours = Contestant::Http(ingress, brokers::HOST, brokers::path(BROKER));
    let contestants = [
        ("knoll", (ours, Whose::Process(instance.process()))),
        ("HTTP server, plain file synced", bare(&syncing)),
        ("HTTP server that discards", bare(&discarding)),
        ("JetStream, sync always", (Contestant::Nats(&always), always.process())),
        ("JetStream, default sync", (Contestant::Nats(&default), default.process())),
    ];
    let length = Duration::from_secs(seconds.into());
    let mut text = String::new();
    for (senders, batch) in MODES {
        let mut rounds: Vec<Vec<Round>> = contestants.iter().map(|_| Vec::new()).collect();
        for _ in 0..ROUNDS {
            for ((_, (contestant, whose)), rounds) in contestants.iter().zip(&mut rounds) {
                std::thread::sleep(REST);
                let round = round(contestant, whose, (senders, batch), length);
                // What was measured by then is told all the same.
                rounds.push(round.map_err(|error| format!("{error}; before that:\n{text}"))?);
            }
        }
        text.push_str(&told(senders, batch, &contestants.each_ref().map(|(name, _)| *name), &rounds));
    }
    instance.stop()?;
    Ok(text.trim_end().to_owned())
}

fn round(
    contestant: &Contestant<'_>,
    whose: &Whose,
    (senders, batch): (usize, usize),
    length: Duration,
) -> Result<Round, Box<dyn Error>> {
    let (before, begun) = (whose.micros(), Instant::now());
    let (waits, took) = match contestant {
        Contestant::Http(address, host, path) => {
            let waits = block_on(senders::flood(*address, &Post::new(host, path, batch), senders, length))?;
            (waits, begun.elapsed())
        }
        Contestant::Nats(server) => server.flood(senders, batch, length)?,
    };
    let events = (waits.values().len() * batch) as f64;
    Ok(Round {
        rate: events / took.as_secs_f64(),
        p50: waits.at(50.0),
        p99: waits.at(99.0),
        cpu: (whose.micros() - before) / events,
    })
}

/// Medians of each, beside the second, which is the measure.
fn told(senders: usize, batch: usize, names: &[&str], rounds: &[Vec<Round>]) -> String {
    let middle = |at: usize, of: fn(&Round) -> f64| Spread::of(&rounds[at].iter().map(of).collect::<Vec<_>>()).at(50.0);
    let heading = format!("{senders} senders, {batch} of 1 KB a request");
    let mut text =
        format!("{heading:<34} events/s   x synced   x synced (p50)   p50 us   p99 us   server CPU us an event\n");
    for (at, name) in names.iter().enumerate() {
        let (rate, p50) = (middle(at, |round| round.rate), middle(at, |round| round.p50));
        let (rates, waits) = (figure(rate / middle(1, |round| round.rate)), figure(p50 / middle(1, |round| round.p50)));
        let (p99, cpu) = (middle(at, |round| round.p99), middle(at, |round| round.cpu));
        text.push_str(&format!("{name:<33} {rate:>9.0} {rates:>10} {waits:>16} {p50:>8.0} {p99:>8.0} {cpu:>24.1}\n"));
    }
    text
}
