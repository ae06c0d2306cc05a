//! The whole state in one file, so that the log before it can go.
//!
//! Two are kept, with the log from the older one on: if the newer cannot be read, nothing is lost.

use std::{collections::HashMap, io, sync::Arc};

use knoll_journal::{Disk, Frame, Log, LogError, Scan, frame};

use crate::{
    codec::{self, Operation, Record},
    recovery::{LOG, first_segment},
    snapshot::{Map, Slot, Snapshot},
    value::{Dictionary, Packed, Value},
};

const PREFIX: &str = "checkpoint-";
const SUFFIX: &str = ".dat";
const TEMPORARY: &str = ".tmp";
const FORMAT: &str = "knoll-store checkpoint 2";
/// The format before values were packed.
const FORMAT_1: &str = "knoll-store checkpoint 1";
/// Bytes gathered before they are written.
const CHUNK: usize = 1 << 20;
/// Bytes written before they are synced: syncing all at the end would hold up the log's syncs meanwhile.
const SYNC_EVERY: usize = 4 << 20;

pub(crate) fn file_name(revision: u64) -> String {
    format!("{PREFIX}{revision:020}{SUFFIX}")
}

pub(crate) fn revision_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// Revisions of the checkpoints that are there, ascending.
pub(crate) fn revisions(disk: &dyn Disk) -> io::Result<Vec<u64>> {
    let mut revisions: Vec<u64> = disk.list()?.iter().filter_map(|name| revision_of(name)).collect();
    revisions.sort_unstable();
    Ok(revisions)
}

/// Writes `snapshot`, durable on return. Returns the bytes of the file. Nothing of a failed attempt stays.
pub(crate) fn write(disk: &dyn Disk, snapshot: &Snapshot) -> io::Result<u64> {
    let name = file_name(snapshot.revision);
    let temporary = format!("{name}{TEMPORARY}");
    remove_unfinished(disk)?;
    let written = write_temporary(disk, &temporary, snapshot);
    if written.is_err()
        && let Err(error) = disk.remove(&temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, name = temporary, "remove an unfinished checkpoint");
    }
    let bytes = written?;
    disk.rename(&temporary, &name)?;
    disk.sync_dir()?;
    Ok(bytes)
}

/// Removes what is not needed any more: checkpoints other than those of the revisions in `kept` (ascending), and the
/// log before the oldest of them.
pub(crate) fn prune(disk: &dyn Disk, kept: &[u64]) -> Result<(), LogError> {
    let [oldest, _, ..] = kept else { return Ok(()) };
    let io = |name: String| move |source| LogError::Io { name, source };
    for revision in revisions(disk).map_err(io(PREFIX.to_owned()))?.into_iter().filter(|r| !kept.contains(r)) {
        let name = file_name(revision);
        disk.remove(&name).map_err(io(name))?;
    }
    Log::remove_before(disk, LOG, first_segment(disk, *oldest)?)
}

/// Removes what a crash left of checkpoints under way.
pub(crate) fn remove_unfinished(disk: &dyn Disk) -> io::Result<()> {
    for name in disk.list()? {
        if name.strip_suffix(TEMPORARY).is_some_and(|name| revision_of(name).is_some()) {
            disk.remove(&name)?;
        }
    }
    Ok(())
}

fn write_temporary(disk: &dyn Disk, temporary: &str, snapshot: &Snapshot) -> io::Result<u64> {
    let mut file = disk.create(temporary)?;
    let mut chunk = Vec::with_capacity(CHUNK + 4096);
    let mut dictionaries: HashMap<*const Dictionary, u32> = HashMap::new();
    let (mut written, mut unsynced) = (0, 0);
    let mut payload = Vec::new();
    frame(FORMAT.as_bytes(), &mut chunk);
    for (key, slot) in &snapshot.map {
        payload.clear();
        match &slot.value {
            Value::Plain(value) => {
                codec::begin_transaction(&mut payload);
                codec::operation(slot.revision, key, Some(value), &mut payload);
            }
            Value::Packed(packed) => {
                let next = u32::try_from(dictionaries.len()).map_err(io::Error::other)?;
                let number = *dictionaries.entry(Arc::as_ptr(&packed.dictionary)).or_insert_with(|| {
                    frame(&codec::dictionary(&packed.dictionary.0), &mut chunk);
                    next
                });
                codec::packed(number, slot.revision, key, &packed.bytes, &mut payload);
            }
        }
        frame(&payload, &mut chunk);
        if chunk.len() >= CHUNK {
            file.append(&chunk)?;
            written += chunk.len();
            unsynced += chunk.len();
            chunk.clear();
        }
        if unsynced >= SYNC_EVERY {
            file.sync()?;
            unsynced = 0;
        }
    }
    frame(&codec::end(snapshot.revision, snapshot.map.len() as u64), &mut chunk);
    file.append(&chunk)?;
    file.sync()?;
    Ok((written + chunk.len()) as u64)
}

/// A checkpoint that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged at byte {offset}: {reason}")]
pub struct Damage {
    /// Where.
    pub offset: usize,
    /// What is wrong there.
    pub reason: String,
}

/// Takes the records of a checkpoint.
#[derive(Default)]
pub(crate) struct Loader {
    pub(crate) map: Map,
    dictionaries: Vec<Arc<Dictionary>>,
}

impl Loader {
    /// Takes a record. `Some` when it is the end of the file: revision and number of entries.
    pub(crate) fn take(&mut self, record: Record) -> Result<Option<(u64, Option<u64>)>, &'static str> {
        match record {
            Record::Transaction(operations) => {
                for Operation { revision, key, value } in operations {
                    let value = value.ok_or("a deletion stands in a checkpoint")?;
                    self.map.insert(key.into(), Slot::plain(value, revision));
                }
            }
            Record::Dictionary(bytes) => {
                self.dictionaries.push(Arc::new(Dictionary(Vec::from(bytes).into_boxed_slice())));
            }
            Record::Packed { dictionary, revision, key, bytes } => {
                let dictionary = self.dictionaries.get(dictionary as usize).ok_or("it needs a dictionary not given")?;
                let packed = Packed { bytes: Arc::from(&bytes[..]), dictionary: dictionary.clone() };
                self.map.insert(key.into(), Slot { value: Value::Packed(packed), revision });
            }
            Record::End { revision, entries } => return Ok(Some((revision, Some(entries)))),
            // How the first format ended.
            Record::Reserve(revision) => return Ok(Some((revision, None))),
            Record::Boot(_) | Record::Head { .. } => return Err("a record of the log stands in a checkpoint"),
        }
        Ok(None)
    }
}

/// Reads the bytes of a checkpoint.
///
/// # Errors
/// When they are not a whole one.
pub fn parse_checkpoint(bytes: &[u8]) -> Result<Snapshot, Damage> {
    let damage = |offset, reason: &str| Damage { offset, reason: reason.to_owned() };
    let mut loader = Loader::default();
    let mut scan = Scan::new(bytes);
    match scan.next() {
        Some((_, Frame::Record(format))) if format == FORMAT.as_bytes() || format == FORMAT_1.as_bytes() => {}
        Some(_) => return Err(damage(0, "it is of a format this version does not know")),
        None => return Err(damage(0, "it cannot be read")),
    }
    while let Some((offset, found)) = scan.next() {
        let Frame::Record(payload) = found else { return Err(damage(offset, "a mark stands in a checkpoint")) };
        let record = codec::parse_record(payload).ok_or_else(|| damage(offset, "it holds an unknown record"))?;
        if let Some((revision, entries)) = loader.take(record).map_err(|reason| damage(offset, reason))? {
            if entries.is_some_and(|entries| entries != loader.map.len() as u64) {
                return Err(damage(offset, "entries are missing"));
            }
            if scan.offset() != bytes.len() {
                return Err(damage(scan.offset(), "something follows its end"));
            }
            return Ok(Snapshot { revision, map: loader.map });
        }
    }
    Err(damage(scan.offset(), "it cannot be read from here on"))
}

/// Reads the bytes of the checkpoint that is named after `revision`.
pub(crate) fn parse(bytes: &[u8], revision: u64) -> Result<Snapshot, Damage> {
    let snapshot = parse_checkpoint(bytes)?;
    if snapshot.revision == revision {
        return Ok(snapshot);
    }
    Err(Damage { offset: 0, reason: format!("it is named {revision} and is of revision {}", snapshot.revision) })
}
