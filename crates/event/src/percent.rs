//! Values of attributes in headers (HTTP binding, section 3.1.3.2), of senders that encode them and of those that do not.

use std::borrow::Cow;

/// One byte as `%XY`.
pub(crate) fn escape(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// What need not be encoded: printable ASCII but the space, the quote and the percent sign.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'"' && byte != b'%'
}

/// Whether a text is the value of a header as it stands.
pub(crate) fn is_encoded(text: &str) -> bool {
    text.bytes().all(is_plain)
}

/// A text as the value of a header.
pub(crate) fn encode(text: &str) -> Cow<'_, str> {
    if is_encoded(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if is_plain(byte) { out.push(char::from(byte)) } else { escape(byte, &mut out) }
    }
    Cow::Owned(out)
}

/// The text that a value stands for, of a sender that encodes: out of its quotes, then percent-decoded once. `None` when
/// such a sender could not have written it: it holds what has to be encoded, a percent sign that begins no escape, an
/// escape of what needs none, or bytes that are no UTF-8.
pub(crate) fn decode(value: &[u8]) -> Option<Cow<'_, str>> {
    match unquoted(value) {
        Cow::Borrowed(inner) if inner.len() == value.len() => unescaped(value, is_plain),
        // Between quotes nothing has to be encoded but what no header holds.
        Cow::Borrowed(inner) => unescaped(inner, |_| true),
        Cow::Owned(inner) => unescaped(&inner, |_| true).map(|text| Cow::Owned(text.into_owned())),
    }
}

fn unescaped(value: &[u8], may_stand: impl Fn(u8) -> bool) -> Option<Cow<'_, str>> {
    if !value.contains(&b'%') {
        let stands = value.iter().all(|byte| may_stand(*byte));
        return if stands { str::from_utf8(value).ok().map(Cow::Borrowed) } else { None };
    }
    let digit = |at: usize| value.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        if value[at] == b'%' {
            let byte = u8::try_from(digit(at + 1)? << 4 | digit(at + 2)?).expect("two digits of four bits");
            if is_plain(byte) {
                return None;
            }
            out.push(byte);
            at += 3;
        } else if may_stand(value[at]) {
            out.push(value[at]);
            at += 1;
        } else {
            return None;
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// What stands in double quotes, when all of it does; a backslash takes the next sign as it is.
fn unquoted(value: &[u8]) -> Cow<'_, [u8]> {
    let [b'"', inner @ .., b'"'] = value else { return Cow::Borrowed(value) };
    if !inner.contains(&b'\\') && !inner.contains(&b'"') {
        return Cow::Borrowed(inner);
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut signs = inner.iter();
    while let Some(sign) = signs.next() {
        match (sign, sign == &b'\\') {
            (_, true) => match signs.next() {
                Some(next) => out.push(*next),
                // The closing quote was an escaped one.
                None => return Cow::Borrowed(value),
            },
            (b'"', _) => return Cow::Borrowed(value),
            (other, _) => out.push(*other),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_specifications_example_is_encoded_and_decoded() {
        assert_eq!(encode("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(decode(b"Euro%20%E2%82%AC%20%f0%9F%98%80").as_deref(), Some("Euro € 😀"));
    }

    #[test]
    fn quotes_are_taken_off_and_escapes_within_them_undone() {
        let cases = [
            (&b"\"a b\""[..], "a b"),
            (b"\"a \\\"b\\\" \\\\\"", "a \"b\" \\"),
            (b"\"%E2%82%AC%20\"", "€ "),
            (b"\"\"", ""),
        ];
        for (value, text) in cases {
            assert_eq!(decode(value).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_no_encoder_writes_is_told() {
        let values =
            ["a b", "Euro €", "100%", "%zz", "%2", "a%2Fb", "%41", "\"", "a\"b\"", "\"a\"b\"", "\"a\\\"", "\"%41\""];
        for value in values {
            assert_eq!(decode(value.as_bytes()), None, "{value}");
        }
        for value in [&b"%C3%28"[..], b"%C0%A0", b"%ED%A0%80", b"\xff", b"\"%ff\""] {
            assert_eq!(decode(value), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in ".*") {
            let encoded = encode(&text);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(decode(encoded.as_bytes()).map(Cow::into_owned), Some(text.clone()));
        }
    }
}
