//! What a damaged file costs: the events that stand at the place, named; everything else is served.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use knoll_journal::{
    LogError, MemoryDisk, Scan,
    events::{CursorId, EventLog, EventOptions, EventReader, GapCause, ReadError, Recovery, StreamId, Write, Written},
};

const STREAMS: u64 = 2;
const EVENTS: u64 = 40;

fn options() -> EventOptions {
    EventOptions {
        segment_bytes: 1200,
        run: b"a run".to_vec(),
        tail_bytes: 0,
        reserve_bytes: 9,
        room_bytes: 2000,
        ..EventOptions::default()
    }
}

fn try_open(disk: &MemoryDisk) -> Result<(EventLog, Recovery), LogError> {
    EventLog::open(Arc::new(disk.clone()), options())
}

fn open(disk: &MemoryDisk) -> (EventLog, Recovery) {
    try_open(disk).expect("opens")
}

fn write(log: &mut EventLog, write: Write) -> Written {
    log.write(&[write]).remove(0).expect("writes")
}

fn payload(stream: u64, offset: u64) -> Bytes {
    Bytes::from(format!("event {offset} of {stream}: {}", "x".repeat((offset * 7 % 50) as usize)))
}

fn name(stream: u64) -> Bytes {
    Bytes::from(format!("stream-{stream}"))
}

/// A log of several segments with two streams, each with a cursor that has settled nothing; closed.
fn filled() -> MemoryDisk {
    let disk = MemoryDisk::default();
    let (mut log, _) = open(&disk);
    for stream in 0..STREAMS {
        let Written::Stream(id) = write(&mut log, Write::CreateStream { name: name(stream) }) else {
            panic!("no stream")
        };
        let cursor = Write::CreateCursor { stream: id, name: Bytes::from_static(b"c"), parent: None, start: None };
        write(&mut log, cursor);
    }
    for offset in 0..EVENTS {
        for stream in 0..STREAMS {
            let id = log.reader().stream(&name(stream)).expect("there");
            let payload = payload(stream, offset);
            let at = write(
                &mut log,
                Write::Append { stream: id, time: offset * 10, key: Bytes::new(), payload, decoded: None },
            );
            assert_eq!(at, Written::Appended(offset));
        }
        log.sync().expect("syncs");
    }
    log.close().expect("closes");
    disk
}

/// Offsets that are there, and those named as missing by reading.
struct Served {
    events: BTreeSet<u64>,
    missing: BTreeSet<u64>,
    named: Vec<GapCause>,
}

fn served(reader: &EventReader, stream: u64, id: StreamId) -> Served {
    let mut served = Served { events: BTreeSet::new(), missing: BTreeSet::new(), named: Vec::new() };
    let mut next = 0;
    loop {
        let read = reader.read(id, next, usize::MAX, usize::MAX).expect("reads");
        for event in read.events {
            assert_eq!(event.payload, payload(stream, event.offset), "what is served is what was written");
            served.events.insert(event.offset);
        }
        for gap in read.gaps {
            served.missing.extend(gap.first..=gap.last.min(EVENTS));
            served.named.push(gap.cause);
        }
        if read.next == next {
            return served;
        }
        next = read.next;
    }
}

/// Opens, and says how many events are not served; each must be named by somebody.
fn missing(disk: &MemoryDisk, what: &str) -> (usize, Recovery) {
    let (mut log, recovery) = open(disk);
    let mut count = 0;
    for stream in 0..STREAMS {
        let Some(id) = log.reader().stream(&name(stream)) else {
            assert!(!recovery.damages.is_empty(), "{what}");
            count += EVENTS as usize;
            continue;
        };
        let served = served(&log.reader(), stream, id);
        let lost = recovery.lost.iter().filter(|lost| lost.stream == id);
        let lost: BTreeSet<u64> = lost.flat_map(|lost| lost.first..=lost.last.min(EVENTS)).collect();
        for offset in 0..EVENTS {
            let named = served.missing.contains(&offset)
                || (!recovery.damages.is_empty() && offset >= log.reader().end(id).expect("there"));
            assert!(served.events.contains(&offset) != named, "{what}: {offset} of {stream}");
            assert!(!lost.contains(&offset) || named, "{what}: {offset} of {stream} is there and named as lost");
        }
        count += EVENTS as usize - served.events.range(..EVENTS).count();
        // No offset is given twice, and what comes after is served.
        let append = Write::Append {
            stream: id,
            time: 0,
            key: Bytes::new(),
            payload: Bytes::from_static(b"new"),
            decoded: None,
        };
        let Written::Appended(offset) = write(&mut log, append) else { panic!("no event") };
        assert!(offset >= EVENTS || !recovery.damages.is_empty(), "{what}");
        assert!(served.events.last().is_none_or(|last| offset > *last), "{what}: {offset} again");
        log.sync().expect("syncs");
        let read = log.reader().read(id, offset, 1, 1).expect("reads");
        assert_eq!(&read.events[0].payload[..], b"new");
    }
    (count, recovery)
}

#[test]
fn a_flipped_byte_costs_no_more_than_the_record_it_is_in() {
    let disk = filled();
    let files = disk.files();
    let kinds = ["log", "index", "state-a", "state-b"];
    assert!(kinds.iter().all(|kind| files.keys().any(|file| file.ends_with(kind))), "{:?}", files.keys());
    let open_segment = files.keys().rfind(|file| file.ends_with(".log")).cloned().expect("there");
    for (file, bytes) in &files {
        for at in 0..bytes.len() {
            let mut files = files.clone();
            files.get_mut(file).expect("there")[at] ^= 0x10;
            let what = format!("byte {at} of {file}");
            let (count, recovery) = missing(&MemoryDisk::holding(files), &what);
            if !file.ends_with(".log") {
                assert_eq!(count, 0, "{what}");
                let named = recovery.damages.iter().all(|damage| damage.file == *file);
                assert!(named && recovery.lost.is_empty(), "{what}: {recovery:?}");
            } else if *file != open_segment {
                assert!(count <= 1, "{what}: {count} are missing");
            } else {
                // What was lost at the end of a stream has no offset to be told by.
                assert!(count <= 1, "{what}: {count} are missing, {recovery:?}");
                let cut = recovery.damages.iter().all(|damage| damage.file == *file && damage.at <= at as u64);
                assert!(cut, "{what}: {recovery:?}");
            }
        }
    }
}

#[test]
fn a_damaged_place_of_a_closed_segment_is_named_by_file_and_byte() {
    let disk = filled();
    let mut files = disk.files();
    let (file, bytes) = files.iter_mut().find(|(file, _)| file.ends_with("2.log")).expect("there");
    let file = file.clone();
    let at = bytes.windows(6).position(|bytes| bytes == b"event ").expect("an event");
    bytes[at] ^= 1;
    let frame = 8 + 6;
    let named = |found: u64| (at as u64 - frame..=at as u64).contains(&found);
    // Where the index file is whole, reading finds it.
    let (log, recovery) = open(&MemoryDisk::holding(files.clone()));
    assert_eq!(recovery, Recovery::default());
    let gaps: Vec<GapCause> = (0..STREAMS)
        .flat_map(|stream| served(&log.reader(), stream, log.reader().stream(&name(stream)).expect("there")).named)
        .collect();
    assert!(matches!(&gaps[..], [GapCause::Damaged { file: found, at }] if *found == file && named(*at)), "{gaps:?}");
    // Where it must be made again, the start does.
    files.retain(|file, _| !file.ends_with("2.index"));
    let (_, recovery) = open(&MemoryDisk::holding(files));
    assert!(matches!(&recovery.damages[..], [damage] if damage.file == file && named(damage.at)), "{recovery:?}");
    assert!(matches!(&recovery.lost[..], [lost] if lost.first == lost.last), "{recovery:?}");
}

/// A log as a kill leaves it: as [`filled`], with the last segment open and with room.
fn killed() -> MemoryDisk {
    let disk = filled();
    let (mut log, _) = open(&disk);
    for stream in 0..STREAMS {
        let stream = log.reader().stream(&name(stream)).expect("there");
        let payload = Bytes::from_static(b"the last one");
        write(&mut log, Write::Append { stream, time: 0, key: Bytes::new(), payload, decoded: None });
    }
    log.sync().expect("syncs");
    disk.after_kill()
}

#[test]
fn room_behind_a_damaged_end_is_not_counted_as_events() {
    let mut files = killed().files();
    let (file, bytes) = files.iter_mut().rfind(|(file, _)| file.ends_with(".log")).expect("there");
    let (file, last) = (file.clone(), bytes.windows(12).rposition(|bytes| bytes == b"the last one").expect("an event"));
    assert!(bytes.len() > last + 1000, "there is room");
    bytes[last] ^= 1;
    let (_, recovery) = open(&MemoryDisk::holding(files));
    assert!(matches!(&recovery.damages[..], [damage] if damage.file == file), "{recovery:?}");
    let named: u64 = recovery.lost.iter().map(|lost| lost.last - lost.first + 1).sum();
    assert!((1..200).contains(&named), "{recovery:?}");
}

#[test]
fn zeros_at_the_end_of_a_closed_segment_are_damage() {
    let disk = filled();
    let mut files = disk.files();
    let (file, bytes) = files.iter_mut().find(|(file, _)| file.ends_with("2.log")).expect("there");
    let file = file.clone();
    let (last, _) = Scan::new(bytes).last().expect("a record");
    bytes[last..].fill(0);
    files.retain(|file, _| !file.ends_with("2.index"));
    let (_, recovery) = open(&MemoryDisk::holding(files));
    assert!(matches!(&recovery.damages[..], [damage] if damage.file == file), "{recovery:?}");
}

#[test]
fn index_files_are_made_again() {
    let disk = filled();
    let mut files = disk.files();
    let whole = files.clone();
    files.retain(|file, _| !file.ends_with(".index"));
    let disk = MemoryDisk::holding(files);
    let (count, recovery) = missing(&disk, "no index file");
    assert_eq!((count, recovery), (0, Recovery::default()));
    for (file, bytes) in disk.files().into_iter().filter(|(file, _)| file.ends_with(".index")) {
        assert_eq!(Some(&bytes), whole.get(&file), "{file}");
    }
}

#[test]
fn a_missing_segment_is_named_once_with_what_is_lost() {
    let disk = filled();
    let segments: Vec<String> = disk.files().into_keys().filter(|file| file.ends_with(".log")).collect();
    for file in &segments {
        let mut files = disk.files();
        files.remove(file);
        let disk = MemoryDisk::holding(files);
        let (count, recovery) = missing(&disk, file);
        assert!(count > 0 && recovery.damages.iter().any(|damage| damage.file == *file), "{file}: {recovery:?}");
        assert!(!recovery.lost.is_empty());
        let (_, again) = open(&disk);
        assert!(again.damages.is_empty(), "{file}: {again:?}");
    }
}

#[test]
fn without_any_word_of_streams_and_cursors_the_log_is_refused_by_file() {
    let disk = filled();
    let mut files = disk.files();
    let first = files.keys().find(|file| file.ends_with(".log")).cloned().expect("there");
    for (file, bytes) in files.iter_mut().filter(|(file, _)| file.contains(".state-")) {
        bytes[10] ^= 1;
        assert!(file.ends_with("-a") || file.ends_with("-b"));
    }
    // All segments are there yet, and tell all.
    let (count, recovery) = missing(&MemoryDisk::holding(files.clone()), "both states");
    assert_eq!((count, recovery.damages.len()), (0, 2), "{recovery:?}");
    files.remove(&first);
    let refused = try_open(&MemoryDisk::holding(files)).map(drop);
    assert!(matches!(&refused, Err(LogError::Damaged { name, .. }) if name.contains(".state-")), "{refused:?}");
}

#[test]
fn what_a_cursor_settled_beyond_a_damaged_end_is_not_given_to_new_events() {
    let disk = filled();
    let (mut log, _) = open(&disk);
    let id = log.reader().stream(&name(0)).expect("there");
    let cursor: CursorId = log.reader().cursor(id, b"c").expect("there");
    write(&mut log, Write::Settle { cursor, ranges: vec![(0, EVENTS - 1)] });
    log.close().expect("closes");
    // The last segment is gone, and all its events.
    let mut files = disk.files();
    let last = files.keys().rfind(|file| file.ends_with(".log")).cloned().expect("there");
    files.remove(&last);
    let (mut log, _) = open(&MemoryDisk::holding(files));
    let append =
        Write::Append { stream: id, time: 0, key: Bytes::new(), payload: Bytes::from_static(b"new"), decoded: None };
    let Written::Appended(offset) = write(&mut log, append) else { panic!("no event") };
    assert!(!log.reader().progress(cursor).expect("there").is_settled(offset) && offset >= EVENTS);
}

/// What a log serves of a stream whose reading may fail at places, which are passed over; and those.
fn passing_over(reader: &EventReader, id: StreamId) -> (BTreeSet<u64>, Vec<(String, u64, u64)>) {
    let (mut events, mut failed, mut next) = (BTreeSet::new(), Vec::new(), 0);
    loop {
        match reader.read(id, next, usize::MAX, usize::MAX) {
            Ok(read) if read.next == next => return (events, failed),
            Ok(read) => {
                events.extend(read.events.iter().map(|event| event.offset));
                next = read.next;
            }
            Err(ReadError::Io { name, first, last, .. }) => {
                failed.push((name, first, last));
                next = last + 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_segment_that_the_system_cannot_read_costs_no_event_of_another() {
    let disk = filled();
    let file = disk.files().into_keys().find(|file| file.ends_with("2.log")).expect("there");
    disk.fail_reads_of(&file);
    let (log, recovery) = open(&disk);
    assert_eq!(recovery, Recovery::default(), "who reads there is told");
    for stream in 0..STREAMS {
        let id = log.reader().stream(&name(stream)).expect("there");
        let (events, failed) = passing_over(&log.reader(), id);
        let [(named, first, last)] = &failed[..] else { panic!("{failed:?}") };
        let expected: BTreeSet<u64> = (0..EVENTS).filter(|offset| offset < first || offset > last).collect();
        assert_eq!((named, &events), (&file, &expected));
        // A time is found none the less. One that may stand there is looked for there, so that who reads on is told.
        for offset in 0..EVENTS {
            let found = log.reader().seek(id, offset * 10).expect("finds");
            assert_eq!(found, if (*first..=last + 1).contains(&offset) { *first } else { offset });
        }
    }
}

#[test]
fn an_index_file_that_cannot_be_read_costs_nothing() {
    let disk = filled();
    let file = disk.files().into_keys().find(|file| file.ends_with("2.index")).expect("there");
    disk.fail_reads_of(&file);
    assert_eq!(missing(&disk, &file), (0, Recovery::default()));
}

#[test]
fn a_segment_of_which_nothing_can_be_read_is_named_and_left_for_a_start_that_can() {
    let disk = filled();
    let mut files = disk.files();
    files.retain(|file, _| !file.ends_with("2.index"));
    let file = files.keys().find(|file| file.ends_with("2.log")).cloned().expect("there");
    let disk = MemoryDisk::holding(files);
    disk.fail_reads_of(&file);
    let (mut log, recovery) = open(&disk);
    assert!(matches!(&recovery.damages[..], [damage] if damage.file == file), "{recovery:?}");
    assert!(!recovery.lost.is_empty());
    while log.tidy(u64::MAX).expect("tidies").more {}
    log.close().expect("closes");
    // The disk is copied to a new one.
    assert_eq!(missing(&disk.after_kill(), &file), (0, Recovery::default()));
}
