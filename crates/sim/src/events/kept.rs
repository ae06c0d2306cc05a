//! What a disk says: who waits for which event, and which are dead letters. Read past the data plane, out of the log itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use knoll_journal::{
    MemoryDisk,
    events::{Event, EventLog, EventOptions, EventReader, StreamId},
};

use super::subscribers::{self, LISTENERS};

/// The cursor below which everybody is done with everything.
const ROOT: &[u8] = b"matched";
/// What the names of streams begin with that hold what one subscriber is behind with, and dead letters.
const BEHIND: &str = "behind/";
const LETTERS: &str = "dead-letters/";

/// See the module. Subscribers are known by their uids, events by their numbers.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// How often a subscriber waits for an event.
    waited_for: BTreeMap<(String, u64), u32>,
    letters: BTreeSet<(String, u64)>,
}

impl Kept {
    /// Reads a copy of what is on the disk now.
    pub(super) fn read(disk: &MemoryDisk, options: EventOptions) -> Result<Kept, String> {
        let opened = EventLog::open(Arc::new(disk.after_kill()), EventOptions { budget_bytes: u64::MAX, ..options });
        let (log, recovery) = opened.map_err(|error| format!("the log does not open: {error:?}"))?;
        if !(recovery.damages.is_empty() && recovery.lost.is_empty()) {
            return Err(format!("a crash damages nothing, and the log says {recovery:?}"));
        }
        let (reader, mut kept) = (log.reader(), Kept::default());
        for (stream, name) in reader.streams() {
            let name = String::from_utf8(name).map_err(|error| error.to_string())?;
            let events = all(&reader, stream)?;
            for (cursor, of) in reader.cursors(stream) {
                let progress = reader.progress(cursor).ok_or("a cursor has no progress")?;
                let waited_for = events.iter().filter(|event| !progress.is_settled(event.offset));
                if name.starts_with(LETTERS) {
                    kept.letters.extend(waited_for.filter_map(letter));
                } else if of != ROOT {
                    let uid = name.strip_prefix(BEHIND).and_then(|rest| rest.split_once('/'));
                    let uid = uid.map_or_else(|| String::from_utf8_lossy(&of).into_owned(), |(_, uid)| uid.to_owned());
                    for event in waited_for {
                        let number = subscribers::number(&String::from_utf8_lossy(&event.key));
                        let number = number.ok_or_else(|| format!("{name} holds what nobody sent: {event:?}"))?;
                        *kept.waited_for.entry((uid.clone(), number)).or_default() += 1;
                    }
                }
            }
        }
        Ok(kept)
    }

    /// How often this subscriber waits for this event.
    pub(super) fn waits_for(&self, uid: &str, number: u64) -> u32 {
        self.waited_for.get(&(uid.to_owned(), number)).copied().unwrap_or_default()
    }

    /// Whether this is a dead letter of this subscriber's.
    pub(super) fn has_letter(&self, uid: &str, number: u64) -> bool {
        self.letters.contains(&(uid.to_owned(), number))
    }

    /// Who waits for what.
    pub(super) fn waits(&self) -> impl Iterator<Item = (&str, u64, u32)> {
        self.waited_for.iter().map(|((uid, number), count)| (uid.as_str(), *number, *count))
    }

    /// Whose dead letters there are.
    pub(super) fn letters(&self) -> impl Iterator<Item = (&str, u64)> {
        self.letters.iter().map(|(uid, number)| (uid.as_str(), *number))
    }
}

fn all(reader: &EventReader, stream: StreamId) -> Result<Vec<Event>, String> {
    let (mut events, mut next) = (Vec::new(), 0);
    loop {
        let read = reader.read(stream, next, usize::MAX, usize::MAX).map_err(|error| format!("{error:?}"))?;
        if read.next == next {
            return Ok(events);
        }
        next = read.next;
        events.extend(read.events);
    }
}

/// Whose dead letter this is, and of which event. It says both in its headers.
fn letter(event: &Event) -> Option<(String, u64)> {
    let text = String::from_utf8_lossy(&event.payload);
    let uid = LISTENERS.iter().map(|listener| subscribers::uid(listener.name)).find(|uid| text.contains(uid))?;
    let at = text.find(subscribers::ID)?;
    Some((uid, subscribers::number(text.get(at..at + subscribers::ID_LENGTH)?)?))
}
