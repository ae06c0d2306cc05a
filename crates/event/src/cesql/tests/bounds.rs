//! That no expression takes long, goes deep or grows, whoever wrote it.

use std::thread;

use super::{Expression, Value, attribute, parse};
use crate::cesql::{EvaluationError, LONGEST_EXPRESSION, MOST_NESTED, MOST_WORK};

fn refusal(text: &str) -> String {
    Expression::parse(text).expect_err("it passes a bound").to_string()
}

#[test]
fn a_long_text_is_refused_and_the_longest_is_not() {
    let longest = format!("'{}'", "é".repeat(LONGEST_EXPRESSION / 2 - 1));
    assert_eq!(longest.len(), LONGEST_EXPRESSION);
    parse(&longest);
    assert!(refusal(&format!("{longest} ")).ends_with("an expression has at most 65536 bytes"));
    assert!(refusal(&"(".repeat(100_000)).ends_with("an expression has at most 65536 bytes"));
    assert!(refusal(&"é".repeat(100_000)).ends_with("an expression has at most 65536 bytes"));
}

#[test]
fn what_nests_too_deep_is_refused() {
    let error = "parentheses, arguments, NOT and - nest at most 128 deep";
    let nested = |open: &str, depth: usize, close: &str| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    for (open, close) in [("(", ")"), ("ABS(", ")"), ("1 IN (", ")"), ("NOT ", ""), ("- ", ""), ("1 + (", ")")] {
        parse(&nested(open, MOST_NESTED - 1, close));
        let refused = refusal(&nested(open, MOST_NESTED, close));
        assert_eq!(refused, format!("at character {}: {error}", open.len() * MOST_NESTED + 1));
        assert!(refusal(&nested(open, 5_000, close)).ends_with(error));
    }
}

#[test]
fn chains_are_as_long_as_the_text_may_be() {
    let attribute = |_: &str| Some(Value::from(1));
    for (operator, value) in [(" OR a", true), (" AND a", true), (" + a", true), (" IN (1)", true), (" LIKE '%'", true)]
    {
        let text = format!("a{}", operator.repeat(LONGEST_EXPRESSION / operator.len() - 1));
        let expression = parse(&text);
        let evaluation = expression.evaluate(&attribute);
        assert_eq!(evaluation.error, None);
        assert_eq!(evaluation.value != Value::from(0), value);
        assert_eq!(parse(&expression.to_string()), expression);
    }
}

/// Half the stack that a thread has.
#[test]
fn the_deepest_expression_fits_the_stack() {
    let deep = || {
        let open = "(NOT ".repeat((MOST_NESTED - 1) / 2);
        let close = ") LIKE '%' * 1 + 1 = 1 AND 1".repeat((MOST_NESTED - 1) / 2);
        let expression = parse(&format!("{open}TRUE{close}"));
        assert_eq!(parse(&expression.to_string()), expression);
        assert_eq!(expression.evaluate(&attribute).error, None);
    };
    thread::Builder::new().stack_size(1 << 20).spawn(deep).expect("a thread").join().expect("it fits");
}

#[test]
fn text_that_is_gone_through_is_bounded() {
    let large = "a".repeat(MOST_WORK / 4);
    let attribute = |_: &str| Some(Value::from(&*large));
    let fits = ["a = a", "CONCAT(a, a, a) != a", "LENGTH(a) > 0", "a LIKE '%b%' OR a LIKE '%_c%'"];
    for text in fits {
        let expression = parse(text);
        assert_eq!(expression.evaluate(&attribute).error, None, "{text}");
    }
    let too_much = [
        "CONCAT(a, a, a, a, a) = ''",
        "CONCAT_WS(a, 1, 2, 3, 4, 5, 6) = ''",
        "CONCAT(CONCAT(a, a), a) = ''",
        "a IN ('a', a, 'b') AND a = a AND a = a AND a = a AND a = a AND a = a",
        "a LIKE '%b' OR a LIKE '%b' OR a LIKE '%b' OR a LIKE '%b' OR a LIKE '%b'",
        "IS_INT(a) OR IS_INT(a) OR IS_INT(a) OR IS_INT(a) OR IS_INT(a)",
        "UPPER(a) = '' OR LOWER(UPPER(LOWER(TRIM(a)))) = ''",
    ];
    for text in too_much {
        let expression = parse(text);
        let evaluation = expression.evaluate(&attribute);
        assert_eq!(evaluation.error, Some(EvaluationError::Generic), "{text}");
        assert_eq!(evaluation.value, Value::from(false), "{text}");
    }
}

#[test]
fn text_that_grows_by_a_change_of_case_is_bounded_too() {
    // Each letter, two bytes, becomes three.
    let large = "\u{390}".repeat(MOST_WORK / 4);
    let attribute = |_: &str| Some(Value::from(&*large));
    let expression = parse("UPPER(a)");
    assert_eq!(expression.evaluate(&attribute).error, Some(EvaluationError::Generic));
}
