//! What must survive: a `kill -9` at any moment, and a power cut that takes everything unsynced with it.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use knoll_journal::MemoryDisk;
use knoll_store::{Durability, Expect, Options, Store, WriteError};

const CHILD: &str = "KNOLL_STORE_CRASH_DIRECTORY";
const KEYS: u64 = 50;

fn options(boot_id: &str) -> Options {
    Options {
        boot_id: boot_id.into(),
        checkpoint_bytes: 16 << 10,
        log: knoll_journal::Options { segment_bytes: 8 << 10, record_bytes: 1 << 20, room_bytes: 2 << 10 },
        ..Options::default()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Not a test of its own: the process that `kill_nine_loses_no_acknowledged_write` kills.
#[test]
fn child_that_writes_until_killed() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    runtime().block_on(async {
        let store = Store::open(directory.as_ref(), options("boot")).expect("opens");
        let writers = (0..4_u64).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..u64::MAX {
                    let key = format!("/test/things/{writer}/{}", n % KEYS);
                    let durability = if n % 3 == 0 { Durability::Relaxed } else { Durability::Durable };
                    let value = Bytes::from(format!("{n}"));
                    let revision = store.put(key.clone(), value, Expect::Any, durability).await.expect("writes");
                    println!("{revision} {key} {n}");
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("writes until killed");
        }
    });
}

#[test]
fn kill_nine_loses_no_acknowledged_write() {
    let rounds: u64 = std::env::var("KNOLL_CRASH_ROUNDS").map_or(8, |n| n.parse().expect("a number of rounds"));
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("data");
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    let mut newest = 0;
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "child_that_writes_until_killed", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let quota = 200 + 37 * round;
        let mut seen = 0;
        while let Some(Ok(line)) = lines.next() {
            if note(&line, &mut acknowledged, &mut newest) {
                seen += 1;
            }
            if seen == quota {
                child.kill().expect("kills");
            }
        }
        child.wait().expect("is reaped");
        assert!(seen >= quota, "the writer died before it was killed");
        verify(&path, &acknowledged, newest);
    }
}

/// Takes in a line of the child, if it is an acknowledgement.
fn note(line: &str, acknowledged: &mut BTreeMap<String, u64>, newest: &mut u64) -> bool {
    let mut words = line.split(' ');
    let (Some(revision), Some(key), Some(n)) = (words.next(), words.next(), words.next()) else { return false };
    let (Ok(revision), Ok(n)) = (revision.parse::<u64>(), n.parse::<u64>()) else { return false };
    acknowledged.insert(key.to_owned(), n);
    *newest = (*newest).max(revision);
    true
}

fn verify(path: &std::path::Path, acknowledged: &BTreeMap<String, u64>, newest: u64) {
    runtime().block_on(async {
        let store = Store::open(path, options("boot")).expect("opens after a kill");
        assert!(store.revision() >= newest, "revision {} was acknowledged, {} found", newest, store.revision());
        for (key, n) in acknowledged {
            let stored = store.get(key).unwrap_or_else(|| panic!("{key} was acknowledged"));
            let stored: u64 = String::from_utf8_lossy(&stored.value).parse().expect("a number");
            // A later write of the same writer may have been on its way.
            assert!(stored == *n || (stored > *n && stored <= n + KEYS), "{key}: {n} acknowledged, {stored} found");
        }
        store.close().await;
    });
}

#[test]
fn a_power_cut_loses_no_durable_write_and_reuses_no_revision() {
    runtime().block_on(async {
        let mut disk = MemoryDisk::default();
        let mut durable: BTreeMap<String, String> = BTreeMap::new();
        let mut highest = 0;
        for boot in 0..40_u64 {
            let store = Store::open_on(Arc::new(disk.clone()), options(&format!("boot-{boot}"))).expect("opens");
            assert!(store.revision() >= highest, "revisions below {highest} were seen and must not come again");
            for (key, value) in &durable {
                let stored = store.get(key).unwrap_or_else(|| panic!("{key} was acknowledged as durable"));
                assert_eq!(String::from_utf8_lossy(&stored.value), *value, "{key}");
            }
            for n in 0..(7 * boot % 97 + 5) {
                let (key, value) = (format!("/test/things/d/{}", n % 17), format!("{boot}.{n}"));
                let revision = store
                    .put(key.clone(), Bytes::from(value.clone()), Expect::Any, Durability::Durable)
                    .await
                    .expect("writes");
                assert!(revision > highest, "revision {revision} was used before");
                highest = revision;
                durable.insert(key, value);
                if n % 5 == 0 {
                    let key = format!("/test/things/r/{}", n % 3);
                    let value = Bytes::from_static(b"relaxed");
                    highest = store.put(key, value, Expect::Any, Durability::Relaxed).await.expect("writes");
                }
            }
            // A relaxed write last, so that the cut has something to lose.
            highest = store
                .put("/test/things/r/last", Bytes::from_static(b"x"), Expect::Any, Durability::Relaxed)
                .await
                .expect("writes");
            let cut = disk.after_power_cut();
            drop(store);
            disk = cut;
        }
    });
}

#[test]
fn after_a_power_cut_older_watches_are_refused() {
    runtime().block_on(async {
        let disk = MemoryDisk::default();
        let store = Store::open_on(Arc::new(disk.clone()), options("one")).expect("opens");
        let put = |n: u64| store.put(format!("/a/b/{n}"), Bytes::from_static(b"v"), Expect::Any, Durability::Durable);
        let first = put(1).await.expect("writes");
        put(2).await.expect("writes");
        let same_boot = Store::open_on(Arc::new(disk.after_power_cut()), options("one")).expect("opens");
        let mut watch = same_boot.watch("/a/b/", first).expect("the log still has it");
        assert_eq!(&*watch.try_next().expect("keeps up").expect("a change").key, "/a/b/2");
        let other_boot = Store::open_on(Arc::new(disk.after_power_cut()), options("two")).expect("opens");
        assert!(other_boot.watch("/a/b/", first).is_err());
        assert!(other_boot.watch("/a/b/", other_boot.revision()).is_ok());
    });
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    runtime().block_on(async {
        let disk = MemoryDisk::default();
        let store = Store::open_on(Arc::new(disk.clone()), options("one")).expect("opens");
        store.put("/a/b/kept", Bytes::from_static(b"v"), Expect::Any, Durability::Durable).await.expect("writes");
        disk.set_capacity(Some(300));
        // More than the log has made room for.
        let large = Bytes::from(vec![0; 3000]);
        let refused = store.put("/a/b/large", large.clone(), Expect::Any, Durability::Durable).await;
        assert_eq!(refused, Err(WriteError::Full));
        assert!(store.get("/a/b/large").is_none());
        disk.set_capacity(None);
        store.put("/a/b/large", large, Expect::Absent, Durability::Durable).await.expect("there is room again");
        let reopened = Store::open_on(Arc::new(disk.after_power_cut()), options("one")).expect("opens");
        assert!(reopened.get("/a/b/kept").is_some() && reopened.get("/a/b/large").is_some());
    });
}

#[test]
fn a_failed_sync_stops_the_store() {
    runtime().block_on(async {
        let disk = MemoryDisk::default();
        let store = Store::open_on(Arc::new(disk.clone()), options("one")).expect("opens");
        disk.fail_syncs();
        for _ in 0..2 {
            let refused = store.put("/a/b/c", Bytes::from_static(b"v"), Expect::Any, Durability::Durable).await;
            assert!(matches!(refused, Err(WriteError::Stopped(_))), "{refused:?}");
        }
        assert!(store.get("/a/b/c").is_none(), "an unacknowledged write must not be seen");
    });
}
