//! CloudEvents as strangers send them: as JSON, as a batch of it, and as headers with a body.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use knoll_event::{
    Event, ReadError, json, limits,
    mode::{self, Format},
};

use crate::Target;

pub(super) const EVENT_JSON: Target = Target { name: "event_json", cases: 5000, words: JSON_WORDS, check: event_json };
pub(super) const EVENT_BATCH: Target =
    Target { name: "event_batch", cases: 3000, words: JSON_WORDS, check: event_batch };
pub(super) const EVENT_HEADERS: Target = Target {
    name: "event_headers",
    cases: 5000,
    words: &[
        "ce-specversion: 1.0\n",
        "ce-specversion: 0.3\n",
        "ce-id: ",
        "ce-source: ",
        "ce-type: ",
        "ce-subject: ",
        "ce-time: 2023-06-30T07:45:22.5+02:00\n",
        "ce-dataschema: https://a/b\n",
        "ce-schemaurl: /x\n",
        "ce-datacontentencoding: base64\n",
        "content-type: application/json\n",
        "content-type: application/cloudevents+json\n",
        "content-type: application/cloudevents-batch+json\n",
        "ce-ext: ",
        "%25",
        "%2F",
        "%0A",
        "%20",
        "%C3%A9",
        "%ff",
        "\"a \\\"b\\\"\"",
        "é",
        "\n\n",
    ],
    check: event_headers,
};

const JSON_WORDS: &[&str] = &[
    "\"specversion\":\"1.0\",",
    "\"specversion\":\"0.3\",",
    "\"id\":",
    "\"source\":",
    "\"type\":",
    "\"subject\":",
    "\"time\":\"2023-06-30T07:45:22.5+02:00\",",
    "\"datacontenttype\":\"text/plain\",",
    "\"datacontenttype\":\"application/a+json\",",
    "\"datacontentencoding\":\"base64\",",
    "\"dataschema\":\"https://a/b\",",
    "\"schemaurl\":\"/x\",",
    "\"data\":",
    "\"data_base64\":\"AP8=\",",
    "\"ext\":",
    "null",
    "true",
    "-2147483648",
    "1e999",
    "\"\\ud83d\\ude00\"",
    "\"\\ud800\"",
    "\\u0000",
    "[[",
    "]]",
    "{",
    "}",
    ",",
];

fn event_json(input: &[u8]) {
    match json::read(&Bytes::copy_from_slice(input)) {
        Ok(event) => {
            assert_eq!(json::read(&json::write(&event)).as_ref(), Ok(&event), "JSON keeps types and data");
            check(&event);
        }
        Err(error) => tells_shortly(&error),
    }
}

fn event_batch(input: &[u8]) {
    match json::read_batch(&Bytes::copy_from_slice(input)) {
        Ok(events) => {
            assert!(events.len() <= limits::MOST_BATCHED);
            assert_eq!(json::read_batch(&json::write_batch(&events)).as_ref(), Ok(&events));
            events.iter().for_each(check);
        }
        Err(error) => tells_shortly(&error),
    }
}

/// Lines of headers, an empty line, the body.
fn event_headers(input: &[u8]) {
    let at = input.windows(2).position(|two| two == b"\n\n");
    let (head, body) = at.map_or((input, &b""[..]), |at| (&input[..at], &input[at + 2..]));
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(line[..colon].trim_ascii());
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    match mode::read(&headers, Bytes::copy_from_slice(body)) {
        Ok(event) => check(&event),
        Err(error) => tells_shortly(&error),
    }
}

/// An answer is no place for what was sent.
fn tells_shortly(error: &ReadError) {
    let text = error.to_string();
    assert!(!text.is_empty() && text.len() < 2048, "{} bytes", text.len());
}

/// What was read is within its bounds, and the same after either mode.
fn check(event: &Event) {
    for (name, value) in event.attributes() {
        assert!((1..=limits::LONGEST_NAME).contains(&name.len()), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{name}");
        assert!(value.into_text().len() <= limits::LONGEST_VALUE, "{name}");
    }
    for format in [Format::Binary, Format::Json] {
        let mut headers = HeaderMap::new();
        let body = mode::write(event, format, &mut headers);
        let read = mode::read(&headers, body).expect("what is written is an event");
        assert_eq!(seen(&read), seen(event), "{format:?}");
        assert!(headers.len() <= limits::MOST_HEADERS + 1, "{} headers", headers.len());
    }
}

/// What every mode keeps. White space around JSON is not part of it, an empty body is none, a content type that JSON
/// implies is said, and bytes that JSON cannot hold are said to be encoded in 0.3.
fn seen(event: &Event) -> (Vec<(String, String)>, Vec<u8>) {
    let said = |(name, _): &(&str, _)| !["datacontenttype", "datacontentencoding"].contains(name);
    let attributes = event.attributes().filter(said);
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.into_text().into_owned())).collect();
    (attributes, event.data().map_or_else(Vec::new, |data| data.bytes().trim_ascii().to_vec()))
}
