//! Small languages: selectors, paths, templates, quantities, durations, filters of events.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};
use knoll_api::{cron, duration, quantity::Quantity, template};
use knoll_apiserver::parsers::{json_path as find, label_selector as select, selects_fields, selects_labels};
use knoll_event::{cesql, limits};
use serde_json::{Value, json};

use super::parts;
use crate::Target;

pub(super) const LABEL_SELECTOR: Target = Target {
    name: "label_selector",
    cases: 5000,
    words: &[
        " in (",
        " notin (",
        ")",
        ",",
        "=",
        "==",
        "!=",
        "!",
        ">",
        "<",
        "a",
        "tier",
        "web",
        "9223372036854775808",
        " ",
    ],
    check: label_selector,
};
pub(super) const FIELD_SELECTOR: Target = Target {
    name: "field_selector",
    cases: 1000,
    words: &["metadata.name", "spec.nodeName", "status.phase", "=", "==", "!=", ",", "\\", "\\,", "\\="],
    check: field_selector,
};
pub(super) const JSON_PATH: Target = Target {
    name: "json_path",
    cases: 5000,
    words: &[
        ".",
        "[",
        "]",
        "[*]",
        "[?(@.type=='Ready')]",
        "['",
        "']",
        "\\",
        "{",
        "}",
        "$",
        "..",
        "-1",
        "-9223372036854775808",
    ],
    check: json_path,
};
pub(super) const TEMPLATE: Target = Target {
    name: "template",
    cases: 5000,
    words: &[
        "{{",
        "}}",
        "{{-",
        "-}}",
        "{{/*",
        "*/}}",
        ".Name",
        ".Annotations",
        "$",
        "$x := ",
        "if ",
        "else",
        "end",
        "range ",
        "with ",
        "index ",
        "printf ",
        "\"%*d\"",
        "\"%099999d\"",
        "\"%s\"",
        "len ",
        "eq ",
        "and ",
        "or ",
        "not ",
        "print ",
        "println ",
        "js ",
        "html ",
        "urlquery ",
        "|",
        "(",
        ")",
        "`",
        "'",
        "0x",
        "1e9",
        "break",
        "continue",
    ],
    check: template,
};
pub(super) const QUANTITY: Target = Target {
    name: "quantity",
    cases: 5000,
    words: &[
        "Ki",
        "Mi",
        "Gi",
        "Ti",
        "Pi",
        "Ei",
        "n",
        "u",
        "m",
        "k",
        "M",
        "G",
        "T",
        "P",
        "E",
        "e",
        "e-9",
        "E+3",
        ".",
        "-",
        "+",
        "99999999999999999999",
    ],
    check: quantity,
};
pub(super) const DURATION: Target = Target {
    name: "duration",
    cases: 5000,
    words: &["ns", "us", "µs", "μs", "ms", "s", "m", "h", "-", "+", ".", "9223372036854775807", "0"],
    check: duration_text,
};

pub(super) const SCHEDULE: Target = Target {
    name: "schedule",
    cases: 5000,
    words: &[
        "*",
        "?",
        "/",
        "-",
        ",",
        " ",
        "0",
        "1",
        "29",
        "30",
        "31",
        "59",
        "feb",
        "jan",
        "sun",
        "sat",
        "TZ=",
        "CRON_TZ=",
        "UTC ",
        "Australia/Lord_Howe ",
        "@every ",
        "@hourly",
        "@yearly",
        "1h",
        "18446744073709551616",
    ],
    check: schedule,
};

pub(super) const CESQL: Target = Target {
    name: "cesql",
    cases: 5000,
    words: &[
        "AND ",
        "OR ",
        "XOR ",
        "NOT ",
        "LIKE ",
        "IN ",
        "EXISTS ",
        "TRUE",
        "FALSE",
        "type",
        "num",
        "'es%'",
        "'_\\%'",
        "\\'",
        "\"",
        "-2147483648",
        "99999999999",
        "CONCAT(",
        "CONCAT_WS(",
        "UPPER(",
        "LEFT(",
        "SUBSTRING(",
        "ABS(",
        "INT(",
        "IS_BOOL(",
        "(",
        ")",
        ",",
        "!=",
        "<>",
        "<=",
        " / ",
        "%",
        "--",
    ],
    check: cesql_expression,
};

/// A selector, or a `LabelSelector` as JSON: both forms of the same select the same.
fn label_selector(input: &[u8]) {
    let labels = json!({"a": "1", "tier": "web", "b.c/d": ""});
    let Ok(text) = str::from_utf8(input) else { return };
    if let Ok(selected) = selects_labels(text, &labels) {
        assert_eq!(selects_labels(text, &labels).expect("as before"), selected);
    }
    let Ok(object) = serde_json::from_str::<Value>(text) else { return };
    let Some((written, selected)) = select(&object, &labels) else { return };
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let keys = object["matchLabels"].as_object().into_iter().flatten();
    let of_keys = keys.map(|(key, value)| plain(key) && value.as_str().is_some_and(plain));
    let of_expressions = object["matchExpressions"].as_array().into_iter().flatten().map(|expression| {
        let values = expression["values"].as_array().map_or(&[][..], Vec::as_slice);
        let lists = matches!(expression["operator"].as_str(), Some("In" | "NotIn"));
        expression["key"].as_str().is_some_and(plain)
            && (!lists || !values.is_empty())
            && values.iter().all(|value| value.as_str().is_some_and(plain))
    });
    if of_keys.chain(of_expressions).all(|is_plain| is_plain) {
        assert_eq!(selects_labels(&written, &labels).expect("what we write is one"), selected, "{written}");
    }
}

fn field_selector(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let pod =
        json!({"metadata": {"name": "a", "namespace": "b"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
    if let Ok(selected) = selects_fields(text, &pod) {
        assert_eq!(selects_fields(&format!("{text},metadata.name=a"), &pod).expect("both are"), selected);
    }
}

/// A path, and an object where it is given.
fn json_path(input: &[u8]) {
    let mut parts = parts(input);
    let Some(Ok(path)) = parts.next().map(str::from_utf8) else { return };
    let object = parts.next().and_then(|text| serde_json::from_slice(text).ok());
    let object =
        object.unwrap_or_else(|| json!({"a": {"b": [1, {"type": "Ready", "c": "x"}]}, "metadata": {"name": "n"}}));
    find(path, &object);
}

fn template(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let Ok(parsed) = template::Template::parse(text) else { return };
    let text = |text: &str| template::Data::Text(text.to_owned());
    let annotations = template::Data::Map(BTreeMap::from([("team".to_owned(), "a".repeat(1000))]));
    let list = template::Data::List((0..100).map(template::Data::Int).collect());
    let fields = [
        ("Name", text("n")),
        ("Namespace", text("ns")),
        ("Domain", text("d")),
        ("Annotations", annotations),
        ("List", list),
    ];
    if let Ok(rendered) = parsed.render(&template::Data::Fields(BTreeMap::from(fields))) {
        assert!(rendered.len() <= template::LONGEST_OUTPUT, "{} bytes", rendered.len());
    }
}

/// Written it reads the same; what it comes to in other units is ordered as it is.
fn quantity(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let Ok(read) = Quantity::parse(text) else { return };
    let written = read.to_string();
    assert_eq!(Quantity::parse(&written).map(Quantity::nano), Ok(read.nano()), "{text:?} as {written:?}");
    let is_positive =
        text.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) && !text.starts_with('-') && !text.contains(['e', 'E']);
    assert!(!is_positive || read.nano() > 0, "{text:?} is nothing");
    assert!((read.units() > 0) == (read.nano() > 0) && (read.milli() > 0) == (read.nano() > 0), "{text:?}");
    assert!(i128::from(read.units()) <= i128::from(read.milli()).max(0) + 1 || read.nano() < 0, "{text:?}");
}

fn duration_text(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let Ok(read) = duration::parse(text) else { return };
    let written = duration::format(read);
    assert_eq!(duration::parse(&written), Ok(read), "{text:?} as {written:?}");
}

/// What is due is later, on a whole second, and whoever reads no seconds reads the same.
fn schedule(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let Ok(read) = cron::parse(text) else {
        assert!(cron::parse_standard(text).is_err(), "{text:?}");
        return;
    };
    if let Ok(standard) = cron::parse_standard(text) {
        assert_eq!(standard, read, "{text:?}");
    }
    // Half an hour is repeated there an hour later.
    let zone = cron::time_zone("Australia/Lord_Howe").unwrap_or(TimeZone::UTC);
    let mut at = Timestamp::constant(1_775_310_000, 5);
    for _ in 0..3 {
        let Some(next) = read.next_after(at, &zone) else { return };
        assert!(next > at && next.subsec_nanosecond() == 0, "{text:?}: {next} after {at}");
        at = next;
    }
}

/// Printed it reads the same; what it comes to is within its bounds, and only `true` passes.
fn cesql_expression(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let Ok(read) = cesql::Expression::parse(text) else { return };
    assert!(read.warnings().len() <= cesql::MOST_WARNINGS, "{text:?}");
    let printed = read.to_string();
    // Printed with spaces, what was as long as may be is longer.
    if printed.len() <= cesql::LONGEST_EXPRESSION {
        assert_eq!(cesql::Expression::parse(&printed).as_ref(), Ok(&read), "{text:?} as {printed:?}");
    }
    let large = "é%_".repeat(1000);
    let attribute = |name: &str| match name {
        "id" => Some(cesql::Value::from("1")),
        "type" => Some("es.t".into()),
        "num" => Some(10.into()),
        "flag" => Some(true.into()),
        "large" => Some(large.as_str().into()),
        _ => None,
    };
    let evaluation = read.evaluate(&attribute);
    if let cesql::Value::String(text) = &evaluation.value {
        assert!(text.len() <= limits::MOST_WORK, "{} bytes", text.len());
    }
    let passes = evaluation.error.is_none() && evaluation.value == true.into();
    assert_eq!(read.matches(&attribute), passes, "{printed}");
}
