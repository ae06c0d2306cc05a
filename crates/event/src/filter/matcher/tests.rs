//! The index says what the filters say, however it came to be, and looks at few of them.

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

/// An index over these, whose keys are their positions.
fn index(filters: impl IntoIterator<Item = Filter>) -> Matcher {
    Matcher::new((0..).zip(filters))
}

/// What is left of an index when everything has gone is nothing.
fn emptied(mut matcher: Matcher) -> Matcher {
    let keys: Vec<u64> = matcher.filters.keys().copied().collect();
    keys.into_iter().for_each(|key| assert!(matcher.remove(key).is_some()));
    matcher
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_index_says_what_the_filters_say(filters in vec(filters(), 0..30), events in vec(events(), 1..8)) {
        let matcher = index(filters);
        for event in events {
            let matched = matcher.matching(&event);
            prop_assert_eq!(&matched.filters, &matcher.naive(&event), "{:?}", event);
            prop_assert!(matched.evaluated <= matcher.filters.len());
            prop_assert!(matched.exhausted.is_empty());
        }
        let empty = emptied(matcher);
        prop_assert!(empty.tables.is_empty() && empty.always.is_empty() && empty.rest.is_empty());
    }

    /// Each state of an index is as if it had been made at once, and those before stay as they were.
    #[test]
    fn filters_come_and_go_and_copies_keep_what_they_had(
        start in vec(filters(), 0..8),
        changes in vec((0_u64..12, proptest::option::weighted(0.7, filters())), 0..30),
        event in events(),
    ) {
        let mut states = vec![index(start)];
        for (key, filter) in changes {
            let mut next = states[states.len() - 1].clone();
            match filter {
                Some(filter) => next.insert(key, filter),
                None => drop(next.remove(key)),
            }
            states.push(next);
        }
        for state in states {
            let at_once = Matcher::new(state.filters.iter().map(|(key, filter)| (*key, filter.clone())));
            let matched = state.matching(&event).filters;
            prop_assert_eq!(&matched, &state.naive(&event), "{:?}", event);
            prop_assert_eq!(&matched, &at_once.matching(&event).filters);
            let empty = emptied(state);
            prop_assert!(empty.tables.is_empty() && empty.always.is_empty() && empty.rest.is_empty());
        }
    }
}

const MANY: u64 = 10_000;

/// How many filters of these are met by an event and how many of them were evaluated for it.
fn visits(filter: impl Fn(u64) -> Filter, event: &Event) -> (u64, u64) {
    let matcher = index((0..MANY).map(&filter));
    let matched = matcher.matching(event);
    assert_eq!(matched.filters, matcher.naive(event));
    // One after the other, the first few do not know yet which of their comparisons others share.
    let mut grown = Matcher::default();
    (0..MANY).for_each(|at| grown.insert(at, filter(at)));
    let grown = grown.matching(event);
    assert_eq!(grown.filters, matched.filters);
    assert!(grown.evaluated <= matched.evaluated + 2, "{} instead of {}", grown.evaluated, matched.evaluated);
    (matched.filters.len() as u64, matched.evaluated as u64)
}

#[test]
fn of_ten_thousand_filters_only_those_behind_open_gates_are_looked_at() {
    let event = event("com.example.t77", "/tenants/77/x", &[("team", "red"), ("n", "77")]);
    let kind = |at: u64| format!("com.example.t{at}");
    type Make = fn(&str, u64) -> Filter;
    let cases: [(&str, Make, (u64, u64)); 10] = [
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

fn number(at: u64) -> Filter {
    Filter::exact([("n", &*at.to_string())])
}

fn all(filters: Vec<Filter>) -> Filter {
    Filter::all(filters).expect("not deep")
}

#[test]
fn what_has_no_gate_is_evaluated_for_every_event() {
    let matcher = index([
        Filter::not(exact("x")).unwrap(),
        expression("LOWER(type) = 'y'"),
        Filter::any(vec![exact("y"), Filter::not(exact("z")).unwrap()]).unwrap(),
        exact("y"),
    ]);
    assert_eq!(
        matcher.matching(&event("y", "/s", &[])),
        Matched { filters: vec![0, 1, 2, 3], evaluated: 3, exhausted: vec![] }
    );
    assert_eq!(matcher.matching(&event("x", "/s", &[])), Matched { filters: vec![2], evaluated: 3, exhausted: vec![] });
}

#[test]
fn an_empty_index_matches_nothing() {
    assert_eq!(index([]).matching(&event("t", "/s", &[])), Matched::default());
}

#[test]
fn what_takes_more_work_than_it_may_is_told_and_holds_up_nobody_else() {
    let text = "a".repeat(crate::limits::LONGEST_VALUE);
    let mut event = event("t", "/s", &[]);
    event.set("subject", &*text).expect("a subject");
    let like = "subject LIKE '%b%'";
    let hard = || Filter::not(expression(&[like; 8].join(" OR "))).expect("not deep");
    let easy = || Filter::not(expression(like)).expect("not deep");
    let matcher = index((0..MANY).map(|at| {
        if at % 100 == 0 {
            hard()
        } else if at % 100 == 1 {
            easy()
        } else {
            exact("x")
        }
    }));
    let (mut matching, mut parts) = (matcher.begin(&event), 1);
    while !matching.go_on(&mut MOST_WORK.clone()) {
        parts += 1;
        assert!(matching.next <= parts * 4, "a part is as long as a few filters");
    }
    assert!((100..=200).contains(&parts), "{parts}");
    let matched = matching.matched();
    assert_eq!((matched.evaluated, matched.filters.len(), matched.exhausted.len()), (200, 100, 100));
    assert!(matched.exhausted.iter().all(|key| key % 100 == 0));
    assert_eq!(matched.filters, matcher.naive(&event));
}
