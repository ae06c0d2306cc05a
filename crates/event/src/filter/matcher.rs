//! Many filters, asked at once: an index over what each one cannot do without.
//!
//! For every filter a *gate* is found: comparisons of which one must hold for the filter to deliver. An `exact` with
//! several attributes needs each of them, so the one that fewest filters share is its gate; `all` takes the rarest gate of
//! its elements, `any` the gates of all of them. An event opens gates by look-ups, and only filters behind open ones are
//! evaluated, those not even that which are nothing but their gate. What has no gate (`not`, and expressions of which nothing
//! is known) is evaluated for every event. [`naive`](Matcher::naive) asks one after the other, and says the same.
//!
//! Filters come and go one at a time ([`insert`](Matcher::insert), [`remove`](Matcher::remove)). A copy shares everything
//! with the one before, and what a change does not touch stays shared: it costs a few look-ups for each comparison of its own
//! filter, and nothing for the others. A filter keeps the gate that was best when it came.
//!
//! Nobody's filters hold up a thread: one filter may do so much for one event ([`MOST_WORK`]), and a
//! [`Matching`] is worked out in parts, between which others may go on.

mod affixes;
mod gate;
mod slot;
mod table;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use self::{gate::Key, slot::Entry, table::Table};
use super::{Filter, NAMES, lookup};
use crate::{Event, limits::MOST_WORK, work::STEP};

/// An index over filters, by the keys that they were given. Copies are cheap.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    filters: OrdMap<u64, Filter>,
    /// By the attribute that is compared.
    tables: OrdMap<Arc<str>, Table>,
    /// What filters nothing.
    always: OrdSet<u64>,
    /// What has no gate.
    rest: OrdMap<u64, Filter>,
}

/// The filters that deliver an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// Their keys, ascending.
    pub filters: Vec<u64>,
    /// How many were evaluated for it: those that the index alone could not decide.
    pub evaluated: usize,
    /// The keys of those of them that would have taken more work than they may, and so do not deliver it; ascending.
    pub exhausted: Vec<u64>,
}

impl Matcher {
    /// An index over these filters. Gates are chosen with all of them in sight.
    pub fn new(filters: impl IntoIterator<Item = (u64, Filter)>) -> Self {
        let mut matcher = Self { filters: filters.into_iter().collect(), ..Self::default() };
        let filters = matcher.filters.clone();
        filters.values().for_each(|filter| matcher.count(filter));
        filters.iter().for_each(|(key, filter)| matcher.place(*key, filter));
        matcher
    }

    /// Adds a filter, in place of the one of this key. Costs what its comparisons are.
    pub fn insert(&mut self, key: u64, filter: Filter) {
        self.remove(key);
        self.count(&filter);
        self.place(key, &filter);
        self.filters.insert(key, filter);
    }

    /// Takes a filter away, if there is one of this key. Costs what its comparisons are.
    pub fn remove(&mut self, key: u64) -> Option<Filter> {
        let filter = self.filters.remove(&key)?;
        self.always.remove(&key);
        self.rest.remove(&key);
        gate::each(&filter, &mut |at| {
            self.change(at, |slot| {
                *slot.sharing_mut() -= 1;
                slot.remove(key);
            });
        });
        Some(filter)
    }

    /// Says which comparisons could be the gate of one more filter.
    fn count(&mut self, filter: &Filter) {
        gate::each(filter, &mut |at| self.change(at, |slot| *slot.sharing_mut() += 1));
    }

    /// Puts a filter behind its gate.
    fn place(&mut self, key: u64, filter: &Filter) {
        let sharing = |at: &Key<'_>| {
            let slot = self.tables.get(at.name).and_then(|table| table.get(&at.comparison));
            slot.map_or(0, slot::Slot::sharing)
        };
        match gate::of(filter, &sharing) {
            Some(gate) => {
                let filter = if gate.is_all { None } else { Some(filter) };
                for at in gate.keys {
                    self.change(at, |slot| slot.insert(Entry { key, filter: filter.cloned() }));
                }
            }
            None if gate::is_nothing(filter) => drop(self.always.insert(key)),
            None => drop(self.rest.insert(key, filter.clone())),
        }
    }

    fn change(&mut self, Key { name, comparison }: Key<'_>, change: impl FnOnce(&mut slot::Slot)) {
        let table = self.tables.entry(name.clone()).or_default();
        table.change(&comparison, change);
        if table.is_empty() {
            self.tables.remove(name);
        }
    }

    /// The filters that deliver this event.
    pub fn matching(&self, event: &Event) -> Matched {
        let mut matching = self.begin(event);
        let mut unlimited = usize::MAX;
        while !matching.go_on(&mut unlimited) {}
        matching.matched()
    }

    /// Looks up the filters that may deliver this event. They are evaluated by [`Matching::go_on`].
    pub fn begin<'a>(&'a self, event: &'a Event) -> Matching<'a> {
        let mut found: Vec<u64> = self.always.iter().copied().collect();
        let mut open = Vec::new();
        for name in NAMES.into_iter().chain(event.extension_names().filter(|name| !NAMES.contains(name))) {
            let Some(table) = self.tables.get(name) else { continue };
            let Some(text) = lookup(event, name) else { continue };
            table.open(&text, |slot| {
                for (key, filter) in slot.entries() {
                    match filter {
                        None => found.push(key),
                        Some(filter) => open.push((key, filter)),
                    }
                }
            });
        }
        // `any` has several gates, and may have several of them open.
        open.sort_by_key(|(key, _)| *key);
        open.dedup_by_key(|(key, _)| *key);
        open.extend(self.rest.iter().map(|(key, filter)| (*key, filter)));
        let matched = Matched { filters: found, evaluated: open.len(), exhausted: Vec::new() };
        Matching { event, open, next: 0, matched }
    }

    /// The same without the index: what it must agree with, and what to measure it against.
    pub fn naive(&self, event: &Event) -> Vec<u64> {
        let delivers = |(key, filter): (&u64, &Filter)| filter.verdict(event).delivers().then_some(*key);
        self.filters.iter().filter_map(delivers).collect()
    }
}

/// A matching under way.
#[derive(Debug)]
pub struct Matching<'a> {
    event: &'a Event,
    /// What is to be evaluated, from `next` on.
    open: Vec<(u64, &'a Filter)>,
    next: usize,
    matched: Matched,
}

impl Matching<'_> {
    /// Evaluates filters until all are, or `work` is used up: it is less by what was done, counted as
    /// [`MOST_WORK`] counts it. Whether all are; one at least is.
    pub fn go_on(&mut self, work: &mut usize) -> bool {
        while let Some((key, filter)) = self.open.get(self.next) {
            let (verdict, done) = filter.worked_out(self.event);
            match done {
                None => self.matched.exhausted.push(*key),
                Some(_) if verdict.delivers() => self.matched.filters.push(*key),
                Some(_) => {}
            }
            self.next += 1;
            *work = work.saturating_sub(done.unwrap_or(MOST_WORK) + STEP);
            if *work == 0 {
                break;
            }
        }
        self.next == self.open.len()
    }

    /// What came of it, once [`go_on`](Self::go_on) is through.
    pub fn matched(self) -> Matched {
        let mut matched = self.matched;
        matched.filters.sort();
        matched.filters.dedup();
        matched.exhausted.sort();
        matched
    }
}
