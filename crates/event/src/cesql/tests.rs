//! The rules of the language, one test each.

use super::{Expression, Value};

mod bounds;
mod functions;
mod like;
mod refusals;
mod round_trip;
mod warnings;

/// Every function, and one that there is not.
const CALLED: [&str; 16] = [
    "LENGTH",
    "CONCAT",
    "CONCAT_WS",
    "LOWER",
    "UPPER",
    "TRIM",
    "LEFT",
    "RIGHT",
    "SUBSTRING",
    "ABS",
    "INT",
    "BOOL",
    "STRING",
    "IS_INT",
    "IS_BOOL",
    "NO_SUCH",
];

/// The attributes of the events of these tests.
fn attribute(name: &str) -> Option<Value<'static>> {
    match name {
        "id" => Some("1".into()),
        "type" => Some("es.t".into()),
        "source" => Some("/es".into()),
        "num" => Some(10.into()),
        "neg" => Some((-7).into()),
        "flag" => Some(true.into()),
        "txt" => Some("a_b%c".into()),
        "uni" => Some("é".into()),
        "seq" => Some("5".into()),
        "1st" => Some("first".into()),
        _ => None,
    }
}

fn parse(text: &str) -> Expression {
    Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// That an expression comes to a value, without an error.
#[track_caller]
fn is(text: &str, value: impl Into<Value<'static>>) {
    let expression = parse(text);
    let evaluation = expression.evaluate(&attribute);
    assert_eq!((evaluation.value, evaluation.error), (value.into(), None), "{text}");
}

/// That an expression comes to a value beside an error that reads so.
#[track_caller]
fn fails(text: &str, value: impl Into<Value<'static>>, error: &str) {
    let expression = parse(text);
    let evaluation = expression.evaluate(&attribute);
    let found = evaluation.error.map(|error| error.to_string());
    assert_eq!((evaluation.value, found.as_deref()), (value.into(), Some(error)), "{text}");
    assert!(!expression.matches(&attribute), "{text}");
}

#[test]
fn literals_are_what_they_say() {
    is("'a'", "a");
    is("\"a\"", "a");
    is("''", "");
    is("'two\nlines'", "two\nlines");
    is("0", 0);
    is("007", 7);
    is("+5", 5);
    is("-5", -5);
    is("2147483647", i32::MAX);
    is("-2147483648", i32::MIN);
    is("TRUE", true);
    is("false", false);
}

#[test]
fn a_backslash_escapes_the_quote_around_it_and_nothing_else() {
    is(r"'it\'s'", "it's");
    is(r#""say \"it\"""#, "say \"it\"");
    is(r#"'say "it"'"#, "say \"it\"");
    is(r#"'say \"it\"'"#, r#"say \"it\""#);
    is(r"'a\b'", r"a\b");
    is(r"'a\\'", r"a\\");
    is(r"'a\\\'b'", r"a\\'b");
    is(r#"'it\'s' = "it's""#, true);
}

#[test]
fn keywords_and_functions_are_known_in_any_case_and_attributes_too() {
    is("tRuE aNd NoT fAlSe", true);
    is("lEnGtH(type) = 4 and type lIkE 'es%' and num iN (10) and eXiStS id", true);
    is("TYPE", "es.t");
    is("EXISTS TYPE", true);
}

#[test]
fn an_attribute_may_begin_with_a_digit() {
    is("1st", "first");
    is("CONCAT(1ST, 1st)", "firstfirst");
    fails("-1st", 0, "\"first\" is no Integer");
}

#[test]
fn attributes_keep_their_types() {
    is("num", 10);
    is("flag", true);
    is("type", "es.t");
}

#[test]
fn what_the_event_lacks_is_an_error_and_what_needs_it_returns_its_zero() {
    let error = "the event has no attribute missing";
    fails("missing", false, error);
    fails("(missing)", false, error);
    fails("missing = ''", false, error);
    fails("missing != ''", false, error);
    fails("NOT missing", false, error);
    fails("-missing", 0, error);
    fails("missing * 5", 0, error);
    fails("1 / missing", 0, error);
    fails("missing / 0", 0, error);
    fails("missing LIKE '%'", false, error);
    fails("missing NOT LIKE 'a'", false, error);
    fails("missing IN ('a')", false, error);
    fails("'a' NOT IN (missing)", false, error);
    fails("LENGTH(missing)", 0, error);
    fails("CONCAT('a', missing)", "", error);
    fails("IS_INT(missing)", false, error);
    fails("missing OR TRUE", false, error);
    fails("FALSE OR missing", false, error);
}

#[test]
fn exists_asks_and_never_fails() {
    is("EXISTS type", true);
    is("EXISTS missing", false);
    is("NOT EXISTS missing AND NOT (NOT EXISTS type)", true);
}

#[test]
fn operators_bind_as_the_specification_lists_them() {
    is("2 + 3 * 4", 14);
    is("(2 + 3) * 4", 20);
    is("2 * 3 + 4", 10);
    is("2 + 3 = 5", true);
    is("5 = 2 + 3", true);
    is("1 = 1 AND 2 = 2", true);
    is("-2 + 5", 3);
    is("- 2 + 5", 3);
    is("-num * 2", -20);
    is("NOT 0 = 5", false);
    is("NOT FALSE LIKE 'true'", true);
    is("NOT (FALSE LIKE 'true')", true);
    is("1 + 234 LIKE '23_'", 2);
    is("2 * 3 IN (3)", 2);
    is("NOT EXISTS type = FALSE", true);
}

#[test]
fn operators_of_one_precedence_apply_from_left_to_right() {
    is("10 - 3 - 2", 5);
    is("100 / 10 / 5", 2);
    is("100 / 10 * 5", 50);
    is("7 % 4 * 2", 6);
    is("3 > 2 = TRUE", true);
    is("1 = 2 = FALSE", true);
}

/// As the grammar of sdk-go has it, so that a filter means here what it meant there.
#[test]
fn and_or_and_xor_are_of_one_precedence_and_group_from_the_right() {
    is("TRUE OR TRUE AND FALSE", true);
    is("FALSE AND TRUE OR TRUE", false);
    is("TRUE OR TRUE XOR TRUE", true);
    is("FALSE AND FALSE XOR TRUE", false);
    is("type = 'x' AND num = 10 OR flag", false);
    is("(type = 'x' AND num = 10) OR flag", true);
    is("flag OR num = 10 AND type = 'x'", true);
    let (truths, operators) = ([false, true], ["AND", "OR", "XOR"]);
    let apply = |left: bool, operator: &str, right: bool| match operator {
        "AND" => left && right,
        "OR" => left || right,
        _ => left != right,
    };
    for at in 0..16 * 27 {
        let [a, b, c, d] = [0, 1, 2, 3].map(|bit| truths[at >> bit & 1]);
        let [one, two, three] = [1, 3, 9].map(|place| operators[(at / 16) / place % 3]);
        let text = format!("{a} {one} {b} {two} {c} {three} {d}");
        is(&text, apply(a, one, apply(b, two, apply(c, three, d))));
        is(&format!("{a} {one} ({b} {two} ({c} {three} {d}))"), apply(a, one, apply(b, two, apply(c, three, d))));
    }
}

#[test]
fn a_sign_is_of_the_number_where_an_operand_is_due_and_an_operator_after_one() {
    is("4 - 1", 3);
    is("4 -1", 3);
    is("4-1", 3);
    is("4+1", 5);
    is("4 - -1", 5);
    is("4--1", 5);
    is("num-1", 9);
    is("--10", 10);
    is("- - 10", 10);
    is("-'10'", -10);
    is("-TRUE", -1);
}

#[test]
fn and_and_or_evaluate_no_more_than_they_need() {
    is("FALSE AND missing", false);
    is("TRUE OR missing", true);
    is("FALSE AND missing OR missing", false);
    is("TRUE XOR TRUE OR missing", false);
    is("TRUE OR missing AND missing", true);
    is("FALSE AND (1 != 1 / 0)", false);
    fails("FALSE OR missing AND missing", false, "the event has no attribute missing");
    fails("TRUE AND (1 != 1 / 0)", false, "1 / 0 has no result of 32 bits");
    fails("TRUE XOR missing", false, "the event has no attribute missing");
    fails("FALSE XOR missing", false, "the event has no attribute missing");
}

#[test]
fn logic_is_as_its_tables_say() {
    for (left, right) in [(false, false), (false, true), (true, false), (true, true)] {
        is(&format!("{left} AND {right}"), left && right);
        is(&format!("{left} OR {right}"), left || right);
        is(&format!("{left} XOR {right}"), left != right);
    }
}

#[test]
fn comparisons_order_numbers() {
    for (operator, below, same, above) in [
        ("=", false, true, false),
        ("!=", true, false, true),
        ("<>", true, false, true),
        ("<", true, false, false),
        ("<=", true, true, false),
        (">", false, false, true),
        (">=", false, true, true),
    ] {
        is(&format!("1 {operator} 2"), below);
        is(&format!("2 {operator} 2"), same);
        is(&format!("3 {operator} 2"), above);
    }
    is("'9' < '10'", true);
    fails("'a' < 'b'", false, "\"a\" is no Integer");
}

#[test]
fn an_equality_takes_the_type_of_its_right_side() {
    is("seq = 5", true);
    is("5 = seq", true);
    is("seq = '05'", false);
    is("'05' = 5", true);
    is("5 = '05'", false);
    is("'TRUE' = TRUE", true);
    is("TRUE = 'TRUE'", false);
    is("TRUE = 'true'", true);
    is("2 = TRUE", true);
    is("TRUE = 2", false);
    is("TRUE = 1", true);
    is("'abc' = 'ABC'", false);
    fails("type = 5", false, "\"es.t\" is no Integer");
    fails("type != 5", false, "\"es.t\" is no Integer");
    fails("type = TRUE", false, "\"es.t\" is no Boolean");
}

#[test]
fn a_set_is_cast_to_the_type_of_what_is_looked_for() {
    is("num IN (1, 10)", true);
    is("num IN ('10')", true);
    is("num IN ('010')", true);
    is("'1' IN (1, 2)", true);
    is("'01' IN (1, 2)", false);
    is("'TRUE' IN (TRUE)", false);
    is("TRUE IN ('TRUE')", true);
    is("type IN ('ES.T')", false);
    is("type IN (source, CONCAT('es', '.t'))", true);
    is("type NOT IN ('a', 'b')", true);
    is("num IN (10, missing)", true);
    fails("num IN ('a', 10)", false, "\"a\" is no Integer");
    fails("num NOT IN ('a', 10)", false, "\"a\" is no Integer");
}

#[test]
fn tests_may_be_asked_of_the_answers_of_tests() {
    is("type LIKE 'es%' LIKE 'tr%'", true);
    is("type LIKE 'es%' NOT IN (FALSE) IN (TRUE)", true);
    is("num IN (10) LIKE 'false'", false);
}

#[test]
fn arithmetic_is_of_32_bits_and_says_when_it_is_not_enough() {
    is("5 / 3", 1);
    is("-5 / 3", -1);
    is("5 % 3", 2);
    is("-5 % 3", -2);
    is("5 % -3", 2);
    is("5 + TRUE", 6);
    is("'5' * '3'", 15);
    is("-2147483648 % -1", 0);
    fails("5 / 0", 0, "5 / 0 has no result of 32 bits");
    fails("5 % 0", 0, "5 % 0 has no result of 32 bits");
    fails("2147483647 + 1", 0, "2147483647 + 1 has no result of 32 bits");
    fails("-2147483648 - 1", 0, "-2147483648 - 1 has no result of 32 bits");
    fails("65536 * 65536", 0, "65536 * 65536 has no result of 32 bits");
    fails("-2147483648 / -1", 0, "-2147483648 / -1 has no result of 32 bits");
    fails("--2147483648", 0, "-(-2147483648) has no result of 32 bits");
    fails("'a' + 1", 0, "\"a\" is no Integer");
    fails("1 + 1 / 0 + 1", 0, "1 / 0 has no result of 32 bits");
}

#[test]
fn casts_are_as_their_table_says() {
    is("INT('+5')", 5);
    is("INT('-05')", -5);
    is("INT(TRUE) + INT(FALSE)", 1);
    is("BOOL('tRuE') AND NOT BOOL('False')", true);
    is("BOOL(100) AND BOOL(-1) AND NOT BOOL(0)", true);
    is("NOT 10", false);
    is("STRING(-5)", "-5");
    is("STRING(TRUE)", "true");
    is("STRING(FALSE)", "false");
    for text in ["", " 5", "5 ", "-", "+", "1.0", "0x1", "1_000", "2147483648", "-2147483649", "\u{661}"] {
        fails(&format!("INT('{text}')"), 0, &format!("{text:?} is no Integer"));
        is(&format!("IS_INT('{text}')"), false);
    }
    for text in ["", "yes", "1", " true", "t"] {
        fails(&format!("BOOL('{text}')"), false, &format!("{text:?} is no Boolean"));
        is(&format!("IS_BOOL('{text}')"), false);
    }
    is("IS_INT('5') AND IS_INT(5) AND IS_INT(TRUE)", true);
    is("IS_BOOL('true') AND IS_BOOL(5) AND IS_BOOL(TRUE)", true);
}

#[test]
fn only_true_passes_a_filter() {
    for text in ["TRUE", "type = 'es.t'", "BOOL(1)", "flag"] {
        assert!(parse(text).matches(&attribute), "{text}");
    }
    for text in ["FALSE", "1", "'true'", "num", "type", "ABS(num)", "missing", "TRUE AND missing"] {
        assert!(!parse(text).matches(&attribute), "{text}");
    }
}

#[test]
fn rules_work_together_in_the_filters_that_people_write() {
    for text in [
        "type like 'es%' and exists num",
        "UPPER(type) = 'ES.T' AND LEFT(type, 2) = 'es' AND RIGHT(type, 1) = 't' AND SUBSTRING(type, 4) = 't'",
        "IS_INT(num) AND NOT IS_INT(type)",
        "CONCAT(type, '-', num) = 'es.t-10'",
        "(type = 'a' OR type = 'es.t') AND NOT (source LIKE 'http%')",
        "(EXISTS missing AND missing = 'x') OR type = 'es.t'",
    ] {
        assert!(parse(text).matches(&attribute), "{text}");
    }
    for text in ["INT(type) = 0", "LEFT(type, -1) = 'es.t'", "NOT type = 'a'", "missing != 'x'"] {
        assert!(!parse(text).matches(&attribute), "{text}");
    }
}

#[test]
fn a_text_that_nothing_changes_is_not_copied() {
    use std::borrow::Cow;
    let expressions = ["type", "TRIM(type)", "LOWER(type)", "LEFT(type, 2)", "RIGHT(type, 2)", "SUBSTRING(type, 2, 1)"];
    for text in expressions.into_iter().chain(["CONCAT(type)", "STRING(type)", "'literal'"]) {
        let expression = parse(text);
        let evaluation = expression.evaluate(&attribute);
        assert!(matches!(evaluation.value, Value::String(Cow::Borrowed(_))), "{text}");
    }
}
