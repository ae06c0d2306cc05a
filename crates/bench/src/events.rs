//! The event log beside a plain file: durable appends of 1 KB events, by one writer and by 64, each waiting until its
//! event is on disk; and opening the log again with a backlog that nobody has settled.
//!
//! The peer is the least that durable ingest can be: a thread that writes whatever waits to the end of a file, with one
//! `fdatasync` for all of it. Both are asked over the same kind of channel, wake each writer by itself, and take turns.
//! Beside the opening stands reading the newest segment, which it cannot do without.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use knoll_journal::Directory;
use knoll_journal::events::{Durability, EventLog, EventOptions, EventWriter, GroupCommit, StreamId, Write, Written};

use crate::figures::{Spread, figure};
use crate::memory::pss;
use crate::plain_file::PlainFile;

/// Bytes of an event.
const SIZE: usize = 1024;
/// How many wait at a time.
const WRITERS: [usize; 2] = [1, 64];
/// Rounds in which both take turns.
const ROUNDS: usize = 5;
/// How long a round is.
const LENGTH: Duration = Duration::from_secs(2);
/// Events of a request while the backlog is made.
const REQUEST: usize = 500;
/// The argument with which this program opens a log and says what that cost.
pub(crate) const REOPEN: &str = "events-reopen";

/// Measures, with a backlog of so many thousand events.
pub(crate) fn run(thousands: usize) -> Result<String, Box<dyn Error>> {
    let folder = tempfile::Builder::new().prefix("knoll-bench").tempdir_in("/var/tmp")?;
    let mut text = String::from(
        "durable appends of 1 KB (medians)    appends/s   p50 us   p99 us   x plain file (appends/s)   x plain file (p50)\n",
    );
    for writers in WRITERS {
        let (mut ours, mut plain) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            plain.push(plain_file(&folder.path().join("plain"), writers)?);
            ours.push(event_log(&folder.path().join(format!("log-{writers}-{round}")), writers)?);
        }
        let (ours, plain) = (Figures::of(&ours), Figures::of(&plain));
        text.push_str(&ours.line(&format!("event log, {writers} writers"), &plain));
        text.push_str(&plain.line(&format!("plain file, {writers} writers"), &plain));
    }
    text.push_str(&backlog(&folder.path().join("backlog"), thousands * 1000)?);
    Ok(text)
}

/// Medians of rounds.
struct Figures {
    rate: f64,
    p50: f64,
    p99: f64,
}

impl Figures {
    fn of(rounds: &[Spread]) -> Figures {
        let middle = |of: &dyn Fn(&Spread) -> f64| Spread::of(&rounds.iter().map(of).collect::<Vec<_>>()).at(50.0);
        Figures {
            rate: middle(&|round| round.values().len() as f64 / LENGTH.as_secs_f64()),
            p50: middle(&|round| round.at(50.0)),
            p99: middle(&|round| round.at(99.0)),
        }
    }

    fn line(&self, name: &str, peer: &Figures) -> String {
        let Figures { rate, p50, p99 } = self;
        let (rates, waits) = (figure(rate / peer.rate), figure(p50 / peer.p50));
        format!("{name:<34} {rate:>11.0} {p50:>8.0} {p99:>8.0} {rates:>26} {waits:>20}\n")
    }
}

/// Lets so many writers append, each as often as it gets an answer. How many microseconds each append took.
fn appends<A: FnMut() -> Result<(), String> + Send + 'static>(
    writers: usize,
    make: impl Fn() -> A,
) -> Result<Spread, Box<dyn Error>> {
    let threads: Vec<_> = (0..writers)
        .map(|_| {
            let mut append = make();
            thread::spawn(move || {
                let (begun, mut waits) = (Instant::now(), Vec::new());
                while begun.elapsed() < LENGTH {
                    let asked = Instant::now();
                    append()?;
                    waits.push(asked.elapsed().as_secs_f64() * 1e6);
                }
                Ok::<_, String>(waits)
            })
        })
        .collect();
    let mut all = Vec::new();
    for thread in threads {
        all.extend(thread.join().map_err(|_| "a writer panicked")??);
    }
    Ok(Spread::of(&all))
}

/// The peer.
fn plain_file(path: &Path, writers: usize) -> Result<Spread, Box<dyn Error>> {
    let file = PlainFile::create(path)?;
    let spread = appends(writers, || {
        let asks = file.asks();
        let (answer, answers) = sync_channel(1);
        move || {
            let answer = answer.clone();
            let told = Box::new(move || {
                answer.send(()).ok();
            });
            asks.send((Bytes::from(vec![b'x'; SIZE]), told)).map_err(|error| error.to_string())?;
            answers.recv().map_err(|error| error.to_string())
        }
    });
    file.close()?;
    fs::remove_file(path)?;
    spread
}

fn event(stream: StreamId) -> Write {
    Write::Append { stream, time: 1, key: Bytes::new(), payload: Bytes::from(vec![b'x'; SIZE]), decoded: None }
}

/// A log of one stream with one consumer, which has settled nothing.
fn open(path: &Path) -> Result<(EventWriter, GroupCommit, StreamId), Box<dyn Error>> {
    let (mut log, _) = EventLog::open(Arc::new(Directory::make(path)?), EventOptions::default())?;
    let Written::Stream(stream) = log.write(&[Write::CreateStream { name: Bytes::from_static(b"s") }]).remove(0)?
    else {
        return Err("a stream was asked for".into());
    };
    let cursor = Write::CreateCursor { stream, name: Bytes::from_static(b"c"), parent: None, start: None };
    log.write(&[cursor]).remove(0)?;
    let (writer, thread) = GroupCommit::start(log, Box::new(|_| {}))?;
    Ok((writer, thread, stream))
}

fn event_log(path: &Path, writers: usize) -> Result<Spread, Box<dyn Error>> {
    let (writer, thread, stream) = open(path)?;
    let spread = appends(writers, || {
        let writer = writer.clone();
        let (answer, answers) = sync_channel(1);
        move || {
            let answer = answer.clone();
            let told = Box::new(move |mut outcomes: Vec<_>| drop(answer.send(outcomes.remove(0))));
            writer.submit(vec![event(stream)], Durability::Synced, told).map_err(|error| error.to_string())?;
            let outcome = answers.recv().map_err(|error| error.to_string())?;
            outcome.map(drop).map_err(|error: knoll_journal::events::WriteError| error.to_string())
        }
    });
    drop(writer);
    thread.join()?;
    fs::remove_dir_all(path)?;
    spread
}

/// Makes a backlog, and opens it again in another process.
fn backlog(path: &Path, events: usize) -> Result<String, Box<dyn Error>> {
    let (writer, thread, stream) = open(path)?;
    let begun = Instant::now();
    for _ in 0..events / REQUEST {
        let (told, answer) = channel();
        let told = Box::new(move |outcomes: Vec<_>| drop(told.send(outcomes)));
        writer.submit((0..REQUEST).map(|_| event(stream)).collect(), Durability::Synced, told)?;
        answer.recv()?.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    let rate = events as f64 / begun.elapsed().as_secs_f64();
    drop(writer);
    thread.join()?;
    let newest = fs::read_dir(path)?.filter_map(|entry| Some(entry.ok()?.path()));
    let newest = newest.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max();
    let begun = Instant::now();
    let length = fs::read(newest.ok_or("there is no segment")?)?.len();
    let plain = begun.elapsed().as_secs_f64() * 1e3;
    let output = Command::new(std::env::current_exe()?).arg(REOPEN).arg(path).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(format!(
        "made in requests of {REQUEST}: {rate:.0} events/s; its newest segment, {:.1} MB, is read as a plain file in {plain:.1} ms\n{}",
        length as f64 / 1e6,
        String::from_utf8_lossy(&output.stdout).trim_end()
    ))
}

/// Opens the log at `path` and says what that cost.
pub(crate) fn reopen(path: &Path) -> Result<String, Box<dyn Error>> {
    let process = std::process::id();
    let (before, begun) = (pss(process)?, Instant::now());
    let (log, recovery) = EventLog::open(Arc::new(Directory::new(path)), EventOptions::default())?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    if !(recovery.damages.is_empty() && recovery.lost.is_empty()) {
        return Err(format!("{recovery:?}").into());
    }
    let reader = log.reader();
    let memory = pss(process)? - before;
    let stream = reader.stream(b"s").ok_or("there is no stream")?;
    let events = reader.end(stream).ok_or("there is no stream")?;
    Ok(format!(
        "opened with {events} events that are awaited: {took:.1} ms, {memory:.1} MB more in memory, of which {:.2} MB are the \
         index: {:.2} bytes an event",
        reader.index_entries() as f64 * 8.0 / 1e6,
        reader.index_entries() as f64 * 8.0 / events as f64
    ))
}
