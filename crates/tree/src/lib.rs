//! Trees of files that strangers made: removed, and measured.
//!
//! Everything is done by descriptor and without recursion. Nothing follows a symbolic link or goes into another file
//! system, whatever is exchanged meanwhile, and neither depth nor number of files costs stack or descriptors in
//! proportion. All of it blocks.

mod remove;
mod usage;

use std::{
    ffi::CStr,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::Mode,
};

pub use remove::{remove, remove_at};
pub use usage::usage;

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC).union(OFlag::O_NOCTTY);
const BENEATH: ResolveFlag =
    ResolveFlag::RESOLVE_BENEATH.union(ResolveFlag::RESOLVE_NO_XDEV).union(ResolveFlag::RESOLVE_NO_SYMLINKS);

/// Opens a directory at or below `at`, in the same file system and by no link.
fn open_beneath<P: ?Sized + nix::NixPath>(at: impl AsFd, path: &P) -> nix::Result<OwnedFd> {
    openat2(at, path, OpenHow::new().flags(DIRECTORY.union(OFlag::O_NOFOLLOW)).mode(Mode::empty()).resolve(BENEATH))
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}
