//! Frames and file descriptors over a Unix stream socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::MAX_LISTENERS;

/// The most descriptors one frame carries.
pub(crate) const MAX_FDS: usize = MAX_LISTENERS;
/// Unsent bytes above which no more requests are accepted for now.
pub(crate) const HIGH_WATER: usize = 1024 * 1024;
/// The most received descriptors that wait for their frame.
const MAX_WAITING_FDS: usize = 64;

/// A frame that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// It is longer than its receiver takes.
    #[error("a frame of {length} bytes is longer than {limit}")]
    TooLong {
        /// Its length.
        length: usize,
        /// The most its receiver takes.
        limit: usize,
    },
    /// It is no JSON, or not of the expected shape.
    #[error("a frame cannot be understood")]
    Shape(#[source] serde_json::Error),
    /// It announces descriptors that did not come.
    #[error("a frame announces more file descriptors than came with it")]
    Descriptors,
}

/// A value as a frame of at most `limit` bytes.
pub(crate) fn encode(value: &impl Serialize, limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, value).map_err(FrameError::Shape)?;
    let length = frame.len() - 4;
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    frame[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    Ok(frame)
}

/// Bytes and descriptors on their way out. The descriptors of a frame go with its first byte.
#[derive(Default)]
pub(crate) struct Outbox {
    frames: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    sent: usize,
    bytes: usize,
}

impl Outbox {
    /// Appends a frame.
    pub(crate) fn push(&mut self, frame: Vec<u8>, fds: Vec<OwnedFd>) {
        self.bytes += frame.len();
        self.frames.push_back((frame, fds));
    }

    /// Unsent bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Whether everything has gone.
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Sends what the socket takes; `WouldBlock` means that some is left.
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while let Some((frame, fds)) = self.frames.front() {
            let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
            let rights = [ControlMessage::ScmRights(&raw)];
            let with_fds = self.sent == 0 && !raw.is_empty();
            let control: &[ControlMessage<'_>] = if with_fds { &rights } else { &[] };
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            let slices = [IoSlice::new(&frame[self.sent..])];
            match sendmsg::<UnixAddr>(socket.as_raw_fd(), &slices, control, flags, None) {
                Ok(n) => {
                    self.sent += n;
                    self.bytes -= n;
                }
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            if self.sent == frame.len() {
                self.frames.pop_front();
                self.sent = 0;
            }
        }
        Ok(())
    }
}

/// Bytes and descriptors that came in.
pub(crate) struct Inbox {
    /// The longest frame.
    limit: usize,
    bytes: Vec<u8>,
    /// Where the next frame begins.
    start: usize,
    fds: VecDeque<OwnedFd>,
    /// Where a read lands first.
    scratch: Box<[u8]>,
}

impl Inbox {
    /// For frames of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Inbox {
        let scratch = vec![0; 64 * 1024].into_boxed_slice();
        Inbox { limit, bytes: Vec::new(), start: 0, fds: VecDeque::new(), scratch }
    }

    /// Reads once. `Ok(0)` means the other side has closed.
    pub(crate) fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut control = cmsg_space!([RawFd; MAX_FDS]);
        let mut slices = [IoSliceMut::new(&mut self.scratch)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = part {
                for fd in raw {
                    // SAFETY: the kernel has just installed this descriptor for us, and nobody else knows it.
                    self.fds.push_back(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        }
        if self.fds.len() > MAX_WAITING_FDS {
            return Err(io::Error::other("too many file descriptors without a frame"));
        }
        let length = message.bytes;
        self.bytes.drain(..std::mem::take(&mut self.start));
        self.bytes.extend_from_slice(&self.scratch[..length]);
        Ok(length)
    }

    /// The next whole frame, if there is one.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let unread = &self.bytes[self.start..];
        let Some(head) = unread.first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        if length > self.limit {
            return Err(FrameError::TooLong { length, limit: self.limit });
        }
        let Some(body) = unread.get(4..4 + length) else { return Ok(None) };
        let value = serde_json::from_slice(body).map_err(FrameError::Shape)?;
        self.start += 4 + length;
        if self.start == self.bytes.len() {
            self.start = 0;
            self.bytes.clear();
            // A long frame is no reason to keep as much memory.
            self.bytes.shrink_to(self.scratch.len());
        }
        Ok(Some(value))
    }

    /// The oldest `count` descriptors.
    pub(crate) fn take_fds(&mut self, count: usize) -> Result<Vec<OwnedFd>, FrameError> {
        if count > self.fds.len() {
            return Err(FrameError::Descriptors);
        }
        Ok(self.fds.drain(..count).collect())
    }
}
