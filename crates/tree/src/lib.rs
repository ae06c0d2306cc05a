//! Trees of files that strangers made: removed, and measured.
//!
//! Everything is done by descriptor and without recursion. Nothing follows a symbolic link or goes into another file
//! system, whatever is exchanged meanwhile, and neither depth nor number of files costs stack or descriptors in
//! proportion. All of it blocks. Look-ups that renames disturb are tried again by one rule.

mod remove;
mod usage;

use std::{
    ffi::CStr,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    errno::Errno,
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

/// Tries of a look-up that goes up: any rename on the machine disturbs it, and a container may rename without an end.
const TRIES: u32 = 10_000;

/// Does a look-up that goes up (`..`, or a link) again and again while renames elsewhere on the machine disturb it.
///
/// # Errors
/// What the look-up fails with, which is `EAGAIN` when it has been disturbed each time.
pub fn undisturbed<T>(mut look_up: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    for _ in 1..TRIES {
        match look_up() {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
    look_up()
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disturbed_look_up_is_tried_again_and_not_for_ever() {
        let mut disturbed = 20;
        let outcome = undisturbed(|| {
            disturbed -= 1;
            if disturbed > 0 { Err(Errno::EAGAIN) } else { Ok("found") }
        });
        assert_eq!(outcome, Ok("found"));
        let mut tries = 0;
        let outcome: nix::Result<()> = undisturbed(|| {
            tries += 1;
            Err(Errno::EAGAIN)
        });
        assert_eq!((outcome, tries), (Err(Errno::EAGAIN), TRIES));
        assert_eq!(undisturbed(|| Err::<(), _>(Errno::ENOENT)), Err(Errno::ENOENT));
    }
}
