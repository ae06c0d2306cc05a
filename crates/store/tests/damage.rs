//! What disks do: they fill up, fail, lose what was not synced and change bytes. Nothing acknowledged is lost, or the
//! store says so and where.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use knoll_journal::{Disk, DiskFile, LogError, MemoryDisk};
use knoll_store::{
    Durability, Expect, Inspection, OpenError, Options, Store, Write, WriteError, inspect_on, repair_on,
};

const BOOT: &str = "one";

fn options(boot_id: &str) -> Options {
    Options {
        boot_id: boot_id.into(),
        checkpoint_bytes: 1 << 10,
        cold_after: Duration::ZERO,
        log: knoll_journal::Options { segment_bytes: 1 << 10, record_bytes: 1 << 20, room_bytes: 100 },
        ..Options::default()
    }
}

fn open(disk: &MemoryDisk, boot_id: &str) -> Result<Store, OpenError> {
    Store::open_on(Arc::new(disk.clone()), options(boot_id))
}

/// A value like others of its kind, so that it packs.
fn value(n: u64) -> Bytes {
    let filler = "\"apiVersion\":\"v1\",\"kind\":\"Thing\",\"spec\":{\"replicas\":3,\"paused\":false},".repeat(4);
    Bytes::from(format!("{{{filler}\"n\":{n}}}"))
}

/// What was acknowledged: value by key.
type Acknowledged = BTreeMap<String, Bytes>;

/// Writes until all is written or the store stops. Returns the highest revision that was acknowledged.
async fn write(store: &Store, from: u64, count: u64, acknowledged: &mut Acknowledged) -> u64 {
    let mut highest = 0;
    for n in from..from + count {
        let key = format!("/test/things/{}", n % 8);
        match store.put(key.clone(), value(n), Expect::Any, Durability::Durable).await {
            Ok(revision) => {
                assert!(revision > highest);
                highest = revision;
                acknowledged.insert(key, value(n));
            }
            Err(_) => return highest,
        }
    }
    highest
}

/// Waits until the store has written a checkpoint more than `before`.
async fn checkpointed(store: &Store, before: u64) {
    let written = async {
        while store.figures().checkpoints <= before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), written).await.expect("a checkpoint is written");
}

fn check(store: &Store, acknowledged: &Acknowledged, what: &str) {
    for (key, value) in acknowledged {
        let stored = store.get(key).unwrap_or_else(|| panic!("{what}: {key} was acknowledged"));
        // One more write may have been on its way.
        let number = |bytes: &Bytes| -> u64 {
            let value: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
            value["n"].as_u64().expect("a number")
        };
        assert!(stored.value == *value || number(&stored.value) > number(value), "{what}: {key} is older");
    }
}

/// A disk with checkpoints, several segments and packed values; closed when `clean`.
async fn worked_on(clean: bool) -> (MemoryDisk, Acknowledged, u64) {
    let disk = MemoryDisk::default();
    let mut acknowledged = Acknowledged::new();
    let store = open(&disk, BOOT).expect("opens");
    let mut highest = 0;
    for round in 0..3 {
        while store.figures().checkpoints <= round {
            highest = write(&store, highest + 1, 5, &mut acknowledged).await;
        }
    }
    highest = write(&store, highest + 1, 4, &mut acknowledged).await;
    if clean {
        store.close().await;
        return (disk, acknowledged, highest);
    }
    // Killed between two checkpoints.
    let between = async {
        loop {
            let found = disk.after_kill();
            if found.files().keys().filter(|name| name.starts_with("checkpoint-")).count() == 2 {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(10), between).await.expect("the checkpoint is written");
    (found, acknowledged, highest)
}

#[tokio::test]
async fn at_every_point_where_the_disk_may_go_nothing_acknowledged_is_lost_and_no_revision_comes_again() {
    // How many operations the whole work takes.
    let total = worked_on(true).await.0.operations();
    for point in 1..total + 20 {
        let disk = MemoryDisk::default();
        disk.allow_operations(point);
        let mut acknowledged = Acknowledged::new();
        let mut highest = 0;
        if let Ok(store) = open(&disk, BOOT) {
            highest = write(&store, 1, 120, &mut acknowledged).await;
            let figures = store.figures();
            let stopped = figures.stopped.is_some();
            assert!(
                stopped || figures.checkpoint_failures > 0 || disk.operations() <= point || highest >= 120,
                "{point}"
            );
        }
        let ends = [("kill", disk.after_kill(), BOOT), ("power cut", disk.after_power_cut(), "two")];
        let random = (1..4).map(|seed| ("torn power cut", disk.after_power_cut_with(seed * 7919 + point), "two"));
        for (end, disk, boot) in ends.into_iter().chain(random) {
            let what = format!("{end} at operation {point}");
            let store = open(&disk, boot).unwrap_or_else(|error| panic!("{what}: {error}"));
            check(&store, &acknowledged, &what);
            assert!(store.revision() >= highest, "{what}");
            let next = store.put("/test/next", value(0), Expect::Any, Durability::Durable).await.expect("writes");
            assert!(next > highest, "{what}: revision {next} was used before");
            store.close().await;
        }
    }
}

#[tokio::test]
async fn a_full_disk_at_any_fill_refuses_loses_nothing_and_goes_on_when_there_is_room() {
    let most = worked_on(true).await.0.used() * 2;
    for capacity in (0..most).step_by(97) {
        let disk = MemoryDisk::default();
        let mut acknowledged = Acknowledged::new();
        let store = open(&disk, BOOT).expect("opens");
        disk.set_capacity(Some(disk.used() + capacity));
        let mut n = 0;
        let refused = loop {
            n += 1;
            let key = format!("/test/things/{}", n % 8);
            match store.put(key.clone(), value(n), Expect::Any, Durability::Durable).await {
                Ok(_) => drop(acknowledged.insert(key, value(n))),
                Err(error) => break error,
            }
            if n > 200 {
                break WriteError::Full;
            }
        };
        if n > 200 {
            // Checkpoints make room faster than this fills.
            assert!(capacity > 4 << 10, "{capacity}: the disk never fills");
            break;
        }
        assert_eq!(refused, WriteError::Full, "{capacity}");
        assert_eq!(
            store.get(&format!("/test/things/{}", n % 8)).map(|e| e.value),
            acknowledged.get(&format!("/test/things/{}", n % 8)).cloned()
        );
        let found = open(&disk.after_kill(), BOOT).unwrap_or_else(|error| panic!("{capacity}, while full: {error}"));
        check(&found, &acknowledged, "while full");
        disk.set_capacity(None);
        write(&store, n, 60, &mut acknowledged).await;
        assert!(store.figures().stopped.is_none() && store.figures().refused_full > 0);
        check(&store, &acknowledged, "after there was room");
        for (disk, boot) in [(disk.after_kill(), BOOT), (disk.after_power_cut(), "two")] {
            let found = open(&disk, boot).unwrap_or_else(|error| panic!("{capacity}: {error}"));
            check(&found, &acknowledged, "found again");
        }
        store.close().await;
        let unfinished: Vec<String> = disk.files().into_keys().filter(|name| name.ends_with(".new")).collect();
        assert!(unfinished.is_empty(), "{unfinished:?} takes up room");
    }
}

#[tokio::test]
async fn a_store_on_a_disk_without_room_opens_and_is_read() {
    let (disk, acknowledged, _) = worked_on(false).await;
    for boot in [BOOT, "two"] {
        disk.set_capacity(Some(disk.used()));
        let store = open(&disk, boot).expect("opens without writing");
        check(&store, &acknowledged, "without room");
        let refused = store.put("/test/things/1", value(0), Expect::Any, Durability::Relaxed).await;
        assert_eq!(refused, Err(WriteError::Full));
        disk.set_capacity(None);
        store.put("/test/next", value(0), Expect::Any, Durability::Relaxed).await.expect("there is room again");
        store.close().await;
        check(&open(&disk, boot).expect("opens again"), &acknowledged, "with room");
    }
}

#[tokio::test]
async fn a_changed_byte_in_any_file_costs_nothing_or_is_refused_with_file_and_place() {
    for (clean, boots) in [(true, [BOOT, "two"].as_slice()), (false, &[BOOT])] {
        let (disk, acknowledged, _) = worked_on(clean).await;
        let files = disk.files();
        assert!(files.keys().filter(|name| name.starts_with("checkpoint-")).count() == 2, "{:?}", files.keys());
        let (mut refused, mut harmless) = (0, 0);
        for (name, bytes) in &files {
            for at in 0..bytes.len() {
                let mut changed = files.clone();
                changed.get_mut(name).expect("it is there")[at] ^= 1 << (at % 8);
                for boot in boots.iter().skip(at % boots.len()).take(1) {
                    let what = format!("{name}, byte {at}, clean end {clean}");
                    match open(&MemoryDisk::holding(changed.clone()), boot) {
                        Ok(store) => {
                            harmless += 1;
                            check(&store, &acknowledged, &what);
                            store.close().await;
                        }
                        Err(OpenError::Log(LogError::Damaged { name: named, .. })) => {
                            refused += 1;
                            assert_eq!(named, *name, "{what}");
                        }
                        Err(other) => panic!("{what}: {other}"),
                    }
                }
            }
        }
        assert!(refused > 0 && harmless > 0);
    }
}

#[tokio::test]
async fn a_damaged_newest_checkpoint_costs_nothing() {
    let (disk, acknowledged, highest) = worked_on(true).await;
    let mut files = disk.files();
    let newest = files.keys().rfind(|name| name.starts_with("checkpoint-")).expect("there is one").clone();
    files.get_mut(&newest).expect("it is there").truncate(40);
    let store =
        open(&MemoryDisk::holding(files.clone()), BOOT).expect("the one before it is kept, and the log from there");
    check(&store, &acknowledged, "from the older checkpoint");
    assert_eq!(store.revision(), highest);
    for (_, bytes) in files.iter_mut().filter(|(name, _)| name.starts_with("checkpoint-")) {
        bytes.truncate(40);
    }
    let refused = open(&MemoryDisk::holding(files), BOOT).map(drop);
    assert!(matches!(&refused, Err(OpenError::DamagedCheckpoint { name, .. }) if *name == newest), "{refused:?}");
}

#[tokio::test]
async fn a_file_that_is_gone_is_refused_or_not_needed() {
    let (disk, acknowledged, _) = worked_on(true).await;
    let files = disk.files();
    let newest = files.keys().rfind(|name| name.starts_with("wal-")).expect("there is one").clone();
    // What is gone at the very end leaves no gap to see.
    for name in files.keys().filter(|name| **name != newest) {
        let mut left = files.clone();
        left.remove(name);
        match open(&MemoryDisk::holding(left), BOOT) {
            Ok(store) => check(&store, &acknowledged, name),
            Err(error) => assert!(matches!(error, OpenError::Log(_) | OpenError::Behind { .. }), "{name}: {error}"),
        }
    }
}

#[tokio::test]
async fn checkpoints_cost_no_more_than_the_log_however_large_the_state_is() {
    let disk = MemoryDisk::default();
    let store = open(&disk, BOOT).expect("opens");
    let large = Bytes::from(vec![b'x'; 64 << 10]);
    let write_large = |n| Write { key: format!("/test/large/{n}"), value: Some(large.clone()), expect: Expect::Any };
    store.commit((0..8).map(write_large).collect(), Durability::Durable).await.expect("writes");
    checkpointed(&store, 0).await;
    let before = store.figures().checkpoints;
    let mut acknowledged = Acknowledged::new();
    // A tenth of the state, and ten times what makes a checkpoint of a small state due.
    write(&store, 1, 80, &mut acknowledged).await;
    assert_eq!(store.figures().checkpoints, before, "the next is due when as much was written as the last one has");
}

/// Counts down to a panic.
struct Panicking {
    disk: MemoryDisk,
    left: AtomicU64,
}

struct PanickingFile(Box<dyn DiskFile>, Arc<Panicking>);

impl Panicking {
    fn step(&self) {
        assert!(self.left.fetch_sub(1, Ordering::SeqCst) > 0, "planted");
    }
}

impl DiskFile for PanickingFile {
    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.1.step();
        self.0.append(bytes)
    }
    fn sync(&mut self) -> std::io::Result<()> {
        self.0.sync()
    }
    fn truncate(&mut self, len: u64) -> std::io::Result<()> {
        self.0.truncate(len)
    }
    fn make_room(&mut self, bytes: usize) -> std::io::Result<()> {
        self.1.step();
        self.0.make_room(bytes)
    }
}

/// The same disk, handed out by reference.
struct Shared(Arc<Panicking>);

impl Disk for Shared {
    fn create(&self, name: &str) -> std::io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(PanickingFile(self.0.disk.create(name)?, self.0.clone())))
    }
    fn append_to(&self, name: &str, len: u64) -> std::io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(PanickingFile(self.0.disk.append_to(name, len)?, self.0.clone())))
    }
    fn read(&self, name: &str) -> std::io::Result<Vec<u8>> {
        self.0.disk.read(name)
    }
    fn read_at(&self, name: &str, from: u64, most: usize) -> std::io::Result<Vec<u8>> {
        self.0.disk.read_at(name, from, most)
    }
    fn list(&self) -> std::io::Result<Vec<String>> {
        self.0.disk.list()
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.0.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.0.disk.remove(name)
    }
    fn sync_dir(&self) -> std::io::Result<()> {
        self.0.disk.sync_dir()
    }
}

#[tokio::test]
async fn a_panic_of_the_stores_thread_ends_writes_and_watches_with_a_word_and_loses_nothing() {
    for point in [2, 5, 9] {
        let disk = MemoryDisk::default();
        let shared = Shared(Arc::new(Panicking { disk: disk.clone(), left: AtomicU64::new(point) }));
        let options = Options { checkpoint_bytes: 1 << 30, ..options(BOOT) };
        let store = Store::open_on(Arc::new(shared), options).expect("opens");
        let mut watch = store.watch("/", store.revision()).expect("watches");
        let mut acknowledged = Acknowledged::new();
        write(&store, 1, 40, &mut acknowledged).await;
        for _ in 0..2 {
            let refused = store.put("/test/things/1", value(0), Expect::Any, Durability::Durable).await;
            assert_eq!(refused, Err(WriteError::Stopped("its thread panicked".into())));
        }
        let mut seen = 0;
        while let Ok(Some(_)) = watch.next().await {
            seen += 1;
        }
        assert_eq!(seen, acknowledged.len(), "the watch ends after what was acknowledged");
        check(&open(&disk.after_power_cut(), "two").expect("opens again"), &acknowledged, "after the panic");
    }
}

#[tokio::test]
async fn packed_values_are_read_as_they_were_written_before_and_after_a_restart() {
    let disk = MemoryDisk::default();
    let quiet = Options { checkpoint_bytes: 1 << 20, ..options(BOOT) };
    let store = Store::open_on(Arc::new(disk.clone()), quiet.clone()).expect("opens");
    let put = |n: u64| store.put(format!("/test/things/{n:03}"), value(n), Expect::Absent, Durability::Relaxed);
    for n in 0..300 {
        put(n).await.expect("writes");
    }
    let packed = async {
        while store.figures().packed < 300 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), packed).await.expect("all of them are alike and cold");
    let same = |store: &Store| {
        let snapshot = store.snapshot();
        let values: Vec<Bytes> = snapshot.range("/test/things/", None).map(|entry| entry.value).collect();
        assert_eq!(values, (0..300).map(value).collect::<Vec<_>>());
    };
    same(&store);
    // A checkpoint keeps them packed.
    for name in ["a", "b"] {
        let filler = Bytes::from(vec![0; 600 << 10]);
        store.put(format!("/test/filler/{name}"), filler, Expect::Any, Durability::Relaxed).await.expect("writes");
    }
    checkpointed(&store, 0).await;
    let changed = store.put("/test/things/007", value(7), Expect::Present, Durability::Durable).await.expect("writes");
    store.close().await;
    let found = Store::open_on(Arc::new(disk), quiet).expect("opens");
    same(&found);
    assert_eq!(found.get("/test/things/007").expect("is there").revision, changed);
}

fn inspected(disk: &MemoryDisk) -> Inspection {
    let before = disk.files();
    let found = inspect_on(Arc::new(disk.clone()), &options(BOOT)).expect("can be read");
    assert_eq!(disk.files(), before, "looking changes nothing");
    found
}

#[tokio::test]
async fn what_a_damaged_log_lost_is_told_before_a_repair_and_all_else_is_saved_by_it() {
    let disk = MemoryDisk::default();
    let unbounded = Options { checkpoint_bytes: 1 << 30, ..options(BOOT) };
    let store = Store::open_on(Arc::new(disk.clone()), unbounded).expect("opens");
    let mut acknowledged = Acknowledged::new();
    write(&store, 1, 30, &mut acknowledged).await;
    store.close().await;
    let sound = inspected(&disk);
    assert!(sound.refusal.is_none() && sound.loss.is_nothing() && sound.problems.is_empty(), "{sound:?}");
    assert_eq!((sound.revision, sound.entries), (30, 8));

    let mut files = disk.files();
    let (name, bytes) = files.iter_mut().nth(2).expect("a segment in the middle");
    let text = bytes.windows(10).position(|window| window == b"\"replicas\"").expect("a value in it");
    bytes[text] ^= 1;
    let name = name.clone();
    let disk = MemoryDisk::holding(files.clone());
    let found = inspected(&disk);
    assert!(matches!(&found.refusal, Some(OpenError::Log(LogError::Damaged { name: named, .. })) if *named == name));
    assert!(found.problems.iter().all(|problem| problem.file == name), "{:?}", found.problems);
    let [(key, revision)] = &found.loss.keys[..] else { panic!("{:?}", found.loss) };
    let one = *revision..=*revision;
    assert_eq!(found.loss.revisions, [one]);
    assert_eq!(*key, format!("/test/things/{}", revision % 8));
    assert!(*revision < 22, "the key was written again later");

    let done = repair_on(&(Arc::new(disk.clone()) as Arc<dyn Disk>), &options(BOOT)).expect("repairs");
    let done = done.expect("there was something to repair");
    assert_eq!(done.loss, found.loss);
    let kept: Vec<Vec<u8>> = done.aside.iter().map(|name| disk.files()[name].clone()).collect();
    assert_eq!(kept, files.into_values().collect::<Vec<_>>(), "a copy of everything is kept");
    let store = open(&disk.after_power_cut(), BOOT).expect("opens");
    check(&store, &acknowledged, "after the repair");
    assert!(store.revision() > 30 && store.watch("/", 30).is_err(), "nobody goes on from before");
    assert_eq!(inspected(&disk).aside, done.aside);
    assert!(repair_on(&(Arc::new(disk) as Arc<dyn Disk>), &options(BOOT)).expect("looks").is_none());
}

#[tokio::test]
async fn what_two_damaged_checkpoints_lost_is_told_and_the_rest_is_saved() {
    let (disk, acknowledged, _) = worked_on(true).await;
    let mut files = disk.files();
    for (_, bytes) in files.iter_mut().filter(|(name, _)| name.starts_with("checkpoint-")) {
        let value = bytes.windows(8).position(|window| window == b"/things/").expect("a key in it");
        bytes[value + 20] ^= 1;
    }
    let disk = MemoryDisk::holding(files);
    let found = inspected(&disk);
    assert!(matches!(found.refusal, Some(OpenError::DamagedCheckpoint { .. })));
    assert!(found.loss.entries == 1 && found.loss.bytes > 0, "{:?}", found.loss);
    repair_on(&(Arc::new(disk.clone()) as Arc<dyn Disk>), &options(BOOT)).expect("repairs").expect("was damaged");
    let store = open(&disk, BOOT).expect("opens");
    let lost: Vec<&String> = acknowledged.keys().filter(|key| store.get(key).is_none()).collect();
    assert!(lost.len() <= 1, "{lost:?} are gone, one entry was lost");
}

#[tokio::test]
async fn a_repair_that_is_cut_short_anywhere_can_be_done_again() {
    let (disk, acknowledged, _) = worked_on(true).await;
    let mut files = disk.files();
    let last = files.keys().rfind(|name| name.starts_with("wal-")).expect("there is one").clone();
    let bytes = files.get_mut(&last).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = MemoryDisk::holding(files);
    for point in 1..30 {
        let disk = damaged.after_kill();
        disk.allow_operations(point);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        repair_on(&shared, &options(BOOT)).ok();
        let found = disk.after_power_cut();
        repair_on(&(Arc::new(found.clone()) as Arc<dyn Disk>), &options(BOOT))
            .unwrap_or_else(|e| panic!("{point}: {e}"));
        let store = open(&found, BOOT).unwrap_or_else(|error| panic!("{point}: {error}"));
        let lost = acknowledged.keys().filter(|key| store.get(key).is_none()).count();
        assert_eq!(lost, 0, "{point}");
    }
}
