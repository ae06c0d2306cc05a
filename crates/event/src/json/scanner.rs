//! Walks over JSON text by its bytes, telling where values stand. Checks all of it, builds none of it, and uses no stack
//! for depth: values are skipped by serde_json, which does that in a loop.

use std::{borrow::Cow, ops::Range};

use serde::de::IgnoredAny;

use crate::ReadError;

/// A position in a text.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// A value, as it stands.
#[derive(Clone)]
pub(super) struct Found<'a> {
    pub(super) json: &'a str,
    /// Where it begins.
    at: usize,
    /// Whether it is a string that says what stands between its quotes.
    is_plain: bool,
}

impl<'a> Found<'a> {
    pub(super) const fn range(&self) -> Range<usize> {
        self.at..self.at + self.json.len()
    }

    /// What a string says.
    pub(super) fn text(&self) -> serde_json::Result<Cow<'a, str>> {
        if self.is_plain { Ok(Cow::Borrowed(&self.json[1..self.json.len() - 1])) } else { string(self.json.as_bytes()) }
    }
}

impl<'a> Scanner<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    const fn error(&self, problem: &'static str) -> ReadError {
        ReadError::Json { at: self.at, problem }
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                next => return next.copied(),
            }
        }
    }

    /// Takes this byte, if it is the next one.
    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Nothing follows.
    pub(super) fn end(&mut self) -> Result<(), ReadError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("something follows the end")),
        }
    }

    /// What stands up to here from there on.
    fn found(&self, at: usize, is_plain: bool) -> Found<'a> {
        Found { json: &self.text[at..self.at], at, is_plain }
    }

    /// The next value.
    fn value(&mut self) -> Result<Found<'a>, ReadError> {
        if self.peek() == Some(b'"')
            && let Some(length) = plain_string(&self.text.as_bytes()[self.at + 1..])
        {
            let from = self.at;
            self.at += length + 2;
            return Ok(self.found(from, true));
        }
        let mut values = serde_json::Deserializer::from_str(&self.text[self.at..]).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(_)) => {
                let from = self.at;
                self.at += values.byte_offset();
                Ok(self.found(from, false))
            }
            Some(Err(error)) if error.is_eof() => Err(self.error("a value that does not end")),
            Some(Err(_)) | None => Err(self.error("a value was expected")),
        }
    }

    /// The elements between `open` and `close`, with commas between them.
    fn sequence(
        &mut self,
        [open, close]: [u8; 2],
        mut element: impl FnMut(&mut Self) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        if !self.takes(open) {
            return Err(self.error(if open == b'{' { "an object was expected" } else { "an array was expected" }));
        }
        if self.takes(close) {
            return Ok(());
        }
        loop {
            element(self)?;
            if self.takes(close) {
                return Ok(());
            }
            if !self.takes(b',') {
                return Err(self.error("a comma or the end was expected"));
            }
        }
    }

    /// Every element of an array, which the callback walks over.
    pub(super) fn array(&mut self, element: impl FnMut(&mut Self) -> Result<(), ReadError>) -> Result<(), ReadError> {
        self.sequence(*b"[]", element)
    }

    /// Every member of an object: its name and its value.
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(Cow<'a, str>, Found<'a>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        self.sequence(*b"{}", |scanner| {
            if scanner.peek() != Some(b'"') {
                return Err(scanner.error("a member's name was expected"));
            }
            let name = scanner.value()?.text();
            let name = name.map_err(|_| scanner.error("a name with half of a surrogate pair"))?;
            if !scanner.takes(b':') {
                return Err(scanner.error("a colon was expected"));
            }
            member(name, scanner.value()?)
        })
    }
}

/// The length of the string of JSON whose inside begins here, if it has no escapes and no control characters.
fn plain_string(inside: &[u8]) -> Option<usize> {
    let at = special(inside)?;
    (inside[at] == b'"').then_some(at)
}

/// Where the first byte stands that strings of JSON have to escape, or that begins an escape.
pub(super) fn special(inside: &[u8]) -> Option<usize> {
    /// As many as are looked at together, so that there is no branch for each.
    const TOGETHER: usize = 32;
    let is_special = |byte: &u8| *byte == b'"' || *byte == b'\\' || *byte < b' ';
    let is_plain = |part: &&[u8; TOGETHER]| !part.iter().fold(false, |found, byte| found | is_special(byte));
    let begin = inside.as_chunks().0.iter().take_while(is_plain).count() * TOGETHER;
    inside[begin..].iter().position(is_special).map(|at| begin + at)
}

/// A string of JSON, borrowed where it has no escapes.
pub(super) fn string(json: &[u8]) -> serde_json::Result<Cow<'_, str>> {
    #[derive(serde::Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_slice(json).map(|Text(text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Result<Vec<(String, String)>, ReadError> {
        let mut scanner = Scanner::new(text);
        let mut found = Vec::new();
        scanner.object(|name, value| {
            assert_eq!(&text[value.range()], value.json);
            found.push((name.into_owned(), value.json.to_owned()));
            Ok(())
        })?;
        scanner.end()?;
        Ok(found)
    }

    #[test]
    fn members_are_told_with_their_text_as_it_stands() {
        let found = members(" { \"a\" : 1.50 ,\n\"\\u0062\":{\"x\": [1 , 2]},\"c\":\"}\",\"d\":null,\"e\":true}\n")
            .expect("an object");
        let expected = [("a", "1.50"), ("b", "{\"x\": [1 , 2]}"), ("c", "\"}\""), ("d", "null"), ("e", "true")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(members("{}"), Ok(vec![]));
    }

    #[test]
    fn what_is_no_object_is_refused_at_its_byte() {
        let cases = [
            ("", 0),
            ("[]", 0),
            ("{", 1),
            ("{\"a\"}", 4),
            ("{\"a\":}", 5),
            ("{\"a\":1", 6),
            ("{\"a\":1,}", 7),
            ("{\"a\":1 2}", 7),
            ("{\"a\":01}", 5),
            ("{\"a\":1}x", 7),
            ("{a:1}", 1),
            ("{\"a\":[1,}", 5),
            ("{\"a\":\"\u{1}\"}", 5),
            ("{\"\\ud800\":1}", 9),
            ("{\"a\":nul}", 5),
            ("\u{feff}{}", 0),
        ];
        for (text, at) in cases {
            match members(text) {
                Err(ReadError::Json { at: found, .. }) => assert_eq!(found, at, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_string_is_walked_over_alike_wherever_something_special_stands() {
        for length in 0..100 {
            let plain = "x".repeat(length);
            assert_eq!(plain_string(format!("{plain}\"").as_bytes()), Some(length));
            assert_eq!(plain_string(plain.as_bytes()), None, "it does not end");
            for at in 0..length {
                for special in ["\\n", "\\\"", "\u{1}", "\u{1f}", "é", "\u{7f}", " "] {
                    let inside = format!("{}{special}{}", &plain[..at], &plain[at..]);
                    let text = format!("\"{inside}\" ");
                    let walked = Scanner::new(&text).value().ok();
                    let is_one = serde_json::from_str::<String>(&text).is_ok();
                    assert_eq!(walked.map(|found| found.range()), is_one.then(|| 0..text.len() - 1), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let depth = 1_000_000;
        let text = format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(members(&text).expect("an object").len(), 1);
    }
}
