//! Many filters, asked at once: an index over what each one cannot do without.
//!
//! For every filter a *gate* is found: comparisons of which one must hold for the filter to deliver. An `exact` with
//! several attributes needs each of them, so the one that fewest filters share is its gate; `all` takes the rarest gate of
//! its elements, `any` the gates of all of them. An event opens gates by look-ups, and only filters behind open ones are
//! evaluated, those not even that which are nothing but their gate. What has no gate (`not`, and expressions of which nothing
//! is known) is evaluated for every event. [`naive`](Matcher::naive) asks one after the other, and says the same.

mod affixes;
mod gate;

use std::collections::BTreeMap;

use self::{
    affixes::Affixes,
    gate::{Comparison, Gate, Key, Sharing},
};
use super::{Filter, NAMES, lookup};
use crate::Event;

/// An index over filters.
#[derive(Debug, Default)]
pub struct Matcher {
    filters: Vec<Filter>,
    tables: BTreeMap<Box<str>, Table>,
    /// What filters nothing.
    always: Vec<usize>,
    /// What has no gate.
    rest: Vec<usize>,
}

/// The gates that compare one attribute.
#[derive(Debug, Default)]
struct Table {
    exact: BTreeMap<Box<str>, Box<[Entry]>>,
    prefixes: Affixes,
    suffixes: Affixes,
    present: Vec<Entry>,
}

/// A filter behind a gate.
#[derive(Clone, Copy, Debug)]
struct Entry {
    filter: usize,
    /// The gate is all of it: where it is open, the filter passes.
    is_all: bool,
}

/// The filters that deliver an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// Their positions, ascending.
    pub filters: Vec<usize>,
    /// How many were evaluated for it: those that the index alone could not decide.
    pub evaluated: usize,
}

impl Matcher {
    /// An index over these, which are known by their positions.
    pub fn new(filters: Vec<Filter>) -> Self {
        let mut matcher = Self::default();
        let sharing = Sharing::among(&filters);
        let mut tables: BTreeMap<&str, Building<'_>> = BTreeMap::new();
        for (at, filter) in filters.iter().enumerate() {
            match gate::of(filter, &sharing) {
                Some(gate) => behind(&gate, at, &mut tables),
                None if gate::is_nothing(filter) => matcher.always.push(at),
                None => matcher.rest.push(at),
            }
        }
        matcher.tables = tables.into_iter().map(|(name, table)| (name.into(), table.built())).collect();
        matcher.filters = filters;
        matcher
    }

    /// The filters that deliver this event.
    pub fn matching(&self, event: &Event) -> Matched {
        let mut found = self.always.clone();
        let mut open = Vec::new();
        for name in NAMES.into_iter().chain(event.extension_names().filter(|name| !NAMES.contains(name))) {
            let Some(table) = self.tables.get(name) else { continue };
            let Some(text) = lookup(event, name) else { continue };
            table.open(&text, |entry| if entry.is_all { found.push(entry.filter) } else { open.push(entry.filter) });
        }
        // `any` has several gates, and may have several of them open.
        open.sort();
        open.dedup();
        let evaluated = open.len() + self.rest.len();
        open.extend(&self.rest);
        found.extend(open.into_iter().filter(|at| self.filters[*at].verdict(event).delivers()));
        found.sort();
        found.dedup();
        Matched { filters: found, evaluated }
    }

    /// The same without the index: what it must agree with, and what to measure it against.
    pub fn naive(&self, event: &Event) -> Vec<usize> {
        let delivers = |(at, filter): (usize, &Filter)| filter.verdict(event).delivers().then_some(at);
        self.filters.iter().enumerate().filter_map(delivers).collect()
    }
}

impl Table {
    /// Tells the filters whose gates this text opens.
    fn open(&self, text: &str, mut tell: impl FnMut(&Entry)) {
        self.exact.get(text).into_iter().flat_map(|entries| &**entries).for_each(&mut tell);
        self.prefixes.of(text.bytes()).for_each(&mut tell);
        self.suffixes.of(text.bytes().rev()).for_each(&mut tell);
        if !text.is_empty() {
            self.present.iter().for_each(&mut tell);
        }
    }
}

/// A table while it grows.
#[derive(Default)]
struct Building<'a> {
    exact: BTreeMap<&'a str, Vec<Entry>>,
    prefixes: BTreeMap<Vec<u8>, Vec<Entry>>,
    suffixes: BTreeMap<Vec<u8>, Vec<Entry>>,
    present: Vec<Entry>,
}

fn behind<'a>(gate: &Gate<'a>, filter: usize, tables: &mut BTreeMap<&'a str, Building<'a>>) {
    let entry = Entry { filter, is_all: gate.is_all };
    for Key { name, comparison } in &gate.keys {
        let table = tables.entry(name).or_default();
        match comparison {
            Comparison::Exact(text) => table.exact.entry(text).or_default().push(entry),
            Comparison::Prefix(text) => table.prefixes.entry(text.bytes().collect()).or_default().push(entry),
            Comparison::Suffix(text) => table.suffixes.entry(text.bytes().rev().collect()).or_default().push(entry),
            Comparison::Present => table.present.push(entry),
        }
    }
}

impl Building<'_> {
    fn built(self) -> Table {
        Table {
            exact: self.exact.into_iter().map(|(text, entries)| (text.into(), entries.into())).collect(),
            prefixes: Affixes::new(self.prefixes),
            suffixes: Affixes::new(self.suffixes),
            present: self.present,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::cesql;

    fn event(kind: &str, source: &str, extensions: &[(&str, &str)]) -> Event {
        let mut event = Event::new("1", source, kind).expect("an event");
        for (name, text) in extensions {
            event.set(name, *text).expect("an extension");
        }
        event
    }

    /// Few names and few letters, so that filters meet events.
    fn pair() -> impl Strategy<Value = (String, String)> {
        ("type|source|subject|x|y|time|schemaurl|dataschema|datamediatype|specversion", "[a/1.]{0,3}|1\\.0")
    }

    fn filters() -> impl Strategy<Value = Filter> {
        fn pairs(of: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
            of.iter().map(|(name, text)| (&**name, &**text))
        }
        let leaf = prop_oneof![
            vec(pair(), 0..3).prop_map(|of| Filter::exact(pairs(&of))),
            vec(pair(), 0..3).prop_map(|of| Filter::prefix(pairs(&of))),
            vec(pair(), 0..3).prop_map(|of| Filter::suffix(pairs(&of))),
            vec(pair(), 0..3).prop_map(|of| Filter::attributes(pairs(&of))),
            expressions().prop_map(|text| expression(&text)),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(|of| Filter::all(of).expect("not deep")),
                vec(inner.clone(), 0..4).prop_map(|of| Filter::any(of).expect("not deep")),
                inner.prop_map(|of| Filter::not(of).expect("not deep")),
            ]
        })
    }

    /// Expressions, some of which need something of an event.
    fn expressions() -> impl Strategy<Value = String> {
        let atom = prop_oneof![
            pair().prop_map(|(name, text)| format!("{name} = '{text}'")),
            pair().prop_map(|(name, text)| format!("'{text}' = {name}")),
            pair().prop_map(|(name, text)| format!("{name} LIKE '{text}%'")),
            pair().prop_map(|(name, text)| format!("{name} LIKE '{text}_{text}'")),
            (pair(), pair()).prop_map(|((name, one), (_, two))| format!("{name} IN ('{one}', '{two}')")),
            (pair(), pair()).prop_map(|((name, one), (_, two))| format!("{name} NOT IN ('{one}', '{two}')")),
            pair().prop_map(|(name, _)| format!("EXISTS {name}")),
            Just("TRUE".to_owned()),
        ];
        atom.prop_recursive(3, 8, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|of| format!("NOT ({of})")),
                (inner.clone(), "AND|OR|XOR", inner.clone()).prop_map(|(one, with, two)| format!("{one} {with} {two}")),
                (inner.clone(), "AND|OR|XOR", inner).prop_map(|(one, with, two)| format!("({one}) {with} ({two})")),
            ]
        })
    }

    fn expression(text: &str) -> Filter {
        Filter::cesql(cesql::Expression::parse(text).expect("an expression"))
    }

    fn events() -> impl Strategy<Value = Event> {
        ("[a/1.]{1,4}", "/[a/1.]{0,3}", vec(pair(), 0..4)).prop_map(|(kind, source, attributes)| {
            let mut event = event(&kind, &source, &[]);
            for (name, text) in attributes {
                // What the specification refuses is not set.
                if event.set(&name, text).is_err() {
                    event.set("y", 1).expect("an extension");
                }
            }
            event
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_index_says_what_the_filters_say(filters in vec(filters(), 0..30), events in vec(events(), 1..8)) {
            let matcher = Matcher::new(filters);
            for event in events {
                let matched = matcher.matching(&event);
                prop_assert_eq!(&matched.filters, &matcher.naive(&event), "{:?}", event);
                prop_assert!(matched.evaluated <= matcher.filters.len());
            }
        }
    }

    const MANY: usize = 10_000;

    /// How many filters of these are met by an event and how many of them were evaluated for it.
    fn visits(filters: impl FnMut(usize) -> Filter, event: &Event) -> (usize, usize) {
        let matcher = Matcher::new((0..MANY).map(filters).collect());
        let matched = matcher.matching(event);
        assert_eq!(matched.filters, matcher.naive(event));
        (matched.filters.len(), matched.evaluated)
    }

    #[test]
    fn of_ten_thousand_filters_only_those_behind_open_gates_are_looked_at() {
        let event = event("com.example.t77", "/tenants/77/x", &[("team", "red"), ("n", "77")]);
        let kind = |at: usize| format!("com.example.t{at}");
        type Make = fn(&str, usize) -> Filter;
        let cases: [(&str, Make, (usize, usize)); 10] = [
            ("cesql", |kind, at| expression(&format!("type = '{kind}' AND n > {at} - 1")), (1, 1)),
            ("attributes", |kind, _| Filter::attributes([("type", kind), ("team", "red")]), (1, 1)),
            ("exact", |kind, _| Filter::exact([("type", kind)]), (1, 0)),
            ("prefix", |_, at| Filter::prefix([("source", &*format!("/tenants/{at}/"))]), (1, 0)),
            ("suffix", |_, at| Filter::suffix([("type", &*format!(".t{at}"))]), (1, 0)),
            (
                "all",
                |kind, at| {
                    all(vec![Filter::prefix([("source", "/tenants/")]), exact(kind), Filter::not(number(at)).unwrap()])
                },
                (0, 1),
            ),
            ("any", |kind, at| Filter::any(vec![exact(kind), number(at)]).unwrap(), (1, 0)),
            (
                "any of all",
                |kind, at| Filter::any(vec![all(vec![exact(kind), number(at)]), number(at + 1)]).unwrap(),
                (2, 2),
            ),
            ("everything", |_, _| Filter::attributes([]), (MANY, 0)),
            ("shared", |_, at| Filter::attributes([("team", if at % 2 == 0 { "red" } else { "blue" })]), (MANY / 2, 0)),
        ];
        for (name, filter, expected) in cases {
            assert_eq!(visits(|at| filter(&kind(at), at), &event), expected, "{name}");
        }
    }

    fn exact(kind: &str) -> Filter {
        Filter::exact([("type", kind)])
    }

    fn number(at: usize) -> Filter {
        Filter::exact([("n", &*at.to_string())])
    }

    fn all(filters: Vec<Filter>) -> Filter {
        Filter::all(filters).expect("not deep")
    }

    #[test]
    fn what_has_no_gate_is_evaluated_for_every_event() {
        let matcher = Matcher::new(vec![
            Filter::not(exact("x")).unwrap(),
            expression("LOWER(type) = 'y'"),
            Filter::any(vec![exact("y"), Filter::not(exact("z")).unwrap()]).unwrap(),
            exact("y"),
        ]);
        assert_eq!(matcher.matching(&event("y", "/s", &[])), Matched { filters: vec![0, 1, 2, 3], evaluated: 3 });
        assert_eq!(matcher.matching(&event("x", "/s", &[])), Matched { filters: vec![2], evaluated: 3 });
    }

    #[test]
    fn an_empty_index_matches_nothing() {
        assert_eq!(Matcher::new(vec![]).matching(&event("t", "/s", &[])), Matched::default());
    }
}
