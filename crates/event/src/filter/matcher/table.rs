//! The gates that compare one attribute.

use std::sync::Arc;

use imbl::OrdMap;

use super::{affixes::Affixes, gate::Comparison, slot::Slot};

/// The gates that compare one attribute.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    exact: OrdMap<Arc<str>, Slot>,
    prefixes: Affixes,
    suffixes: Affixes,
    present: Slot,
}

impl Table {
    /// The slot of a comparison, if it has one.
    pub(super) fn get(&self, comparison: &Comparison<'_>) -> Option<&Slot> {
        match comparison {
            Comparison::Exact(text) => self.exact.get(&***text),
            Comparison::Prefix(text) => self.prefixes.get(text.as_bytes()),
            Comparison::Suffix(text) => self.suffixes.get(&backwards(text)),
            Comparison::Present => Some(&self.present),
        }
    }

    /// Changes the slot of a comparison, which is there as long as it is not empty.
    pub(super) fn change(&mut self, comparison: &Comparison<'_>, change: impl FnOnce(&mut Slot)) {
        match comparison {
            Comparison::Exact(text) => {
                let slot = self.exact.entry(Arc::clone(text)).or_default();
                change(slot);
                if slot.is_empty() {
                    self.exact.remove(&***text);
                }
            }
            Comparison::Prefix(text) => self.prefixes.change(text.as_bytes(), change),
            Comparison::Suffix(text) => self.suffixes.change(&backwards(text), change),
            Comparison::Present => change(&mut self.present),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty() && self.suffixes.is_empty() && self.present.is_empty()
    }

    /// Tells the slots whose gates this text opens.
    pub(super) fn open<'a>(&'a self, text: &str, mut tell: impl FnMut(&'a Slot)) {
        self.exact.get(text).into_iter().for_each(&mut tell);
        self.prefixes.each(text.bytes(), &mut tell);
        self.suffixes.each(text.bytes().rev(), &mut tell);
        if !text.is_empty() {
            tell(&self.present);
        }
    }
}

fn backwards(text: &str) -> Vec<u8> {
    text.bytes().rev().take(super::affixes::LONGEST).collect()
}
