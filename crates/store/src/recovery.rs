//! From the files of a data directory to the state.
//!
//! The newest whole checkpoint, and the log from there on. The log must go on exactly where the checkpoint ends and
//! have every revision: what is missing is refused, with the file and the place.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use knoll_journal::{Disk, Log, LogError, Replay, segment_name};

use crate::{
    Change, checkpoint,
    codec::{self, Operation, Record},
    history::History,
    snapshot::{Slot, Snapshot},
    store::{OpenError, Options},
};

/// What the segments' names begin with.
pub(crate) const LOG: &str = "wal";
/// Revisions reserved ahead, so that a power cut cannot lead to one being used twice.
pub(crate) const RESERVE_AHEAD: u64 = 1 << 20;

/// What the files say.
pub(crate) struct Recovered {
    pub(crate) snapshot: Snapshot,
    pub(crate) history: History,
    pub(crate) log: Log,
    /// Revisions up to this one may have been handed out.
    pub(crate) reserved: u64,
    /// Whether the log must begin a new segment before the next write.
    pub(crate) must_rotate: bool,
    /// Revisions of whole checkpoints that are kept, ascending.
    pub(crate) checkpoints: Vec<u64>,
    /// Bytes of the newest of them.
    pub(crate) checkpoint_bytes: u64,
    /// Bytes of records that came after it.
    pub(crate) since_checkpoint: u64,
}

/// Replays the log over a checkpoint's state.
pub(crate) struct Replayer {
    pub(crate) snapshot: Snapshot,
    history: History,
    /// Revision the log is at; unknown until its first record says so.
    at: Option<u64>,
    reserved: u64,
    boot: String,
    present_boot: String,
    applied_bytes: u64,
    now: Instant,
}

impl Replay for Replayer {
    fn record(&mut self, payload: &[u8]) -> Result<(), String> {
        match codec::parse_record(payload) {
            Some(Record::Transaction(operations)) => {
                let before = self.snapshot.revision;
                for operation in operations {
                    self.operate(operation)?;
                }
                if self.snapshot.revision > before {
                    self.applied_bytes += payload.len() as u64;
                }
            }
            Some(Record::Reserve(revision)) => self.reserved = self.reserved.max(revision),
            Some(Record::Boot(boot)) => self.boot(boot),
            Some(Record::Head { revision, reserved, boot }) => {
                self.boot(boot);
                self.head(revision)?;
                self.reserved = self.reserved.max(reserved);
            }
            Some(_) => return Err("a record of a checkpoint stands there".to_owned()),
            None => return Err("a record stands there that this version does not know".to_owned()),
        }
        Ok(())
    }

    fn same_run(&self) -> bool {
        self.boot.is_empty() || self.boot == self.present_boot
    }
}

impl Replayer {
    pub(crate) fn new(snapshot: Snapshot, options: &Options) -> Self {
        let keep: Duration = options.history_age;
        Self {
            history: History::new(snapshot.revision, options.history_bytes, keep),
            at: None,
            reserved: snapshot.revision,
            boot: String::new(),
            present_boot: options.boot_id.clone(),
            applied_bytes: 0,
            now: Instant::now(),
            snapshot,
        }
    }

    /// The machine was started anew: relaxed writes that somebody saw may be gone, so their revisions are not used
    /// again and nobody may resume from before this point.
    fn boot(&mut self, boot: String) {
        let restarted = !self.boot.is_empty() && boot != self.boot;
        self.boot = boot;
        if let Some(at) = self.at.filter(|_| restarted) {
            let at = at.max(self.reserved);
            self.at = Some(at);
            if at > self.snapshot.revision {
                self.snapshot.revision = at;
                self.history.forget_up_to(at);
            }
        }
    }

    fn head(&mut self, revision: u64) -> Result<(), String> {
        match self.at {
            None if revision > self.snapshot.revision => Err(missing(self.snapshot.revision, revision + 1)),
            Some(at) if at != revision => Err(missing(at, revision + 1)),
            _ => {
                self.at = Some(revision);
                Ok(())
            }
        }
    }

    fn operate(&mut self, operation: Operation) -> Result<(), String> {
        let Operation { revision, key, value } = operation;
        let follows = match self.at {
            Some(at) => revision == at + 1,
            // The first format did not say where a segment begins.
            None => revision <= self.snapshot.revision + 1,
        };
        if !follows {
            return Err(missing(self.at.unwrap_or(self.snapshot.revision), revision));
        }
        self.at = Some(revision);
        if revision <= self.snapshot.revision {
            return Ok(());
        }
        let key: Arc<str> = key.into();
        let old = match &value {
            Some(value) => self.snapshot.map.insert(key.clone(), Slot::plain(value.clone(), revision)),
            None => self.snapshot.map.remove(&key),
        };
        let previous = old.map(|slot| slot.entry(&key)).transpose().map_err(|error| format!("{key}: {error}"))?;
        self.snapshot.revision = revision;
        self.history.remember(Arc::new(Change { key, revision, value, previous }), self.now);
        Ok(())
    }
}

fn missing(at: u64, found: u64) -> String {
    if found > at {
        format!("revision {found} stands where {} is expected: revisions between them are missing", at + 1)
    } else {
        format!("revision {found} stands where {} is expected", at + 1)
    }
}

/// The segment to read first over the state of `revision`: the last that begins no later.
pub(crate) fn first_segment(disk: &dyn Disk, revision: u64) -> Result<u64, LogError> {
    let segments = Log::segments(disk, LOG)?;
    for &sequence in segments.iter().rev() {
        let first = Log::first_record(disk, LOG, sequence)?;
        if let Some(Record::Head { revision: begins, .. }) = first.as_deref().and_then(codec::parse_record)
            && begins <= revision
        {
            return Ok(sequence);
        }
    }
    Ok(segments.first().copied().unwrap_or_default())
}

/// The newest whole checkpoint, how many bytes it has, and the revisions of those that are not whole.
struct Base {
    snapshot: Snapshot,
    bytes: u64,
    /// Revisions of whole checkpoints, ascending.
    whole: Vec<u64>,
    /// The newest revision any checkpoint is of.
    newest: u64,
}

fn base(disk: &dyn Disk) -> Result<Base, OpenError> {
    let io = |source| OpenError::Checkpoint { name: "checkpoints".to_owned(), source };
    let revisions = checkpoint::revisions(disk).map_err(io)?;
    let newest = revisions.last().copied().unwrap_or_default();
    let mut damaged = None;
    for (index, &revision) in revisions.iter().enumerate().rev() {
        let name = checkpoint::file_name(revision);
        let bytes = disk.read(&name).map_err(|source| OpenError::Checkpoint { name: name.clone(), source })?;
        match checkpoint::parse(&bytes, revision) {
            Ok(snapshot) => {
                // Older ones count as whole until they are needed.
                let whole = revisions[..=index].to_vec();
                return Ok(Base { snapshot, bytes: bytes.len() as u64, whole, newest });
            }
            Err(damage) => {
                tracing::error!(name, %damage, "pass over a damaged checkpoint; the log from the one before it is kept");
                damaged.get_or_insert(OpenError::DamagedCheckpoint { name, damage });
            }
        }
    }
    match damaged {
        Some(damaged) => Err(damaged),
        None => Ok(Base { snapshot: Snapshot::default(), bytes: 0, whole: Vec::new(), newest: 0 }),
    }
}

/// Reads the directory and opens its log for appending.
pub(crate) fn recover(disk: &Arc<dyn Disk>, options: &Options) -> Result<Recovered, OpenError> {
    let Base { snapshot, bytes, whole, newest } = base(disk.as_ref())?;
    let fresh = Log::segments(disk.as_ref(), LOG)?.is_empty();
    if fresh && !whole.is_empty() {
        return Err(LogError::Missing { name: segment_name(LOG, 1) }.into());
    }
    let first = first_segment(disk.as_ref(), snapshot.revision)?;
    let mut replay = Replayer::new(snapshot, options);
    let head = codec::head(0, RESERVE_AHEAD, &options.boot_id);
    let log = Log::open(disk.clone(), LOG, options.log, first, &head, &mut replay)?;
    if fresh {
        replay.record(&head).expect("a new log begins at the beginning");
    }
    let Replayer { mut snapshot, mut history, at, reserved, boot, applied_bytes, .. } = replay;
    if snapshot.revision < newest {
        return Err(OpenError::Behind { name: checkpoint::file_name(newest), reached: snapshot.revision });
    }
    if boot != options.boot_id {
        snapshot.revision = snapshot.revision.max(reserved);
        history.forget_up_to(snapshot.revision);
    }
    Ok(Recovered {
        must_rotate: boot != options.boot_id || at != Some(snapshot.revision),
        snapshot,
        history,
        log,
        reserved,
        checkpoints: whole,
        checkpoint_bytes: bytes,
        since_checkpoint: applied_bytes,
    })
}
