//! Events in messages of HTTP (HTTP binding 1.0): binary, structured and batched mode.
//!
//! In binary mode attributes are headers and the body is the data as it is; in structured mode the body is the event as
//! JSON. A content type of an event format wins over headers, and a format that is not known leaves the message a binary
//! one if `ce-specversion` is there, as upstream's SDK has it.
//!
//! # Where others differ
//! The binding wants values of headers percent-encoded (section 3.1.3.2); `sdk-go`, of which nearly all of Knative's own
//! sources are made, neither encodes nor decodes them. So a message is taken for one that was not encoded when one of its
//! values says so: it holds what has to be encoded, a percent sign that begins no escape, an escape of what needs none
//! (`a%2Fb`), or escapes without which a `source` or schema is no URI reference (`/a%20b`). Its values then stand as they
//! are, for filters too, and leave as they came. All others are decoded, and encoded on the way out. What comes in binary
//! mode so leaves it as it came in either case. A sender that encodes more than it has to is the one that is misread: it
//! must not, and upstream reads it the same.

mod as_read;
mod binary;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

pub use self::as_read::as_read;
use crate::{Event, ReadError, json, media_type};

/// One event as JSON.
const STRUCTURED: &str = "application/cloudevents+json";
/// The same as it is written.
const STRUCTURED_UTF8: &str = "application/cloudevents+json; charset=utf-8";
/// Several.
const BATCHED: &str = "application/cloudevents-batch+json";

/// How a message holds events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Attributes are headers, the body is data.
    Binary,
    /// The body is an event.
    Structured,
    /// The body is an array of events. Brokers and channels take none: [`read`] says so.
    Batched,
}

impl Mode {
    /// The mode of a message; `None` when nothing says that it holds an event.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let format = media_type::essence(content_type.unwrap_or_default());
        if format.eq_ignore_ascii_case(STRUCTURED) {
            Some(Self::Structured)
        } else if format.eq_ignore_ascii_case(BATCHED) {
            Some(Self::Batched)
        } else {
            headers.contains_key(binary::SPEC_VERSION).then_some(Self::Binary)
        }
    }
}

/// The form to send an event in, as `format` of a DeliverySpec asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Binary mode.
    Binary,
    /// Structured mode.
    Json,
}

impl Format {
    /// The mode that an event of this form goes in, if servers take its headers.
    pub const fn mode(self) -> Mode {
        match self {
            Self::Binary => Mode::Binary,
            Self::Json => Mode::Structured,
        }
    }

    /// What a DeliverySpec says; `None` for anything but `binary` and `json`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "binary" => Some(Self::Binary),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Reads the one event of a message. The body is shared, not copied.
///
/// # Errors
/// When it holds none, or a batch.
pub fn read(headers: &HeaderMap, body: Bytes) -> Result<Event, ReadError> {
    match Mode::of(headers) {
        Some(Mode::Binary) => binary::read(headers, body),
        Some(Mode::Structured) => json::read(&body),
        Some(Mode::Batched) => Err(ReadError::Batch),
        None => Err(ReadError::NoEvent),
    }
}

/// Writes an event: its headers go among these, which hold none of another event, and the body is returned.
///
/// An event whose attributes are more than servers take as headers (`MOST_HEADERS` and `LONGEST_HEADERS` of [`crate::limits`])
/// goes in structured mode whatever the format: the specification wants every event of 64 KiB forwarded, whatever it is
/// made of, and who reads one mode has to read the other.
pub fn write(event: &Event, format: Format, headers: &mut HeaderMap) -> Bytes {
    if let Some(lines) = lines(event, format) {
        lines.write(headers);
        return binary::body(event);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(STRUCTURED_UTF8));
    json::write(event)
}

/// Writes an event as [`write()`] does, for who keeps it as bytes: `line` puts the name and the value of each header to the
/// end of `out`, and then the body is put there. In which mode that was.
pub fn write_to(
    event: &Event,
    format: Format,
    out: &mut Vec<u8>,
    mut line: impl FnMut(&mut Vec<u8>, &str, &[u8]),
) -> Mode {
    if let Some(lines) = lines(event, format) {
        lines.each(|name, value| line(out, name, value));
        out.extend_from_slice(&binary::body(event));
        return Mode::Binary;
    }
    line(out, CONTENT_TYPE.as_str(), STRUCTURED_UTF8.as_bytes());
    json::write_to(event, out);
    Mode::Structured
}

/// The headers of an event that goes in binary mode.
fn lines(event: &Event, format: Format) -> Option<binary::Lines<'_>> {
    (format == Format::Binary).then(|| binary::Lines::of(event)).filter(binary::Lines::fits)
}

/// Writes a batch of events of one version.
pub fn write_batch<'a>(events: impl IntoIterator<Item = &'a Event>, headers: &mut HeaderMap) -> Bytes {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/cloudevents-batch+json; charset=utf-8"));
    json::write_batch(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn an_event_format_wins_over_headers_and_an_unknown_one_leaves_binary_mode() {
        let version = ("ce-specversion", "1.0");
        let cases = [
            (vec![("content-type", "application/cloudevents+json")], Some(Mode::Structured)),
            (vec![("content-type", "Application/CloudEvents+JSON ; charset=UTF-8"), version], Some(Mode::Structured)),
            (vec![("content-type", "application/cloudevents-batch+json"), version], Some(Mode::Batched)),
            (vec![("content-type", "application/cloudevents+avro"), version], Some(Mode::Binary)),
            (vec![("content-type", "application/cloudevents+avro")], None),
            (vec![version], Some(Mode::Binary)),
            (vec![("content-type", "application/json"), ("ce-id", "1")], None),
            (vec![], None),
        ];
        for (lines, mode) in cases {
            assert_eq!(Mode::of(&headers(&lines)), mode, "{lines:?}");
        }
    }

    #[test]
    fn a_message_without_an_event_and_a_batch_are_told_apart() {
        assert_eq!(read(&headers(&[]), Bytes::new()), Err(ReadError::NoEvent));
        let batch = headers(&[("content-type", "application/cloudevents-batch+json")]);
        assert_eq!(read(&batch, Bytes::from_static(b"[]")), Err(ReadError::Batch));
    }

    #[test]
    fn what_servers_would_not_take_as_headers_leaves_in_structured_mode_and_whole() {
        let event = |count: usize, text: &str| {
            let mut event = Event::new("1", "/s", "t").expect("an event");
            for at in 0..count {
                event.set(&format!("ext{at}"), text).expect("an extension");
            }
            event.set_data("text/plain", "data").expect("a media type");
            event
        };
        let cases = [
            (event(75, "x"), Mode::Binary),
            (event(76, "x"), Mode::Structured),
            (event(1, &"x".repeat(48_000)), Mode::Binary),
            (event(1, &"x".repeat(50_000)), Mode::Structured),
            (event(1, &"€".repeat(5_000)), Mode::Binary),
            (event(1, &"€".repeat(6_000)), Mode::Structured),
        ];
        for (event, mode) in cases {
            let mut headers = HeaderMap::new();
            let body = write(&event, Format::Binary, &mut headers);
            assert_eq!(Mode::of(&headers), Some(mode));
            assert!(headers.len() <= limits::MOST_HEADERS);
            let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
            assert!(bytes <= limits::LONGEST_HEADERS, "{bytes}");
            let read = read(&headers, body).expect("an event");
            assert_eq!(read.attributes().collect::<Vec<_>>(), event.attributes().collect::<Vec<_>>());
            assert_eq!(read.data().map(crate::Data::bytes), event.data().map(crate::Data::bytes));
        }
    }

    #[test]
    fn each_format_has_the_name_that_a_delivery_spec_gives_it() {
        assert_eq!(Format::parse("json"), Some(Format::Json));
        assert_eq!(Format::parse("binary"), Some(Format::Binary));
        assert_eq!(Format::parse("JSON"), None);
    }
}
