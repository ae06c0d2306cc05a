//! From the files of a data directory to the state.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use knoll_journal::{Disk, Log};

use crate::{
    Change, checkpoint,
    codec::{self, Operation, Record},
    history::History,
    snapshot::{Entry, Snapshot},
    store::{OpenError, Options},
};

/// What the files say.
pub(crate) struct Recovered {
    pub(crate) snapshot: Snapshot,
    pub(crate) history: History,
    pub(crate) log: Log,
    /// Revisions up to this one may have been handed out.
    pub(crate) reserved: u64,
}

struct Replay {
    snapshot: Snapshot,
    history: History,
    reserved: u64,
    boot: String,
    unknown: usize,
    now: Instant,
}

impl Replay {
    fn take(&mut self, payload: &[u8]) {
        match codec::decode(payload) {
            Some(Record::Transaction(operations)) => operations.into_iter().for_each(|o| self.operate(o)),
            Some(Record::Reserve(revision)) => self.reserved = self.reserved.max(revision),
            Some(Record::Boot(boot)) => self.boot = boot,
            None => self.unknown += 1,
        }
    }

    fn operate(&mut self, operation: Operation) {
        let Operation { revision, key, value } = operation;
        if revision <= self.snapshot.revision {
            return;
        }
        let key: Arc<str> = key.into();
        let previous = match &value {
            Some(value) => {
                let entry = Entry { key: key.clone(), value: value.clone(), revision };
                self.snapshot.map.insert(key.clone(), entry)
            }
            None => self.snapshot.map.remove(&key),
        };
        self.snapshot.revision = revision;
        self.history.remember(Arc::new(Change { key, revision, value, previous }), self.now);
    }
}

/// Reads the directory and opens its log for appending.
pub(crate) fn recover(disk: &Arc<dyn Disk>, options: &Options) -> Result<Recovered, OpenError> {
    let snapshot = checkpoint::read_newest(disk.as_ref()).map_err(OpenError::Checkpoint)?;
    let keep: Duration = options.history_age;
    let mut replay = Replay {
        history: History::new(snapshot.revision, options.history_bytes, keep),
        reserved: snapshot.revision,
        boot: String::new(),
        unknown: 0,
        now: Instant::now(),
        snapshot,
    };
    let log = Log::open(disk.clone(), "wal", options.log, |payload| replay.take(payload))?;
    let Replay { mut snapshot, mut history, reserved, boot, unknown, .. } = replay;
    if unknown > 0 {
        return Err(OpenError::Newer);
    }
    if boot != options.boot_id {
        // The machine went down: relaxed writes that somebody saw may be gone, so their revisions are not used
        // again and nobody may resume from before this point.
        snapshot.revision = snapshot.revision.max(reserved);
        history.forget_up_to(snapshot.revision);
    }
    Ok(Recovered { snapshot, history, log, reserved })
}
