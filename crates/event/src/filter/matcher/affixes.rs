//! Beginnings, sorted: all that a text begins with are found by one search and a walk from the longest to the shortest.

use std::collections::BTreeMap;

use super::Entry;

/// Beginnings, with the filters behind each. Endings are beginnings of the text backwards.
#[derive(Debug, Default)]
pub(super) struct Affixes {
    /// Ascending.
    beginnings: Vec<Beginning>,
}

#[derive(Debug)]
struct Beginning {
    text: Box<[u8]>,
    /// The longest other one that this one begins with.
    shorter: Option<usize>,
    entries: Box<[Entry]>,
}

impl Affixes {
    pub(super) fn new(of: BTreeMap<Vec<u8>, Vec<Entry>>) -> Self {
        let mut beginnings: Vec<Beginning> = Vec::with_capacity(of.len());
        for (text, entries) in of {
            let shorter = longest(&beginnings, beginnings.len().checked_sub(1), &text);
            beginnings.push(Beginning { text: text.into(), shorter, entries: entries.into() });
        }
        Self { beginnings }
    }

    /// The filters behind all that this text begins with. Costs a search, and a step for each of these beginnings and for
    /// each longer one that another begins with in turn.
    pub(super) fn of(&self, text: impl Iterator<Item = u8>) -> impl Iterator<Item = &Entry> {
        let text: Vec<u8> = if self.beginnings.is_empty() { Vec::new() } else { text.collect() };
        // What the text begins with is no greater than the text, and what lies between the two begins with it as well.
        let last = self.beginnings.partition_point(|beginning| *beginning.text <= *text).checked_sub(1);
        let first = longest(&self.beginnings, last, &text);
        let chain = std::iter::successors(first, |at| self.beginnings[*at].shorter);
        chain.flat_map(|at| &*self.beginnings[at].entries)
    }
}

/// From here on towards shorter ones, the first that the text begins with.
fn longest(beginnings: &[Beginning], from: Option<usize>, text: &[u8]) -> Option<usize> {
    std::iter::successors(from, |at| beginnings[*at].shorter).find(|at| text.starts_with(&beginnings[*at].text))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_set, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn all_that_a_text_begins_with_are_found(beginnings in btree_set("[ab]{1,4}", 0..20), text in "[ab]{0,6}") {
            let entries = beginnings.iter().enumerate();
            let map = entries.map(|(filter, text)| (text.clone().into_bytes(), vec![Entry { filter, is_all: true }])).collect();
            let mut found: Vec<usize> = Affixes::new(map).of(text.bytes()).map(|entry| entry.filter).collect();
            found.sort_unstable();
            let expected: Vec<usize> = beginnings.iter().enumerate().filter(|(_, beginning)| text.starts_with(&***beginning)).map(|(at, _)| at).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
