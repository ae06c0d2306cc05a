//! Which events a Trigger lets through, and which filters are refused.

use knoll_e2e::{Namespace, Sink};
use serde_json::{Value, json};

use super::{at, broker, by_path, refused, take, trigger_object};

/// Sends one event to Triggers with these filters, each with whether it lets the event through, and compares.
fn compare(prefix: &str, event: Value, filters: &[(bool, Value)]) {
    let space = Namespace::new(prefix);
    let sink = Sink::open();
    let trigger = |(index, (_, filter)): (usize, &(bool, Value))| {
        trigger_object(&format!("t{index}"), filter.clone(), &at(&sink, &index.to_string()))
    };
    let last = trigger_object("last", json!({}), &at(&sink, "last"));
    let triggers: Vec<Value> = filters.iter().enumerate().map(trigger).chain([last]).collect();
    let place = broker(&space, &triggers);
    take(&place, "1", event);
    // Whoever gets the first has it before the second is given to everybody.
    let passing = filters.iter().filter(|(passes, _)| *passes).count();
    sink.wait_for(passing + 1);
    place.take("2", "something-else");
    knoll_e2e::until("the second event", || (by_path(&sink).get("/last") == Some(&2)).then_some(()));
    let counts: Vec<String> = sink
        .received()
        .iter()
        .filter(|received| received.attribute("id") == "1")
        .map(|received| received.path.clone())
        .collect();
    for (index, (passes, filter)) in filters.iter().enumerate() {
        let count = counts.iter().filter(|path| **path == format!("/{index}")).count();
        assert_eq!(count, usize::from(*passes), "{filter}");
    }
}

#[test]
fn filters_mean_what_the_dialects_say() {
    compare(
        "dialects",
        json!({"priority": 5}),
        &[
            (true, json!({"filter": {"attributes": {"type": "nope"}}, "filters": [{"exact": {"type": "es.t"}}]})),
            (false, json!({"filter": {"attributes": {"type": "nope"}}, "filters": []})),
            (true, json!({"filters": [{"not": {"exact": {"subject": "x"}}}]})),
            (false, json!({"filters": [{"exact": {"subject": "x"}}]})),
            (true, json!({"filters": [{"any": [{"exact": {"type": "a"}}, {"prefix": {"type": "es."}}]}]})),
            (false, json!({"filters": [{"prefix": {"type": "es."}}, {"suffix": {"type": ".created"}}]})),
            (true, json!({"filters": [{"suffix": {"type": ".t", "source": "es"}}]})),
            (
                true,
                json!({"filters": [{"all": [
                    {"not": {"any": [{"exact": {"type": "a"}}, {"exact": {"type": "b"}}]}}, {"suffix": {"source": "s"}}]}]}),
            ),
            (true, json!({"filters": [{"exact": {"priority": "5"}}]})),
            (false, json!({"filters": [{"exact": {"priority": "05"}}]})),
        ],
    );
}

#[test]
fn expressions_mean_what_cesql_says() {
    let cases = [
        (true, "num = 10"),
        (true, "num = '10'"),
        (true, "num > 9 AND num <= 10 AND num <> 11"),
        (true, "seq + 1 = 6"),
        (true, "7 / 2 = 3"),
        (true, "-7 / 2 = -3"),
        (true, "-7 % 3 = -1"),
        (true, "5 + 3 * 2 = 11 AND (5 + 3) * 2 = 16"),
        (false, "2147483647 + 1 > 0"),
        (true, "flag = TRUE"),
        (true, "flag = 'true'"),
        (true, r"txt LIKE 'a\_b\%c'"),
        (false, r"txt LIKE 'a\_b\%'"),
        (true, "txt LIKE 'a_b%'"),
        (false, "'esxt' LIKE 'es.t'"),
        (true, "'.ab.cde.' LIKE '.%.%.'"),
        (true, "'' LIKE ''"),
        (true, "234 LIKE '23_'"),
        (true, "num IN (1, 10)"),
        (true, "num IN ('10')"),
        (false, "type IN ('ES.T')"),
        (true, "type like 'es%' and exists num"),
        (true, "LENGTH(type) = 4"),
        (true, "LENGTH(uni) = 1"),
        (true, "UPPER(type) = 'ES.T' AND LEFT(type, 2) = 'es' AND RIGHT(type, 1) = 't' AND SUBSTRING(type, 4) = 't'"),
        (false, "LEFT(type, -1) = 'es.t'"),
        (false, "INT(type) = 0"),
        (true, "IS_INT(num) AND NOT IS_INT(type)"),
        (true, "ABS(neg) = 7"),
        (true, "CONCAT(type, '-', num) = 'es.t-10'"),
        (true, r#"'it\'s' = "it's""#),
    ];
    let filters: Vec<(bool, Value)> =
        cases.iter().map(|(passes, cesql)| (*passes, json!({"filters": [{"cesql": cesql}]}))).collect();
    compare("cesql", json!({"seq": "5", "num": 10, "neg": -7, "flag": true, "txt": "a_b%c", "uni": "é"}), &filters);
}

#[test]
fn filters_that_are_none_are_refused() {
    let space = Namespace::new("no-filter");
    let refused =
        |filters: Value| refused(&space, &trigger_object("t", json!({"filters": filters}), "http://x.example/"));
    let said = refused(json!([{"and": [{"exact": {"type": "a"}}]}]));
    assert!(said.contains(r#"unknown field "spec.filters[0].and""#), "{said}");
    let said = refused(json!([{"not": [{"exact": {"type": "a"}}]}]));
    assert!(said.contains("spec.filters[0].not"), "{said}");
    let said = refused(json!([{"exact": {"type": "a"}, "prefix": {"type": "b"}}]));
    assert!(said.contains("multiple dialects found, filters can have only one dialect set"), "{said}");
    let said = refused(json!([{"any": [{"exact": {"Type": "a"}}]}]));
    assert!(said.contains(r#"invalid key name "Type": spec.filters[0].any[0].exact[Type]"#), "{said}");
    for cesql in [
        "type == 'es.t'",
        "type =",
        "LIKE 'x'",
        "type LIKE source",
        "LENGTH(",
        "'abc",
        "type = 'a' AND",
        "type = 'a' && id = 'b'",
        "99999999999 > 1",
    ] {
        let said = refused(json!([{"cesql": cesql}]));
        assert!(said.contains(&format!("invalid value: {cesql}: spec.filters[0].cesql")), "{said}");
    }
}
