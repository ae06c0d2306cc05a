//! Beginnings, in a radix tree: all that a text begins with stand on one way down.
//!
//! A change copies that way, and shares the rest of the tree with the one before.

use std::sync::Arc;

use super::slot::Slot;

/// Bytes of a beginning that are looked at, so that no way down is long. What is longer stands where its first bytes end.
pub(super) const LONGEST: usize = 128;

/// Beginnings, with the filters behind each. Endings are beginnings of the text backwards.
#[derive(Clone, Debug, Default)]
pub(super) struct Affixes(Node);

#[derive(Clone, Debug, Default)]
struct Node {
    /// What leads here from the node above; empty at the top alone.
    label: Box<[u8]>,
    slot: Slot,
    /// By the first bytes of their labels, which differ.
    below: Vec<Arc<Node>>,
}

impl Affixes {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.below.is_empty()
    }

    /// The slots of all that this text begins with. Costs a walk along the text, of at most [`LONGEST`] bytes.
    pub(super) fn each<'a>(&'a self, text: impl Iterator<Item = u8>, mut tell: impl FnMut(&'a Slot)) {
        let (mut node, mut text) = (&self.0, text.peekable());
        while let Some(first) = text.peek()
            && let Ok(at) = node.place(*first)
        {
            node = &node.below[at];
            if node.label.iter().any(|byte| text.next() != Some(*byte)) {
                return;
            }
            tell(&node.slot);
        }
    }

    /// The slot of this beginning, if it has one.
    pub(super) fn get(&self, beginning: &[u8]) -> Option<&Slot> {
        let (mut node, mut rest) = (&self.0, within(beginning));
        while let Some(first) = rest.first() {
            node = &node.below[node.place(*first).ok()?];
            rest = rest.strip_prefix(&*node.label)?;
        }
        Some(&node.slot)
    }

    /// Changes the slot of this beginning, which is there as long as it is not empty.
    pub(super) fn change(&mut self, beginning: &[u8], change: impl FnOnce(&mut Slot)) {
        self.0.change(within(beginning), change);
    }
}

/// What is looked at of a beginning.
fn within(beginning: &[u8]) -> &[u8] {
    &beginning[..beginning.len().min(LONGEST)]
}

impl Node {
    fn place(&self, first: u8) -> Result<usize, usize> {
        self.below.binary_search_by_key(&first, |node| node.label[0])
    }

    /// Recurses no deeper than [`LONGEST`].
    fn change(&mut self, rest: &[u8], change: impl FnOnce(&mut Slot)) {
        let Some(first) = rest.first() else { return change(&mut self.slot) };
        let at = match self.place(*first) {
            Ok(at) => at,
            Err(at) => {
                self.below.insert(at, Arc::new(Self { label: rest.into(), ..Self::default() }));
                at
            }
        };
        let node = Arc::make_mut(&mut self.below[at]);
        let common = node.label.iter().zip(rest).take_while(|(one, other)| one == other).count();
        if common < node.label.len() {
            node.split(common);
        }
        node.change(&rest[common..], change);
        if node.slot.is_empty() {
            match &mut node.below[..] {
                [] => drop(self.below.remove(at)),
                [only] => {
                    let mut only = (**only).clone();
                    only.label = [&*node.label, &*only.label].concat().into();
                    *node = only;
                }
                _ => {}
            }
        }
    }

    /// Puts a node in between, after so many bytes of the label.
    fn split(&mut self, at: usize) {
        let (upper, lower) = self.label.split_at(at);
        let (upper, lower) = (upper.into(), lower.into());
        let below = std::mem::take(self);
        self.label = upper;
        self.below = vec![Arc::new(Self { label: lower, ..below })];
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::{super::slot::Entry, *};

    fn nodes(node: &Node) -> usize {
        1 + node.below.iter().map(|node| nodes(node)).sum::<usize>()
    }

    proptest! {
        #[test]
        fn all_that_a_text_begins_with_are_found_and_nothing_is_left_of_what_went(
            changes in vec(("[ab]{1,4}", any::<bool>()), 0..40), text in "[ab]{0,6}",
        ) {
            let (mut affixes, mut expected) = (Affixes::default(), BTreeSet::new());
            for (beginning, is_there) in &changes {
                let before = affixes.clone();
                let key = beginning.bytes().fold(1, |key, byte| key * 4 + u64::from(byte - b'a'));
                affixes.change(beginning.as_bytes(), |slot| {
                    if *is_there { slot.insert(Entry { key, filter: None }) } else { slot.remove(key) }
                });
                let was = expected.clone();
                if *is_there { expected.insert(beginning.clone()); } else { expected.remove(beginning); }
                for (affixes, expected) in [(&before, &was), (&affixes, &expected)] {
                    let mut found = 0;
                    affixes.each(text.bytes(), |slot| found += slot.entries().count());
                    prop_assert_eq!(found, expected.iter().filter(|beginning| text.starts_with(&***beginning)).count());
                    for beginning in expected {
                        prop_assert!(affixes.get(beginning.as_bytes()).is_some_and(|slot| !slot.is_empty()));
                    }
                }
                prop_assert!(nodes(&affixes.0) <= 2 * expected.len() + 1);
            }
        }
    }

    #[test]
    fn of_a_long_beginning_the_first_bytes_are_looked_at() {
        let mut affixes = Affixes::default();
        let long = [b'a'; 100_000];
        for length in 1..long.len() {
            if length < 2 * LONGEST || length % 1000 == 0 {
                affixes.change(&long[..length], |slot| slot.insert(Entry { key: length as u64, filter: None }));
            }
        }
        assert_eq!(nodes(&affixes.0), LONGEST + 1);
        let mut found = 0;
        affixes.each(long.iter().copied().take(LONGEST), |slot| found += slot.entries().count());
        assert_eq!(found, 2 * LONGEST - 1 + 99);
    }
}
