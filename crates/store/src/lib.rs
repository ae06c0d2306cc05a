//! Revisioned objects: durable on disk, authoritative in memory, watched in process. Knows no kinds.
//!
//! One thread commits. It checks each write against the state, gives it the next revision, writes the batch to
//! the log, syncs if any write of the batch asked for it, and only then publishes: readers, watchers and the
//! writer see a durable write after it is on disk. A relaxed write is published once the system has it, so that
//! it survives the death of this process but not a power cut; after a power cut the revision jumps past
//! everything that may have been seen, and watches from before it are refused.

mod checkpoint;
mod codec;
mod committer;
mod history;
mod recovery;
mod snapshot;
mod store;
mod watch;
mod write;

pub use snapshot::{Entry, Snapshot};
pub use store::{OpenError, Options, Store};
pub use watch::{Change, Compacted, Lagged, Watch};
pub use write::{Durability, Expect, Write, WriteError};
