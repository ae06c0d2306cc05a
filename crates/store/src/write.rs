//! What a writer asks for and what it is told.

use bytes::Bytes;

use crate::Entry;

/// When a write is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After it survives a power cut.
    Durable,
    /// After it survives the death of this process. For state that can be observed again.
    Relaxed,
}

/// What must hold of the stored entry for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// There is none.
    Absent,
    /// There is one.
    Present,
    /// It is the one of this revision.
    Revision(u64),
}

impl Expect {
    pub(crate) fn holds(self, current: Option<&Entry>) -> bool {
        match self {
            Expect::Any => true,
            Expect::Absent => current.is_none(),
            Expect::Present => current.is_some(),
            Expect::Revision(revision) => current.is_some_and(|entry| entry.revision == revision),
        }
    }
}

/// One write of a transaction. Without a value it deletes.
#[derive(Clone, Debug)]
pub struct Write {
    /// Key.
    pub key: String,
    /// New value; `None` deletes, which wants a stored entry whatever `expect` says.
    pub value: Option<Bytes>,
    /// Condition.
    pub expect: Expect,
}

/// Why nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A condition did not hold.
    #[error("write {key}: the stored entry is not the expected one")]
    Conflict {
        /// The key whose condition failed.
        key: String,
        /// What is stored there.
        current: Option<Entry>,
    },
    /// The transaction is longer than a record may be.
    #[error("write of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Bytes asked for.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The disk has no room. Nothing was written; writes work again once there is room.
    #[error("the disk that holds the data directory is full: free some space")]
    Full,
    /// The store stopped, or was stopped by an I/O error after which it cannot vouch for its log.
    #[error("the store is stopped: {0}")]
    Stopped(String),
}
