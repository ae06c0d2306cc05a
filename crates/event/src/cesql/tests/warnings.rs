//! What is said of an expression before any event comes.

use super::{CALLED, attribute, parse};
use crate::cesql::{EvaluationError, MOST_WARNINGS};

#[test]
fn what_is_plain_gives_no_warning() {
    for text in
        ["type = 'a' AND num = 1 AND flag", "(flag AND flag) OR (flag XOR flag)", "CONCAT() = ''", "a OR b OR c"]
    {
        assert_eq!(parse(text).warnings(), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn logic_that_readers_may_group_otherwise_asks_for_parentheses() {
    let warning = "AND, OR and XOR group from the right, none before the others, so that a AND b OR c is a AND (b OR c): \
                   parentheses make sure";
    for text in ["a AND b OR c", "(a XOR b AND c) = TRUE", "ABS(a OR b OR c AND d) IN (a AND b OR c)"] {
        assert_eq!(parse(text).warnings(), [warning], "{text}");
    }
}

#[test]
fn calls_of_functions_that_there_are_not_are_told_of_wherever_they_stand() {
    let warning = "there is no function NO_SUCH of 1 arguments: to call it is an error";
    for text in [
        "no_such(1)",
        "NOT - no_such(1)",
        "LENGTH(no_such(1))",
        "1 IN (2, no_such(1))",
        "no_such(1) LIKE 'a'",
        "1 + no_such(1)",
        "1 < no_such(1) OR No_Such(2) = 5",
    ] {
        assert_eq!(parse(text).warnings(), [warning], "{text}");
    }
}

#[test]
fn a_call_gives_a_warning_where_and_only_where_it_is_an_error() {
    for name in CALLED {
        for count in 0..5 {
            let expression = parse(&format!("{name}({})", vec!["1"; count].join(",")));
            let error = expression.evaluate(&attribute).error;
            let is_missing = matches!(error, Some(EvaluationError::MissingFunction { .. }));
            assert_eq!(expression.warnings().len(), usize::from(is_missing), "{expression}");
        }
    }
}

#[test]
fn there_are_few_warnings_and_short_ones() {
    let calls = (0..1000).map(|count| format!("f{}()", "x".repeat(count % 50)));
    let warnings = parse(&calls.collect::<Vec<_>>().join(" OR ")).warnings();
    assert_eq!(warnings.len(), MOST_WARNINGS);
    let long = parse(&format!("{}()", "f".repeat(10_000))).warnings();
    assert!(long[0].chars().count() < 120, "{}", long[0]);
}
