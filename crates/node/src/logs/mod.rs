//! What containers print, read back: from the CRI-format files that the monitor writes, oldest file first.

mod cri;
mod tail;

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use jiff::Timestamp;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};

use crate::streams::Turn;
pub use cri::{Line, last_lines};
pub use tail::files;

/// Pieces that wait for a slow reader.
const QUEUE: usize = 16;
/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Longest line that is kept whole, bytes; a longer one is passed on in parts.
const LONGEST_LINE: usize = 1024 * 1024;
/// Pauses between looks at a file that has no news.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only lines from then on.
    pub since: Option<Timestamp>,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// A log as it is read. Dropping it stops the reading.
pub struct LogStream {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    /// Its place among the streams of its pod.
    turn: Option<Turn>,
}

impl LogStream {
    /// Gives a place back when it is dropped.
    pub(crate) fn until_dropped(mut self, turn: Turn) -> LogStream {
        self.turn = Some(turn);
        self
    }
}

impl Stream for LogStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.poll_recv(cx)
    }
}

/// Reads the log at `path` and its rotated predecessors. A following reader ends when `ended` is true (or its sender
/// is gone) and everything was read. A log that does not exist yet is empty. Must be called inside a tokio runtime.
pub fn read(path: PathBuf, options: LogOptions, ended: watch::Receiver<bool>) -> LogStream {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut out = Output { sender, left: options.limit_bytes, options, at_line_start: true };
        if let Err(error) = pump(&path, &mut out, ended).await {
            // A reader that has gone away needs no answer.
            drop(out.sender.send(Err(error)).await);
        }
    });
    LogStream { pieces: receiver, turn: None }
}

/// Why reading goes no further.
enum Stop {
    /// The limit is reached or the reader is gone.
    Enough,
}

async fn pump(path: &Path, out: &mut Output, mut ended: watch::Receiver<bool>) -> io::Result<()> {
    let start = {
        let (path, lines) = (path.to_owned(), out.options.tail_lines);
        tokio::task::spawn_blocking(move || tail::start(&path, lines)).await.map_err(io::Error::other)??
    };
    let mut files = start.files.into_iter().peekable();
    let mut offset = start.offset;
    let mut current = None;
    while let Some(file) = files.next() {
        let mut source = Source::open(&file, std::mem::take(&mut offset)).await?;
        if source.drain(out).await?.is_some() {
            return Ok(());
        }
        if files.peek().is_none() {
            current = Some(source);
        }
    }
    if !out.options.follow {
        return Ok(());
    }
    let mut pause = PAUSE.0;
    loop {
        // Asked before the last look, so that nothing written before the end is missed.
        let over = *ended.borrow() || ended.has_changed().is_err();
        let before = current.as_ref().map_or(0, |s| s.read);
        if let Some(source) = &mut current {
            // Asked before reading, so that the end of a rotated file is not missed.
            let replaced = source.was_replaced(path).await;
            if source.drain(out).await?.is_some() {
                return Ok(());
            }
            if replaced {
                current = None;
            }
        }
        if current.is_none() {
            current = match Source::open(path, 0).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                opened => Some(opened?),
            };
            if current.is_some() {
                continue;
            }
        }
        if over || out.sender.is_closed() {
            return Ok(());
        }
        let moved = current.as_ref().map_or(0, |s| s.read) != before;
        pause = if moved { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = ended.changed() => {}
            () = out.sender.closed() => return Ok(()),
        }
    }
}

/// One open file.
struct Source {
    file: tokio::fs::File,
    inode: u64,
    pending: BytesMut,
    read: u64,
}

impl Source {
    async fn open(path: &Path, offset: u64) -> io::Result<Source> {
        use std::os::unix::fs::MetadataExt;
        use tokio::io::AsyncSeekExt;
        let mut file = tokio::fs::File::open(path).await?;
        let inode = file.metadata().await?.ino();
        if offset > 0 {
            file.seek(io::SeekFrom::Start(offset)).await?;
        }
        Ok(Source { file, inode, pending: BytesMut::new(), read: 0 })
    }

    /// Whether the path names another file by now: the log was rotated.
    async fn was_replaced(&self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        tokio::fs::metadata(path).await.is_ok_and(|meta| meta.ino() != self.inode)
    }

    /// Passes on every whole line up to the present end of the file.
    async fn drain(&mut self, out: &mut Output) -> io::Result<Option<Stop>> {
        loop {
            self.pending.reserve(CHUNK);
            let count = self.file.read_buf(&mut self.pending).await?;
            if count == 0 {
                return Ok(None);
            }
            self.read += count as u64;
            let mut batch = BytesMut::new();
            while let Some(end) = self.pending.iter().position(|b| *b == b'\n') {
                let line = self.pending.split_to(end + 1);
                out.render(&line[..end], &mut batch);
            }
            if self.pending.len() > LONGEST_LINE {
                let line = self.pending.split();
                out.render(&line, &mut batch);
            }
            if out.send(batch).await.is_some() {
                return Ok(Some(Stop::Enough));
            }
        }
    }
}

/// Where lines go.
struct Output {
    sender: mpsc::Sender<io::Result<Bytes>>,
    options: LogOptions,
    left: Option<u64>,
    at_line_start: bool,
}

impl Output {
    /// Adds a raw line to what is sent next, unless it is older than asked for. A line that is not of the format is
    /// passed on as it stands.
    fn render(&mut self, raw: &[u8], batch: &mut BytesMut) {
        let Some(line) = Line::parse(raw) else {
            batch.extend_from_slice(raw);
            batch.extend_from_slice(b"\n");
            return;
        };
        if self.options.since.is_some_and(|since| line.time().is_some_and(|at| at < since)) {
            return;
        }
        if self.options.timestamps && self.at_line_start {
            batch.extend_from_slice(line.stamp.as_bytes());
            batch.extend_from_slice(b" ");
        }
        batch.extend_from_slice(line.text);
        if !line.partial {
            batch.extend_from_slice(b"\n");
        }
        self.at_line_start = !line.partial;
    }

    async fn send(&mut self, mut batch: BytesMut) -> Option<Stop> {
        if let Some(left) = &mut self.left {
            batch.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= batch.len() as u64;
        }
        if !batch.is_empty() && self.sender.send(Ok(batch.freeze())).await.is_err() {
            return Some(Stop::Enough);
        }
        (self.left == Some(0)).then_some(Stop::Enough)
    }
}

#[cfg(test)]
mod tests;
