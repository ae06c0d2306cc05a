//! What an IntegrationSink writes of an event, in the form of the log that upstream's connector writes.
//!
//! What a sender wrote cannot look like something else in the log: control characters are escaped, and what does not fit is
//! cut off and counted.

use knoll_api::sinks;
use knoll_event::{Attribute, Event};
use tracing::Level;

use super::mask::masked;
use crate::topology::LogSink;

/// Category of a sink that names none.
const LOGGER: &str = "log-sink";
/// Most bytes of a part of an event that are written, before characters are escaped; upstream's.
const MOST: usize = 10_000;

/// What stands in a line beside what it says: its time, its level, and what its fields are called.
const AROUND: usize = 128;

/// What is written of an event.
pub(super) struct Line(String);

impl Line {
    /// Of an event, for this sink; nothing when nothing is written at its level.
    pub(super) fn of(sink: &LogSink, event: &Event) -> Option<Self> {
        is_written(sink).then(|| Self(line(&sink.log, event)))
    }

    /// Bytes of the log that it takes, at most.
    pub(super) fn bytes(&self, LogSink { namespace, name, log, .. }: &LogSink) -> usize {
        let said = [&log.logger_name, &log.marker].into_iter().flatten().map(String::len).sum::<usize>();
        AROUND + self.0.len() + namespace.len() + name.len() + said
    }

    /// Writes it at the sink's level.
    pub(super) fn write(&self, sink: &LogSink) {
        let LogSink { namespace, name, log, .. } = sink;
        let (namespace, sink) = (&**namespace, &**name);
        let logger = log.logger_name.as_deref().unwrap_or(LOGGER);
        let marker = log.marker.as_deref().filter(|marker| !marker.is_empty());
        macro_rules! write {
            ($level:expr) => {
                tracing::event!($level, namespace, sink, logger, marker, "{}", self.0)
            };
        }
        match level(log) {
            None => {}
            Some(Level::TRACE) => write!(Level::TRACE),
            Some(Level::DEBUG) => write!(Level::DEBUG),
            Some(Level::INFO) => write!(Level::INFO),
            Some(Level::WARN) => write!(Level::WARN),
            Some(Level::ERROR) => write!(Level::ERROR),
        }
    }
}

/// The level that a sink says, `INFO` where that is none; nothing when it is `OFF`.
fn level(log: &sinks::LogSink) -> Option<Level> {
    Some(match log.level.as_deref().unwrap_or_default().to_ascii_uppercase().as_str() {
        "OFF" => return None,
        "TRACE" => Level::TRACE,
        "DEBUG" => Level::DEBUG,
        "WARN" => Level::WARN,
        "ERROR" => Level::ERROR,
        _ => Level::INFO,
    })
}

/// Whether lines of a sink's level are written at all.
fn is_written(sink: &LogSink) -> bool {
    match level(&sink.log) {
        None => false,
        Some(Level::TRACE) => tracing::enabled!(Level::TRACE),
        Some(Level::DEBUG) => tracing::enabled!(Level::DEBUG),
        Some(Level::INFO) => tracing::enabled!(Level::INFO),
        Some(Level::WARN) => tracing::enabled!(Level::WARN),
        Some(Level::ERROR) => tracing::enabled!(Level::ERROR),
    }
}

fn line(log: &sinks::LogSink, event: &Event) -> String {
    let is_masked = log.log_mask == Some(true);
    let safe = |text: &str| if is_masked { escaped(&masked(text)) } else { escaped(text) };
    let mut parts = Vec::new();
    if log.show_exchange_pattern != Some(false) {
        parts.push("ExchangePattern: InOnly".to_owned());
    }
    if log.show_headers == Some(true) {
        parts.push(format!("Headers: {{{}}}", headers(event, safe)));
    }
    if log.show_body_type != Some(false) {
        let kind = event.data().map(|_| event.data_content_type().unwrap_or("application/octet-stream"));
        parts.push(format!("BodyType: {}", kind.map_or_else(|| "null".to_owned(), safe)));
    }
    if log.show_body != Some(false) {
        parts.push(format!("Body: {}", body(event, safe)));
    }
    if log.multiline == Some(true) {
        let lines = parts.iter().map(|part| format!("\n  {part}"));
        return format!("Exchange[{}\n]", lines.collect::<String>());
    }
    format!("Exchange[{}]", parts.join(", "))
}

fn headers(event: &Event, safe: impl Fn(&str) -> String) -> String {
    let name = |name: &str| if name == "datacontenttype" { "content-type".to_owned() } else { format!("ce-{name}") };
    let mut all = String::new();
    for (attribute, value) in event.attributes() {
        let separator = if all.is_empty() { "" } else { ", " };
        all += &format!("{separator}{}={}", name(attribute), text(value));
    }
    shown(all.as_bytes(), safe)
}

fn text(value: Attribute<'_>) -> String {
    value.into_text().into_owned()
}

fn body(event: &Event, safe: impl Fn(&str) -> String) -> String {
    event.data().map_or_else(|| "[Body is null]".to_owned(), |data| shown(data.bytes(), safe))
}

/// As much of some text as is written, made safe; of what is no text, its length.
fn shown(bytes: &[u8], safe: impl Fn(&str) -> String) -> String {
    let head = &bytes[..bytes.len().min(MOST)];
    let text = match str::from_utf8(head) {
        Ok(text) => text,
        // A character that was cut through.
        Err(error) if error.error_len().is_none() && head.len() < bytes.len() => {
            str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return format!("({} bytes that are no text)", bytes.len()),
    };
    let left = bytes.len() - text.len();
    let text = safe(text);
    if left == 0 { text } else { format!("{text}... ({left} more bytes)") }
}

/// On one line, whatever it holds.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}') {
            out.extend(char.escape_default());
        } else {
            out.push(char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::{
        fmt,
        sync::{Arc, Mutex},
    };

    use bytes::Bytes;
    use knoll_event::mode;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use tracing::{Metadata, Subscriber, field::Field, span, subscriber::with_default};

    use super::*;
    use crate::topology::access::Guard;

    fn log(spec: Value) -> sinks::LogSink {
        serde_json::from_value(spec).expect("a log sink")
    }

    fn event(kind: Option<&'static str>, body: impl Into<Bytes>) -> Event {
        let lines = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
        let lines = lines.into_iter().chain(kind.map(|kind| ("content-type", kind)));
        let parsed = lines.map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        let headers: http::HeaderMap = parsed.collect();
        mode::read(&headers, body.into()).expect("an event")
    }

    #[test]
    fn an_event_is_written_as_upstreams_connector_does() {
        let event = event(Some("text/plain"), "hello");
        for (spec, expected) in [
            (json!({}), "Exchange[ExchangePattern: InOnly, BodyType: text/plain, Body: hello]"),
            (json!({"showExchangePattern": false, "showBodyType": false}), "Exchange[Body: hello]"),
            (json!({"showBody": false, "showBodyType": false}), "Exchange[ExchangePattern: InOnly]"),
            (
                json!({"showHeaders": true, "showExchangePattern": false, "showBodyType": false}),
                "Exchange[Headers: {ce-specversion=1.0, ce-id=1, ce-source=/s, ce-type=t, content-type=text/plain}, Body: hello]",
            ),
            (
                json!({"multiline": true}),
                "Exchange[\n  ExchangePattern: InOnly\n  BodyType: text/plain\n  Body: hello\n]",
            ),
        ] {
            assert_eq!(line(&log(spec.clone()), &event), expected, "{spec}");
        }
    }

    #[test]
    fn what_there_is_not_and_what_is_no_text_is_said() {
        let body = |event: &Event| line(&log(json!({"showExchangePattern": false, "showBodyType": false})), event);
        assert_eq!(body(&event(None, "")), "Exchange[Body: [Body is null]]");
        assert_eq!(
            line(&log(json!({"showExchangePattern": false, "showBody": false})), &event(None, "")),
            "Exchange[BodyType: null]"
        );
        assert_eq!(body(&event(Some("x/y"), &b"\xff\xfe"[..])), "Exchange[Body: (2 bytes that are no text)]");
        let long = body(&event(Some("text/plain"), format!("{}éé", "x".repeat(9_999))));
        assert!(long.ends_with("xxx... (4 more bytes)]"), "{}", &long[long.len() - 40..]);
    }

    #[test]
    fn a_sender_cannot_write_a_line_of_its_own() {
        let forged = event(Some("text/plain"), "a\n2026 INFO all is well\r\u{1b}[31m\u{2028}");
        let line = line(&log(json!({"multiline": true, "showHeaders": true})), &forged);
        assert!(line.contains(r"Body: a\n2026 INFO all is well\r\u{1b}[31m\u{2028}"), "{line}");
        assert!(line.lines().skip(1).all(|line| line.starts_with("  ") || line == "]"), "{line}");
    }

    #[test]
    fn what_is_secret_is_masked_where_that_is_asked_for() {
        let event = event(Some("application/json"), r#"{"password": "hunter2"}"#);
        assert!(line(&log(json!({})), &event).contains("hunter2"));
        assert!(!line(&log(json!({"logMask": true})), &event).contains("hunter2"));
    }

    /// Keeps what is written: level and fields.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<String>>>);

    impl Subscriber for Written {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            let mut text = event.metadata().level().to_string();
            event.record(&mut |field: &Field, value: &dyn fmt::Debug| text += &format!(" {field}={value:?}"));
            self.0.lock().expect("nobody panics").push(text);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn it_is_written_at_the_level_and_under_the_name_that_the_sink_says() {
        let write = |spec: Value| {
            let written = Written::default();
            let namespace: Arc<str> = "ns".into();
            let guard = Guard::new(namespace.clone());
            let sink = LogSink { namespace, name: "l".into(), log: log(spec), guard };
            with_default(written.clone(), || {
                if let Some(line) = Line::of(&sink, &event(None, "hello")) {
                    line.write(&sink);
                }
            });
            written.0.lock().expect("nobody panics").join("\n")
        };
        let only = |mut spec: Value| {
            (spec["showExchangePattern"], spec["showBodyType"]) = (false.into(), false.into());
            spec
        };
        assert_eq!(
            write(only(json!({}))),
            r#"INFO message=Exchange[Body: hello] namespace="ns" sink="l" logger="log-sink""#
        );
        assert_eq!(
            write(only(json!({"level": "ERROR", "loggerName": "mine", "marker": "here"}))),
            r#"ERROR message=Exchange[Body: hello] namespace="ns" sink="l" logger="mine" marker="here""#
        );
        assert_eq!(write(json!({"level": "off"})), "");
        assert!(write(json!({"level": "loud"})).starts_with("INFO "));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_one_line(body in proptest::collection::vec(any::<u8>(), 0..200), masks: bool) {
            let line = line(&log(json!({"logMask": masks, "showHeaders": true})), &event(Some("a/b"), body));
            prop_assert!(!line.contains(|char: char| char.is_control()));
        }
    }
}
