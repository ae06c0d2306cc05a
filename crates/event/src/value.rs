//! Values of attributes: the types of the specification and their canonical texts ("Type System").

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use jiff::Timestamp;

/// Any attribute as JSON writes it and expressions see it: what is neither boolean nor integer is its canonical text.
pub use crate::cesql::Value as Attribute;
use crate::{Fault, Uri, UriReference, limits, time::Time};

/// The value of an extension.
///
/// What comes in a header is a [`Value::String`], what comes in JSON that, an integer or a boolean; the other types are
/// for who makes events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i32),
    /// A text.
    String(Box<str>),
    /// Bytes, in base64 wherever they are written.
    Binary(Bytes),
    /// An absolute URI.
    Uri(Uri),
    /// A URI or a relative reference.
    UriReference(UriReference),
    /// An instant.
    Timestamp(Timestamp),
}

impl Value {
    /// The canonical text.
    pub fn text(&self) -> Cow<'_, str> {
        self.borrowed().into_text()
    }

    pub(crate) fn borrowed(&self) -> Attribute<'_> {
        match self {
            Self::Boolean(value) => Attribute::Boolean(*value),
            Self::Integer(value) => Attribute::Integer(*value),
            Self::String(value) => Attribute::String(Cow::Borrowed(value)),
            Self::Binary(value) => Attribute::String(Cow::Owned(STANDARD.encode(value))),
            Self::Uri(value) => Attribute::String(Cow::Borrowed(value.as_str())),
            Self::UriReference(value) => Attribute::String(Cow::Borrowed(value.as_str())),
            Self::Timestamp(value) => {
                Attribute::String(Cow::Owned(Time::of(*value).map_or_else(|_| value.to_string(), Time::text)))
            }
        }
    }

    /// What every value must be, whatever attribute it is of.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        let length = match self {
            Self::String(text) => {
                check_characters(text)?;
                text.len()
            }
            Self::Binary(bytes) => bytes.len().div_ceil(3) * 4,
            Self::Uri(uri) => uri.as_str().len(),
            Self::UriReference(reference) => reference.as_str().len(),
            Self::Timestamp(instant) => {
                Time::of(*instant)?;
                0
            }
            Self::Boolean(_) | Self::Integer(_) => 0,
        };
        if length > limits::LONGEST_VALUE { Err(Fault::LongValue) } else { Ok(()) }
    }
}

/// No control characters and no noncharacters.
pub(crate) fn check_characters(text: &str) -> Result<(), Fault> {
    let is_refused = |sign: char| {
        sign.is_control() || matches!(u32::from(sign), 0xfdd0..=0xfdef) || u32::from(sign) & 0xfffe == 0xfffe
    };
    // Nearly every text is printable ASCII.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !text.chars().any(is_refused) {
        return Ok(());
    }
    Err(Fault::Characters)
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Integer(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.into())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::String(value.into())
    }
}

impl From<Uri> for Value {
    fn from(value: Uri) -> Self {
        Self::Uri(value)
    }
}

impl From<Timestamp> for Value {
    fn from(value: Timestamp) -> Self {
        Self::Timestamp(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_its_canonical_text() {
        let cases = [
            (Value::from(true), "true"),
            (Value::from(-5), "-5"),
            (Value::from("a b"), "a b"),
            (Value::Binary(Bytes::from_static(b"\xff\x00")), "/wA="),
            (Value::Uri(Uri::parse("https://a/b").unwrap()), "https://a/b"),
            (Value::UriReference(UriReference::parse("/b").unwrap()), "/b"),
            (Value::Timestamp("2023-06-30T07:45:22.50Z".parse().unwrap()), "2023-06-30T07:45:22.5Z"),
        ];
        for (value, text) in cases {
            assert_eq!(value.text(), text);
        }
    }

    #[test]
    fn control_characters_noncharacters_and_long_texts_are_refused() {
        for text in ["a\nb", "\u{7f}", "\u{9f}", "\u{fdd0}", "\u{1fffe}", "\u{ffff}"] {
            assert_eq!(Value::from(text).check(), Err(Fault::Characters), "{text:?}");
        }
        for text in ["", "é € 😀", "\u{a0}", "\u{fdcf}"] {
            assert_eq!(Value::from(text).check(), Ok(()), "{text:?}");
        }
        assert_eq!(Value::from("x".repeat(limits::LONGEST_VALUE)).check(), Ok(()));
        assert_eq!(Value::from("x".repeat(limits::LONGEST_VALUE + 1)).check(), Err(Fault::LongValue));
    }
}
