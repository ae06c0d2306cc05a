//! What is no expression, and what is said of it.

use super::Expression;

#[track_caller]
fn refused(text: &str, error: &str) {
    let found = Expression::parse(text).map(|expression| expression.to_string());
    assert_eq!(found.map_err(|error| error.to_string()), Err(error.to_owned()), "{text}");
}

const OPERAND: &str = "a value, an attribute, a function or (";

#[test]
fn where_an_operand_is_due_nothing_else_will_do() {
    refused("", &format!("at character 1: expected {OPERAND}, found the end"));
    refused("type =", &format!("at character 7: expected {OPERAND}, found the end"));
    refused("type = 'a' AND", &format!("at character 15: expected {OPERAND}, found the end"));
    refused("LIKE 'x'", &format!("at character 1: expected {OPERAND}, found LIKE"));
    refused("LENGTH(", &format!("at character 8: expected {OPERAND}, found the end"));
    refused("LENGTH(a,)", &format!("at character 10: expected {OPERAND}, found )"));
    refused("()", &format!("at character 2: expected {OPERAND}, found )"));
    refused("a IN ()", &format!("at character 7: expected {OPERAND}, found )"));
    refused("NOT", &format!("at character 4: expected {OPERAND}, found the end"));
    refused("a = * b", &format!("at character 5: expected {OPERAND}, found *"));
    refused("'é' = AND", &format!("at character 7: expected {OPERAND}, found AND"));
    refused("+ 5", "at character 3: expected digits right after a sign +, found 5");
    refused("+a", "at character 2: expected digits right after a sign +, found a");
}

#[test]
fn after_an_operand_there_is_an_operator_or_the_end() {
    refused("a b", "at character 3: expected an operator or the end, found b");
    refused("a 'b'", "at character 3: expected an operator or the end, found 'b'");
    refused("a)", "at character 2: expected an operator or the end, as no parenthesis is open, found )");
    refused("(a", "at character 3: expected an operator or ), found the end");
    refused("(a b)", "at character 4: expected an operator or ), found b");
    refused("ABS(1", "at character 6: expected an operator, a comma or ), found the end");
    refused("ABS(1 2)", "at character 7: expected an operator, a comma or ), found 2");
    refused("a NOT = b", "at character 7: expected LIKE or IN after NOT, found =");
    refused("a EXISTS b", "at character 3: expected an operator or the end, found EXISTS");
    let long = "x".repeat(100);
    let shown = "x".repeat(40);
    refused(&format!("a {long}"), &format!("at character 3: expected an operator or the end, found {shown}…"));
}

#[test]
fn what_other_languages_write_is_answered_with_what_this_one_does() {
    refused("a == 'b'", "at character 4: expected a value, as equality is written with one =, found =");
    refused("a && b", "at character 3: nothing begins with '&'; conditions are joined by AND");
    refused("a || b", "at character 3: nothing begins with '|'; conditions are joined by OR");
    refused("!a", "at character 1: nothing begins with '!'; a condition is turned round by NOT");
    refused("'it''s'", r"at character 4: within text a ' is written \'");
    refused(
        "a.b",
        "at character 2: nothing begins with '.'; numbers are whole, and attribute names have letters and digits only",
    );
    refused("a = ’b’", "at character 5: nothing begins with '’'; text stands between ' or \"");
    refused("a = $b", "at character 5: nothing begins with '$'");
    refused("a\u{a0}= 1", "at character 2: nothing begins with '\\u{a0}'");
}

#[test]
fn a_pattern_is_a_literal() {
    let expected = "expected a pattern between quotes after LIKE";
    refused("type LIKE source", &format!("at character 11: {expected}, found source"));
    refused("type LIKE 123", &format!("at character 11: {expected}, found 123"));
    refused("type LIKE", &format!("at character 10: {expected}, found the end"));
    refused("type LIKE ('a')", &format!("at character 11: {expected}, found ("));
    refused("type IN 'a'", "at character 9: expected ( and the values of a set after IN, found 'a'");
}

#[test]
fn text_ends_with_the_quote_that_it_begins_with() {
    refused("'abc", "at character 1: the text that begins here does not end with '");
    refused("a = \"abc'", "at character 5: the text that begins here does not end with \"");
    refused(r"'abc\'", "at character 1: the text that begins here does not end with '");
}

#[test]
fn numbers_have_32_bits() {
    let error = "numbers are from -2147483648 to 2147483647";
    refused("99999999999 > 1", &format!("at character 1: {error}"));
    refused("2147483648", &format!("at character 1: {error}"));
    refused("1 + -2147483649", &format!("at character 5: {error}"));
    refused("- 2147483648", &format!("at character 3: {error}"));
}

#[test]
fn names_are_of_their_characters() {
    let attribute = "is no name of an attribute: those have letters and digits only";
    refused("my_ext = 1", &format!("at character 1: my_ext {attribute}"));
    refused("EXISTS my_ext", &format!("at character 8: my_ext {attribute}"));
    let function = "is no name of a function: those have letters and underscores only, a letter first";
    refused("abs2(1)", &format!("at character 1: abs2 {function}"));
    refused("_abs(1)", &format!("at character 1: _abs {function}"));
    refused("EXISTS 'a'", "at character 8: expected the name of an attribute after EXISTS, found 'a'");
    refused("EXISTS 5", "at character 8: expected the name of an attribute after EXISTS, found 5");
    refused("EXISTS (a)", "at character 8: expected the name of an attribute after EXISTS, found (");
    refused("TRUE(1)", "at character 5: expected an operator or the end, found (");
}
