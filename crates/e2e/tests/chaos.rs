//! An instance is killed again and again under requests, writes and watches, and its disk fills meanwhile. Nothing
//! acknowledged is lost, no revision comes twice, no known host is unknown, no connection is refused.
//!
//! A short run by default; a long one says how long, and at what rate:
//! `KNOLL_CHAOS_SECONDS=600 KNOLL_CHAOS_RATE=2000 scripts/chaos`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    path::Path,
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use knoll_e2e::{Connection, Namespace, Own, get, request, scratch, until};
use serde_json::{Value, json};

/// Clients that send requests, and writers of the API.
const CLIENTS: u64 = 16;
const WRITERS: u64 = 4;
/// Size of the disk.
const DISK: &str = "size=1200m";

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// A small disk of its own for an instance.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(path: &Path) -> Self {
        fs::create_dir_all(path).expect("it is made");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(path).status();
        assert!(mounted.expect("mount runs").success());
        Self(path.to_owned())
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut ballast = fs::OpenOptions::new().create(true).append(true).open(self.ballast()).expect("it is made");
        let mut length = 1 << 20;
        while length > 0 {
            match io::Write::write_all(&mut ballast, &vec![0; length]) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => length /= 2,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn free(&self) {
        fs::remove_file(self.ballast()).expect("it is there");
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// What everybody saw.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    good: AtomicU64,
    unknown_host: AtomicU64,
    refused_connections: AtomicU64,
    /// Requests that were under way when the server died.
    broken: AtomicU64,
    /// Other answers than 200, by status.
    other: Mutex<BTreeMap<u16, u64>>,
    /// Each client's time from a kill to its next good answer.
    recoveries: Mutex<Vec<Duration>>,
    /// Kills so far, and when the last was.
    kills: Mutex<(u64, Option<Instant>)>,
    /// Name and version of what was acknowledged.
    writes: Mutex<Vec<(String, u64)>>,
    refused_full: AtomicU64,
    /// Names that watches told of.
    watched: Mutex<BTreeSet<String>>,
    relists: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Seen {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Sends requests at its share of the rate.
    fn client(&self, gateway: &str, host: &str, every: Duration) {
        let mut open: Option<Connection> = None;
        let mut recovered = 0;
        let mut next = Instant::now();
        while self.goes_on() {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            next = (next + every).max(Instant::now() - every * 10);
            let mut connection = match open.take().map_or_else(|| Connection::open(gateway), Ok) {
                Ok(connection) => connection,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    count(&self.refused_connections);
                    continue;
                }
                Err(_) => {
                    count(&self.broken);
                    continue;
                }
            };
            let answered = connection.send(host, "GET", "/", &[], "").and_then(|()| connection.answer());
            match answered {
                Ok(answer) if answer.status == 200 => {
                    count(&self.good);
                    self.recover(&mut recovered);
                }
                Ok(answer) if answer.status == 404 => count(&self.unknown_host),
                Ok(answer) => *lock(&self.other).entry(answer.status).or_default() += 1,
                Err(_) => {
                    count(&self.broken);
                    continue;
                }
            }
            open = Some(connection);
        }
    }

    fn recover(&self, recovered: &mut u64) {
        let (kills, last) = *lock(&self.kills);
        if kills > *recovered {
            *recovered = kills;
            lock(&self.recoveries).extend(last.map(|last| last.elapsed()));
        }
    }

    /// Writes objects one after the other.
    fn writer(&self, proxy: &str, path: &str, writer: u64) {
        for number in 0.. {
            if !self.goes_on() {
                return;
            }
            let name = format!("write-{writer}-{number}");
            let object = json!({"metadata": {"name": name}, "data": {"number": number.to_string()}}).to_string();
            let headers = [("content-type", "application/json")];
            match request(proxy, "localhost", "POST", path, &headers, &object) {
                Ok(answer) if answer.status == 201 => lock(&self.writes).push((name, version(&answer.body))),
                Ok(answer) if answer.status == 507 => {
                    count(&self.refused_full);
                    thread::sleep(Duration::from_millis(50));
                }
                _ => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Watches, goes on where it was, and lists again when told to.
    fn watcher(&self, proxy: &str, path: &str) {
        let mut at = 0;
        while self.goes_on() {
            if at == 0 {
                let Ok(answer) = get(proxy, "localhost", path) else { continue };
                if answer.status != 200 {
                    thread::sleep(Duration::from_millis(20));
                    continue;
                }
                let list: Value = serde_json::from_str(&answer.body).expect("JSON");
                at = revision(&list);
                lock(&self.watched).extend(list["items"].as_array().into_iter().flatten().map(name_of));
                count(&self.relists);
            }
            self.follow(proxy, &format!("{path}?watch=1&timeoutSeconds=5&resourceVersion={at}"), &mut at).ok();
        }
    }

    fn follow(&self, proxy: &str, path: &str, at: &mut u64) -> io::Result<()> {
        let mut connection = Connection::open(proxy)?;
        connection.send("localhost", "GET", path, &[("connection", "close")], "")?;
        let head = connection.head()?;
        if head.status != 200 {
            thread::sleep(Duration::from_millis(20));
            return Ok(());
        }
        let mut text = Vec::new();
        while self.goes_on() {
            let chunk = connection.chunk()?;
            if chunk.is_empty() {
                return Ok(());
            }
            text.extend(chunk);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line)?;
                if event["type"] == "ERROR" {
                    *at = 0;
                    return Ok(());
                }
                let now = revision(&event["object"]);
                assert!(now > *at, "a watch goes forward: {now} after {at}");
                *at = now;
                lock(&self.watched).insert(name_of(&event["object"]));
            }
        }
        Ok(())
    }
}

fn revision(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str();
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("a version in {object}"))
}

fn version(body: &str) -> u64 {
    revision(&serde_json::from_str(body).expect("JSON"))
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// Kills the instance every three to ten seconds, and fills its disk over two of the kills.
fn torment(own: &Own, disk: &Disk, seen: &Seen, length: Duration) {
    let start = Instant::now();
    let mut seed = 88_172_645_463_325_252_u64;
    let mut fills = 0_u32;
    while start.elapsed() < length || fills < 2 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        thread::sleep(Duration::from_millis(3_000 + seed % 7_000));
        let full = fills < 2 && start.elapsed() >= length * (fills + 1) / 3;
        if full {
            disk.fill();
            let before = seen.refused_full.load(Ordering::Relaxed);
            until("writes are refused", || (seen.refused_full.load(Ordering::Relaxed) > before).then_some(()));
        }
        let process = own.cluster.instance()["pid"].to_string();
        *lock(&seen.kills) = {
            let (kills, _) = *lock(&seen.kills);
            (kills + 1, Some(Instant::now()))
        };
        own.cluster.succeed("kill", &["-KILL", &process], "");
        own.up_again();
        if full {
            disk.free();
            fills += 1;
            let before = lock(&seen.writes).len();
            until("writes are taken again", || (lock(&seen.writes).len() > before).then_some(()));
        }
    }
}

#[test]
#[ignore = "starts an instance of its own and kills it for minutes: scripts/chaos"]
fn killed_again_and_again_with_a_full_disk_nothing_acknowledged_is_lost() {
    let length = Duration::from_secs(number("KNOLL_CHAOS_SECONDS", 30));
    let rate = number("KNOLL_CHAOS_RATE", 200).max(CLIENTS);
    let disk = Disk::mount(&scratch("chaos"));
    let own = Own::up("chaos");
    let space = Namespace::within(own.cluster.clone(), "chaos");
    let host = space.actor();
    until("requests are served", || get(&own.cluster.gateway, &host, "/").is_ok_and(|a| a.status == 200).then_some(()));
    let path = format!("/api/v1/namespaces/{}/configmaps", space.name);
    let seen = Seen::default();
    thread::scope(|scope| {
        let (seen, host, path, cluster) = (&seen, host.as_str(), path.as_str(), &own.cluster);
        let every =
            Duration::from_secs(1) * u32::try_from(CLIENTS).expect("few") / u32::try_from(rate).expect("a rate");
        for _ in 0..CLIENTS {
            scope.spawn(move || seen.client(&cluster.gateway, host, every));
        }
        for writer in 0..WRITERS {
            scope.spawn(move || seen.writer(&cluster.proxy, path, writer));
        }
        scope.spawn(move || seen.watcher(&cluster.proxy, path));
        // Whatever comes of it, the others must end.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| torment(&own, &disk, seen, length)));
        seen.stop.store(true, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    judge(&space, &seen);
}

fn judge(space: &Namespace, seen: &Seen) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut recoveries = std::mem::take(&mut *lock(&seen.recoveries));
    recoveries.sort();
    let of = |share: usize| recoveries.get((recoveries.len() * share / 100).min(recoveries.len().saturating_sub(1)));
    let writes = std::mem::take(&mut *lock(&seen.writes));
    println!("{} kills; {} good answers", lock(&seen.kills).0, read(&seen.good));
    println!("{} requests broken, {:?} by status", read(&seen.broken), lock(&seen.other));
    println!("{} writes acknowledged, {} refused for want of room", writes.len(), read(&seen.refused_full));
    println!("{} lists by the watcher", read(&seen.relists));
    println!("recovery p50 {:?}, p99 {:?}", of(50), of(99));
    println!("{} refused connections, {} answers 404", read(&seen.refused_connections), read(&seen.unknown_host));

    let found: BTreeMap<String, u64> =
        space.list("configmaps").iter().map(|object| (name_of(object), revision(object))).collect();
    for (name, version) in &writes {
        assert_eq!(found.get(name), Some(version), "{name} was acknowledged with this version");
    }
    let versions: BTreeSet<u64> = writes.iter().map(|(_, version)| *version).collect();
    assert_eq!(versions.len(), writes.len(), "a version was given twice");
    assert!(!writes.is_empty() && read(&seen.refused_full) > 0 && read(&seen.good) > 0);
    assert!(!lock(&seen.watched).is_empty());
    assert_eq!(read(&seen.unknown_host), 0, "known hosts were answered 404");
    assert_eq!(read(&seen.refused_connections), 0, "connections were refused");
    if let Ok(most) = env::var("KNOLL_CHAOS_RECOVERY_MS") {
        let most = Duration::from_millis(most.parse().expect("KNOLL_CHAOS_RECOVERY_MS is a number"));
        assert!(of(99).is_some_and(|p99| *p99 <= most), "recovery took longer than {most:?}");
    }
}
