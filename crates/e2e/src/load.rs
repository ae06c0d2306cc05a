//! Many clients at once.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::{Answer, http::Connection};

/// What came of the requests of many clients.
#[derive(Debug, Default)]
pub struct Load {
    /// Answers with status 200.
    pub good: usize,
    /// What else came, at most a few of each client's.
    pub bad: Vec<String>,
}

/// How many complaints of a client are kept.
const COMPLAINTS: usize = 3;

impl Load {
    /// Sends requests on `clients` kept connections, one after the other on each, until `stop` is set. A connection that
    /// the server says it closes is followed by another.
    pub fn run(address: &str, host: &str, path: &str, clients: usize, stop: &AtomicBool) -> Self {
        thread::scope(|scope| {
            let spawn = |_| scope.spawn(|| client(address, host, path, stop));
            let threads: Vec<_> = (0..clients).map(spawn).collect();
            let mut all = Self::default();
            for thread in threads {
                let one = thread.join().expect("a client does not panic");
                all.good += one.good;
                all.bad.extend(one.bad);
            }
            all
        })
    }
}

fn exchange(connection: &mut Connection, host: &str, path: &str) -> io::Result<Answer> {
    connection.send(host, "GET", path, &[], "")?;
    connection.answer()
}

fn client(address: &str, host: &str, path: &str, stop: &AtomicBool) -> Load {
    let mut load = Load::default();
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let open = match connection.take().map_or_else(|| Connection::open(address), Ok) {
            Ok(open) => open,
            Err(error) => {
                complain(&mut load, format!("connect: {error}"));
                thread::yield_now();
                continue;
            }
        };
        let open = connection.insert(open);
        match exchange(open, host, path) {
            Ok(answer) => {
                if answer.status == 200 {
                    load.good += 1;
                } else {
                    complain(&mut load, format!("{}: {}", answer.status, answer.body));
                }
                if answer.header("connection").eq_ignore_ascii_case("close") {
                    connection = None;
                }
            }
            Err(error) => {
                complain(&mut load, error.to_string());
                connection = None;
            }
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
