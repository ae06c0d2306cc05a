//! What reads strangers' bytes without a monitor or a container around it: for the fuzz targets.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::init::user;
use crate::protocol::User;
use crate::wire::{Inbox, encode};

pub use crate::wire::FrameError;

/// The frames in what a peer wrote: up to the first that cannot be understood, or that is not whole.
///
/// # Errors
/// When this process has no more descriptors, or the peer wrote more than a socket holds.
pub fn frames<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> io::Result<(Vec<T>, Option<FrameError>)> {
    let (mut theirs, ours) = UnixStream::pair()?;
    theirs.set_nonblocking(true)?;
    theirs.write_all(bytes)?;
    drop(theirs);
    let (mut inbox, mut frames) = (Inbox::new(limit), Vec::new());
    while inbox.fill(ours.as_fd())? > 0 {
        loop {
            match inbox.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return Ok((frames, Some(error))),
            }
        }
    }
    Ok((frames, None))
}

/// A value as a frame of at most `limit` bytes.
///
/// # Errors
/// When it is longer.
pub fn frame(value: &impl Serialize, limit: usize) -> Result<Vec<u8>, FrameError> {
    encode(value, limit)
}

/// Number of the user, of its first group, of all its groups, and its home: as an image's own files tell.
///
/// # Errors
/// When they do not know it.
pub fn resolve_user(user: &User, passwd: &str, group: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
    let found = user::resolve(user, passwd, group).map_err(|failure| failure.message)?;
    Ok((found.uid, found.gid, found.groups, found.home))
}
