//! The primitives that threads agree by, in one place: `tests/interleavings.rs` puts others in theirs.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard};
