//! Gates: for a filter, comparisons of which one must hold for it to deliver.

use std::collections::BTreeMap;

use super::super::{Dialect, Filter, attributes};

/// Comparisons of which one must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gate<'a> {
    pub(super) keys: Vec<Key<'a>>,
    /// One of them suffices, too: the filter then passes.
    pub(super) is_all: bool,
}

/// One comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key<'a> {
    pub(super) name: &'a str,
    pub(super) comparison: Comparison<'a>,
}

/// How, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Comparison<'a> {
    /// Equal to.
    Exact(&'a str),
    /// Begins with.
    Prefix(&'a str),
    /// Ends with.
    Suffix(&'a str),
    /// Not empty: true for nearly every event, so a gate only where there is no other.
    Present,
}

/// How many filters could have a comparison as their gate.
pub(super) struct Sharing<'a>(BTreeMap<Key<'a>, usize>);

impl<'a> Sharing<'a> {
    pub(super) fn among(filters: &'a [Filter]) -> Self {
        let mut sharing = BTreeMap::new();
        filters.iter().for_each(|filter| count(filter, &mut sharing));
        Self(sharing)
    }

    /// How bad a gate is: how many filters are looked at when it is open, unless it is open nearly always.
    fn cost(&self, gate: &Gate<'_>) -> (bool, usize) {
        let is_present = gate.keys.iter().any(|key| key.comparison == Comparison::Present);
        (is_present, gate.keys.iter().map(|key| self.0.get(key).copied().unwrap_or(0)).sum())
    }
}

/// The comparisons that a filter which is none of `all`, `any` and `not` needs every one of.
fn comparisons<'a>(filter: &'a Filter) -> Option<Vec<Key<'a>>> {
    let (pairs, comparison): (_, fn(&'a str) -> Comparison<'a>) = match &filter.dialect {
        Dialect::Attributes(pairs) => {
            (pairs, |text| if text == attributes::ANY { Comparison::Present } else { Comparison::Exact(text) })
        }
        Dialect::Exact(pairs) => (pairs, Comparison::Exact),
        Dialect::Prefix(pairs) => (pairs, Comparison::Prefix),
        Dialect::Suffix(pairs) => (pairs, Comparison::Suffix),
        Dialect::Nothing | Dialect::Never | Dialect::Cesql(_) => return None,
        Dialect::All(_) | Dialect::Any(_) | Dialect::Not(_) => return None,
    };
    Some(pairs.iter().map(|(name, text)| Key { name, comparison: comparison(text) }).collect())
}

fn count<'a>(filter: &'a Filter, sharing: &mut BTreeMap<Key<'a>, usize>) {
    match &filter.dialect {
        Dialect::All(filters) | Dialect::Any(filters) => filters.iter().for_each(|filter| count(filter, sharing)),
        Dialect::Cesql(condition) => condition.needs().into_iter().for_each(|filter| count(filter, sharing)),
        _ => comparisons(filter).into_iter().flatten().for_each(|key| *sharing.entry(key).or_default() += 1),
    }
}

/// The best gate of a filter; `None` when it has none.
pub(super) fn of<'a>(filter: &'a Filter, sharing: &Sharing<'_>) -> Option<Gate<'a>> {
    let best = |gates: &mut dyn Iterator<Item = Gate<'a>>| gates.min_by_key(|gate| sharing.cost(gate));
    match &filter.dialect {
        Dialect::Never => Some(Gate { keys: Vec::new(), is_all: false }),
        Dialect::Nothing | Dialect::Not(_) => None,
        Dialect::Cesql(condition) => Some(Gate { is_all: false, ..of(condition.needs()?, sharing)? }),
        Dialect::All(filters) => {
            let gate = best(&mut filters.iter().filter_map(|filter| of(filter, sharing)))?;
            Some(Gate { is_all: gate.is_all && filters.len() == 1, ..gate })
        }
        Dialect::Any(filters) if filters.is_empty() => None,
        Dialect::Any(filters) => {
            let gates = filters.iter().map(|filter| of(filter, sharing)).collect::<Option<Vec<_>>>()?;
            let is_all = gates.iter().all(|gate| gate.is_all);
            Some(Gate { keys: gates.into_iter().flat_map(|gate| gate.keys).collect(), is_all })
        }
        Dialect::Attributes(_) | Dialect::Exact(_) | Dialect::Prefix(_) | Dialect::Suffix(_) => {
            let keys = comparisons(filter)?;
            let is_all = keys.len() == 1;
            best(&mut keys.into_iter().map(|key| Gate { keys: vec![key], is_all }))
        }
    }
}

/// Whether a filter lets every event through without a look at it.
pub(super) fn is_nothing(filter: &Filter) -> bool {
    match &filter.dialect {
        Dialect::Nothing => true,
        Dialect::All(filters) | Dialect::Any(filters) => filters.iter().all(is_nothing),
        Dialect::Not(filter) => is_nothing(filter),
        _ => false,
    }
}
