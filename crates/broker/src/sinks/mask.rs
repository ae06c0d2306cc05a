//! Hides values of keys that sound secret, in JSON, XML and `key=value` alike. What is masked so is less likely to be read,
//! no more: a secret without such a key is not known to be one.

/// What a key that sounds secret holds, without regard to capitals, `-`, `_` and `.`.
const SECRET: [&str; 9] =
    ["password", "passphrase", "passwd", "secret", "token", "apikey", "accesskey", "privatekey", "credential"];
/// What stands for a value.
const MASK: &str = "xxxxx";

/// The text with the values masked.
pub(super) fn masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, key, after)) = next_key(rest) {
        out += before;
        out += key;
        rest = after;
        if !is_secret(key) {
            continue;
        }
        if let Some((between, value, end)) = value(before, after) {
            out += between;
            if !value.is_empty() {
                out += MASK;
            }
            rest = end;
        }
    }
    out + rest
}

fn is_of_key(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.')
}

/// The next word that may be a key, with what stands before and after it.
fn next_key(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_at(text.find(is_of_key)?);
    let (key, after) = rest.split_at(rest.find(|char| !is_of_key(char)).unwrap_or(rest.len()));
    Some((before, key, after))
}

fn is_secret(key: &str) -> bool {
    let key: String = key.chars().filter(char::is_ascii_alphanumeric).map(|char| char.to_ascii_lowercase()).collect();
    SECRET.iter().any(|secret| key.contains(secret))
}

/// The value of a key: what leads to it, it, and what follows it. Nothing when the word is none of a key.
fn value<'a>(before: &str, after: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
    if before.ends_with('<')
        && let Some(rest) = after.strip_prefix('>')
    {
        let end = rest.find('<').unwrap_or(rest.len());
        return Some((">", &rest[..end], &rest[end..]));
    }
    let rest = after.strip_prefix(['"', '\'']).unwrap_or(after).trim_start();
    let rest = rest.strip_prefix([':', '='])?.trim_start();
    let quote = rest.chars().next().filter(|char| matches!(char, '"' | '\''));
    let rest = &rest[quote.map_or(0, char::len_utf8)..];
    let end = match quote {
        Some(quote) => end_of_quoted(rest, quote),
        // What is nested has keys of its own.
        None if rest.starts_with(['{', '[']) => return None,
        None => rest.find(|char: char| char.is_whitespace() || ",&;}])<".contains(char)).unwrap_or(rest.len()),
    };
    Some((&after[..after.len() - rest.len()], &rest[..end], &rest[end..]))
}

fn end_of_quoted(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, char) in text.char_indices() {
        if char == quote && !is_escaped {
            return at;
        }
        is_escaped = char == '\\' && !is_escaped;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::masked;

    #[test]
    fn values_of_keys_that_sound_secret_are_masked() {
        for (text, expected) in [
            (r#"{"user":"me","password":"hunter2","n":1}"#, r#"{"user":"me","password":"xxxxx","n":1}"#),
            (r#"{"api_key" : 12345}"#, r#"{"api_key" : xxxxx}"#),
            (r#"{"clientSecret": "a\"b", "x": 1}"#, r#"{"clientSecret": "xxxxx", "x": 1}"#),
            (r#"{"secrets": {"token": "t"}}"#, r#"{"secrets": {"token": "xxxxx"}}"#),
            ("user=me&access-token=abc&x=1", "user=me&access-token=xxxxx&x=1"),
            ("<a><passPhrase>open</passPhrase></a>", "<a><passPhrase>xxxxx</passPhrase></a>"),
            ("password='two words' password=", "password='xxxxx' password="),
            ("the password is long", "the password is long"),
            ("name=password", "name=password"),
            ("ünïcode token=ä", "ünïcode token=xxxxx"),
            (r#"{"token":"#, r#"{"token":"#),
        ] {
            assert_eq!(masked(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_value_is_left_and_nothing_else_is_lost(
            before in "[^a-zA-Z<\"']{0,8}", value in "[B-Z0-9é]{3,12}", form in 0..3usize,
        ) {
            let (text, expected) = match form {
                0 => (format!("{before}{{\"password\":\"{value}\"}}"), format!("{before}{{\"password\":\"xxxxx\"}}")),
                1 => (format!("{before} token={value} after"), format!("{before} token=xxxxx after")),
                _ => (format!("{before}<secret>{value}</secret>"), format!("{before}<secret>xxxxx</secret>")),
            };
            prop_assert_eq!(masked(&text), expected);
        }

        #[test]
        fn any_text_may_come(text in "(\\PC|token|password|[\"'<>=:\\\\ ]){0,40}") {
            masked(&text);
        }
    }
}
