//! A disk that cannot be read for a while, and one that is full: what waits is delivered once it can be, and nothing is lost.

mod world;

use std::{
    collections::BTreeSet,
    io,
    pin::pin,
    sync::{Arc, Condvar, Mutex},
};

use futures_util::poll;
use knoll_broker::{
    Config, Hooks, Start, Topology,
    topology::{Name, Subscription},
};
use knoll_journal::{
    Disk, DiskFile, MemoryDisk,
    events::{EventLog, EventOptions},
    segment_name,
};
use world::*;

/// Linux's number for a read that the device cannot do, and for "too many open files".
const EIO: i32 = 5;
const EMFILE: i32 = 24;

/// Small segments, nothing of which is kept in memory.
fn from_disk() -> EventOptions {
    EventOptions { segment_bytes: 4 << 10, tail_bytes: 0, reserve_bytes: 0, room_bytes: 0, ..options() }
}

fn start(disk: &MemoryDisk, topology: &Topology) -> World {
    let disk = Arc::new(disk.clone());
    World::start_on(disk, topology.clone(), from_disk(), Config::default(), Hooks::default())
}

fn got(sinks: &Sinks, name: &str, count: usize) -> bool {
    let all: BTreeSet<String> = sinks.ids(name).into_iter().collect();
    all == (0..count).map(|number| number.to_string()).collect()
}

/// Two triggers of which each gets all, and a disk whose first segment cannot be read. How many events were sent, some of
/// them into later segments.
async fn sent_with_a_bad_segment(code: i32) -> (MemoryDisk, Sinks, Topology, World, usize) {
    let (disk, sinks, b) = (MemoryDisk::default(), Sinks::start().await, broker("b"));
    let topology = with(Topology::default(), &b, vec![to(&sinks, "one"), to(&sinks, "other")]);
    let world = start(&disk, &topology);
    world.ready(&["one", "other"]).await;
    disk.fail_reads_with(&segment_name("events", 1), code);
    let count = send_until_there_are_segments(&world, &disk, &b, 3).await;
    (disk, sinks, topology, world, count)
}

async fn send_until_there_are_segments(world: &World, disk: &MemoryDisk, to: &Name, segments: u64) -> usize {
    let mut count = 0;
    while !disk.files().contains_key(&segment_name("events", segments)) {
        world.numbers(to, count..count + 5, "t").await;
        count += 5;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_holds_nobody_up_and_comes_once_it_can_be() {
    let (disk, sinks, _, world, count) = sent_with_a_bad_segment(EIO).await;
    for name in ["one", "other"] {
        until("the last event comes", || sinks.ids(name).contains(&(count - 1).to_string())).await;
        assert!(!sinks.ids(name).contains(&"0".to_owned()), "it cannot be read");
    }
    assert!(world.metric("broker_events_unread") > 0);
    disk.mend_reads();
    for name in ["one", "other"] {
        until("all of them come", || got(&sinks, name, count)).await;
    }
    assert_eq!(world.metric("broker_events_lost"), 0);
    world.finish().await;
    assert_eq!((sinks.seen("one").len(), sinks.seen("other").len()), (count, count), "once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_read_before_the_end_comes_after_the_next_start() {
    let (disk, sinks, topology, world, count) = sent_with_a_bad_segment(EIO).await;
    for name in ["one", "other"] {
        until("the last event comes", || sinks.ids(name).contains(&(count - 1).to_string())).await;
    }
    world.finish().await;
    disk.mend_reads();
    let world = start(&disk, &topology);
    for name in ["one", "other"] {
        until("all of them come", || got(&sinks, name, count)).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_process_may_open_no_more_files_events_wait_in_their_order() {
    let (disk, sinks, _, world, count) = sent_with_a_bad_segment(EMFILE).await;
    let failed = disk.failed_reads();
    until("it was tried again", || disk.failed_reads() > failed + 1).await;
    assert!(sinks.seen("one").is_empty() && sinks.seen("other").is_empty(), "later ones are not given first");
    assert_eq!(world.metric("broker_events_unread"), 0, "nothing is wrong with them");
    disk.mend_reads();
    for name in ["one", "other"] {
        until("all of them come", || got(&sinks, name, count)).await;
    }
    world.finish().await;
}

/// Sends events to two triggers that each get all, with so much of the newest kept in memory: `each` in a message, `messages`
/// one after the other. How many bytes were read for that.
async fn read_for(tail_bytes: usize, messages: usize, each: usize) -> u64 {
    let (disk, sinks, b) = (MemoryDisk::default(), Sinks::start().await, broker("b"));
    let topology = with(Topology::default(), &b, vec![to(&sinks, "one"), to(&sinks, "other")]);
    let options = EventOptions { tail_bytes, reserve_bytes: 0, ..options() };
    let world = World::start_on(Arc::new(disk.clone()), topology, options, Config::default(), Hooks::default());
    world.ready(&["one", "other"]).await;
    let before = disk.bytes_read();
    for message in 0..messages {
        world.numbers(&b, message * each..(message + 1) * each, "t").await;
    }
    for name in ["one", "other"] {
        until("all of them come", || got(&sinks, name, messages * each)).await;
        assert_eq!(sinks.seen(name).len(), messages * each, "once each");
    }
    let read = disk.bytes_read() - before;
    world.finish().await;
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_is_delivered_out_of_memory_and_what_fell_out_of_it_comes_from_disk() {
    assert_eq!(read_for(8 << 20, 50, 1).await, 0, "one after the other");
    assert_eq!(read_for(8 << 20, 1, 500).await, 0, "all at once");
    // Of a few hundred at once few are in memory when the first are looked at.
    assert!(read_for(16 << 10, 1, 500).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_subscribes_to_is_passed_by_unread_and_who_comes_then_gets_what_comes_then() {
    let (disk, sinks, b) = (MemoryDisk::default(), Sinks::start().await, broker("b"));
    let world = start(&disk, &with(Topology::default(), &b, vec![]));
    let read = disk.bytes_read();
    for message in 0..20 {
        world.numbers(&b, message * 10..(message + 1) * 10, "t").await;
    }
    let is_passed = || {
        let log = EventLog::open(Arc::new(disk.after_kill()), from_disk()).expect("opens").0.reader();
        let (stream, _) = log.streams()[0];
        let root = log.cursor(stream, b"matched").expect("it is there");
        log.progress(root).expect("it is there").unsettled(0, log.end(stream).expect("there")).next().is_none()
    };
    until("the log knows that nobody waits", is_passed).await;
    assert_eq!(disk.bytes_read(), read);
    world.change(|topology| with(topology, &b, vec![to(&sinks, "late")]));
    world.ready(&["late"]).await;
    world.numbers(&b, 200..203, "t").await;
    sinks.wait("late", 3).await;
    let got: BTreeSet<String> = sinks.ids("late").into_iter().collect();
    assert_eq!(got, ["200", "201", "202"].map(str::to_owned).into());
    world.finish().await;
}

/// A gate before which syncs wait while it is shut.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<Before>, Condvar)>);

#[derive(Default)]
struct Before {
    is_shut: bool,
    waiting: usize,
}

impl Gate {
    fn set(&self, is_shut: bool) {
        self.0.0.lock().unwrap().is_shut = is_shut;
        self.0.1.notify_all();
    }

    fn waiting(&self) -> usize {
        self.0.0.lock().unwrap().waiting
    }

    fn pass(&self) {
        let mut before = self.0.0.lock().unwrap();
        before.waiting += 1;
        let mut before = self.0.1.wait_while(before, |before| before.is_shut).unwrap();
        before.waiting -= 1;
    }
}

/// A disk with such a gate.
struct Gated(MemoryDisk, Gate);

struct GatedFile(Box<dyn DiskFile>, Gate);

impl DiskFile for GatedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.1.pass();
        self.0.sync()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        self.0.make_room(bytes)
    }
}

impl Disk for Gated {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(GatedFile(self.0.create(name)?, self.1.clone())))
    }

    fn append_to(&self, name: &str, len: u64) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(GatedFile(self.0.append_to(name, len)?, self.1.clone())))
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.0.read(name)
    }

    fn read_at(&self, name: &str, from: u64, most: usize) -> io::Result<Vec<u8>> {
        self.0.read_at(name, from, most)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_neither_acknowledged_nor_delivered_before_it_is_on_disk() {
    let (disk, gate, sinks, b) = (MemoryDisk::default(), Gate::default(), Sinks::start().await, broker("b"));
    let topology = with(Topology::default(), &b, vec![to(&sinks, "t")]);
    let gated = Arc::new(Gated(disk.clone(), gate.clone()));
    let world = World::start_on(gated, topology, options(), Config::default(), Hooks::default());
    world.ready(&["t"]).await;
    for number in 0..10 {
        gate.set(true);
        let mut sent = pin!(world.number(&b, number, "t"));
        let before = until("the sync waits", || gate.waiting() > 0);
        tokio::select! {
            () = &mut sent => panic!("it is acknowledged while its sync waits"),
            () = before => {}
        }
        // What was delivered before it was synced would be on its way.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(poll!(&mut sent).is_pending() && sinks.seen("t").len() == number);
        gate.set(false);
        sent.await;
        let survives = EventLog::open(Arc::new(disk.after_power_cut()), options()).expect("opens").0.reader();
        let (stream, _) = survives.streams()[0];
        assert_eq!(survives.end(stream), Some(number as u64 + 1), "a power cut takes nothing of it");
        sinks.wait("t", number + 1).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_that_a_full_disk_refused_is_told_once_there_is_room() {
    let (disk, sinks, b) = (MemoryDisk::default(), Sinks::start().await, broker("b"));
    let later = Subscription { delivery: Some(retries(100_000, 20)), ..to(&sinks, "later") };
    let topology = with(Topology::default(), &b, vec![later, to(&sinks, "quick")]);
    let world = start(&disk, &topology);
    world.ready(&["later", "quick"]).await;
    sinks.on("later", |_, _| Act::Status(503));
    world.numbers(&b, 0..100, "t").await;
    until("each was tried", || sinks.seen("later").len() >= 100).await;
    disk.set_capacity(Some(disk.used()));
    sinks.on("later", |_, _| Act::Status(202));
    let is_done = |world: &World| {
        ["later", "quick"].iter().all(|uid| world.plane.status(uid).is_some_and(|status| status.lag == 0))
    };
    until("all are delivered", || got(&sinks, "quick", 100) && got(&sinks, "later", 100) && is_done(&world)).await;
    let full = disk.used();
    disk.set_capacity(None);
    until("the log is told", || disk.used() > full).await;
    world.kill().await;
    let before = sinks.seen("later").len();
    let world = start(&disk, &topology);
    world.ready(&["later", "quick"]).await;
    world.number(&b, 100, "t").await;
    until("the new one comes", || got(&sinks, "later", 101) && got(&sinks, "quick", 101) && is_done(&world)).await;
    assert_eq!((sinks.seen("later").len(), sinks.seen("quick").len()), (before + 1, 101), "none comes again");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_a_full_disk_has_no_room_for_holds_up_nobody_and_gets_events_once_there_is() {
    let (disk, sinks, b) = (MemoryDisk::default(), Sinks::start().await, broker("b"));
    let patient = || Subscription { delivery: Some(retries(100_000, 20)), ..to(&sinks, "old") };
    let hooks = Hooks::default();
    let adopted = hooks.adopted.clone();
    let topology = with(Topology::default(), &b, vec![patient()]);
    let world = World::start_on(Arc::new(disk.clone()), topology, from_disk(), Config::default(), hooks);
    world.ready(&["old"]).await;
    sinks.on("old", |_, _| Act::Status(503));
    world.numbers(&b, 0..20, "t").await;
    until("each was tried", || sinks.seen("old").len() >= 20).await;
    assert_eq!(adopted.next().await.len(), 1);
    disk.set_capacity(Some(disk.used()));
    world.change(|topology| with(topology, &b, vec![patient(), to(&sinks, "new")]));
    world.change(|topology| with(topology, &broker("other"), vec![to(&sinks, "others")]));
    sinks.on("old", |_, _| Act::Status(202));
    until("the old one takes its events", || world.plane.status("old").is_some_and(|status| status.delivered == 20))
        .await;
    assert!(world.plane.status("new").is_none() && world.plane.status("others").is_none());
    let mut noted = std::pin::pin!(adopted.next());
    assert!(futures_util::poll!(&mut noted).is_pending(), "it is not said that the new ones get events");
    disk.set_capacity(None);
    world.ready(&["new", "others"]).await;
    let mut names: Vec<String> = noted.await.iter().map(|noted| noted.name().name.to_string()).collect();
    while names.len() < 2 {
        names.extend(adopted.next().await.iter().map(|noted| noted.name().name.to_string()));
    }
    names.sort();
    assert_eq!(names, ["b", "other"]);
    world.number(&b, 20, "t").await;
    until("both get the next one", || got(&sinks, "old", 21) && sinks.ids("new") == ["20"]).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_on_a_full_disk_goes_once_there_is_room_and_takes_nothing_newer_along() {
    let (disk, sinks, b) = (MemoryDisk::default(), Sinks::start().await, broker("b"));
    let topology = with(Topology::default(), &b, vec![to(&sinks, "one")]);
    let world = start(&disk, &topology);
    world.ready(&["one"]).await;
    sinks.on("one", |_, _| Act::Hang);
    world.number(&b, 1, "t").await;
    sinks.wait("one", 1).await;
    disk.set_capacity(Some(disk.used()));
    world.change(|topology| topology.without(&b));
    until("it is gone", || world.plane.status("one").is_none()).await;
    world.change(|_| topology.clone());
    disk.set_capacity(None);
    sinks.on("one", |_, _| Act::Status(202));
    world.ready(&["one"]).await;
    world.number(&b, 2, "t").await;
    until("the new one comes", || sinks.ids("one") == ["1", "2"]).await;
    world.number(&b, 3, "t").await;
    until("and the next", || sinks.ids("one") == ["1", "2", "3"]).await;
    world.kill().await;
    let world = start(&disk, &topology);
    world.ready(&["one"]).await;
    assert_eq!(world.plane.history(&b, Start::Offset(0), 10).await.expect("is read").events.len(), 2, "and stays");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_is_back_before_the_log_knew_that_it_went_loses_nothing_from_then_on() {
    let (disk, sinks, b) = (MemoryDisk::default(), Sinks::start().await, broker("b"));
    let topology = with(Topology::default(), &b, vec![to(&sinks, "flaps"), to(&sinks, "steady")]);
    let world = start(&disk, &topology);
    world.ready(&["flaps", "steady"]).await;
    sinks.on("flaps", |_, _| Act::Hang);
    world.number(&b, 1, "t").await;
    sinks.wait("flaps", 1).await;
    // What goes cannot be told before there is room.
    disk.set_capacity(Some(disk.used()));
    world.change(|topology| with(topology, &b, vec![to(&sinks, "steady")]));
    until("it is gone", || world.plane.status("flaps").is_none()).await;
    world.change(|_| topology.clone());
    disk.set_capacity(None);
    world.ready(&["flaps"]).await;
    world.number(&b, 2, "t").await;
    sinks.wait("flaps", 2).await;
    world.kill().await;
    sinks.on("flaps", |_, _| Act::Status(202));
    let world = start(&disk, &topology);
    until("it comes after the start", || sinks.ids("flaps") == ["1", "2", "2"]).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_of_triggers_that_went_while_nobody_looked_goes_at_the_next_start() {
    let (disk, sinks, b) = (MemoryDisk::default(), Sinks::start().await, broker("b"));
    let world = start(&disk, &with(Topology::default(), &b, vec![to(&sinks, "went"), to(&sinks, "stays")]));
    world.ready(&["went", "stays"]).await;
    world.finish().await;
    let world = start(&disk, &with(Topology::default(), &b, vec![to(&sinks, "stays")]));
    world.ready(&["stays"]).await;
    world.finish().await;
    let (log, _) = EventLog::open(Arc::new(disk), from_disk()).expect("opens");
    let streams = log.reader().streams();
    let [(stream, _)] = streams[..] else { panic!("{streams:?}") };
    let names: BTreeSet<Vec<u8>> = log.reader().cursors(stream).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, BTreeSet::from([b"matched".to_vec(), b"stays".to_vec()]));
}
