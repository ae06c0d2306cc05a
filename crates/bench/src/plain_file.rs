//! The least that durable ingest can be: a thread that writes whatever waits to the end of a file, with one `fdatasync` for
//! all of it.

use std::error::Error;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use bytes::Bytes;

/// Most writes that are synced together, as by the event log.
const TOGETHER: usize = 1024;
/// Most writes that wait, as for the event log.
const QUEUE: usize = 4096;

/// Is called once the bytes are on disk.
pub(crate) type Told = Box<dyn FnOnce() + Send>;

/// The file and its thread.
pub(crate) struct PlainFile {
    asks: SyncSender<(Bytes, Told)>,
    thread: JoinHandle<io::Result<()>>,
}

impl PlainFile {
    /// Makes the file.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        let (asks, asked) = sync_channel(QUEUE);
        let thread = thread::spawn(move || write(file, &asked));
        Ok(Self { asks, thread })
    }

    /// Where writes are asked for.
    pub(crate) fn asks(&self) -> SyncSender<(Bytes, Told)> {
        self.asks.clone()
    }

    /// Waits until nobody asks any more and everything is written.
    pub(crate) fn close(self) -> Result<(), Box<dyn Error>> {
        drop(self.asks);
        Ok(self.thread.join().map_err(|_| "the plain file's thread panicked")??)
    }
}

fn write(mut file: File, asked: &Receiver<(Bytes, Told)>) -> io::Result<()> {
    let mut bytes = Vec::new();
    while let Ok(first) = asked.recv() {
        let waiting: Vec<_> = std::iter::once(first).chain(asked.try_iter().take(TOGETHER - 1)).collect();
        bytes.clear();
        waiting.iter().for_each(|(event, _)| bytes.extend_from_slice(event));
        file.write_all(&bytes)?;
        file.sync_data()?;
        waiting.into_iter().for_each(|(_, told)| told());
    }
    Ok(())
}
