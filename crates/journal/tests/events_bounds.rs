//! What things cost, counted in bytes read and entries kept; and what is answered at each bound.

use std::{
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use knoll_journal::{
    Disk, DiskFile, MemoryDisk,
    events::{
        CursorId, Decoded, EventLog, EventOptions, Gap, GapCause, Retention, SCATTER, StreamId, Write, WriteError,
        Written,
    },
};

fn options() -> EventOptions {
    EventOptions {
        segment_bytes: 1 << 20,
        budget_bytes: 1 << 30,
        tail_bytes: 0,
        reserve_bytes: 256 << 10,
        retention: Retention { age_ms: 1000, bytes: 1 << 30 },
        ..EventOptions::default()
    }
}

fn open(disk: &MemoryDisk, options: EventOptions) -> EventLog {
    EventLog::open(Arc::new(disk.clone()), options).expect("opens").0
}

fn write(log: &mut EventLog, write: Write) -> Result<Written, WriteError> {
    log.write(&[write]).remove(0)
}

fn stream(log: &mut EventLog, name: &'static str) -> StreamId {
    match write(log, Write::CreateStream { name: Bytes::from_static(name.as_bytes()) }) {
        Ok(Written::Stream(id)) => id,
        other => panic!("{other:?}"),
    }
}

fn cursor(log: &mut EventLog, stream: StreamId, name: &'static str, start: Option<u64>) -> CursorId {
    let name = Bytes::from_static(name.as_bytes());
    match write(log, Write::CreateCursor { stream, name, parent: None, start }) {
        Ok(Written::Cursor(id)) => id,
        other => panic!("{other:?}"),
    }
}

fn event(stream: StreamId, time: u64, length: usize) -> Write {
    Write::Append {
        stream,
        time,
        key: Bytes::from_static(b"key"),
        payload: Bytes::from(vec![7; length]),
        decoded: None,
    }
}

fn append(log: &mut EventLog, stream: StreamId, time: u64, length: usize) {
    write(log, event(stream, time, length)).expect("writes");
}

fn tidy(log: &mut EventLog, now: u64) -> u64 {
    let mut copied = 0;
    loop {
        let done = log.tidy(now).expect("tidies");
        copied += done.copied;
        if !done.more {
            return copied;
        }
    }
}

#[test]
fn a_start_reads_the_last_segment_and_little_of_all_others() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, options());
    let (broker, other) = (stream(&mut log, "broker"), stream(&mut log, "other"));
    for n in 0..24_000 {
        append(&mut log, if n % 16 == 0 { other } else { broker }, n, 1024);
    }
    log.sync().expect("syncs");
    let segments = log.reader().bytes() >> 20;
    assert!(segments >= 20, "{segments}");
    drop(log);
    let before = disk.bytes_read();
    let log = open(&disk, options());
    let read = disk.bytes_read() - before;
    let files = disk.files();
    let last =
        files.iter().rfind(|(name, _)| name.ends_with(".log")).map(|(_, bytes)| bytes.len() as u64).expect("there");
    assert!(
        read <= last + segments * 512 + 4096,
        "{read} bytes of {}, the last segment has {last}",
        log.reader().bytes()
    );
    // Eight bytes for each 32 KiB of a stream, and one more entry a segment.
    let entries = log.reader().index_entries() as u64;
    assert!(entries <= log.reader().bytes() * 2 / (32 << 10) + 2 * segments, "{entries} entries");
    // An event costs a block, wherever it stands.
    for (stream, offset) in [(broker, 0), (broker, 11_111), (broker, 22_000), (other, 700), (other, 1400)] {
        let before = disk.bytes_read();
        let found = log.reader().read(stream, offset, 1, 1).expect("reads").events;
        assert_eq!((found[0].offset, found[0].payload.len()), (offset, 1024));
        let read = disk.bytes_read() - before;
        assert!(read <= (64 << 10) + 1100, "{read} bytes for event {offset}");
    }
    // Many in order cost little more than themselves.
    let before = disk.bytes_read();
    let (mut next, mut events) = (0, 0);
    loop {
        let read = log.reader().read(broker, next, 1000, 1 << 20).expect("reads");
        events += read.events.len() as u64;
        if read.next == next {
            break;
        }
        next = read.next;
    }
    let read = disk.bytes_read() - before;
    assert_eq!(events, 22_500);
    assert!(read <= log.reader().bytes() * 5 / 4, "{read} of {}", log.reader().bytes());
    // A time is found by halving.
    let before = disk.bytes_read();
    let found = log.reader().seek(broker, 12_000).expect("finds");
    let read = disk.bytes_read() - before;
    assert_eq!(log.reader().read(broker, found, 1, 1).expect("reads").events[0].time, 12_001);
    assert!(read <= (640 << 10) + (2 << 20), "{read} bytes");
    assert_eq!(log.reader().seek(broker, u64::MAX).expect("finds"), 22_500);
    assert_eq!(log.reader().seek(broker, 0).expect("finds"), 0);
}

#[test]
fn what_events_say_is_kept_within_the_bound_and_who_falls_behind_it_misses_nothing() {
    const COUNT: u64 = 1000;
    let options = EventOptions { tail_bytes: 64 << 10, ..options() };
    let disk = MemoryDisk::default();
    let mut log = open(&disk, options.clone());
    let (id, mut said) = (stream(&mut log, "broker"), Vec::new());
    for n in 0..COUNT {
        let says = Arc::new(n);
        said.push(Arc::downgrade(&says));
        let (payload, decoded) = (Bytes::from(n.to_le_bytes().to_vec()), Some(Decoded::new(says, 1000)));
        write(&mut log, Write::Append { stream: id, time: n, key: Bytes::new(), payload, decoded }).expect("writes");
    }
    let shown = |log: &EventLog| log.reader().read_tail(id, 990, 99, 9999).expect("there").expect("in memory").events;
    assert_eq!(shown(&log), [], "nothing was synced");
    log.sync().expect("syncs");
    assert_eq!(shown(&log).len(), 10);
    let kept = said.iter().filter(|said| said.strong_count() > 0).count();
    assert!((50..=64).contains(&kept), "{kept} of a thousand bytes each, and more");
    let reader = log.reader();
    let (mut next, mut at_hand, mut from_disk) = (0, 0, 0);
    while next < COUNT {
        let from_memory = reader.read_tail(id, next, 7, 9999).expect("there");
        from_disk += usize::from(from_memory.is_none());
        let read = from_memory.unwrap_or_else(|| reader.read(id, next, 7, 9999).expect("reads"));
        assert_eq!(read.gaps, []);
        for event in read.events {
            assert_eq!((event.offset, &event.payload[..]), (next, &next.to_le_bytes()[..]));
            let says = event.decoded.map(|decoded| *decoded.get::<u64>().expect("a number"));
            assert!(says.is_none_or(|says| says == next));
            at_hand += usize::from(says.is_some());
            next += 1;
        }
    }
    assert!(from_disk > 100 && at_hand <= kept && at_hand + 7 > kept, "{from_disk}, {at_hand} of {kept}");
    drop((log, reader));
    assert!(said.iter().all(|said| said.strong_count() == 0));
    let read = open(&disk, options).reader().read(id, COUNT - 1, 1, 1).expect("reads");
    assert_eq!((read.events[0].offset, &read.events[0].decoded), (COUNT - 1, &None), "it is never written");
}

#[test]
fn new_events_are_read_from_memory() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, EventOptions { tail_bytes: 1 << 20, ..options() });
    let id = stream(&mut log, "broker");
    for n in 0..2000 {
        append(&mut log, id, n, 1000);
    }
    assert_eq!(log.reader().read(id, 0, 9, 9).expect("reads").events, [], "nothing was synced");
    log.sync().expect("syncs");
    let before = disk.bytes_read();
    let read = log.reader().read(id, 1200, usize::MAX, usize::MAX).expect("reads");
    assert_eq!((read.events.len(), read.next, disk.bytes_read()), (800, 2000, before));
    assert_eq!(log.reader().read(id, 0, 1, 1).expect("reads").events[0].offset, 0);
    assert!(disk.bytes_read() > before);
}

#[test]
fn a_stuck_consumer_pins_no_more_than_twice_its_own_events() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, options());
    let (busy, stuck) = (stream(&mut log, "busy"), stream(&mut log, "stuck"));
    let (reading, waiting) = (cursor(&mut log, busy, "c", None), cursor(&mut log, stuck, "c", None));
    for n in 0..20_000_u64 {
        if n % 100 == 0 {
            append(&mut log, stuck, n, 500);
        }
        append(&mut log, busy, n, 1000);
        if n % 1000 == 999 {
            log.sync().expect("syncs");
            write(&mut log, Write::Settle { cursor: reading, ranges: vec![(0, n)] }).expect("settles");
            tidy(&mut log, n);
        }
    }
    let copied = tidy(&mut log, 30_000);
    assert!(copied > 0);
    let own = 200 * 540;
    let bytes = log.reader().bytes();
    // The open segment, and the one as of whose beginning streams are kept.
    assert!(bytes <= 2 * own + (2 << 20) + 5000, "{bytes}");
    drop(log);
    let mut log = open(&disk, options());
    let read = log.reader().read(stuck, 0, usize::MAX, usize::MAX).expect("reads");
    assert_eq!((read.events.len(), read.gaps.len()), (200, 0));
    assert_eq!(log.reader().progress(waiting).expect("there").watermark(), 0);
    // Once nobody waits any more, they go.
    write(&mut log, Write::DeleteStream(stuck)).expect("deletes");
    for n in 0..3000 {
        append(&mut log, busy, n, 1000);
    }
    log.sync().expect("syncs");
    write(&mut log, Write::Settle { cursor: reading, ranges: vec![(0, 22_999)] }).expect("settles");
    tidy(&mut log, 60_000);
    assert!(log.reader().bytes() <= 2 << 20, "{}", log.reader().bytes());
}

#[test]
fn what_was_settled_stays_as_long_as_retention_says() {
    let disk = MemoryDisk::default();
    let keep = EventOptions { retention: Retention { age_ms: 10_000, bytes: 6 << 20 }, ..options() };
    let mut log = open(&disk, keep.clone());
    let id = stream(&mut log, "broker");
    for n in 0..4000 {
        append(&mut log, id, n, 1000);
    }
    log.sync().expect("syncs");
    tidy(&mut log, 9000);
    let oldest = |log: &EventLog| log.reader().read(id, 0, 1, 1).expect("reads").events[0].offset;
    assert_eq!(oldest(&log), 0, "nothing is old enough");
    tidy(&mut log, 12_000);
    assert!((900..2100).contains(&oldest(&log)), "{}", oldest(&log));
    for n in 0..8000 {
        append(&mut log, id, 12_000 + n, 1000);
    }
    log.sync().expect("syncs");
    tidy(&mut log, 12_000);
    assert!(log.reader().bytes() <= 6 << 20, "{}", log.reader().bytes());
    assert!(log.reader().bytes() > 4 << 20, "{}", log.reader().bytes());
}

#[test]
fn at_the_budget_events_are_refused_until_what_is_held_is_settled() {
    let disk = MemoryDisk::default();
    let small = EventOptions { budget_bytes: 5 << 20, retention: Retention { age_ms: 0, bytes: 0 }, ..options() };
    let mut log = open(&disk, small);
    let id = stream(&mut log, "broker");
    let waiting = cursor(&mut log, id, "c", None);
    let refused = loop {
        if let Err(error) = write(&mut log, event(id, 1, 1000)) {
            break error;
        }
    };
    assert!(matches!(refused, WriteError::Budget { used, budget } if used <= budget), "{refused:?}");
    assert!(refused.to_string().contains("no event is taken until consumers catch up"), "{refused}");
    log.sync().expect("syncs");
    tidy(&mut log, 100);
    let end = log.reader().end(id).expect("there");
    assert_eq!(log.reader().read(id, 0, usize::MAX, usize::MAX).expect("reads").events.len() as u64, end);
    assert!(write(&mut log, event(id, 1, 1000)).is_err(), "what is awaited stays");
    write(&mut log, Write::Settle { cursor: waiting, ranges: vec![(0, end - 1)] }).expect("is taken at the budget");
    tidy(&mut log, 100);
    write(&mut log, event(id, 1, 1000)).expect("there is room");
}

#[test]
fn each_bound_has_its_answer() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, EventOptions { payload_bytes: 100, ..options() });
    let id = stream(&mut log, "broker");
    assert_eq!(stream(&mut log, "broker"), id, "the one that is there");
    assert_eq!(log.reader().streams(), [(id, b"broker".to_vec())]);
    let waiting = cursor(&mut log, id, "c", None);
    for n in 0..2 * SCATTER as u64 + 10 {
        append(&mut log, id, n, 1);
    }
    let out = write(&mut log, Write::Settle { cursor: waiting, ranges: vec![(0, 0)] });
    assert!(matches!(out, Err(WriteError::OutOfStream { end: 0, .. })), "nothing was synced: {out:?}");
    log.sync().expect("syncs");
    let odd: Vec<(u64, u64)> = (0..SCATTER as u64).map(|n| (2 * n + 1, 2 * n + 1)).collect();
    write(&mut log, Write::Settle { cursor: waiting, ranges: odd }).expect("as many as may");
    let more = 2 * SCATTER as u64 + 5;
    let refused = write(&mut log, Write::Settle { cursor: waiting, ranges: vec![(more, more)] });
    assert_eq!(refused, Err(WriteError::Scattered { limit: SCATTER }));
    write(&mut log, Write::Settle { cursor: waiting, ranges: vec![(0, 0)] }).expect("the oldest may always");
    for n in 0..SCATTER as u64 {
        write(&mut log, Write::Attempted { cursor: waiting, offset: 2 * n + 2, attempts: 1 }).expect("as many as may");
    }
    let refused = write(&mut log, Write::Attempted { cursor: waiting, offset: more, attempts: 1 });
    assert_eq!(refused, Err(WriteError::Scattered { limit: SCATTER }));
    write(&mut log, Write::Attempted { cursor: waiting, offset: 2, attempts: 2 }).expect("one of them again");
    let long = write(&mut log, event(id, 1, 101));
    assert!(matches!(long, Err(WriteError::TooLarge { bytes: 101, limit: 100, .. })), "{long:?}");
    write(&mut log, Write::DeleteStream(id)).expect("deletes");
    assert_eq!(write(&mut log, event(id, 1, 1)), Err(WriteError::NoStream));
    assert_eq!(write(&mut log, Write::DeleteCursor(waiting)), Err(WriteError::NoCursor));
    assert_ne!(stream(&mut log, "broker"), id, "another of the same name");
}

#[test]
fn writes_that_come_together_are_bounded_together() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, options());
    let id = stream(&mut log, "broker");
    let waiting = cursor(&mut log, id, "c", None);
    let half = SCATTER as u64 / 2;
    let (third, last) = (4 * half + 10, 4 * half + 20);
    for n in 0..=last {
        append(&mut log, id, n, 1);
    }
    log.sync().expect("syncs");
    let settle = |ranges: Vec<(u64, u64)>| Write::Settle { cursor: waiting, ranges };
    let odd = |from: u64, to: u64| settle((from..to).map(|n| (2 * n + 1, 2 * n + 1)).collect());
    let refused = Err(WriteError::Scattered { limit: SCATTER });
    let full = [odd(0, half), odd(half, 2 * half), settle(vec![(third, third)]), settle(vec![(0, 0), (third, third)])];
    assert_eq!(log.write(&full), [Ok(Written::Done), Ok(Written::Done), refused.clone(), Ok(Written::Done)]);
    let attempts = |n: u64| Write::Attempted { cursor: waiting, offset: 2 * n + 2, attempts: 1 };
    let tried: Vec<Write> = (0..2 * half).map(attempts).collect();
    let more = Write::Attempted { cursor: waiting, offset: last, attempts: 1 };
    let outcomes = log.write(&[&tried[..], &[more, tried[0].clone()]].concat());
    assert!(outcomes[..tried.len()].iter().all(Result::is_ok));
    assert_eq!(outcomes[tried.len()..], [refused, Ok(Written::Done)]);
}

#[test]
fn attempts_survive_a_kill_so_that_retries_do_not_start_over() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, options());
    let id = stream(&mut log, "broker");
    let waiting = cursor(&mut log, id, "c", None);
    append(&mut log, id, 1, 10);
    log.sync().expect("syncs");
    for attempts in 1..=3 {
        write(&mut log, Write::Attempted { cursor: waiting, offset: 0, attempts }).expect("notes it");
    }
    let log = open(&disk.after_kill(), options());
    assert_eq!(log.reader().progress(waiting).expect("there").attempts(0), 3);
}

#[test]
fn children_of_a_cursor_cost_no_write_for_what_they_do_not_wait_for() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, options());
    let id = stream(&mut log, "broker");
    let matcher = cursor(&mut log, id, "matcher", None);
    let child = Write::CreateCursor { stream: id, name: Bytes::from_static(b"t"), parent: Some(matcher), start: None };
    let Ok(Written::Cursor(trigger)) = write(&mut log, child.clone()) else { panic!("no cursor") };
    for n in 0..100 {
        append(&mut log, id, n, 10);
    }
    log.sync().expect("syncs");
    write(&mut log, Write::Settle { cursor: trigger, ranges: vec![(60, 60)] }).expect("settles");
    write(&mut log, Write::Settle { cursor: matcher, ranges: vec![(0, 49)] }).expect("settles");
    drop(log);
    let mut log = open(&disk, options());
    let progress = log.reader().progress(trigger).expect("there");
    assert_eq!(progress.unsettled(0, 100).collect::<Vec<_>>(), [(50, 59), (61, 99)]);
    let nested = Write::CreateCursor { stream: id, name: Bytes::from_static(b"n"), parent: Some(trigger), start: None };
    assert_eq!(write(&mut log, nested), Err(WriteError::NoCursor), "a child is no parent");
}

/// A disk on which the oldest segment is gone whenever somebody is about to read it: what is needed of it was copied
/// forward at that moment.
#[derive(Clone, Default)]
struct Moving {
    disk: MemoryDisk,
    log: Arc<Mutex<Option<EventLog>>>,
}

impl Disk for Moving {
    fn read_at(&self, name: &str, from: u64, most: usize) -> io::Result<Vec<u8>> {
        let is_oldest =
            || self.disk.files().into_keys().find(|file| file.ends_with(".log")).is_some_and(|file| file == name);
        // Copying reads, too.
        if let Ok(mut log) = self.log.try_lock()
            && let Some(log) = log.as_mut()
        {
            while is_oldest() && log.tidy(1 << 40).expect("tidies").more {}
        }
        self.disk.read_at(name, from, most)
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(name)
    }
    fn append_to(&self, name: &str, len: u64) -> io::Result<Box<dyn DiskFile>> {
        self.disk.append_to(name, len)
    }
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.disk.read(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}

#[test]
fn a_reader_follows_events_that_are_copied_forward_under_its_eyes() {
    let moving = Moving::default();
    let small = EventOptions { segment_bytes: 32 << 10, ..options() };
    let (mut log, _) = EventLog::open(Arc::new(moving.clone()), small).expect("opens");
    let id = stream(&mut log, "broker");
    let waiting = cursor(&mut log, id, "c", None);
    for n in 0..1500 {
        append(&mut log, id, n, 1000);
    }
    log.sync().expect("syncs");
    // One in four is awaited.
    let ranges = (0..375).map(|n| (4 * n + 1, 4 * n + 3)).collect();
    write(&mut log, Write::Settle { cursor: waiting, ranges }).expect("settles");
    let reader = log.reader();
    *moving.log.lock().expect("not poisoned") = Some(log);
    let read = reader.read(id, 0, usize::MAX, usize::MAX).expect("reads");
    let settled = |gap: &Gap| gap.cause == GapCause::Removed && (gap.first..=gap.last).all(|offset| offset % 4 != 0);
    assert!(read.gaps.iter().all(settled), "{:?}", read.gaps);
    let found: Vec<u64> = read.events.iter().map(|event| event.offset).filter(|offset| offset % 4 == 0).collect();
    assert_eq!(found, (0..375).map(|n| 4 * n).collect::<Vec<_>>());
    // It did happen.
    assert!(reader.bytes() < 1_000_000, "{}", reader.bytes());
}

/// Writes events until the disk is full. Returns how many there are.
fn fill(log: &mut EventLog, stream: StreamId) -> u64 {
    let mut events = 0;
    loop {
        match write(log, event(stream, 1, 1000)) {
            Ok(_) => events += 1,
            Err(error) => {
                assert_eq!(error, WriteError::Full);
                log.sync().expect("syncs");
                return events;
            }
        }
    }
}

/// On a disk of 3 MB, all of it written to, the consumer settles `share` percent of what is there.
fn settles_on_a_full_disk(options: EventOptions, share: u64) {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, options.clone());
    let id = stream(&mut log, "broker");
    let waiting = cursor(&mut log, id, "c", None);
    disk.set_capacity(Some(3_000_000));
    let events = fill(&mut log, id);
    assert!(events > 2000, "{events}");
    assert_eq!(log.tidy(1).expect("tidies").copied, 0, "all of it is awaited");
    let settled = events * share / 1000 * 10;
    // Senders do not stop trying.
    for done in (0..settled).step_by(10) {
        let settle = Write::Settle { cursor: waiting, ranges: vec![(done, done + 9)] };
        let outcomes = log.write(&[event(id, 1, 1000), settle, event(id, 1, 1000)]);
        assert_eq!(outcomes, [Err(WriteError::Full), Ok(Written::Done), Err(WriteError::Full)]);
    }
    tidy(&mut log, 1);
    let end = log.reader().end(id).expect("there");
    let more = fill(&mut log, id);
    assert!(more * 100 > events * share / 2, "{more} after {settled} of {events}");
    let log = open(&disk.after_kill(), options);
    let read = log.reader().read(id, settled, usize::MAX, usize::MAX).expect("reads");
    assert_eq!((read.events.len() as u64, read.gaps.len()), (end + more - settled, 0));
}

#[test]
fn a_log_keeps_room_back_once_it_is_as_large_and_finds_it_again() {
    let disk = MemoryDisk::default();
    let options = || EventOptions { room_bytes: 0, ..options() };
    let mut log = open(&disk, options());
    let id = stream(&mut log, "broker");
    let kept = || disk.files().get("events.reserve").map(Vec::len);
    assert_eq!(kept(), None, "an idle log takes no room");
    for n in 0..260 {
        append(&mut log, id, n, 1024);
    }
    assert_eq!(kept(), Some(256 << 10));
    drop(log);
    disk.set_capacity(Some(disk.used()));
    let mut log = open(&disk, options());
    assert_eq!(write(&mut log, event(id, 1, 1024)), Err(WriteError::Full));
    assert_eq!(kept(), Some(256 << 10), "no event takes it");
}

#[test]
fn consumers_settle_on_a_full_disk_and_so_make_room() {
    settles_on_a_full_disk(options(), 60);
}

#[test]
fn a_disk_that_one_segment_fills_is_given_back_too() {
    settles_on_a_full_disk(EventOptions { segment_bytes: 64 << 20, ..options() }, 97);
}

#[test]
fn on_a_full_disk_what_was_settled_goes_before_its_time() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, EventOptions { retention: Retention { age_ms: 1 << 40, bytes: 1 << 40 }, ..options() });
    let id = stream(&mut log, "broker");
    disk.set_capacity(Some(3_000_000));
    for _ in 0..3 {
        assert!(fill(&mut log, id) > 900);
        tidy(&mut log, 1);
    }
}

#[test]
fn retention_leaves_room_within_the_budget() {
    let disk = MemoryDisk::default();
    let keep = Retention { age_ms: 1 << 40, bytes: 1 << 40 };
    let mut log = open(&disk, EventOptions { budget_bytes: 8 << 20, retention: keep, ..options() });
    let id = stream(&mut log, "broker");
    for _ in 0..20_000 {
        append(&mut log, id, 1, 1000);
        tidy(&mut log, 1);
    }
}

#[test]
#[ignore = "a measurement: how long the thread that writes is held up by a step of tidying, of ten thousand streams"]
fn what_a_step_of_tidying_costs() {
    let disk = MemoryDisk::default();
    let mut log = open(&disk, EventOptions { retention: Retention { age_ms: 1 << 40, bytes: 1 << 30 }, ..options() });
    let names = (0..10_000).map(|n| Write::CreateStream { name: Bytes::from(format!("stream-{n}")) });
    let made = log.write(&names.collect::<Vec<_>>());
    let streams: Vec<StreamId> = made
        .into_iter()
        .map(|made| match made {
            Ok(Written::Stream(id)) => id,
            other => panic!("{other:?}"),
        })
        .collect();
    for round in 0..80 {
        let events: Vec<Write> = streams.iter().map(|id| event(*id, round, 100)).collect();
        assert!(log.write(&events).iter().all(Result::is_ok));
    }
    log.sync().expect("syncs");
    let begun = std::time::Instant::now();
    assert!(!log.tidy(1).expect("tidies").more);
    println!(
        "{} segments, {} places of events: {:?}",
        log.reader().bytes() >> 20,
        log.reader().index_entries(),
        begun.elapsed()
    );
}
