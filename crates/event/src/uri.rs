//! URI references of RFC 3986.
//!
//! What no URI may hold, but senders write (spaces, letters beyond ASCII), is percent-encoded on the way in: such an event
//! is worth keeping, and what leaves obeys the RFC. What has no such reading is refused.

use std::fmt;

use crate::{Fault, limits};

/// A URI, or one relative to where it is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UriReference(Box<str>);

/// An absolute one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uri(UriReference);

/// What may stand in one as it is, but for `%` and `#`.
const fn is_plain(byte: u8) -> bool {
    /// A bit for each byte.
    const PLAIN: [u64; 4] = {
        let mut plain = [0; 4];
        let signs = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:/?[]@!$&'()*+,;=";
        let mut at = 0;
        while at < signs.len() {
            plain[(signs[at] / 64) as usize] |= 1_u64 << (signs[at] % 64);
            at += 1;
        }
        plain
    };
    PLAIN[(byte / 64) as usize] & 1 << (byte % 64) != 0
}

/// Where the scheme ends, when there is one: a colon before any slash, question mark or hash.
fn scheme(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    bytes.iter().position(|byte| matches!(byte, b':' | b'/' | b'?' | b'#')).filter(|at| bytes[*at] == b':')
}

impl UriReference {
    /// Reads one.
    ///
    /// # Errors
    /// When no percent-encoding makes one of it, or a longer one than [`limits::LONGEST_VALUE`].
    pub fn parse(text: &str) -> Result<Self, Fault> {
        Self::of(text.into())
    }

    /// The same of a text that is nobody else's.
    pub(crate) fn of(text: Box<str>) -> Result<Self, Fault> {
        let end_of_scheme = scheme(&text);
        if let Some(end) = end_of_scheme {
            check_scheme(&text[..end])?;
        }
        let rest = &text[end_of_scheme.map_or(0, |end| end + 1)..];
        if let Some(rest) = rest.strip_prefix("//") {
            check_authority(&rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())])?;
        }
        let is_as_it_is = text.bytes().all(is_plain);
        if !is_as_it_is {
            check_escapes(text.as_bytes())?;
        }
        let encoded = if is_as_it_is { text } else { encoded(text) };
        if encoded.len() > limits::LONGEST_VALUE { Err(Fault::LongValue) } else { Ok(Self(encoded)) }
    }

    /// Whether a text is one as it stands, with nothing left to encode.
    pub(crate) fn is_strict(text: &str) -> bool {
        Self::parse(text).is_ok_and(|read| *read.0 == *text)
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it begins with a scheme.
    pub fn is_absolute(&self) -> bool {
        scheme(&self.0).is_some()
    }
}

impl Uri {
    /// Reads one.
    ///
    /// # Errors
    /// When it is no URI, or relative.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let read = UriReference::parse(text)?;
        if read.is_absolute() { Ok(Self(read)) } else { Err(Fault::Relative) }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl From<Uri> for UriReference {
    fn from(uri: Uri) -> Self {
        uri.0
    }
}

impl fmt::Display for UriReference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

fn check_scheme(text: &str) -> Result<(), Fault> {
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    let goes_on = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if begins && goes_on {
        return Ok(());
    }
    Err(Fault::UriReference("a colon follows what is no scheme; put / or ./ before it"))
}

/// `user@host:port`, as far as readers disagree about nothing else.
fn check_authority(text: &str) -> Result<(), Fault> {
    if !text.bytes().all(|byte| is_plain(byte) || byte == b'%') {
        return Err(Fault::UriReference("its host holds a sign that hosts cannot have"));
    }
    let host_and_port = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
    let port = match host_and_port.strip_prefix('[') {
        Some(literal) => literal.split_once(']').map(|(_, port)| port),
        None => Some(host_and_port.find(':').map_or("", |at| &host_and_port[at..])),
    };
    let is_port = |port: &str| {
        port.is_empty() || port.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    if port.is_some_and(is_port) {
        Ok(())
    } else {
        Err(Fault::UriReference("its port is no number, or a bracket is open"))
    }
}

/// Every `%` is followed by two hexadecimal digits.
fn check_escapes(text: &[u8]) -> Result<(), Fault> {
    let is_escape = |at: usize| text.get(at + 1..at + 3).is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit));
    let escapes = text.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    if escapes.map(|(at, _)| at).all(is_escape) {
        return Ok(());
    }
    Err(Fault::UriReference("% is followed by two hexadecimal digits; write %25 for the sign itself"))
}

fn encoded(text: Box<str>) -> Box<str> {
    let fragment = text.find('#').map_or(text.len(), |at| at + 1);
    let is_kept = |at: usize, byte: u8| is_plain(byte) || byte == b'%' || (byte == b'#' && at < fragment);
    if text.bytes().enumerate().all(|(at, byte)| is_kept(at, byte)) {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 16);
    for (at, byte) in text.bytes().enumerate() {
        if is_kept(at, byte) {
            out.push(char::from(byte));
        } else {
            crate::percent::escape(byte, &mut out);
        }
    }
    out.into_boxed_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_and_references_are_kept_as_they_are() {
        let cases = [
            "/mycontext",
            "https://github.com/cloudevents",
            "mailto:cncf-wg-serverless@lists.cncf.io",
            "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
            "1-555-123-4567",
            "/apis/v1/namespaces/ns/kafkasources/k#topic",
            "http://user:pw@[::1]:8080/a?b=c%20d#e",
            "//host:1/x",
            "?q",
            "./a:b",
            "tag:x,2020:y",
        ];
        for text in cases {
            assert_eq!(UriReference::parse(text).expect(text).as_str(), text);
        }
    }

    #[test]
    fn what_senders_write_into_them_is_percent_encoded() {
        let cases =
            [("my source", "my%20source"), ("/é", "/%C3%A9"), ("/a#b#c", "/a#b%23c"), ("/{x}|\"", "/%7Bx%7D%7C%22")];
        for (text, encoded) in cases {
            let read = UriReference::parse(text).expect(text);
            assert_eq!(read.as_str(), encoded);
            assert_eq!(UriReference::parse(encoded), Ok(read));
        }
    }

    #[test]
    fn what_has_no_reading_is_refused() {
        for text in [":bad", "1a:b", "a b:c", "/100%", "/%zz", "http://a b/", "http://h:x/", "http://[::1/", "//é/"] {
            assert!(matches!(UriReference::parse(text), Err(Fault::UriReference(_))), "{text}");
        }
        assert_eq!(Uri::parse("/relative"), Err(Fault::Relative));
        assert!(Uri::parse("https://example.com/schema#a").is_ok());
    }
}
