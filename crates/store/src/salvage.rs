//! What can be saved of a damaged directory, and what is lost with it.

use std::{ops::RangeInclusive, sync::Arc};

use knoll_journal::{Disk, Log, Survey, segment_name, survey};

use crate::{
    checkpoint::{self, Damage, Loader},
    codec::{self, Operation, Record},
    recovery::LOG,
    snapshot::{Slot, Snapshot},
    store::OpenError,
};

/// What is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Revisions of which nothing can be read, ascending.
    pub revisions: Vec<RangeInclusive<u64>>,
    /// Keys that stand in what cannot be read, each with the revision of the lost write.
    pub keys: Vec<(String, u64)>,
    /// Entries that a damaged checkpoint had and that cannot be read.
    pub entries: u64,
    /// Bytes that cannot be read.
    pub bytes: u64,
}

impl Loss {
    /// Whether nothing is lost.
    pub fn is_nothing(&self) -> bool {
        *self == Loss::default()
    }
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What is wrong there.
    pub reason: String,
}

/// What can be read of a directory.
#[derive(Default)]
pub(crate) struct Salvage {
    pub(crate) state: Snapshot,
    /// A revision that was never handed out, and none after it.
    pub(crate) unused: u64,
    pub(crate) loss: Loss,
    pub(crate) problems: Vec<Problem>,
    /// All checkpoints and segments.
    pub(crate) files: Vec<String>,
    /// Number of the last segment.
    pub(crate) last_segment: u64,
}

/// Follows the log through what cannot be read.
struct Follower {
    salvage: Salvage,
    /// Revision of the state before the log.
    base: u64,
    at: Option<u64>,
    reserved: u64,
    boot: String,
}

fn unreadable(name: &str) -> impl FnOnce(std::io::Error) -> OpenError {
    let path = name.to_owned();
    move |source| OpenError::Directory { path, source }
}

/// Reads all that can be read.
pub(crate) fn salvage(disk: &dyn Disk) -> Result<Salvage, OpenError> {
    let mut salvage = Salvage::default();
    read_checkpoints(disk, &mut salvage)?;
    let base = salvage.state.revision;
    let mut follower = Follower { salvage, base, at: None, reserved: base, boot: String::new() };
    let segments = Log::segments(disk, LOG)?;
    for &sequence in &segments {
        let name = segment_name(LOG, sequence);
        let bytes = disk.read(&name).map_err(unreadable(&name))?;
        for stretch in survey(&bytes) {
            match stretch {
                Survey::Record { offset, payload } => follower.record(&name, offset, payload),
                Survey::Unreadable { offset, bytes } => follower.unreadable(&name, offset, bytes),
            }
        }
        follower.salvage.files.push(name);
    }
    let Follower { mut salvage, at, reserved, .. } = follower;
    salvage.last_segment = segments.last().copied().unwrap_or_default();
    salvage.unused = salvage.unused.max(salvage.state.revision).max(reserved).max(at.unwrap_or_default()) + 1;
    Ok(salvage)
}

/// Takes the newest whole checkpoint, or what can be read of the newest where none is whole.
fn read_checkpoints(disk: &dyn Disk, salvage: &mut Salvage) -> Result<(), OpenError> {
    let revisions = checkpoint::revisions(disk).map_err(unreadable("checkpoints"))?;
    let mut newest_damaged = None;
    for &revision in revisions.iter().rev() {
        let name = checkpoint::file_name(revision);
        let bytes = disk.read(&name).map_err(unreadable(&name))?;
        salvage.files.push(name.clone());
        salvage.unused = salvage.unused.max(revision);
        match checkpoint::parse(&bytes, revision) {
            Ok(snapshot) if salvage.state.revision == 0 => salvage.state = snapshot,
            Ok(_) => {}
            Err(Damage { offset, reason }) => {
                salvage.problems.push(Problem { file: name, offset: offset as u64, reason });
                newest_damaged.get_or_insert((revision, bytes));
            }
        }
    }
    if let Some((revision, bytes)) = newest_damaged.filter(|_| salvage.state.revision == 0) {
        read_damaged_checkpoint(&bytes, revision, salvage);
    }
    Ok(())
}

fn read_damaged_checkpoint(bytes: &[u8], revision: u64, salvage: &mut Salvage) {
    let mut loader = Loader::default();
    let mut had = None;
    for stretch in survey(bytes) {
        match stretch {
            Survey::Record { payload, .. } => {
                let Some(record) = codec::parse_record(payload) else { continue };
                let key = match &record {
                    Record::Packed { key, revision, .. } => Some((key.clone(), *revision)),
                    _ => None,
                };
                match loader.take(record) {
                    Ok(Some((_, entries))) => had = entries,
                    Ok(None) => {}
                    Err(_) => salvage.loss.keys.extend(key),
                }
            }
            Survey::Unreadable { bytes, .. } => {
                salvage.loss.bytes += bytes.len() as u64;
                salvage.loss.keys.extend(gleaned(bytes, 0));
            }
        }
    }
    salvage.loss.entries = had.unwrap_or_default().saturating_sub(loader.map.len() as u64);
    salvage.state = Snapshot { revision, map: loader.map };
}

fn gleaned(bytes: &[u8], after: u64) -> impl Iterator<Item = (String, u64)> {
    let found = codec::glean_operations(bytes).into_iter();
    found.filter(move |(revision, _)| *revision > after).map(|(revision, key)| (key, revision))
}

impl Follower {
    fn record(&mut self, file: &str, offset: usize, payload: &[u8]) {
        let before = self.salvage.loss.revisions.len();
        match codec::parse_record(payload) {
            Some(Record::Transaction(operations)) => operations.into_iter().for_each(|o| self.operate(o)),
            Some(Record::Reserve(revision)) => self.reserved = self.reserved.max(revision),
            Some(Record::Boot(boot)) => self.boot(boot),
            Some(Record::Head { revision, reserved, boot }) => {
                self.boot(boot);
                self.skip_to(revision);
                self.at = Some(revision);
                self.reserved = self.reserved.max(reserved);
            }
            _ => self.problem(file, offset, "it holds a record that does not belong there".to_owned()),
        }
        if let Some(lost) = self.salvage.loss.revisions.get(before).cloned() {
            self.problem(file, offset, format!("revisions {} to {} are missing before it", lost.start(), lost.end()));
        }
    }

    fn problem(&mut self, file: &str, offset: usize, reason: String) {
        self.salvage.problems.push(Problem { file: file.to_owned(), offset: offset as u64, reason });
    }

    fn unreadable(&mut self, file: &str, offset: usize, bytes: &[u8]) {
        self.problem(file, offset, format!("{} bytes cannot be read", bytes.len()));
        self.salvage.loss.bytes += bytes.len() as u64;
        self.salvage.loss.keys.extend(gleaned(bytes, self.base));
    }

    fn boot(&mut self, boot: String) {
        let restarted = !self.boot.is_empty() && boot != self.boot;
        self.boot = boot;
        if restarted {
            self.at = self.at.map(|at| at.max(self.reserved));
        }
    }

    /// What lies between where the log was and `revision` is lost, unless the state before the log has it.
    fn skip_to(&mut self, revision: u64) {
        let at = self.at.unwrap_or(self.base).max(self.base);
        if revision > at {
            self.salvage.loss.revisions.push(at + 1..=revision);
        }
    }

    fn operate(&mut self, operation: Operation) {
        let Operation { revision, key, value } = operation;
        self.skip_to(revision.saturating_sub(1));
        self.at = Some(self.at.unwrap_or_default().max(revision));
        let state = &mut self.salvage.state;
        if revision <= state.revision {
            return;
        }
        let key: Arc<str> = key.into();
        match value {
            Some(value) => drop(state.map.insert(key, Slot::plain(value, revision))),
            None => drop(state.map.remove(&key)),
        }
        state.revision = revision;
    }
}
