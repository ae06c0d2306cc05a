//! Container output in the format of the CRI: `<RFC 3339> <stream> <F or P> <text>`, rotated.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// A file this long is put aside.
const MAX_FILE: u64 = 10 * 1024 * 1024;
/// Older files kept beside it.
const KEPT: u32 = 2;
/// A longer line is cut into parts marked `P`, as other runtimes do.
const MAX_LINE: usize = 16 * 1024;
/// Bytes read before others get their turn: what a pipe holds as it is made. Each may become a line of its own, with a
/// time stamp.
const MAX_TURN: usize = 64 * 1024;
/// The most that is read of the pipe of a container that has exited: more than unprivileged programs can make one hold.
const MAX_REST: usize = 16 * 1024 * 1024;

const NAMES: [&str; 2] = ["stdout", "stderr"];

/// Both streams of a container and the file they go to.
pub(super) struct Output {
    file: LogFile,
    streams: [Stream; 2],
}

struct Stream {
    pipe: OwnedFd,
    token: Option<u64>,
    partial: Vec<u8>,
}

struct LogFile {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    /// Bytes that could not be written since the last that could.
    lost: u64,
}

/// The named pipe of a stream.
pub(super) fn fifo(directory: &Path, stream: usize) -> PathBuf {
    directory.join(NAMES[stream.min(1)])
}

/// Makes the named pipes of a container's output.
pub(super) fn make_fifos(directory: &Path) -> io::Result<()> {
    (0..2).try_for_each(|stream| Ok(mkfifo(&fifo(directory, stream), Mode::from_bits_truncate(0o600))?))
}

/// The end a program writes to. It is open for reading too, so that nobody ever finds the pipe without a reader: the
/// program waits for a new monitor instead of being killed when one dies.
pub(super) fn write_end(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?)
}

impl Output {
    /// Opens the pipes below a container's runtime directory and the file.
    pub(super) fn open(directory: &Path, path: &Path) -> io::Result<Output> {
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let stream = |number| -> io::Result<Stream> {
            // Open for writing too: a pipe without writers would wake the loop until its container is reaped.
            let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            let pipe = open(&fifo(directory, number), flags, Mode::empty())?;
            Ok(Stream { pipe, token: None, partial: Vec::new() })
        };
        let mut file = LogFile { path: path.to_owned(), file: None, size: 0, lost: 0 };
        file.reopen()?;
        Ok(Output { file, streams: [stream(0)?, stream(1)?] })
    }

    /// The end to watch.
    pub(super) fn pipe(&self, stream: usize) -> &OwnedFd {
        &self.streams[stream.min(1)].pipe
    }

    /// Its number in the epoll set.
    pub(super) fn token(&mut self, stream: usize) -> &mut Option<u64> {
        &mut self.streams[stream.min(1)].token
    }

    /// Copies what is there, up to a turn's worth, and says how much; 0 when nothing is left.
    pub(super) fn copy(&mut self, stream: usize) -> usize {
        let mut buffer = [0; MAX_TURN];
        let from = &mut self.streams[stream.min(1)];
        loop {
            match nix::unistd::read(from.pipe.as_fd(), &mut buffer) {
                Ok(length) => {
                    let lines = from.lines(NAMES[stream.min(1)], &buffer[..length], Timestamp::now());
                    self.file.write(&lines);
                    return length;
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return 0,
            }
        }
    }

    /// Copies everything, for a container that has exited: what its pipes hold now, and not what a process that lives
    /// on may still write.
    pub(super) fn finish(&mut self) {
        for (stream, name) in NAMES.iter().enumerate() {
            let mut left = self.streams[stream].capacity();
            while left > 0 {
                match self.copy(stream) {
                    0 => break,
                    copied => left = left.saturating_sub(copied),
                }
            }
            let rest = self.streams[stream].rest(name, Timestamp::now());
            self.file.write(&rest);
        }
    }
}

impl Stream {
    /// What the pipe can hold.
    fn capacity(&self) -> usize {
        let size = nix::fcntl::fcntl(&self.pipe, nix::fcntl::FcntlArg::F_GETPIPE_SZ);
        size.ok().and_then(|size| usize::try_from(size).ok()).unwrap_or(MAX_TURN).min(MAX_REST)
    }

    /// Adds bytes and gives the lines that are complete, or too long to wait for.
    fn lines(&mut self, name: &str, mut bytes: &[u8], now: Timestamp) -> Vec<u8> {
        let mut lines = Vec::with_capacity(bytes.len() + 64);
        let head = format!("{now:.9} {name}");
        while !bytes.is_empty() {
            let room = MAX_LINE - self.partial.len();
            let end = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            match end {
                Some(end) => {
                    self.line(&mut lines, &head, &bytes[..end], b'F');
                    bytes = &bytes[end + 1..];
                }
                None if bytes.len() >= room => {
                    self.line(&mut lines, &head, &bytes[..room], b'P');
                    bytes = &bytes[room..];
                }
                None => {
                    self.partial.extend_from_slice(bytes);
                    bytes = &[];
                }
            }
        }
        lines
    }

    fn line(&mut self, lines: &mut Vec<u8>, head: &str, text: &[u8], tag: u8) {
        lines.extend_from_slice(head.as_bytes());
        lines.extend_from_slice(&[b' ', tag, b' ']);
        lines.append(&mut self.partial);
        lines.extend_from_slice(text);
        lines.push(b'\n');
    }

    /// What came without an end of line.
    fn rest(&mut self, name: &str, now: Timestamp) -> Vec<u8> {
        let mut lines = Vec::new();
        if !self.partial.is_empty() {
            self.line(&mut lines, &format!("{now:.9} {name}"), &[], b'F');
        }
        lines
    }
}

impl LogFile {
    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Writes lines. When the disk refuses, output is lost, which is counted and said where it is missing as soon as
    /// there is room again; the container is not held up.
    fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        if let Err(error) = self.append(lines) {
            if self.lost == 0 {
                tracing::warn!(%error, path = %self.path.display(), "container output is lost");
            }
            self.lost += lines.len() as u64;
        }
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.lost > 0 {
            let told = format!("{:.9} stderr F knoll: {} bytes of output are lost here\n", Timestamp::now(), self.lost);
            self.append_whole(told.as_bytes())?;
            self.lost = 0;
        }
        self.append_whole(lines)
    }

    /// All or nothing, so that no line is torn.
    fn append_whole(&mut self, lines: &[u8]) -> io::Result<()> {
        self.rotate_when_full(lines.len() as u64)?;
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        if let Err(error) = file.write_all(lines) {
            file.set_len(self.size)?;
            return Err(error);
        }
        self.size += lines.len() as u64;
        Ok(())
    }

    fn rotate_when_full(&mut self, more: u64) -> io::Result<()> {
        if self.file.is_some() && (self.size == 0 || self.size + more <= MAX_FILE) {
            return Ok(());
        }
        if self.file.is_some() {
            for number in (1..=KEPT).rev() {
                let from = if number == 1 { self.path.clone() } else { numbered(&self.path, number - 1) };
                match fs::rename(from, numbered(&self.path, number)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            self.file = None;
        }
        self.reopen()
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        Stream { pipe: File::open("/dev/null").unwrap().into(), token: None, partial: Vec::new() }
    }

    fn at() -> Timestamp {
        "2026-01-02T03:04:05.000000006Z".parse().unwrap()
    }

    #[test]
    fn lines_wait_for_their_end() {
        let mut stream = stream();
        assert!(stream.lines("stdout", b"he", at()).is_empty());
        let lines = stream.lines("stdout", b"llo\n\nx", at());
        let want = "2026-01-02T03:04:05.000000006Z stdout F hello\n2026-01-02T03:04:05.000000006Z stdout F \n";
        assert_eq!(String::from_utf8(lines).unwrap(), want);
        assert_eq!(stream.rest("stdout", at()), b"2026-01-02T03:04:05.000000006Z stdout F x\n");
        assert!(stream.rest("stdout", at()).is_empty());
    }

    #[test]
    fn long_lines_are_cut() {
        let mut stream = stream();
        let mut bytes = vec![b'a'; MAX_LINE + 3];
        bytes.push(b'\n');
        let text = String::from_utf8(stream.lines("stderr", &bytes, at())).unwrap();
        let parts: Vec<&str> = text.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
        assert_eq!(parts, ["P", "F"]);
        assert!(text.ends_with("F aaa\n"));
    }

    #[test]
    fn what_a_full_disk_refuses_is_told_where_it_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = LogFile { path: dir.path().join("log"), file: None, size: 0, lost: 0 };
        file.write(b"one\n");
        let good = file.file.replace(File::options().write(true).open("/dev/full").unwrap());
        file.write(b"two\n");
        file.write(b"three\n");
        file.file = good;
        file.write(b"four\n");
        let text = fs::read_to_string(dir.path().join("log")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[2], lines.len()), ("one", "four", 3));
        assert!(lines[1].ends_with(" stderr F knoll: 10 bytes of output are lost here"), "{text}");
    }

    #[test]
    fn a_full_file_is_put_aside_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = LogFile { path: dir.path().join("log"), file: None, size: 0, lost: 0 };
        file.reopen().unwrap();
        for round in 0..5u8 {
            file.write(&vec![b'0' + round; MAX_FILE as usize - 1]);
        }
        let first = |name: &str| fs::read(dir.path().join(name)).ok().map(|bytes| bytes[0]);
        assert_eq!(
            (first("log"), first("log.1"), first("log.2"), first("log.3")),
            (Some(b'4'), Some(b'3'), Some(b'2'), None)
        );
    }
}
