//! Gates: for a filter, comparisons of which one must hold for it to deliver.

use std::sync::Arc;

use super::super::{Dialect, Filter, Pair, attributes};

/// Comparisons of which one must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gate<'a> {
    pub(super) keys: Vec<Key<'a>>,
    /// One of them suffices, too: the filter then passes.
    pub(super) is_all: bool,
}

/// One comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key<'a> {
    pub(super) name: &'a Arc<str>,
    pub(super) comparison: Comparison<'a>,
}

/// How, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison<'a> {
    /// Equal to.
    Exact(&'a Arc<str>),
    /// Begins with.
    Prefix(&'a str),
    /// Ends with.
    Suffix(&'a str),
    /// Not empty: true for nearly every event, so a gate only where there is no other.
    Present,
}

impl Comparison<'_> {
    /// Whether the index looks at all of it.
    fn is_whole(&self) -> bool {
        match self {
            Self::Exact(_) | Self::Present => true,
            Self::Prefix(text) | Self::Suffix(text) => text.len() <= super::affixes::LONGEST,
        }
    }
}

/// The comparisons that a filter which is none of `all`, `any` and `not` needs every one of.
fn comparisons(filter: &Filter) -> Option<impl Iterator<Item = Key<'_>>> {
    let (pairs, comparison): (_, fn(&Pair) -> Comparison<'_>) = match &filter.dialect {
        Dialect::Attributes(pairs) => (pairs, |(_, text)| match &**text {
            attributes::ANY => Comparison::Present,
            _ => Comparison::Exact(text),
        }),
        Dialect::Exact(pairs) => (pairs, |(_, text)| Comparison::Exact(text)),
        Dialect::Prefix(pairs) => (pairs, |(_, text)| Comparison::Prefix(text)),
        Dialect::Suffix(pairs) => (pairs, |(_, text)| Comparison::Suffix(text)),
        Dialect::Nothing | Dialect::Never | Dialect::Cesql(_) => return None,
        Dialect::All(_) | Dialect::Any(_) | Dialect::Not(_) => return None,
    };
    Some(pairs.iter().map(move |pair| Key { name: &pair.0, comparison: comparison(pair) }))
}

/// Tells every comparison that the gate of a filter may be of, as often as the filter has it.
pub(super) fn each<'a>(filter: &'a Filter, tell: &mut dyn FnMut(Key<'a>)) {
    match &filter.dialect {
        Dialect::All(filters) | Dialect::Any(filters) => filters.iter().for_each(|filter| each(filter, tell)),
        Dialect::Cesql(condition) => condition.needs().into_iter().for_each(|filter| each(filter, tell)),
        _ => comparisons(filter).into_iter().flatten().for_each(tell),
    }
}

/// How many filters could have a comparison as their gate.
pub(super) type Sharing<'s> = &'s dyn Fn(&Key<'_>) -> usize;

/// How bad a gate is: how many filters are looked at when it is open, unless it is open nearly always.
fn cost(gate: &Gate<'_>, sharing: Sharing<'_>) -> (bool, usize) {
    let is_present = gate.keys.iter().any(|key| key.comparison == Comparison::Present);
    (is_present, gate.keys.iter().map(sharing).sum())
}

/// The best gate of a filter; `None` when it has none.
pub(super) fn of<'a>(filter: &'a Filter, sharing: Sharing<'_>) -> Option<Gate<'a>> {
    let best = |gates: &mut dyn Iterator<Item = Gate<'a>>| gates.min_by_key(|gate| cost(gate, sharing));
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
        Dialect::Attributes(pairs) | Dialect::Exact(pairs) | Dialect::Prefix(pairs) | Dialect::Suffix(pairs) => {
            let is_one = pairs.len() == 1;
            let one = |key: Key<'a>| Gate { is_all: is_one && key.comparison.is_whole(), keys: vec![key] };
            best(&mut comparisons(filter)?.map(one))
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
