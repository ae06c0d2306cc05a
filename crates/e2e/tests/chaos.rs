//! An instance is killed again and again under requests, writes and watches, and its disk fills meanwhile. Nothing
//! acknowledged or told by a watch is lost, no revision comes twice, no known host is unknown, no connection is refused.
//!
//! `scripts/chaos --minutes 10` says how long, and what rate is aimed at. Each client sends one request after the other,
//! so that a machine that is slower than the rate gets what it can answer; the rate that was reached is printed.

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

use knoll_e2e::{Cluster, Connection, Namespace, Own, get, request, scratch, until};
use serde_json::{Value, json};

/// Clients that send requests, and writers of the API.
const CLIENTS: u64 = 16;
const WRITERS: u64 = 4;
/// Between two writes of one writer.
const WRITE_EVERY: Duration = Duration::from_millis(20);
/// Between two connections to the API itself.
const API_EVERY: Duration = Duration::from_millis(50);
/// Sizes of the disks: all the instance has, and what its objects are on alone. The second one fills while everything
/// goes on; the first one only at the end, for a node whose disk is full evicts pods, as it must.
const DISK: &str = "1200m";
const OBJECTS: &str = "256m";

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// A small disk of its own for an instance.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(path: &Path, size: &str) -> Self {
        fs::create_dir_all(path).expect("it is made");
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).status();
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

/// What is known of an object that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It has this version.
    At(u64),
    /// It is deleted.
    Gone,
    /// The last write got no answer, or one that does not say what became of it.
    Unclear {
        /// Whether it was to delete it.
        deleting: bool,
    },
}

/// What everybody saw.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    good: AtomicU64,
    unknown_host: AtomicU64,
    /// Answers of the API to the client that asks it without a proxy.
    api_answers: AtomicU64,
    api_refused: AtomicU64,
    /// How long the slowest of those answers took.
    api_slowest: Mutex<Duration>,
    refused_connections: AtomicU64,
    /// Requests that were under way when the server died.
    broken: AtomicU64,
    /// Other answers than 200, by status.
    other: Mutex<BTreeMap<u16, u64>>,
    /// Each client's time from a kill to its next good answer, and which kill it was.
    recoveries: Mutex<Vec<(Duration, u64)>>,
    /// Kills so far, and when the last was.
    kills: Mutex<(u64, Option<Instant>)>,
    /// What was acknowledged last of each object.
    writes: Mutex<BTreeMap<String, Fate>>,
    /// Every version that was given to a write.
    versions: Mutex<Vec<u64>>,
    refused_full: AtomicU64,
    /// Kills while the disk was full.
    full: Mutex<Vec<u64>>,
    /// What else became of writes, by status or error.
    unclear: Mutex<BTreeMap<String, u64>>,
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

    /// Asks the API itself over TLS, each time on a connection of its own: whoever comes while there is no server waits.
    fn api_client(&self, cluster: &Cluster, token: &str) {
        let address = cluster.instance()["api"].as_str().expect("it has one").to_owned();
        let ca = cluster.data_dir.join("pki/ca.crt").display().to_string();
        let (authorization, url) = (format!("authorization: Bearer {token}"), format!("{address}/version"));
        let words = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "60", "--cacert", &ca, "-H"];
        while self.goes_on() {
            let begun = Instant::now();
            let output = Command::new("curl").args(words).args([&authorization, &url]).output().expect("curl runs");
            match output.status.code() {
                Some(0) if output.stdout == b"200" => {
                    count(&self.api_answers);
                    let mut slowest = lock(&self.api_slowest);
                    *slowest = begun.elapsed().max(*slowest);
                }
                // The connection was refused.
                Some(7) => count(&self.api_refused),
                // It was under way when the server died.
                _ => {}
            }
            thread::sleep(API_EVERY);
        }
    }

    fn recover(&self, recovered: &mut u64) {
        let (kills, last) = *lock(&self.kills);
        if kills > *recovered {
            *recovered = kills;
            lock(&self.recoveries).extend(last.map(|last| (last.elapsed(), kills)));
        }
    }

    /// Writes objects one after the other: makes each, changes every second one, and keeps every fourth.
    fn writer(&self, proxy: &str, path: &str, writer: u64) {
        for number in 0.. {
            let name = format!("write-{writer}-{number}");
            let one = format!("{path}/{name}");
            let mut steps = vec![("POST", path, json!({"metadata": {"name": name}, "data": {"step": "made"}}))];
            if number % 2 == 0 {
                steps.push(("PATCH", &one, json!({"data": {"step": "changed"}})));
            }
            if number % 4 != 0 {
                steps.push(("DELETE", &one, Value::Null));
            }
            for (method, path, body) in steps {
                if !self.goes_on() {
                    return;
                }
                if !self.write(proxy, &name, method, path, &body) {
                    break;
                }
            }
            thread::sleep(WRITE_EVERY);
        }
    }

    /// Writes once. Whether that was acknowledged.
    fn write(&self, proxy: &str, name: &str, method: &str, path: &str, body: &Value) -> bool {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = request(proxy, "localhost", method, path, &[("content-type", kind)], &body);
        match answer {
            Ok(answer) if matches!(answer.status, 200 | 201) && method == "DELETE" => self.note(name, Fate::Gone),
            Ok(answer) if matches!(answer.status, 200 | 201) => {
                let version = version(&answer.body);
                lock(&self.versions).push(version);
                self.note(name, Fate::At(version));
            }
            // Refused for want of room: all is as it was.
            Ok(answer) if answer.status == 507 => {
                count(&self.refused_full);
                thread::sleep(Duration::from_millis(50));
                return false;
            }
            other => {
                self.note(name, Fate::Unclear { deleting: method == "DELETE" });
                let what = other.map_or_else(|error| error.kind().to_string(), who_says);
                *lock(&self.unclear).entry(what).or_default() += 1;
                thread::sleep(Duration::from_millis(10));
                return false;
            }
        }
        true
    }

    fn note(&self, name: &str, fate: Fate) {
        lock(&self.writes).insert(name.to_owned(), fate);
    }

    fn acknowledged(&self) -> usize {
        lock(&self.versions).len()
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

/// The status of an answer and whose it is: `kubectl proxy` says 500 in plain text where the server died, the server itself
/// speaks in `Status` objects.
fn who_says(answer: knoll_e2e::Answer) -> String {
    let by = if answer.body.starts_with('{') { "the server" } else { "the proxy" };
    format!("{} by {by}", answer.status)
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
        let begun = Instant::now();
        own.cluster.succeed("kill", &["-KILL", &process], "");
        // Not before: what the one that is killed still answered is no recovery.
        {
            let mut kills = lock(&seen.kills);
            *kills = (kills.0 + 1, Some(begun));
            lock(&seen.full).extend(full.then_some(kills.0));
        }
        own.up_again();
        if full {
            disk.free();
            fills += 1;
            let before = seen.acknowledged();
            until("writes are taken again", || (seen.acknowledged() > before).then_some(()));
        }
    }
}

/// An instance on disks of its own, which go after it, in this order.
struct Scene {
    own: Own,
    objects: Disk,
    disk: Disk,
}

impl Scene {
    fn new() -> Self {
        let path = scratch("chaos");
        let disk = Disk::mount(&path, DISK);
        let objects = Disk::mount(&path.join("store"), OBJECTS);
        Self { own: Own::up("chaos"), objects, disk }
    }
}

#[test]
#[ignore = "starts an instance of its own and kills it for minutes: scripts/chaos"]
fn killed_again_and_again_with_a_full_disk_nothing_acknowledged_is_lost() {
    let length = Duration::from_secs(number("KNOLL_CHAOS_SECONDS", 60));
    let rate = number("KNOLL_CHAOS_RATE", 2000).max(CLIENTS);
    let scene = Scene::new();
    let space = Namespace::within(scene.own.cluster.clone(), "chaos");
    let host = space.actor();
    let serves = || get(&scene.own.cluster.gateway, &host, "/").is_ok_and(|a| a.status == 200).then_some(());
    until("requests are served", serves);
    let path = format!("/api/v1/namespaces/{}/configmaps", space.name);
    // It lives as long as this may take.
    let token = space.kubectl(&["create", "token", "default", "--duration=24h"]).trim().to_owned();
    let seen = Seen::default();
    let begun = Instant::now();
    thread::scope(|scope| {
        let (seen, host, path, cluster) = (&seen, host.as_str(), path.as_str(), &scene.own.cluster);
        let every =
            Duration::from_secs(1) * u32::try_from(CLIENTS).expect("few") / u32::try_from(rate).expect("a rate");
        for _ in 0..CLIENTS {
            scope.spawn(move || seen.client(&cluster.gateway, host, every));
        }
        for writer in 0..WRITERS {
            scope.spawn(move || seen.writer(&cluster.proxy, path, writer));
        }
        scope.spawn(move || seen.watcher(&cluster.proxy, path));
        scope.spawn(|| seen.api_client(cluster, &token));
        // Whatever comes of it, the others must end.
        let tormenting = || torment(&scene.own, &scene.objects, seen, length);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(tormenting));
        seen.stop.store(true, Ordering::Relaxed);
        tell(seen, begun.elapsed(), rate);
        if let Err(panic) = ended {
            // The disk goes with what is on it.
            let log = fs::read_to_string(scene.own.data().join("knoll.log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(100).collect();
            println!("{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
            std::panic::resume_unwind(panic);
        }
    });
    judge(&space, &seen);

    // Once more, with no room for anything.
    scene.disk.fill();
    scene.objects.fill();
    scene.own.signal("KILL");
    scene.own.up_again();
    judge(&space, &seen);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn tell(seen: &Seen, took: Duration, rate: u64) {
    let mut recoveries = std::mem::take(&mut *lock(&seen.recoveries));
    recoveries.sort();
    let at = |share: usize| (recoveries.len() * share / 100).min(recoveries.len().saturating_sub(1));
    let of = |share: usize| recoveries.get(at(share)).map(|(took, _)| took);
    println!("{} kills; {} good answers", lock(&seen.kills).0, read(&seen.good));
    println!("{} requests/s of the {rate} that were aimed at", read(&seen.good) / took.as_secs().max(1));
    println!("{} requests broken, {:?} by status", read(&seen.broken), lock(&seen.other));
    println!("{} writes acknowledged, {} refused for want of room", seen.acknowledged(), read(&seen.refused_full));
    println!("{:?} other answers to writes", lock(&seen.unclear));
    println!("{} lists by the watcher", read(&seen.relists));
    println!("recovery p50 {:?}, p99 {:?}", of(50), of(99));
    let worst = recoveries.len() - at(95);
    let slowest: BTreeSet<_> = recoveries.iter().rev().take(worst).map(|(_, kill)| kill).collect();
    println!("the slowest of twenty after the kills {slowest:?}, with a full disk at {:?}", lock(&seen.full));
    println!("{} refused connections, {} answers 404", read(&seen.refused_connections), read(&seen.unknown_host));
    let (answers, slowest) = (read(&seen.api_answers), *lock(&seen.api_slowest));
    println!("{answers} answers of the API by TLS, the slowest after {slowest:?}; {} refused", read(&seen.api_refused));
    if let Ok(most) = env::var("KNOLL_CHAOS_RECOVERY_MS") {
        let most = Duration::from_millis(most.parse().expect("KNOLL_CHAOS_RECOVERY_MS is a number"));
        assert!(of(99).is_some_and(|p99| *p99 <= most), "recovery took longer than {most:?}");
    }
}

/// Names and versions of all that is there.
fn everything(space: &Namespace) -> BTreeMap<String, u64> {
    let (mut found, mut token) = (BTreeMap::new(), String::new());
    loop {
        let path = format!("/api/v1/namespaces/{}/configmaps?limit=500&continue={token}", space.name);
        let page = space.cluster.read(&path);
        found.extend(page["items"].as_array().expect("a list").iter().map(|o| (name_of(o), revision(o))));
        match page["metadata"]["continue"].as_str().unwrap_or_default() {
            "" => return found,
            next => next.clone_into(&mut token),
        }
    }
}

fn judge(space: &Namespace, seen: &Seen) {
    let found = everything(space);
    let writes = lock(&seen.writes);
    for (name, fate) in &*writes {
        match fate {
            Fate::At(version) => assert_eq!(found.get(name), Some(version), "{name} was acknowledged so"),
            Fate::Gone => assert_eq!(found.get(name), None, "{name} was acknowledged as deleted"),
            Fate::Unclear { .. } => {}
        }
    }
    // What was told before it was safe would be missing now, acknowledged or not.
    let is_kept = |name: &&String| matches!(writes.get(*name), Some(Fate::At(_) | Fate::Unclear { deleting: false }));
    for name in lock(&seen.watched).iter().filter(is_kept) {
        assert!(found.contains_key(name), "a watch told of {name}");
    }
    assert!(!lock(&seen.unclear).contains_key("500 by the server"), "the server answered 500");
    let versions = lock(&seen.versions);
    assert_eq!(versions.iter().collect::<BTreeSet<_>>().len(), versions.len(), "a version was given twice");
    assert!(!versions.is_empty() && read(&seen.refused_full) > 0 && read(&seen.good) > 0);
    assert!(!lock(&seen.watched).is_empty());
    assert_eq!(read(&seen.unknown_host), 0, "known hosts were answered 404");
    assert_eq!(read(&seen.refused_connections), 0, "connections to the gateway were refused");
    assert!(read(&seen.api_answers) > 0);
    assert_eq!(read(&seen.api_refused), 0, "connections to the API were refused");
}
