//! The event log beside a model of it: random writes, kills and power cuts, at every operation of the disk. After each
//! start everything that was acknowledged is there, what a cursor waits for can be read, and no progress is made up.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use knoll_journal::{
    MemoryDisk,
    events::{
        CursorId, Decoded, EventLog, EventOptions, EventReader, Recovery, Retention, StreamId, Write, WriteError,
        Written,
    },
};

/// Splitmix: any sequence will do, as long as it is the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let at = self.below(from.len() as u64) as usize;
        from.get(at).copied()
    }
}

/// How sure it is that something is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sure {
    /// It was tried, and nobody said that it is.
    Tried,
    /// It outlives the process.
    Written,
    /// It outlives a power cut.
    Synced,
}

#[derive(Debug)]
struct ModelStream {
    id: StreamId,
    made: Sure,
    deleted: Option<Sure>,
    events: Vec<(Sure, Bytes, Bytes)>,
}

#[derive(Debug)]
struct ModelCursor {
    id: CursorId,
    stream: usize,
    parent: Option<usize>,
    /// The stream's end when it was made: of what was there before, something may have been gone already.
    made_at: u64,
    made: Sure,
    deleted: Option<Sure>,
    settled: BTreeMap<u64, Sure>,
    attempts: BTreeMap<u64, Vec<(Sure, u32)>>,
}

#[derive(Default)]
struct Model {
    streams: Vec<ModelStream>,
    cursors: Vec<ModelCursor>,
}

fn gone(deleted: Option<Sure>) -> bool {
    deleted.is_some()
}

impl Model {
    fn raise(&mut self, from: Sure, to: Sure) {
        let up = |sure: &mut Sure| {
            if *sure >= from {
                *sure = (*sure).max(to);
            }
        };
        for stream in &mut self.streams {
            up(&mut stream.made);
            stream.deleted.iter_mut().for_each(up);
            stream.events.iter_mut().for_each(|event| up(&mut event.0));
        }
        for cursor in &mut self.cursors {
            up(&mut cursor.made);
            cursor.deleted.iter_mut().for_each(up);
            cursor.settled.values_mut().for_each(up);
            cursor.attempts.values_mut().flatten().for_each(|made| up(&mut made.0));
        }
    }

    fn live_streams(&self) -> Vec<usize> {
        (0..self.streams.len()).filter(|at| !gone(self.streams[*at].deleted)).collect()
    }

    fn live_cursors(&self) -> Vec<usize> {
        let live =
            |at: &usize| !gone(self.cursors[*at].deleted) && !gone(self.streams[self.cursors[*at].stream].deleted);
        (0..self.cursors.len()).filter(live).collect()
    }

    /// Takes away what the log says it does not have, after proving that it need not.
    fn adopt(&mut self, reader: &EventReader, least: Sure) {
        for (at, stream) in self.streams.iter_mut().enumerate() {
            let found = reader.stream(format!("stream-{at}").as_bytes());
            let must = stream.made >= least && stream.deleted.is_none();
            let must_not = stream.deleted.is_some_and(|sure| sure >= least);
            assert!(!(must && found.is_none()), "stream {at} is gone");
            assert!(!(must_not && found.is_some()), "stream {at} is there again");
            let Some(id) = found else {
                stream.deleted = Some(Sure::Synced);
                continue;
            };
            (stream.id, stream.made, stream.deleted) = (id, Sure::Synced, None);
            let end = reader.end(id).expect("it is there") as usize;
            let sure = stream.events.iter().filter(|event| event.0 >= least).count();
            assert!((sure..=stream.events.len()).contains(&end), "stream {at} ends at {end}, {sure} are sure");
            stream.events.truncate(end);
            stream.events.iter_mut().for_each(|event| event.0 = Sure::Synced);
        }
        for at in 0..self.cursors.len() {
            let stream = &self.streams[self.cursors[at].stream];
            let cursor = &mut self.cursors[at];
            let stream_gone = gone(stream.deleted);
            let found = (!stream_gone).then(|| reader.cursor(stream.id, format!("cursor-{at}").as_bytes())).flatten();
            let must = cursor.made >= least && cursor.deleted.is_none() && !stream_gone;
            let must_not = cursor.deleted.is_some_and(|sure| sure >= least);
            assert!(!(must && found.is_none()), "cursor {at} is gone");
            assert!(!(must_not && found.is_some()), "cursor {at} is there again");
            let Some(id) = found else {
                cursor.deleted = Some(Sure::Synced);
                continue;
            };
            (cursor.id, cursor.made, cursor.deleted) = (id, Sure::Synced, None);
        }
        for at in self.live_cursors() {
            let progress = reader.progress(self.cursors[at].id).expect("it is there");
            let parent = self.cursors[at].parent.map(|parent| reader.progress(self.cursors[parent].id).expect("there"));
            let by_parent = |offset| parent.as_ref().is_some_and(|parent| parent.is_settled(offset));
            let end = self.streams[self.cursors[at].stream].events.len() as u64;
            let cursor = &mut self.cursors[at];
            for offset in 0..end {
                let sure = cursor.settled.get(&offset).copied();
                let found = progress.is_settled(offset);
                assert!(found || sure.is_none_or(|sure| sure < least), "cursor {at}: {offset} is not settled");
                assert!(!(sure.is_none() && found && !by_parent(offset)), "cursor {at}: {offset} was never settled");
                let tried = cursor.attempts.get(&offset).cloned().unwrap_or_default();
                let attempts = progress.attempts(offset);
                let allowed = tried.iter().any(|made| made.1 == attempts);
                assert!(found || allowed || attempts == 0, "cursor {at}: {offset} was not tried {attempts} times");
                let surely = tried.iter().rev().find(|made| made.0 >= least).map_or(0, |made| made.1);
                assert!(found || attempts >= surely, "cursor {at}: {offset} was tried {surely} times, not {attempts}");
            }
            cursor.settled =
                (0..end).filter(|offset| progress.is_settled(*offset)).map(|at| (at, Sure::Synced)).collect();
            cursor.attempts = progress.tried().iter().map(|made| (made.0, vec![(Sure::Synced, made.1)])).collect();
        }
    }

    /// What is read is what was written, and nothing that is awaited is missing.
    fn check(&self, reader: &EventReader, random: &mut Random) {
        for at in self.live_streams() {
            let stream = &self.streams[at];
            let end = reader.end(stream.id).expect("it is there");
            let synced = stream.events.iter().filter(|event| event.0 == Sure::Synced).count() as u64;
            assert!(end >= synced && end <= stream.events.len() as u64, "stream {at} is shown to {end} of {synced}");
            let mut found = BTreeSet::new();
            let (mut next, mut time) = (0, 0);
            loop {
                let (most, bytes) = (1 + random.below(9) as usize, random.below(900) as usize);
                let from_memory = reader.read_tail(stream.id, next, most, bytes).expect("there");
                let from_memory = from_memory.filter(|_| random.below(2) == 0);
                let read = from_memory.unwrap_or_else(|| reader.read(stream.id, next, most, bytes).expect("reads"));
                for event in read.events {
                    let (_, key, payload) = &stream.events[event.offset as usize];
                    assert_eq!((&event.key, &event.payload), (key, payload), "stream {at}, offset {}", event.offset);
                    let said = event.decoded.as_ref().map(|said| said.get::<Bytes>().expect("bytes"));
                    assert!(said.is_none_or(|said| *said == *payload), "stream {at}, offset {}", event.offset);
                    assert!(found.insert(event.offset) && event.time >= time);
                    time = event.time;
                }
                if read.next == next {
                    break;
                }
                next = read.next;
            }
            assert_eq!(next, end);
            for cursor in self.live_cursors() {
                let of = &self.cursors[cursor];
                if of.stream == at && of.parent.is_none() {
                    let progress = reader.progress(of.id).expect("it is there");
                    for (first, last) in progress.unsettled(of.made_at, end) {
                        assert!(
                            (first..=last).all(|offset| found.contains(&offset)),
                            "{first}-{last} of {at}: {found:?}"
                        );
                    }
                }
            }
        }
    }
}

fn options(run: u64) -> EventOptions {
    EventOptions {
        segment_bytes: 1500,
        payload_bytes: 4000,
        budget_bytes: 60_000,
        tail_bytes: 700,
        reserve_bytes: 400,
        room_bytes: 600,
        retention: Retention { age_ms: 300, bytes: 5000 },
        run: run.to_le_bytes().to_vec(),
    }
}

fn open(disk: &MemoryDisk, run: u64) -> EventLog {
    let (log, recovery) = EventLog::open(Arc::new(disk.clone()), options(run)).expect("opens");
    assert_eq!(recovery, Recovery::default(), "a crash damages nothing");
    log
}

struct World {
    random: Random,
    model: Model,
    disk: MemoryDisk,
    log: EventLog,
    run: u64,
    now: u64,
    /// Events copied forward, and bytes of segments removed.
    tidied: (u64, u64),
}

impl World {
    fn new(seed: u64) -> World {
        let disk = MemoryDisk::default();
        let log = open(&disk, 0);
        World { random: Random(seed), model: Model::default(), disk, log, run: 0, now: 1000, tidied: (0, 0) }
    }

    /// Writes one thing, and notes it in the model. Says whether the log goes on.
    fn one(&mut self, write: Write, note: impl FnOnce(&mut Model, Sure, Option<Written>)) -> bool {
        match self.log.write(&[write]).pop().expect("an outcome for each") {
            Ok(written) => note(&mut self.model, Sure::Written, Some(written)),
            Err(WriteError::Stopped(_)) => {
                note(&mut self.model, Sure::Tried, None);
                return false;
            }
            Err(_) => {}
        }
        true
    }

    fn append(&mut self) -> bool {
        let streams = self.model.live_streams();
        let mut writes = Vec::new();
        for _ in 0..=self.random.below(4) {
            let Some(at) = self.random.pick(&streams) else { return true };
            let key = Bytes::from(format!("key-{}", self.random.below(3)));
            let longest = if self.random.below(8) == 0 { 2500 } else { 200 };
            let length = self.random.below(longest);
            let payload = Bytes::from(vec![self.random.next() as u8; length as usize]);
            let says = |payload: &Bytes| Decoded::new(Arc::new(payload.clone()), 50);
            let decoded = (self.random.below(2) == 0).then(|| says(&payload));
            let (stream, time) = (self.model.streams[at].id, self.now);
            writes.push((at, Write::Append { stream, time, key, payload, decoded }));
        }
        let outcomes = self.log.write(&writes.iter().map(|write| write.1.clone()).collect::<Vec<_>>());
        let mut goes_on = true;
        for ((at, write), outcome) in writes.into_iter().zip(outcomes) {
            let Write::Append { key, payload, .. } = write else { continue };
            let events = &mut self.model.streams[at].events;
            match outcome {
                Ok(Written::Appended(offset)) => {
                    assert_eq!(offset, events.len() as u64);
                    events.push((Sure::Written, key, payload));
                }
                Err(WriteError::Stopped(_)) => {
                    goes_on = false;
                    events.push((Sure::Tried, key, payload));
                }
                Ok(other) => panic!("an append is no {other:?}"),
                Err(_) => {}
            }
        }
        goes_on
    }

    fn settle(&mut self) -> bool {
        let Some(at) = self.random.pick(&self.model.live_cursors()) else { return true };
        let cursor = &self.model.cursors[at];
        let (id, end) = (cursor.id, self.log.reader().end(self.model.streams[cursor.stream].id).expect("there"));
        if end == 0 {
            return true;
        }
        let oldest = (0..end).find(|offset| !cursor.settled.contains_key(offset)).unwrap_or(0);
        let first = (oldest + self.random.below(4) * self.random.below(2)).min(end - 1);
        let last = (first + self.random.below(4)).min(end - 1);
        if self.random.below(4) == 0 {
            let attempts = 1 + cursor.attempts.get(&first).and_then(|made| made.last()).map_or(0, |made| made.1);
            if cursor.settled.contains_key(&first) {
                return true;
            }
            let write = Write::Attempted { cursor: id, offset: first, attempts };
            return self.one(write, |model, sure, _| {
                model.cursors[at].attempts.entry(first).or_default().push((sure, attempts));
            });
        }
        self.one(Write::Settle { cursor: id, ranges: vec![(first, last)] }, |model, sure, _| {
            for offset in first..=last {
                let settled = model.cursors[at].settled.entry(offset).or_insert(sure);
                *settled = sure.max(*settled);
            }
        })
    }

    fn arrange(&mut self) -> bool {
        let (streams, cursors) = (self.model.live_streams(), self.model.live_cursors());
        match self.random.below(12) {
            0 if streams.len() > 1 => {
                let at = self.random.pick(&streams).expect("there are some");
                self.one(Write::DeleteStream(self.model.streams[at].id), |model, sure, _| {
                    model.streams[at].deleted = Some(sure);
                })
            }
            1 | 2 if cursors.len() > 1 => {
                let at = self.random.pick(&cursors).expect("there are some");
                self.one(Write::DeleteCursor(self.model.cursors[at].id), |model, sure, _| {
                    let children = |(of, cursor): (usize, &mut ModelCursor)| {
                        if of == at || cursor.parent == Some(at) {
                            cursor.deleted = cursor.deleted.or(Some(sure));
                        }
                    };
                    model.cursors.iter_mut().enumerate().for_each(children);
                })
            }
            3..=5 if streams.len() < 4 => {
                let name = Bytes::from(format!("stream-{}", self.model.streams.len()));
                self.one(Write::CreateStream { name }, |model, made, written| {
                    // A name that means nothing yet where nobody said which it is.
                    let id = if let Some(Written::Stream(id)) = written { id } else { unknown_stream() };
                    model.streams.push(ModelStream { id, made, deleted: None, events: Vec::new() });
                })
            }
            _ if cursors.len() < 6 => self.add_cursor(&streams, &cursors),
            _ => true,
        }
    }

    fn add_cursor(&mut self, streams: &[usize], cursors: &[usize]) -> bool {
        let Some(stream) = self.random.pick(streams) else { return true };
        let may_be =
            |at: &&usize| self.model.cursors[**at].stream == stream && self.model.cursors[**at].parent.is_none();
        let parents: Vec<usize> = cursors.iter().filter(may_be).copied().collect();
        let parent = if self.random.below(2) == 0 { self.random.pick(&parents) } else { None };
        let id = self.model.streams[stream].id;
        let start =
            (self.random.below(3) == 0).then(|| self.random.below(self.model.streams[stream].events.len() as u64));
        let name = Bytes::from(format!("cursor-{}", self.model.cursors.len()));
        let parent_id = parent.map(|parent| self.model.cursors[parent].id);
        let reader = self.log.reader();
        self.one(Write::CreateCursor { stream: id, name, parent: parent_id, start }, |model, made, written| {
            let end = model.streams[stream].events.len() as u64;
            // What it begins with: all before its start, and what is gone.
            let (id, settled) = match written {
                Some(Written::Cursor(id)) => {
                    let progress = reader.progress(id).expect("made");
                    (id, (0..end).filter(|offset| progress.is_settled(*offset)).map(|offset| (offset, made)).collect())
                }
                _ => (unknown_cursor(), (0..end).map(|offset| (offset, Sure::Tried)).collect()),
            };
            let attempts = BTreeMap::new();
            model.cursors.push(ModelCursor {
                id,
                stream,
                parent,
                made_at: end,
                made,
                deleted: None,
                settled,
                attempts,
            });
        })
    }

    /// Does something. Says whether the log goes on.
    fn step(&mut self) -> bool {
        self.now += self.random.below(40);
        match self.random.below(20) {
            0..=6 => self.append(),
            7..=11 => self.settle(),
            12 | 13 => self.arrange(),
            14..=16 => match self.log.sync() {
                Ok(_) => {
                    self.model.raise(Sure::Written, Sure::Synced);
                    true
                }
                Err(_) => false,
            },
            17 | 18 => match self.log.tidy(self.now) {
                Ok(done) => {
                    self.tidied.0 += done.copied;
                    self.tidied.1 += done.removed_bytes;
                    true
                }
                Err(WriteError::Full) => true,
                Err(_) => false,
            },
            _ => {
                let room = (self.random.below(3) == 0).then(|| self.disk.used() + self.random.below(800) as usize);
                self.disk.set_capacity(room);
                true
            }
        }
    }

    /// Ends the process, or the machine's run, and begins again.
    fn crash(&mut self) {
        let power_cut = self.random.below(2) == 0;
        let disk =
            if power_cut { self.disk.after_power_cut_with(self.random.next() | 1) } else { self.disk.after_kill() };
        self.run += u64::from(power_cut);
        self.disk = disk;
        self.log = open(&self.disk, self.run);
        self.model.adopt(&self.log.reader(), if power_cut { Sure::Synced } else { Sure::Written });
        self.model.check(&self.log.reader(), &mut self.random);
    }

    /// Lives a life of some steps; the disk is gone in the middle of some.
    fn live(&mut self, operations: Option<u64>) {
        if let Some(operations) = operations {
            self.disk.allow_operations(self.disk.operations() + operations);
        }
        for _ in 0..10 + self.random.below(50) {
            if !self.step() {
                break;
            }
            if self.random.below(10) == 0 {
                self.model.check(&self.log.reader(), &mut self.random);
            }
        }
    }
}

/// Ids of what was perhaps never made, until a start tells: those of another log.
fn unknown_stream() -> StreamId {
    let mut log = open(&MemoryDisk::default(), 0);
    match log.write(&[Write::CreateStream { name: Bytes::from_static(b"none") }])[0] {
        Ok(Written::Stream(id)) => id,
        ref other => panic!("{other:?}"),
    }
}

fn unknown_cursor() -> CursorId {
    let stream = unknown_stream();
    let mut log = open(&MemoryDisk::default(), 0);
    log.write(&[Write::CreateStream { name: Bytes::from_static(b"none") }])[0].as_ref().expect("makes it");
    let name = Bytes::from_static(b"none");
    match log.write(&[Write::CreateCursor { stream, name, parent: None, start: None }])[0] {
        Ok(Written::Cursor(id)) => id,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_kills_and_power_cuts() {
    let mut tidied = (0, 0);
    for seed in 0..seeds(1500) {
        let lives = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..4 {
                let operations = (world.random.below(2) == 0).then(|| world.random.below(60));
                world.live(operations);
                world.crash();
            }
            world.tidied
        });
        let Ok((copied, removed)) = lives else { panic!("seed {seed}") };
        tidied = (tidied.0 + copied, tidied.1 + removed);
    }
    assert!(tidied.0 > 100 && tidied.1 > 100_000, "copied and removed, bytes: {tidied:?}");
}

#[test]
fn the_disk_may_be_gone_at_any_operation() {
    for seed in 0..seeds(12) {
        for operation in 0..120 {
            let lives = std::panic::catch_unwind(|| {
                let mut world = World::new(seed);
                world.live(None);
                world.crash();
                world.live(Some(operation));
                world.crash();
                world.live(None);
                world.crash();
            });
            assert!(lives.is_ok(), "seed {seed}, operation {operation}");
        }
    }
}

/// How many seeds are tried: as many times more as `KNOLL_SEEDS` says.
fn seeds(usual: u64) -> u64 {
    usual * std::env::var("KNOLL_SEEDS").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}
