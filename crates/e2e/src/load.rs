//! Many clients at once.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use crate::{
    Answer,
    http::{Connection, is_end},
};

/// What came of the requests of many clients.
#[derive(Debug, Default)]
pub struct Load {
    /// Answers with status 200.
    pub good: usize,
    /// Requests on a connection used before that ended without a byte of an answer, as a server may end one that it takes
    /// to be idle. They are sent once more, on a new connection.
    pub again: usize,
    /// What else came, at most a few of each client's.
    pub bad: Vec<String>,
}

/// How many complaints of a client are kept.
const COMPLAINTS: usize = 3;

impl Load {
    /// Sends requests on `clients` kept connections, one after the other on each, until `stop` is set. A connection that
    /// the server says it closes is followed by another.
    pub fn run(address: &str, host: &str, path: &str, clients: usize, stop: &AtomicBool) -> Self {
        Self::run_counted(address, host, path, clients, stop, &AtomicUsize::new(0))
    }

    /// As [`run`](Self::run), and counts the good answers where others see them come.
    pub fn run_counted(
        address: &str,
        host: &str,
        path: &str,
        clients: usize,
        stop: &AtomicBool,
        good: &AtomicUsize,
    ) -> Self {
        thread::scope(|scope| {
            let spawn = |_| scope.spawn(|| client(address, host, path, stop, good));
            let threads: Vec<_> = (0..clients).map(spawn).collect();
            let mut all = Self::default();
            for thread in threads {
                let one = thread.join().expect("a client does not panic");
                all.good += one.good;
                all.again += one.again;
                all.bad.extend(one.bad);
            }
            all
        })
    }
}

/// Asks; nothing when the connection ends before an answer begins.
fn exchange(connection: &mut Connection, host: &str, path: &str) -> io::Result<Option<Answer>> {
    match connection.send(host, "GET", path, &[], "") {
        Err(error) if !is_end(&error) => return Err(error),
        // What could not be sent may have been answered.
        Ok(()) | Err(_) => {}
    }
    if connection.begins()? { connection.answer().map(Some) } else { Ok(None) }
}

fn client(address: &str, host: &str, path: &str, stop: &AtomicBool, good: &AtomicUsize) -> Load {
    let mut load = Load::default();
    let mut kept = None;
    while !stop.load(Ordering::Relaxed) {
        let reused = kept.is_some();
        let mut connection = match kept.take().map_or_else(|| Connection::open(address), Ok) {
            Ok(open) => open,
            Err(error) => {
                complain(&mut load, format!("connect: {error}"));
                thread::yield_now();
                continue;
            }
        };
        match exchange(&mut connection, host, path) {
            Ok(Some(answer)) => {
                if answer.status == 200 {
                    load.good += 1;
                    good.fetch_add(1, Ordering::Relaxed);
                } else {
                    complain(&mut load, format!("{}: {}", answer.status, answer.body));
                }
                if !answer.header("connection").eq_ignore_ascii_case("close") {
                    kept = Some(connection);
                }
            }
            // The next round is the second try: its connection is new.
            Ok(None) if reused => load.again += 1,
            Ok(None) => complain(&mut load, "a new connection ended without an answer".into()),
            Err(error) => complain(&mut load, error.to_string()),
        }
    }
    load
}

fn complain(load: &mut Load, what: String) {
    if load.bad.len() < COMPLAINTS {
        load.bad.push(what);
    }
}

/// Sends `count` requests at the same time, each on a connection of its own.
pub fn at_once(address: &str, host: &str, path: &str, count: usize) -> Vec<io::Result<Answer>> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(|| crate::get(address, host, path))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a client does not panic")).collect()
    })
}
