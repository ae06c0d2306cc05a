use super::*;
use crate::MemoryDisk;

/// Takes everything.
struct Seen {
    records: Vec<Vec<u8>>,
    same_run: bool,
}

impl Replay for Seen {
    fn record(&mut self, payload: &[u8]) -> Result<(), String> {
        if payload != b"head" {
            self.records.push(payload.to_vec());
        }
        Ok(())
    }

    fn same_run(&self) -> bool {
        self.same_run
    }
}

const OPTIONS: Options = Options { segment_bytes: 64, record_bytes: 1024, room_bytes: 40 };
const FIRST: &str = "t-0000000000000001.log";

fn try_open(disk: &MemoryDisk, same_run: bool) -> Result<(Log, Vec<Vec<u8>>), LogError> {
    let mut seen = Seen { records: Vec::new(), same_run };
    let log = Log::open(Arc::new(disk.clone()), "t", OPTIONS, 0, b"head", &mut seen)?;
    Ok((log, seen.records))
}

fn open(disk: &MemoryDisk) -> (Log, Vec<Vec<u8>>) {
    try_open(disk, true).expect("opens")
}

fn write(log: &mut Log, record: &[u8]) -> Result<(), LogError> {
    let mut batch = Batch::default();
    batch.push(record);
    log.append(&mut batch)
}

#[test]
fn records_come_back_in_order_over_several_segments() {
    let disk = MemoryDisk::default();
    let (mut log, _) = open(&disk);
    for n in 0..50_u8 {
        write(&mut log, &[n; 10]).expect("writes");
        if log.is_full() {
            log.rotate(b"head").expect("rotates");
        }
    }
    log.sync().expect("syncs");
    let (_, seen) = open(&disk);
    assert_eq!(seen.len(), 50);
    assert!(seen.iter().enumerate().all(|(n, r)| r[0] as usize == n));
    assert!(disk.list().expect("lists").len() > 5);
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_nothing_torn() {
    let disk = MemoryDisk::default();
    let (mut log, _) = open(&disk);
    write(&mut log, b"kept").expect("writes");
    log.sync().expect("syncs");
    write(&mut log, b"lost").expect("writes");
    let (_, seen) = open(&disk.after_power_cut());
    assert_eq!(seen, [b"kept".to_vec()]);
}

#[test]
fn whatever_a_power_cut_leaves_of_what_was_not_synced_is_explained() {
    let disk = MemoryDisk::default();
    let (mut log, _) = open(&disk);
    write(&mut log, &[1; 900]).expect("writes");
    log.sync().expect("syncs");
    for n in 2..20 {
        write(&mut log, &[n; 700]).expect("writes");
    }
    for seed in 1..500 {
        let (_, seen) = try_open(&disk.after_power_cut_with(seed), false).expect("nothing synced is missing");
        assert!(!seen.is_empty(), "seed {seed}: a synced record is gone");
        assert!(seen.iter().zip(1..).all(|(record, n)| record[0] == n), "seed {seed}: a record was left out");
    }
}

#[test]
fn a_torn_record_is_cut_off_and_written_over() {
    let disk = MemoryDisk::default();
    let (mut log, _) = open(&disk);
    write(&mut log, b"one").expect("writes");
    let whole = disk.files()[FIRST].len() as u64;
    write(&mut log, b"two").expect("writes");
    disk.append_to(FIRST, whole + 9).expect("cuts");
    let (mut log, seen) = open(&disk);
    assert_eq!(seen, [b"one".to_vec()]);
    write(&mut log, b"three").expect("writes");
    assert_eq!(open(&disk).1, [b"one".to_vec(), b"three".to_vec()]);
}

#[test]
fn a_full_disk_fails_the_batch_and_leaves_the_log_usable() {
    let disk = MemoryDisk::default();
    let (mut log, _) = open(&disk);
    disk.set_capacity(Some(disk.used() + 20));
    let refused = write(&mut log, &[7; 100]);
    assert!(refused.is_err_and(|error| error.is_full()));
    disk.set_capacity(None);
    write(&mut log, b"after").expect("writes");
    assert_eq!(open(&disk).1, [b"after".to_vec()]);
}

#[test]
fn a_full_disk_while_rotating_leaves_the_open_segment_usable() {
    let disk = MemoryDisk::default();
    let (mut log, _) = open(&disk);
    write(&mut log, b"before").expect("writes");
    disk.set_capacity(Some(disk.used() + 5));
    assert!(log.rotate(b"head").is_err_and(|error| error.is_full()));
    disk.set_capacity(None);
    write(&mut log, b"between").expect("writes");
    log.rotate(b"head").expect("rotates");
    write(&mut log, b"after").expect("writes");
    let files: Vec<String> = disk.files().into_keys().collect();
    assert_eq!(files, [segment_name("t", 1), segment_name("t", 2)], "nothing is left of the attempt");
    assert_eq!(open(&disk).1, [b"before".to_vec(), b"between".to_vec(), b"after".to_vec()]);
}

#[test]
fn too_many_open_files_are_a_want_of_room() {
    assert!([23, 24, 12].map(std::io::Error::from_raw_os_error).iter().all(crate::is_full));
    assert!(!crate::is_full(&std::io::Error::from_raw_os_error(5)));
}

#[test]
fn a_failed_sync_is_never_taken_for_a_full_disk() {
    let disk = MemoryDisk::default();
    let (mut log, _) = open(&disk);
    write(&mut log, b"one").expect("writes");
    disk.fail_syncs();
    assert!(log.sync().is_err_and(|error| !error.is_full()));
    assert!(log.rotate(b"head").is_err_and(|error| !error.is_full()));
}

#[test]
fn damage_in_a_closed_segment_is_refused_with_its_place() {
    let disk = MemoryDisk::default();
    let (mut log, _) = open(&disk);
    write(&mut log, &[1; 80]).expect("writes");
    log.rotate(b"head").expect("rotates");
    disk.append_to(FIRST, 70).expect("cuts");
    let refused = try_open(&disk, false).map(drop);
    assert!(matches!(&refused, Err(LogError::Damaged { name, offset: 44, .. }) if name == FIRST), "{refused:?}");
}

#[test]
fn a_missing_segment_is_named() {
    let disk = MemoryDisk::default();
    let (mut log, _) = open(&disk);
    log.rotate(b"head").expect("rotates");
    log.rotate(b"head").expect("rotates");
    disk.remove(&segment_name("t", 2)).expect("removes");
    let refused = try_open(&disk, false).map(drop);
    assert!(matches!(&refused, Err(LogError::Missing { name }) if *name == segment_name("t", 2)), "{refused:?}");
}

#[test]
fn a_changed_byte_anywhere_is_refused_in_the_same_run_and_after_a_clean_end_in_any() {
    let disk = MemoryDisk::default();
    let (mut log, _) = open(&disk);
    for n in 0..4 {
        write(&mut log, &[n; 20]).expect("writes");
    }
    log.close().expect("closes");
    let bytes = disk.files()[FIRST].clone();
    for at in 0..bytes.len() {
        for same_run in [true, false] {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            let disk = MemoryDisk::holding([(FIRST.to_owned(), changed)].into());
            // The last mark covers the records before it; nothing covers the mark itself.
            let is_mark = at >= bytes.len() - MARK_BYTES;
            match try_open(&disk, same_run) {
                Ok((_, seen)) => assert!(is_mark && seen.len() == 4, "byte {at}, same run {same_run}: {seen:?}"),
                Err(error) => assert!(matches!(error, LogError::Damaged { .. }), "{error:?}"),
            }
        }
    }
}

#[test]
fn records_are_read_across_windows_and_damage_is_told_with_its_place() {
    let disk = MemoryDisk::default();
    let options = Options { segment_bytes: 64 << 20, record_bytes: 8 << 20, ..Options::default() };
    let open = |disk: &MemoryDisk| {
        let mut seen = Seen { records: Vec::new(), same_run: true };
        Log::open(Arc::new(disk.clone()), "t", options, 0, b"head", &mut seen).map(|log| (log, seen.records))
    };
    let lengths = [WINDOW - 30, 5, 3 * WINDOW, 100_000, 2 * WINDOW + 1, 7];
    let (mut log, _) = open(&disk).expect("opens");
    for (n, length) in lengths.into_iter().enumerate() {
        write(&mut log, &vec![u8::try_from(n).expect("few"); length]).expect("writes");
    }
    let end = log.written;
    drop(log);
    let (log, seen) = open(&disk).expect("opens again");
    assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
    assert_eq!(log.written, end);
    drop(log);
    // A byte of the third record, in the window after the one in which it begins.
    let place = 2 * WINDOW;
    let mut files = disk.files();
    files.get_mut(FIRST).expect("it is there")[place] ^= 1;
    let Err(LogError::Damaged { offset, reason, .. }) = open(&MemoryDisk::holding(files)) else {
        panic!("it is damaged")
    };
    let begins = u64::try_from(WINDOW).expect("small");
    assert!(offset > begins - 30 && offset < begins + 100, "{offset}");
    let follows: u64 = reason.rsplit(' ').next().and_then(|at| at.parse().ok()).expect("where records follow");
    assert!(follows > offset + 3 * begins, "{reason}");
}

#[test]
fn short_batches_find_room_ahead_and_a_closed_segment_has_none() {
    let options = Options { segment_bytes: 4 << 10, record_bytes: 8 << 10, room_bytes: 1 << 10 };
    let disk = MemoryDisk::default();
    let length = |name| disk.read(name).expect("is there").len() as u64;
    let mut seen = Seen { records: Vec::new(), same_run: true };
    let mut log = Log::open(Arc::new(disk.clone()), "t", options, 0, b"head", &mut seen).expect("opens");
    write(&mut log, &[1; 100]).expect("writes");
    let first = log.written() + 1024;
    assert_eq!(length(FIRST), first);
    log.sync().expect("syncs");
    write(&mut log, &[2; 100]).expect("writes");
    assert_eq!(length(FIRST), first, "it is written into the room");
    log.sync().expect("syncs");
    write(&mut log, &[3; 2000]).expect("writes");
    assert_eq!(length(FIRST), log.written(), "long batches are written once");
    log.sync().expect("syncs");
    write(&mut log, &[4; 100]).expect("writes");
    assert_eq!(length(FIRST), log.written() + 1024);
    log.rotate(b"head").expect("rotates");
    let second = segment_name("t", 2);
    assert_eq!(disk.after_power_cut().read(FIRST).expect("is there").last(), Some(&4), "no room is left behind");
    disk.set_capacity(Some(disk.used() + 500));
    write(&mut log, &[5; 100]).expect("writes, though there is no room ahead");
    log.sync().expect("syncs");
    assert_eq!(disk.read(&second).expect("is there").len() as u64, log.written());
    disk.set_capacity(None);
    write(&mut log, &[6; 100]).expect("writes");
    log.close().expect("closes");
    assert_eq!(disk.read(&second).expect("is there").len() as u64, log.written(), "no more is made in this segment");
    let mut seen = Seen { records: Vec::new(), same_run: true };
    Log::open(Arc::new(disk.after_kill()), "t", options, 0, b"head", &mut seen).expect("opens");
    assert_eq!(seen.records.iter().map(|record| record[0]).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn whatever_a_kill_or_a_power_cut_leaves_in_the_room_is_explained() {
    let options = Options { segment_bytes: 64 << 10, record_bytes: 8 << 10, room_bytes: 4 << 10 };
    let open = |disk: MemoryDisk, same_run| {
        let mut seen = Seen { records: Vec::new(), same_run };
        let log = Log::open(Arc::new(disk), "t", options, 0, b"head", &mut seen);
        log.map(|log| (log, seen.records))
    };
    for operations in 4..60 {
        let disk = MemoryDisk::default();
        let (mut log, _) = open(disk.clone(), true).expect("opens");
        disk.allow_operations(operations);
        let (mut written, mut synced) = (0, 0);
        for n in 1..40 {
            let done = write(&mut log, &[n; 700]).map(|()| written = n).and_then(|()| log.sync());
            if done.is_err() {
                break;
            }
            synced = n;
        }
        let (_, seen) = open(disk.after_kill(), true).expect("a kill is explained");
        assert!([written, written + 1].contains(&(seen.len() as u8)), "{operations}: {} of {written}", seen.len());
        for seed in 1..50 {
            let (_, seen) = open(disk.after_power_cut_with(seed), false).expect("a power cut is explained");
            assert!(seen.len() as u8 >= synced, "{operations}, {seed}: {} of {synced}", seen.len());
        }
    }
}

#[test]
fn a_batch_that_would_have_filled_the_room_to_its_end_may_be_cut_short_too() {
    let options = Options { segment_bytes: 64 << 10, record_bytes: 8 << 10, room_bytes: 1 << 10 };
    let open = |disk: &MemoryDisk| {
        let mut seen = Seen { records: Vec::new(), same_run: true };
        Log::open(Arc::new(disk.clone()), "t", options, 0, b"head", &mut seen).map(|log| (log, seen.records.len()))
    };
    // With its frame and a mark it ends before the room does, with it, and behind it.
    for (length, operations) in (990..1030).flat_map(|length| [(length, 0), (length, 1)]) {
        let disk = MemoryDisk::default();
        let (mut log, _) = open(&disk).expect("opens");
        write(&mut log, &[1; 100]).expect("writes");
        log.sync().expect("syncs");
        disk.allow_operations(disk.operations() + operations);
        let is_written = write(&mut log, &vec![2; length]).is_ok();
        let (_, records) = open(&disk.after_kill()).unwrap_or_else(|error| panic!("{length}: {error}"));
        assert_eq!((records, is_written && operations == 0), (1 + usize::from(is_written), false), "{length}");
    }
}

#[test]
fn no_power_cut_brings_back_what_a_full_disk_had_cut_off_a_segment_that_is_closed() {
    let options = Options { segment_bytes: 64 << 10, record_bytes: 8 << 10, room_bytes: 1 << 10 };
    let disk = MemoryDisk::default();
    let mut seen = Seen { records: Vec::new(), same_run: true };
    let mut log = Log::open(Arc::new(disk.clone()), "t", options, 0, b"head", &mut seen).expect("opens");
    write(&mut log, &[1; 100]).expect("writes");
    log.sync().expect("syncs");
    disk.set_capacity(Some(disk.used()));
    assert!(write(&mut log, &[2; 2000]).is_err_and(|error| error.is_full()));
    let written = log.written();
    log.rotate(b"head").expect("there is room for a head");
    assert_eq!(disk.after_power_cut().read(FIRST).expect("is there").len() as u64, written);
}

#[test]
fn zeros_at_the_end_of_a_closed_segment_are_no_room() {
    let disk = MemoryDisk::default();
    let (mut log, _) = open(&disk);
    write(&mut log, &[1; 80]).expect("writes");
    let written = usize::try_from(log.written()).expect("short");
    log.rotate(b"head").expect("rotates");
    let mut bytes = disk.read(FIRST).expect("is there");
    bytes[written - 88..].fill(0);
    disk.append_to(FIRST, 0).and_then(|mut file| file.append(&bytes)).expect("writes");
    let refused = try_open(&disk, false).map(drop);
    assert!(matches!(&refused, Err(LogError::Damaged { name, offset: 44, .. }) if name == FIRST), "{refused:?}");
}

#[test]
fn a_segment_that_is_to_be_closed_gets_no_more_room() {
    let options = Options { segment_bytes: 64, record_bytes: 1 << 10, room_bytes: 1 << 10 };
    let disk = MemoryDisk::default();
    let mut seen = Seen { records: Vec::new(), same_run: true };
    let mut log = Log::open(Arc::new(disk.clone()), "t", options, 0, b"head", &mut seen).expect("opens");
    write(&mut log, &[1; 100]).expect("writes");
    // As too many open files do, this leaves no room for a head, and then there is as much as before.
    disk.set_capacity(Some(usize::try_from(log.written()).expect("short") + 5));
    assert!(log.rotate(b"head").is_err_and(|error| error.is_full()));
    disk.set_capacity(None);
    write(&mut log, &[2; 100]).expect("writes");
    assert_eq!(disk.read(FIRST).expect("is there").len() as u64, log.written());
}
