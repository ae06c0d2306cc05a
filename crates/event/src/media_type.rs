//! Media types of RFC 2046: whether a text is one, and whether it declares JSON.

use crate::Fault;

/// Of RFC 2045: what types, subtypes and parameters' names are made of.
fn is_token(text: &str) -> bool {
    let sign = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&byte);
    !text.is_empty() && text.bytes().all(sign)
}

/// What stands before the parameters.
pub(crate) fn essence(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim_ascii()
}

/// A type and a subtype, with parameters or without.
pub(crate) fn check(text: &str) -> Result<(), Fault> {
    let is_essence = essence(text).split_once('/').is_some_and(|(kind, sub)| is_token(kind) && is_token(sub));
    let parameters = text.find(';').map_or("", |at| &text[at..]);
    if is_essence && are_parameters(parameters) { Ok(()) } else { Err(Fault::MediaType) }
}

/// `;name=value`, any number of times; values are tokens or quoted.
fn are_parameters(mut rest: &str) -> bool {
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return true;
        }
        let Some(after) = rest.strip_prefix(';') else { return false };
        rest = after.trim_ascii_start();
        // A semicolon that nothing follows is common.
        if rest.is_empty() || rest.starts_with(';') {
            continue;
        }
        let Some((name, value)) = rest.split_once('=') else { return false };
        if !is_token(name) {
            return false;
        }
        let Some(after) = after_value(value) else { return false };
        rest = after;
    }
}

/// What follows a parameter's value.
fn after_value(text: &str) -> Option<&str> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ' ', '\t']).unwrap_or(text.len());
        return is_token(&text[..end]).then(|| &text[end..]);
    };
    let mut escaped = false;
    for (at, byte) in quoted.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return Some(&quoted[at + 1..]),
            // What a header's value cannot hold cannot travel.
            0..0x20 | 0x7f.. if byte != b'\t' => return None,
            _ => escaped = byte == b'\\' && !escaped,
        }
    }
    None
}

/// `*/json` or `*/*+json` (JSON format, section 3.1.1).
pub(crate) fn is_json(text: &str) -> bool {
    let subtype = essence(text).split_once('/').map_or("", |(_, subtype)| subtype);
    let suffix = subtype.rsplit_once('+').map_or(subtype, |(_, suffix)| suffix);
    suffix.eq_ignore_ascii_case("json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_has_a_type_a_subtype_and_well_formed_parameters() {
        let good = [
            "text/plain",
            "application/json; charset=utf-8",
            "application/json;charset=\"utf-8\" ; a=b",
            "application/vnd.a.b+json;",
            "multipart/mixed; boundary=\"a;\\\"b c\"",
        ];
        for text in good {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        let bad = [
            "",
            "text",
            "text/",
            "/plain",
            "a b/c",
            "text/plain; charset",
            "text/plain; =a",
            "t/p; a=\"b",
            "é/x",
            "a/b; c=\"é\"",
        ];
        for text in bad {
            assert_eq!(check(text), Err(Fault::MediaType), "{text}");
        }
    }

    #[test]
    fn json_is_a_subtype_or_its_suffix() {
        for text in ["application/json", "text/JSON; charset=utf-8", "application/vnd.a+json", "image/svg+xml+json"] {
            assert!(is_json(text), "{text}");
        }
        for text in ["application/xml", "application/jsonp", "json", "application/json+xml", "a/json+"] {
            assert!(!is_json(text), "{text}");
        }
    }
}
