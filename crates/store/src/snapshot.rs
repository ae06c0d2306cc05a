//! The state at one revision.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;
use imbl::OrdMap;

use crate::value::{Unreadable, Value};

/// A stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Key.
    pub key: Arc<str>,
    /// Value as it was written.
    pub value: Bytes,
    /// Revision of the last write.
    pub revision: u64,
}

/// What stands at a key.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) value: Value,
    pub(crate) revision: u64,
}

impl Slot {
    pub(crate) fn plain(value: Bytes, revision: u64) -> Self {
        Self { value: Value::Plain(value), revision }
    }

    pub(crate) fn entry(&self, key: &Arc<str>) -> Result<Entry, Unreadable> {
        Ok(Entry { key: key.clone(), value: self.value.read()?, revision: self.revision })
    }
}

pub(crate) type Map = OrdMap<Arc<str>, Slot>;

/// The state at one revision. Cheap to take and to clone; never changes.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The revision.
    pub revision: u64,
    pub(crate) map: Map,
}

fn readable(key: &Arc<str>, slot: &Slot) -> Entry {
    slot.entry(key).unwrap_or_else(|error| panic!("{key}: {error}"))
}

impl Snapshot {
    /// The entry at `key`.
    ///
    /// # Panics
    /// When the memory that holds it went bad.
    pub fn get(&self, key: &str) -> Option<Entry> {
        self.map.get_key_value(key).map(|(key, slot)| readable(key, slot))
    }

    /// Whether there is an entry at `key`.
    pub fn contains(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Entries whose keys start with `prefix`, in key order, after the key `start_after` where given.
    ///
    /// # Panics
    /// When the memory that holds one went bad.
    pub fn range<'a>(&'a self, prefix: &'a str, start_after: Option<&str>) -> impl Iterator<Item = Entry> + 'a {
        self.slots(prefix, start_after).map(|(key, slot)| readable(key, slot))
    }

    /// Keys that start with `prefix`, in order, with the revisions of their last writes. Reads no values.
    pub fn keys<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a Arc<str>, u64)> + 'a {
        self.slots(prefix, None).map(|(key, slot)| (key, slot.revision))
    }

    /// How many bytes each value has whose key starts with `prefix`, in key order, after the key `start_after` where given.
    /// Reads no values.
    pub fn lengths<'a>(&'a self, prefix: &'a str, start_after: Option<&str>) -> impl Iterator<Item = usize> + 'a {
        self.slots(prefix, start_after).map(|(_, slot)| slot.value.length())
    }

    /// How many keys start with `prefix`, after the key `start_after` where given. Reads no values.
    pub fn count_after(&self, prefix: &str, start_after: Option<&str>) -> usize {
        self.slots(prefix, start_after).count()
    }

    /// How many keys start with `prefix`.
    pub fn count(&self, prefix: &str) -> usize {
        self.count_after(prefix, None)
    }

    pub(crate) fn slots<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Slot)> + 'a {
        let lower: Bound<Arc<str>> = match start_after {
            Some(key) if key >= prefix => Bound::Excluded(Arc::from(key)),
            _ => Bound::Included(Arc::from(prefix)),
        };
        self.map.range((lower, Bound::Unbounded)).take_while(move |(key, _)| key.starts_with(prefix))
    }
}
