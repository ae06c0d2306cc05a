//! The JSON format: one event, and batches of them (JSON event format 1.0).
//!
//! Data is kept as the bytes it is written in, shared with the body unless that would hold more than twice of it in memory,
//! and among the events of a batch always: numbers keep their digits, members their order, and JSON that nests however deep costs nothing. Whatever has no string or value in JSON goes as base64.

mod scanner;

use std::{borrow::Cow, io::Write as _, ops::Range};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::de::IgnoredAny;

use self::scanner::{Found, Scanner};
use crate::{
    Attribute, Data, Event, Fault, Invalid, ReadError, SpecVersion, Value, data::Form, invalid::DataFault, limits,
    media_type,
};

/// Reads one event.
///
/// # Errors
/// When the body is no event.
pub fn read(body: &Bytes) -> Result<Event, ReadError> {
    let mut scanner = Scanner::new(text(body)?);
    let event = read_event(&mut scanner, (body, kept), &mut { limits::MOST_BATCHED_ATTRIBUTES })?;
    scanner.end()?;
    Ok(event)
}

/// Reads a batch, which may be empty. Each of its events keeps the whole body in memory: together they are no more than it.
///
/// # Errors
/// When the body is no batch, or one of its events is none: none of them is taken then.
pub fn read_batch(body: &Bytes) -> Result<Vec<Event>, ReadError> {
    let mut scanner = Scanner::new(text(body)?);
    let mut events: Vec<Event> = Vec::new();
    let mut room = limits::MOST_BATCHED_ATTRIBUTES;
    scanner.array(|scanner| {
        if events.len() == limits::MOST_BATCHED {
            return Err(ReadError::LargeBatch);
        }
        let index = events.len();
        let batched = |error| match error {
            ReadError::LargeBatch => error,
            error => ReadError::Batched { index, error: Box::new(error) },
        };
        let event = read_event(scanner, (body, shared), &mut room).map_err(batched)?;
        // HTTP binding, section 3.3.2.
        if events.first().is_some_and(|first| first.version() != event.version()) {
            return Err(batched(Invalid::new("specversion", Fault::MixedVersions).into()));
        }
        events.push(event);
        Ok(())
    })?;
    scanner.end()?;
    Ok(events)
}

fn text(body: &Bytes) -> Result<&str, ReadError> {
    str::from_utf8(body).map_err(|error| ReadError::Json { at: error.valid_up_to(), problem: "not UTF-8" })
}

/// The members of an envelope that hold data.
#[derive(Default)]
struct Payload {
    data: Option<Range<usize>>,
    base64: Option<Range<usize>>,
}

/// A body, and what is made of a part of it.
type Body<'a> = (&'a Bytes, fn(&Bytes, Range<usize>) -> Bytes);

/// Reads one event, of no more attributes than there is room for.
fn read_event(scanner: &mut Scanner<'_>, body: Body<'_>, room: &mut usize) -> Result<Event, ReadError> {
    let mut given: Vec<(Cow<'_, str>, Value)> = Vec::with_capacity(8);
    let mut payload = Payload::default();
    scanner.object(|name, value| {
        let place = match &*name {
            "data" => &mut payload.data,
            "data_base64" => &mut payload.base64,
            // Unset, section 2.2.
            _ if value.json == "null" => return Ok(()),
            // More than any version has of its own, and refused before they take more memory than the body.
            _ if given.len() > limits::MOST_EXTENSIONS + 15 => return Err(Invalid::new(&name, Fault::TooMany).into()),
            _ => {
                *room = room.checked_sub(1).ok_or(ReadError::LargeBatch)?;
                let value = attribute(&value).map_err(|fault| Invalid::new(&name, fault))?;
                given.push((name, value));
                return Ok(());
            }
        };
        if place.replace(value.range()).is_some() { Err(ReadError::Data(DataFault::Twice)) } else { Ok(()) }
    })?;
    let event = Event::of(given)?;
    let data = payload.read(&event, body).map_err(ReadError::Data)?;
    Ok(event.with_data(data))
}

/// An attribute's value, from valid JSON (section 2.2).
fn attribute(found: &Found<'_>) -> Result<Value, Fault> {
    match found.json.as_bytes()[0] {
        // What the scanner let pass and is no string holds half of a surrogate pair.
        b'"' => found.text().map(|text| Value::from(&*text)).map_err(|_| Fault::Characters),
        b'{' | b'[' => Err(Fault::Structure),
        b't' => Ok(Value::Boolean(true)),
        b'f' => Ok(Value::Boolean(false)),
        _ => found.json.parse().map(Value::Integer).map_err(|_| Fault::NotInteger),
    }
}

impl Payload {
    /// The data (section 3.1.2).
    fn read(self, event: &Event, (body, part): Body<'_>) -> Result<Option<Data>, DataFault> {
        let is_json = !event.is_encoded() && event.data_content_type().is_none_or(media_type::is_json);
        let is_null = |range: &Range<usize>| body[range.clone()] == *b"null";
        let base64 = self.base64.filter(|range| !is_null(range));
        // Null is a value of JSON, and of nothing else.
        let data = self.data.filter(|range| !is_null(range) || is_json && base64.is_none());
        match (data, base64) {
            (Some(_), Some(_)) => Err(DataFault::Twice),
            (None, None) => Ok(None),
            (None, Some(_)) if event.version() == SpecVersion::V03 => Err(DataFault::Member),
            (None, Some(base64)) => decoded(&body[base64]).map(Some),
            (Some(data), None) if event.is_encoded() => decoded(&body[data]).map(Some),
            (Some(data), None) if is_json => Ok(Some(Data::new(part(body, data), Form::Json))),
            (Some(data), None) => {
                let text: String = serde_json::from_slice(&body[data]).map_err(|_| DataFault::NotString)?;
                Ok(Some(Data::new(text.into(), Form::Plain)))
            }
        }
    }
}

fn shared(body: &Bytes, range: Range<usize>) -> Bytes {
    body.slice(range)
}

/// A part of the body. Shared, it keeps all of the body in memory, so small parts are copied.
fn kept(body: &Bytes, range: Range<usize>) -> Bytes {
    if range.len() * 2 < body.len() { Bytes::copy_from_slice(&body[range]) } else { body.slice(range) }
}

fn decoded(json: &[u8]) -> Result<Data, DataFault> {
    let text = scanner::string(json).map_err(|_| DataFault::Base64)?;
    let bytes = STANDARD.decode(text.as_bytes()).map_err(|_| DataFault::Base64)?;
    Ok(Data::new(bytes.into(), Form::Binary))
}

/// Writes one event.
pub fn write(event: &Event) -> Bytes {
    let mut out = Vec::new();
    write_to(event, &mut out);
    out.into()
}

/// Writes a batch. Its events are all of one version, or nobody can read it.
pub fn write_batch<'a>(events: impl IntoIterator<Item = &'a Event>) -> Bytes {
    let mut out = b"[".to_vec();
    for (at, event) in events.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_to(event, &mut out);
    }
    out.push(b']');
    out.into()
}

/// How data stands in JSON (section 3.1.1).
enum Written<'a> {
    Value(&'a [u8]),
    Text(&'a str),
    Base64(String),
}

/// Writes one event to the end of these bytes.
pub(crate) fn write_to(event: &Event, out: &mut Vec<u8>) {
    out.reserve(512 + event.data().map_or(0, |data| data.bytes().len()));
    out.push(b'{');
    event.attributes().for_each(|(name, value)| {
        write_member(name, out);
        match value {
            Attribute::Boolean(value) => out.extend_from_slice(if value { &b"true"[..] } else { b"false" }),
            Attribute::Integer(value) => write!(out, "{value}").expect("memory takes it"),
            Attribute::String(text) => write_string(&text, out),
        }
        out.push(b',');
    });
    // Every event has attributes.
    out.pop();
    if let Some(data) = event.data() {
        write_data(event, &written(event, data), out);
    }
    out.push(b'}');
}

fn written<'a>(event: &Event, data: &'a Data) -> Written<'a> {
    let bytes = data.bytes();
    let base64 = || Written::Base64(STANDARD.encode(bytes));
    if data.form() == Form::Binary || event.is_encoded() {
        return base64();
    }
    let Ok(text) = str::from_utf8(bytes) else { return base64() };
    if !event.data_content_type().is_none_or(media_type::is_json) {
        return Written::Text(text);
    }
    if data.form() == Form::Json || serde_json::from_str::<IgnoredAny>(text).is_ok() {
        return Written::Value(bytes);
    }
    // It says that it is JSON, and is not: only so it arrives as it is.
    base64()
}

fn write_data(event: &Event, written: &Written<'_>, out: &mut Vec<u8>) {
    out.push(b',');
    match written {
        Written::Value(json) => {
            write_member("data", out);
            out.extend_from_slice(json);
        }
        Written::Text(text) => {
            write_member("data", out);
            write_string(text, out);
        }
        Written::Base64(text) if event.version() == SpecVersion::V1 => {
            write_member("data_base64", out);
            write_string(text, out);
        }
        Written::Base64(text) => {
            if !event.is_encoded() {
                write_member("datacontentencoding", out);
                out.extend_from_slice(b"\"base64\",");
            }
            write_member("data", out);
            write_string(text, out);
        }
    }
}

/// Writes the name of a member, which is letters, digits and `_`.
fn write_member(name: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    if scanner::special(text.as_bytes()).is_none() {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        return out.push(b'"');
    }
    serde_json::to_writer(out, text).expect("a string has a form in JSON, and memory takes it");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> ReadError {
        read(&Bytes::copy_from_slice(body.as_bytes())).expect_err(body)
    }

    #[test]
    fn a_body_that_is_no_event_is_refused_with_the_attribute_or_the_byte() {
        let cases = [
            ("", "no JSON event at byte 0: an object was expected"),
            ("[]", "no JSON event at byte 0: an object was expected"),
            ("\"x\"", "no JSON event at byte 0: an object was expected"),
            (r#"{"specversion":"1.0"}"#, r#"attribute "id" is missing: every event has one"#),
            (r#"{"id":"1","source":"/s","type":"t"}"#, r#"attribute "specversion" is missing: every event has one"#),
            (
                r#"{"specversion":"1.0","id":"","source":"/s","type":"t"}"#,
                r#"attribute "id" is empty: give it a value"#,
            ),
            (
                r#"{"specversion":"1.0","id":null,"source":"/s","type":"t"}"#,
                r#"attribute "id" is missing: every event has one"#,
            ),
            (
                r#"{"specversion":"1.0","id":1,"source":"/s","type":"t"}"#,
                r#"attribute "id" is no string: put it in quotes"#,
            ),
            (
                r#"{"specversion":"1.0","id":"1","source":"","type":"t"}"#,
                r#"attribute "source" is empty: give it a value"#,
            ),
            (
                r#"{"specversion":1.0,"id":"1","source":"/s","type":"t"}"#,
                r#"attribute "specversion" is no integer of 32 bits: send it as a string"#,
            ),
        ];
        for (body, text) in cases {
            assert_eq!(refusal(body).to_string(), text, "{body}");
        }
        assert_eq!(
            read(&Bytes::from_static(b"{\"a\":\"\xff\"}")).unwrap_err(),
            ReadError::Json { at: 6, problem: "not UTF-8" }
        );
    }

    #[test]
    fn extensions_are_strings_booleans_and_integers_of_32_bits() {
        let with = |value: &str| {
            let body = format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","ext":{value}}}"#);
            read(&body.into()).map(|event| event.extension("ext").cloned())
        };
        for (value, fault) in [
            (r#"{"a":1}"#, Fault::Structure),
            ("[1]", Fault::Structure),
            ("3000000000", Fault::NotInteger),
            ("1.5", Fault::NotInteger),
            ("1e3", Fault::NotInteger),
            (r#""\ud800""#, Fault::Characters),
            (r#""a\nb""#, Fault::Characters),
        ] {
            assert_eq!(with(value), Err(Invalid::new("ext", fault).into()), "{value}");
        }
        let cases = [
            ("-2147483648", Some(Value::Integer(i32::MIN))),
            ("true", Some(Value::Boolean(true))),
            (r#""\ud83d\ude00""#, Some("😀".into())),
            ("null", None),
        ];
        for (value, read) in cases {
            assert_eq!(with(value), Ok(read), "{value}");
        }
    }

    #[test]
    fn data_is_the_text_of_the_body_itself_however_deep() {
        let depth = 100_000;
        let data = format!("{}1.0{}", "[ ".repeat(depth), "]".repeat(depth));
        let body = Bytes::from(format!(r#"{{"data": {data} ,"specversion":"1.0","id":"1","source":"/s","type":"t"}}"#));
        let event = read(&body).expect("an event");
        let read = event.data().expect("data").bytes();
        assert_eq!(*read, data);
        assert_eq!(read.as_ptr(), body[9..].as_ptr());
        assert!(write(&event).ends_with(format!(r#""data":{data}}}"#).as_bytes()));
        let nested = format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","ext":{data}}}"#);
        assert_eq!(refusal(&nested), Invalid::new("ext", Fault::Structure).into());
    }

    #[test]
    fn small_data_does_not_keep_a_large_body_in_memory() {
        let event = |data: &str, ext: &str| {
            format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","ext":"{ext}","data":{data}}}"#)
        };
        let text = event("[1]", &"x".repeat(60_000));
        let body = Bytes::from(text.clone());
        let one = read(&body).expect("an event");
        assert!(body.is_unique() && *one.data().expect("data").bytes() == *"[1]");
    }

    #[test]
    fn events_of_a_batch_share_its_body() {
        let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":[1, 2]}"#;
        let body = Bytes::from(format!("[{event},{event}]"));
        let events = read_batch(&body).expect("a batch");
        for (event, at) in events.iter().zip([0, event.len() + 1]) {
            let data = event.data().expect("data").bytes();
            assert_eq!((&data[..], data.as_ptr()), (&b"[1, 2]"[..], body[at + event_data(&body[at..])..].as_ptr()));
        }
    }

    /// Where data stands that begins with a bracket.
    fn event_data(body: &[u8]) -> usize {
        body.windows(2).position(|pair| pair == b":[").expect("it has data") + 1
    }

    #[test]
    fn a_batch_tells_which_of_its_events_is_none() {
        let event = |version: &str| format!(r#"{{"specversion":"{version}","id":"1","source":"/s","type":"t"}}"#);
        let batch = |events: &[String]| read_batch(&Bytes::from(format!("[{}]", events.join(","))));
        assert_eq!(batch(&[]), Ok(vec![]));
        assert_eq!(batch(&[event("1.0"), event("1.0")]).expect("a batch").len(), 2);
        let error = batch(&[event("1.0"), event("2.0")]).expect_err("a version that is not known");
        assert_eq!(
            error.to_string(),
            r#"event 1 of the batch: attribute "specversion" is not a version that is known: send 1.0 or 0.3"#
        );
        let error = batch(&[event("1.0"), event("0.3")]).expect_err("two versions");
        assert!(matches!(error, ReadError::Batched { index: 1, .. }), "{error}");
        assert_eq!(batch(&vec![event("1.0"); limits::MOST_BATCHED + 1]), Err(ReadError::LargeBatch));
        assert!(matches!(read_batch(&event("1.0").into()), Err(ReadError::Json { at: 0, .. })));
        assert!(matches!(batch(&["1".to_owned()]), Err(ReadError::Batched { index: 0, .. })));
    }

    #[test]
    fn the_attributes_of_a_batch_have_one_bound() {
        let event = |extensions: usize| {
            let members: String = (0..extensions).map(|at| format!(r#","e{at}":1"#)).collect();
            format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t"{members}}}"#)
        };
        let batch = |events: usize, extensions| {
            read_batch(&Bytes::from(format!("[{}]", vec![event(extensions); events].join(","))))
        };
        assert_eq!(batch(1000, 96).expect("a batch").len(), 1000);
        assert_eq!(batch(1000, 97), Err(ReadError::LargeBatch));
    }

    #[test]
    fn many_members_are_refused_before_they_take_memory() {
        let members: String = (0..100_000).map(|at| format!(r#""a{at}":1,"#)).collect();
        let body = format!(r#"{{{members}"specversion":"1.0","id":"1","source":"/s","type":"t"}}"#);
        assert!(matches!(refusal(&body), ReadError::Attribute(Invalid { fault: Fault::TooMany, .. })));
    }
}
