//! Thin safe wrappers around system calls that no crate wraps.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets the size of a terminal, in characters.
pub(crate) fn set_terminal_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which lives across the call.
    let outcome = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
