//! Reading a segment from its beginning to its end, past what cannot be read.

use super::{PREFIX, files::io_error, record::Record};
use crate::{Disk, Frame, LogError, Remains, Scan, scan::written, segment_name};

/// Bytes that are read at once.
const WINDOW: usize = 1 << 20;

/// Bytes of a segment that cannot be read and that no crash explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) at: u64,
    pub(crate) bytes: u64,
}

/// What a segment is.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    /// Where what can be used of it ends.
    pub(crate) end: u64,
    pub(crate) holes: Vec<Hole>,
    /// Whether it was begun in the run of the machine that was asked for; `None` without a readable head.
    pub(crate) same_run: Option<bool>,
}

/// Reads a segment and hands over each record with its place and the bytes of its frame. At the end of the `last`
/// one stands what a crash left, which is cut off.
pub(crate) fn scan(
    disk: &dyn Disk,
    segment: u64,
    last: bool,
    run: &[u8],
    take: &mut dyn FnMut(u64, u64, &Record<'_>),
) -> Result<Scanned, LogError> {
    let name = segment_name(PREFIX, segment);
    let mut scanned = Scanned::default();
    // What is read and not handed over yet; it begins at the end of what was scanned.
    let mut bytes = Vec::new();
    let mut all_read = false;
    loop {
        if !all_read {
            let from = scanned.end + bytes.len() as u64;
            let more = disk.read_at(&name, from, WINDOW).map_err(io_error(&name))?;
            all_read = more.is_empty();
            bytes.extend_from_slice(&more);
        }
        let mut frames = Scan::new(&bytes);
        let mut before = 0;
        while let Some((at, frame)) = frames.next() {
            before = frames.offset();
            let Frame::Record(payload) = frame else { continue };
            let place = scanned.end + at as u64;
            let record = Record::decode(payload).ok_or_else(|| LogError::Damaged {
                name: name.clone(),
                offset: place,
                reason: "its records are of another version".to_owned(),
            })?;
            if let Record::Head { run: began } = record {
                scanned.same_run = Some(began == run);
            }
            take(place, (before - at) as u64, &record);
        }
        bytes.drain(..before);
        scanned.end += before as u64;
        if !all_read {
            continue;
        }
        let Some(skipped) = unreadable(&bytes, &scanned, last) else { return Ok(scanned) };
        scanned.holes.push(Hole { at: scanned.end, bytes: skipped as u64 });
        bytes.drain(..skipped);
        scanned.end += skipped as u64;
    }
}

/// How many bytes at the front of `rest`, all that is left, are damage to be passed over; `None` where the segment ends,
/// at what a crash left or at nothing.
fn unreadable(rest: &[u8], scanned: &Scanned, last: bool) -> Option<usize> {
    // A segment has its head before it has its name, so a crash explains nothing of one without.
    let same_run = scanned.same_run.unwrap_or(true);
    match Scan::new(rest).remains() {
        Remains::Nothing if last || rest.is_empty() => None,
        Remains::Torn if last && scanned.same_run.is_some() => None,
        Remains::Broken if last && !same_run => None,
        Remains::Followed { synced, .. } if last && !same_run && synced <= scanned.end => None,
        Remains::Followed { next: (at, _), .. } => Some(at),
        // What follows is room.
        Remains::Torn | Remains::Broken | Remains::Unsearched if last => Some(written(rest)),
        Remains::Nothing | Remains::Torn | Remains::Broken | Remains::Unsearched => Some(rest.len()),
    }
}
