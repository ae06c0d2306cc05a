//! The functions on text and numbers.

use super::{fails, is};

#[test]
fn length_counts_characters() {
    is("LENGTH('')", 0);
    is("LENGTH('abc')", 3);
    is("LENGTH(uni)", 1);
    is("LENGTH('日本語')", 3);
    is("LENGTH(TRUE)", 4);
    is("LENGTH(-10)", 3);
}

#[test]
fn concat_joins_whatever_it_is_given() {
    is("CONCAT()", "");
    is("CONCAT('a')", "a");
    is("CONCAT(type, '-', num, flag)", "es.t-10true");
}

#[test]
fn concat_ws_puts_its_separator_between_and_nowhere_else() {
    is("CONCAT_WS(',')", "");
    is("CONCAT_WS(',', 'a')", "a");
    is("CONCAT_WS(',', 'a', '', 'b')", "a,,b");
    is("CONCAT_WS(0, 1, 2)", "102");
    fails("CONCAT_WS()", false, "there is no function CONCAT_WS of 0 arguments");
}

#[test]
fn case_is_changed_beyond_ascii() {
    is("LOWER('AbC-1')", "abc-1");
    is("UPPER('AbC-1')", "ABC-1");
    is("LOWER('É')", "é");
    is("UPPER(uni)", "É");
    is("UPPER(type)", "ES.T");
}

#[test]
fn trim_takes_off_white_space_of_unicode_at_both_ends() {
    is("TRIM('  a b  ')", "a b");
    is("TRIM('\t\r\n\u{a0}\u{3000}a\u{2003}')", "a");
    is("TRIM('   ')", "");
    is("TRIM('\u{0}a\u{200b}')", "\u{0}a\u{200b}");
    is("TRIM(CONCAT(' ', 'a', ' '))", "a");
}

#[test]
fn left_and_right_take_characters_from_the_ends() {
    is("LEFT('abc', 2)", "ab");
    is("LEFT('abc', 3)", "abc");
    is("LEFT('abc', 10)", "abc");
    is("LEFT('abc', 0)", "");
    is("LEFT('éa', 1)", "é");
    is("RIGHT('abc', 2)", "bc");
    is("RIGHT('abc', 3)", "abc");
    is("RIGHT('abc', 10)", "abc");
    is("RIGHT('abc', 0)", "");
    is("RIGHT('aé', 1)", "é");
    is("LEFT(CONCAT('ab', 'cd'), 3)", "abc");
    is("RIGHT(CONCAT('ab', 'cd'), 3)", "bcd");
}

#[test]
fn left_and_right_return_the_text_beside_their_error() {
    fails("LEFT('abc', -2)", "abc", "LEFT takes no negative number of characters: -2");
    fails("RIGHT('abc', -2)", "abc", "RIGHT takes no negative number of characters: -2");
    // What was returned beside an error is nothing to what would have gone on with it.
    fails("LEFT('abc', -2) = 'abc'", false, "LEFT takes no negative number of characters: -2");
    fails("LENGTH(LEFT('abc', -2))", 0, "LEFT takes no negative number of characters: -2");
    fails("LEFT(type, 'x')", "", "\"x\" is no Integer");
}

#[test]
fn substring_counts_from_one_and_from_the_end() {
    is("SUBSTRING('abcdef', 1)", "abcdef");
    is("SUBSTRING('abcdef', 6)", "f");
    is("SUBSTRING('abcdef', -6)", "abcdef");
    is("SUBSTRING('abcdef', -1)", "f");
    is("SUBSTRING('abcdef', 0)", "");
    is("SUBSTRING('', 0)", "");
    is("SUBSTRING('éàü', 2)", "àü");
    is("SUBSTRING('éàü', -2)", "àü");
    is("SUBSTRING('abcdef', 2, 4)", "bcde");
    is("SUBSTRING('abcdef', -5, 3)", "bcd");
    is("SUBSTRING('abcdef', 3, 0)", "");
    is("SUBSTRING('abcdef', 3, 100)", "cdef");
    is("SUBSTRING('abcdef', 0, 1)", "");
    is("SUBSTRING('éàü', 2, 1)", "à");
}

#[test]
fn substring_refuses_what_is_outside_of_the_text() {
    for position in [7, -7, i32::MAX, i32::MIN] {
        let error = format!("SUBSTRING has no such position in the text: {position}");
        fails(&format!("SUBSTRING('abcdef', {position})"), "", &error);
        fails(&format!("SUBSTRING('abcdef', {position}, 1)"), "", &error);
    }
    fails("SUBSTRING('', 1)", "", "SUBSTRING has no such position in the text: 1");
    fails("SUBSTRING('', -1)", "", "SUBSTRING has no such position in the text: -1");
    fails("SUBSTRING('abc', 1, -1)", "", "SUBSTRING takes no negative length: -1");
    fails("SUBSTRING('abc', 0, -1)", "", "SUBSTRING takes no negative length: -1");
}

#[test]
fn abs_has_no_counterpart_of_the_least_number() {
    is("ABS(neg)", 7);
    is("ABS('-7')", 7);
    is("ABS(0)", 0);
    fails("ABS(-2147483648)", i32::MAX, "ABS(-2147483648) has no result of 32 bits");
    fails("ABS(-2147483648) + 1", 0, "ABS(-2147483648) has no result of 32 bits");
}

#[test]
fn a_function_that_there_is_not_is_an_error_when_it_is_called() {
    fails("no_such(missing)", false, "there is no function NO_SUCH of 1 arguments");
    fails("ABS()", false, "there is no function ABS of 0 arguments");
    fails("ABS(1, 2)", false, "there is no function ABS of 2 arguments");
    fails("SUBSTRING('a')", false, "there is no function SUBSTRING of 1 arguments");
    fails("1 + ABS()", 0, "there is no function ABS of 0 arguments");
    is("TRUE OR no_such()", true);
}
