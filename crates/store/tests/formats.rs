//! What earlier versions wrote is read.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use bytes::Bytes;
use knoll_journal::{LogError, MemoryDisk, frame};
use knoll_store::{Durability, Expect, OpenError, Options, Store, inspect};

fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).expect("short");
    [&length.to_le_bytes(), text.as_bytes()].concat()
}

fn put(revision: u64) -> Vec<u8> {
    [b"T\x01".as_slice(), &revision.to_le_bytes(), &text(&format!("/a/b/{revision}")), &text("value")].concat()
}

fn reserve(revision: u64) -> Vec<u8> {
    [b"R".as_slice(), &revision.to_le_bytes()].concat()
}

fn file(records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    records.iter().for_each(|record| frame(record, &mut bytes));
    bytes
}

/// A store of the first format: a checkpoint of revision 5, and what was written since.
fn first_format() -> BTreeMap<String, Vec<u8>> {
    let entries: Vec<Vec<u8>> = (1..=5).map(put).collect();
    let checkpoint = [vec![b"knoll-store checkpoint 1".to_vec()], entries, vec![reserve(5)]].concat();
    let log = [put(6), put(7), b"Bone".to_vec(), reserve(1000), put(8)];
    BTreeMap::from([
        ("checkpoint-00000000000000000005.dat".to_owned(), file(&checkpoint)),
        ("wal-0000000000000002.log".to_owned(), file(&log)),
    ])
}

#[tokio::test]
async fn a_store_of_the_first_format_is_read_and_written_on() {
    for (boot, revision) in [("one", 8), ("two", 1000)] {
        let disk = MemoryDisk::holding(first_format());
        let options = Options { boot_id: boot.into(), checkpoint_bytes: 256, ..Options::default() };
        let store = Store::open_on(Arc::new(disk.clone()), options.clone()).expect("opens");
        assert_eq!((store.revision(), store.snapshot().count("/a/b/")), (revision, 8));
        for n in 0..50 {
            let key = format!("/a/c/{n}");
            store.put(key, Bytes::from_static(b"value"), Expect::Absent, Durability::Durable).await.expect("writes");
        }
        store.close().await;
        let store = Store::open_on(Arc::new(disk), options).expect("opens again");
        assert_eq!((store.revision(), store.snapshot().count("/a/")), (revision + 50, 58));
    }
}

#[tokio::test]
async fn a_gap_in_a_log_of_the_first_format_is_refused() {
    let mut files = first_format();
    files.insert("wal-0000000000000002.log".to_owned(), file(&[put(7), put(8)]));
    let options = Options { boot_id: "one".into(), ..Options::default() };
    let refused = Store::open_on(Arc::new(MemoryDisk::holding(files)), options).map(drop);
    let refused = refused.expect_err("revision 6 is missing");
    let OpenError::Log(LogError::Damaged { name, offset: 0, reason }) = &refused else { panic!("{refused}") };
    assert_eq!(name, "wal-0000000000000002.log");
    assert!(reason.contains("revision 7 stands where 6 is expected"), "{reason}");
}

#[tokio::test]
async fn a_directory_of_the_first_format_is_taken_over_and_closed_to_others() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join("store");
    fs::create_dir(&path).expect("makes it");
    fs::write(path.join("FORMAT"), "knoll-store 1\n").expect("writes");
    for (name, bytes) in first_format() {
        fs::write(path.join(name), bytes).expect("writes");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("is ours");
    let options = Options { boot_id: "one".into(), ..Options::default() };
    let found = inspect(&path, &options).expect("looks");
    assert!(found.refusal.is_none() && found.entries == 8);
    let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o755, "looking changes nothing");
    let store = Store::open(&path, options).expect("opens");
    assert_eq!(store.revision(), 8);
    assert_eq!(fs::read_to_string(path.join("FORMAT")).expect("reads"), "knoll-store 2\n");
    assert_eq!(mode(&path), 0o700);
    for entry in fs::read_dir(&path).expect("reads") {
        assert_eq!(mode(&entry.expect("reads").path()), 0o600);
    }
    fs::write(path.join("FORMAT"), "knoll-store 9\n").expect("writes");
    assert!(matches!(Store::open(&path, Options::default()), Err(OpenError::Newer)));
}
