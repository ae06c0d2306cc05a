//! The state at one revision.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;
use imbl::OrdMap;

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

pub(crate) type Map = OrdMap<Arc<str>, Entry>;

/// The state at one revision. Cheap to take and to clone; never changes.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The revision.
    pub revision: u64,
    pub(crate) map: Map,
}

impl Snapshot {
    /// The entry at `key`.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.map.get(key)
    }

    /// Entries whose keys start with `prefix`, in key order, after the key `start_after` where given.
    pub fn range<'a>(&'a self, prefix: &'a str, start_after: Option<&str>) -> impl Iterator<Item = &'a Entry> + 'a {
        let lower: Bound<Arc<str>> = match start_after {
            Some(key) if key >= prefix => Bound::Excluded(Arc::from(key)),
            _ => Bound::Included(Arc::from(prefix)),
        };
        self.map
            .range((lower, Bound::Unbounded))
            .map(|(_, entry)| entry)
            .take_while(move |entry| entry.key.starts_with(prefix))
    }

    /// How many keys start with `prefix`.
    pub fn count(&self, prefix: &str) -> usize {
        self.range(prefix, None).count()
    }
}
