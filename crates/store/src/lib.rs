//! Revisioned objects: durable on disk, authoritative in memory, watched in process. Knows no kinds.
//!
//! One thread commits. It checks each write against the state, gives it the next revision, writes the batch to
//! the log, syncs if any write of the batch asked for it, and only then publishes: readers, watchers and the
//! writer see a durable write after it is on disk. A relaxed write is published once the system has it, so that
//! it survives the death of this process but not a power cut; after a power cut the revision jumps past
//! everything that may have been seen, and watches from before it are refused.
//!
//! After a failed write or sync nothing more is acknowledged, but for a disk that was full before anything of a batch
//! was kept. Revisions have no gaps within the log, so that recovery knows when something is missing; it cuts off what
//! a crash explains and refuses everything else. The last two checkpoints are kept, with the log from the older on.
//!
//! Values that nobody wrote for a while are kept packed and unpacked when they are read.

mod checkpoint;
mod claim;
mod codec;
mod committer;
mod counters;
mod history;
mod inspect;
mod listeners;
mod pack;
mod recovery;
mod salvage;
mod snapshot;
mod store;
mod value;
mod watch;
mod write;

pub use checkpoint::{Damage, parse_checkpoint};
pub use claim::{Ownership, ownership, prepare};
pub use codec::{Operation, Record, glean_operations, parse_record};
pub use counters::Figures;
pub use inspect::{Inspection, Repair, inspect, inspect_on, repair, repair_on};
pub use salvage::{Loss, Problem};
pub use snapshot::{Entry, Snapshot};
pub use store::{OpenError, Options, Store};
pub use value::Unreadable;
pub use watch::{Change, Compacted, Lagged, Watch};
pub use write::{Durability, Expect, Write, WriteError};
