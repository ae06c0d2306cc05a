//! The filters behind one comparison.

use std::sync::Arc;

use imbl::OrdMap;

use super::super::Filter;

/// Filters behind a comparison.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    /// How many could have it as their gate, those that have another one among them.
    sharing: usize,
    entries: Entries,
}

/// A filter behind a gate.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: u64,
    /// What is left to be evaluated; nothing where the gate is all of it, so that the filter passes where it is open.
    pub(super) filter: Option<Filter>,
}

/// Most of one comparison have few filters, for which a tree is mostly empty nodes; some have nearly all of them, which a
/// change must not copy.
#[derive(Clone, Debug)]
enum Entries {
    Few(Arc<[Entry]>),
    Many(OrdMap<u64, Option<Filter>>),
}

/// More are many.
const FEW: usize = 16;

impl Default for Entries {
    fn default() -> Self {
        Self::Few(Arc::default())
    }
}

impl Slot {
    pub(super) const fn sharing(&self) -> usize {
        self.sharing
    }

    pub(super) const fn sharing_mut(&mut self) -> &mut usize {
        &mut self.sharing
    }

    /// Whether nobody knows of it.
    pub(super) fn is_empty(&self) -> bool {
        self.sharing == 0 && self.entries().next().is_none()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (u64, Option<&Filter>)> {
        let (few, many) = match &self.entries {
            Entries::Few(few) => (Some(few), None),
            Entries::Many(many) => (None, Some(many)),
        };
        let few = few.into_iter().flat_map(|few| few.iter().map(|entry| (entry.key, entry.filter.as_ref())));
        few.chain(many.into_iter().flat_map(|many| many.iter().map(|(key, filter)| (*key, filter.as_ref()))))
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        match &mut self.entries {
            Entries::Many(many) => drop(many.insert(entry.key, entry.filter)),
            Entries::Few(few) => {
                // A filter may have the same comparison twice.
                let others = few.iter().filter(|other| other.key != entry.key).cloned();
                let all: Arc<[Entry]> = others.chain([entry.clone()]).collect();
                self.entries = if all.len() <= FEW {
                    Entries::Few(all)
                } else {
                    Entries::Many(all.iter().map(|entry| (entry.key, entry.filter.clone())).collect())
                };
            }
        }
    }

    pub(super) fn remove(&mut self, key: u64) {
        match &mut self.entries {
            Entries::Many(many) => drop(many.remove(&key)),
            Entries::Few(few) if few.iter().any(|entry| entry.key == key) => {
                *few = few.iter().filter(|entry| entry.key != key).cloned().collect();
            }
            Entries::Few(_) => {}
        }
    }
}
