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
/// Bytes read before others get their turn.
const MAX_TURN: usize = 256 * 1024;

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
    failing: bool,
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
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        let stream = |number| -> io::Result<Stream> {
            // Open for writing too: a pipe without writers would wake the loop until its container is reaped.
            let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            let pipe = open(&fifo(directory, number), flags, Mode::empty())?;
            Ok(Stream { pipe, token: None, partial: Vec::new() })
        };
        let mut file = LogFile { path: path.to_owned(), file: None, size: 0, failing: false };
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

    /// Copies what is there, up to a turn's worth. `false` when nothing is left.
    pub(super) fn copy(&mut self, stream: usize) -> bool {
        let mut buffer = [0; 64 * 1024];
        let mut copied = 0;
        while copied < MAX_TURN {
            match nix::unistd::read(self.streams[stream.min(1)].pipe.as_fd(), &mut buffer) {
                Ok(length) if length > 0 => {
                    copied += length;
                    let lines =
                        self.streams[stream.min(1)].lines(NAMES[stream.min(1)], &buffer[..length], Timestamp::now());
                    self.file.write(&lines);
                }
                Err(nix::errno::Errno::EINTR) => {}
                _ => return false,
            }
        }
        true
    }

    /// Copies everything, for a container that has exited.
    pub(super) fn finish(&mut self) {
        for (stream, name) in NAMES.iter().enumerate() {
            while self.copy(stream) {}
            let rest = self.streams[stream].rest(name, Timestamp::now());
            self.file.write(&rest);
        }
    }
}

impl Stream {
    /// Adds bytes and gives the lines that are complete, or too long to wait for.
    fn lines(&mut self, name: &str, mut bytes: &[u8], now: Timestamp) -> Vec<u8> {
        let mut lines = Vec::with_capacity(bytes.len() + 64);
        while !bytes.is_empty() {
            let room = MAX_LINE - self.partial.len();
            let end = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            match end {
                Some(end) => {
                    self.line(&mut lines, name, &bytes[..end], b'F', now);
                    bytes = &bytes[end + 1..];
                }
                None if bytes.len() >= room => {
                    self.line(&mut lines, name, &bytes[..room], b'P', now);
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

    fn line(&mut self, lines: &mut Vec<u8>, name: &str, text: &[u8], tag: u8, now: Timestamp) {
        lines.extend_from_slice(format!("{now:.9} {name} {} ", char::from(tag)).as_bytes());
        lines.append(&mut self.partial);
        lines.extend_from_slice(text);
        lines.push(b'\n');
    }

    /// What came without an end of line.
    fn rest(&mut self, name: &str, now: Timestamp) -> Vec<u8> {
        let mut lines = Vec::new();
        if !self.partial.is_empty() {
            self.line(&mut lines, name, &[], b'F', now);
        }
        lines
    }
}

impl LogFile {
    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Writes lines. When the disk refuses, output is lost and said so once; the container is not held up.
    fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let outcome = self.rotate_when_full(lines.len() as u64).and_then(|()| match &mut self.file {
            Some(file) => file.write_all(lines),
            None => Err(io::ErrorKind::NotFound.into()),
        });
        match outcome {
            Ok(()) => {
                self.failing = false;
                self.size += lines.len() as u64;
            }
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(%error, path = %self.path.display(), "container output is lost");
            }
            Err(_) => {}
        }
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
    fn a_full_file_is_put_aside_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = LogFile { path: dir.path().join("log"), file: None, size: 0, failing: false };
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
