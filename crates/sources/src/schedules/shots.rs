//! Ticks that wait until their events are sent.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use uuid::Uuid;

use crate::Id;

/// A tick of a source.
#[derive(Clone, Debug)]
pub(super) struct Shot {
    pub(super) id: Id,
    pub(super) serial: u64,
}

/// In the order in which they are sent.
#[derive(Default)]
pub(super) struct Shots {
    waiting: BTreeMap<(Instant, u64), Shot>,
    made: u64,
}

impl Shots {
    /// One that is sent within `jitter` from now, by chance.
    pub(super) fn aim(&mut self, shot: Shot, jitter: Duration) {
        self.made += 1;
        let most = u64::try_from(jitter.as_micros()).unwrap_or(u64::MAX).max(1);
        let later = if jitter.is_zero() { 0 } else { chance() % most };
        self.waiting.insert((Instant::now() + Duration::from_micros(later), self.made), shot);
    }

    /// When the first is sent.
    pub(super) fn first(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// The first, if it is to be sent by now.
    pub(super) fn take(&mut self, now: Instant) -> Option<Shot> {
        self.waiting.first_entry().filter(|first| first.key().0 <= now).map(|first| first.remove())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// A number by chance: the random bits of a new id.
fn chance() -> u64 {
    Uuid::new_v4().as_u64_pair().1 & 0x3fff_ffff_ffff_ffff
}
