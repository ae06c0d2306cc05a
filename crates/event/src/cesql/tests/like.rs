//! Patterns.

use proptest::prelude::*;

use super::is;
use crate::cesql::pattern::{LONGEST_GAPPED, Pattern};

fn matches(pattern: &str, text: &str) -> bool {
    Pattern::parse(pattern).expect("a pattern").matches(text)
}

#[test]
fn a_pattern_is_of_the_whole_text() {
    is("'' LIKE ''", true);
    is("'a' LIKE ''", false);
    is("'' LIKE 'a'", false);
    is("type LIKE 'es.t'", true);
    is("type LIKE 's.t'", false);
    is("type LIKE 'es.'", false);
    is("type LIKE 'ES.T'", false);
    is("'esxt' LIKE 'es.t'", false);
    is("type NOT LIKE 'es.t'", false);
}

#[test]
fn a_percent_sign_is_any_text() {
    is("'' LIKE '%'", true);
    is("'' LIKE '%%%'", true);
    is("type LIKE '%'", true);
    is("type LIKE 'es%' AND type LIKE '%.t' AND type LIKE '%s.%'", true);
    is("'.ab.cde.' LIKE '.%.%.'", true);
    is("'ab' LIKE 'ab%ab'", false);
    is("'abab' LIKE 'ab%ab'", true);
    is("'aXbXa' LIKE 'a%b%a'", true);
    is("'mississippi' LIKE '%iss%ip%'", true);
    is("'mississippi' LIKE '%iss%iss%iss%'", false);
    // The text may hold the character itself.
    is("'a%xb' LIKE 'a%b'", true);
}

#[test]
fn an_underscore_is_one_character() {
    is("234 LIKE '23_'", true);
    is("2344 LIKE '23_'", false);
    is("uni LIKE '_'", true);
    is("'' LIKE '_'", false);
    is("'abcXdef' LIKE '%c_d%'", true);
    is("'abcXYdef' LIKE '%c_d%'", false);
    is("'aaxb' LIKE '%a_b'", true);
    is("'aab' LIKE '%a_b%_'", false);
    is("'xxaxb' LIKE '_%a_b%'", true);
    is("'日本語' LIKE '%_語'", true);
}

#[test]
fn a_backslash_escapes_what_stands_for_others_and_is_itself_before_all_else() {
    is(r"txt LIKE 'a\_b\%c'", true);
    is(r"'axb%c' LIKE 'a\_b\%c'", false);
    is(r"'a_bxc' LIKE 'a\_b\%c'", false);
    is(r"'ab\c' LIKE 'ab\c'", true);
    is(r"'\x' LIKE '\%'", false);
    is(r"'%' LIKE '\%'", true);
    is(r"'abc%' LIKE '%\%'", true);
    is(r#""it's" LIKE 'it\'s'"#, true);
    assert!(matches(r"\\%", r"\%"));
    assert!(!matches(r"\\%", r"\\abc"));
    assert!(matches(r"a\", r"a\"));
}

#[test]
fn what_is_no_text_is_made_one() {
    is("flag LIKE 'tr%'", true);
    is("neg LIKE '-_'", true);
}

#[test]
fn a_gap_in_the_middle_of_a_pattern_is_bounded_and_one_at_its_ends_is_not() {
    let longest = "_".repeat(LONGEST_GAPPED - 1) + "a";
    let text = "b".repeat(1000) + "a";
    assert!(matches(&format!("%{longest}%"), &text));
    assert!(Pattern::parse(&format!("%_{longest}%")).is_err());
    assert!(matches(&format!("_{longest}%"), &text[text.len() - LONGEST_GAPPED - 1..]));
    assert!(matches(&format!("%_{longest}"), &text));
    assert!(matches(&format!("%{}%", "b".repeat(500)), &text));
}

/// A pattern and a text as the definition has it: each way to share out the text is tried.
fn by_definition(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        (['%', rest @ ..], _) => (0..=text.len()).any(|taken| by_definition(rest, &text[taken..])),
        (['\\', escaped @ ('%' | '_'), rest @ ..], [first, others @ ..]) => {
            escaped == first && by_definition(rest, others)
        }
        (['\\', '%' | '_', ..], []) => false,
        (['_', rest @ ..], [_, others @ ..]) => by_definition(rest, others),
        ([plain, rest @ ..], [first, others @ ..]) => plain == first && by_definition(rest, others),
        _ => false,
    }
}

proptest! {
    #[test]
    fn patterns_match_what_their_definition_says(pattern in r"[ab%_\\é]{0,10}", text in r"[ab%_\\é]{0,10}") {
        let characters = |text: &str| text.chars().collect::<Vec<char>>();
        prop_assert_eq!(matches(&pattern, &text), by_definition(&characters(&pattern), &characters(&text)));
    }
}
