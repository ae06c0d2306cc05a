//! Events that were read and are about to be delivered, so that they need not be read again. All workers share a bound;
//! beyond it events are read once more when their turn comes.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use knoll_event::mode::Format;

use crate::record::{OUTGOING_COST, RECORD_COST, Record};

/// Bytes that are kept of all events.
const MOST_BYTES: usize = 32 << 20;

/// What an event costs beside its bytes, about.
const COST: usize = RECORD_COST + OUTGOING_COST;

/// How much is kept by all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room(Arc<AtomicUsize>);

/// Room that is taken until this is dropped.
#[derive(Debug)]
struct Taken(Room, usize);

impl Room {
    fn take(&self, bytes: usize) -> Option<Taken> {
        let take = |used: usize| Some(used + bytes).filter(|used| *used <= MOST_BYTES);
        self.0.try_update(Relaxed, Relaxed, take).ok()?;
        Some(Taken(self.clone(), bytes))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.0.fetch_sub(self.1, Relaxed);
    }
}

/// Those of one worker, by whose stream they stand in and where.
#[derive(Debug)]
pub(crate) struct Fresh<K> {
    room: Room,
    events: HashMap<K, (Arc<Record>, Taken)>,
}

impl<K: std::hash::Hash + Eq> Fresh<K> {
    pub(crate) fn new(room: Room) -> Self {
        Self { room, events: HashMap::new() }
    }

    /// Keeps an event of so many bytes, if there is room for it and for what it is sent as.
    pub(crate) fn keep(&mut self, at: K, record: Arc<Record>, bytes: usize) {
        // In binary mode what is sent is the event's own data.
        let sent = if record.format == Format::Json { bytes } else { 0 };
        if let Some(taken) = self.room.take(COST + bytes + sent) {
            self.events.insert(at, (record, taken));
        }
    }

    pub(crate) fn get(&self, at: &K) -> Option<Arc<Record>> {
        self.events.get(at).map(|(record, _)| record.clone())
    }

    pub(crate) fn forget(&mut self, at: &K) {
        if let Some((record, _)) = self.events.remove(at) {
            record.forget_outgoing();
        }
    }

    /// Forgets all that are not like this.
    pub(crate) fn retain(&mut self, like: impl Fn(&K) -> bool) {
        self.events.retain(|at, (record, _)| {
            let stays = like(at);
            if !stays {
                record.forget_outgoing();
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use knoll_event::Event;

    use super::*;

    #[test]
    fn what_finds_no_room_is_not_kept_and_what_goes_makes_room() {
        let event = Event::new("1", "/s", "t").expect("an event");
        let record = Arc::new(Record::new(event, Format::Binary, HeaderMap::new()));
        let room = Room::default();
        let (mut one, mut other) = (Fresh::new(room.clone()), Fresh::new(room.clone()));
        let half = MOST_BYTES / 2 - COST;
        one.keep(1, record.clone(), half);
        other.keep(1, record.clone(), half);
        other.keep(2, record.clone(), 1);
        assert!(one.get(&1).is_some() && other.get(&1).is_some() && other.get(&2).is_none());
        one.forget(&1);
        other.keep(2, record, 1);
        assert!(one.get(&1).is_none() && other.get(&2).is_some());
        other.retain(|at| *at == 1);
        assert!(other.get(&1).is_some() && other.get(&2).is_none());
        drop((one, other));
        assert_eq!(room.0.load(Relaxed), 0);
    }
}
