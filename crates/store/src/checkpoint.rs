//! The whole state in one file, so that the log before it can go.

use std::{io, sync::Arc};

use knoll_journal::{Disk, frame, unframe};

use crate::{
    codec::{self, Record},
    snapshot::{Entry, Map, Snapshot},
};

const PREFIX: &str = "checkpoint-";
const SUFFIX: &str = ".dat";
const FORMAT: &str = "knoll-store checkpoint 1";
/// Bytes gathered before they are written.
const CHUNK: usize = 1 << 20;

fn file_name(revision: u64) -> String {
    format!("{PREFIX}{revision:020}{SUFFIX}")
}

fn revision_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// Writes `snapshot`, durable on return, and removes older checkpoints.
pub(crate) fn write(disk: &dyn Disk, snapshot: &Snapshot) -> io::Result<()> {
    let name = file_name(snapshot.revision);
    let temporary = format!("{name}.tmp");
    if disk.list()?.contains(&temporary) {
        disk.remove(&temporary)?;
    }
    let mut file = disk.create(&temporary)?;
    let mut chunk = Vec::with_capacity(CHUNK + 4096);
    frame(FORMAT.as_bytes(), &mut chunk);
    for entry in snapshot.map.values() {
        let mut payload = Vec::with_capacity(entry.value.len() + entry.key.len() + 32);
        codec::begin_transaction(&mut payload);
        codec::operation(entry.revision, &entry.key, Some(&entry.value), &mut payload);
        frame(&payload, &mut chunk);
        if chunk.len() >= CHUNK {
            file.append(&chunk)?;
            chunk.clear();
        }
    }
    // The end mark tells a whole file from one that a power cut left behind.
    frame(&codec::reserve(snapshot.revision), &mut chunk);
    file.append(&chunk)?;
    file.sync()?;
    disk.rename(&temporary, &name)?;
    disk.sync_dir()?;
    for other in disk.list()? {
        let stale = revision_of(&other).is_some_and(|revision| revision < snapshot.revision);
        if stale {
            disk.remove(&other)?;
        }
    }
    Ok(())
}

/// The newest whole checkpoint; an empty state at revision 0 where there is none.
pub(crate) fn read_newest(disk: &dyn Disk) -> io::Result<Snapshot> {
    let mut revisions: Vec<u64> = disk.list()?.iter().filter_map(|name| revision_of(name)).collect();
    revisions.sort_unstable();
    for revision in revisions.into_iter().rev() {
        match parse(&disk.read(&file_name(revision))?, revision) {
            Some(snapshot) => return Ok(snapshot),
            None => tracing::warn!(revision, "pass over a damaged checkpoint"),
        }
    }
    Ok(Snapshot::default())
}

fn parse(bytes: &[u8], revision: u64) -> Option<Snapshot> {
    let (format, mut offset) = unframe(bytes, 0)?;
    if format != FORMAT.as_bytes() {
        return None;
    }
    let mut map = Map::new();
    loop {
        let (payload, next) = unframe(bytes, offset)?;
        offset = next;
        match codec::decode(payload)? {
            Record::Transaction(operations) => {
                for operation in operations {
                    let key: Arc<str> = operation.key.into();
                    let entry = Entry { key: key.clone(), value: operation.value?, revision: operation.revision };
                    map.insert(key, entry);
                }
            }
            Record::Reserve(end) => return (end == revision).then_some(Snapshot { revision, map }),
            Record::Boot(_) => return None,
        }
    }
}
