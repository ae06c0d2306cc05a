//! What is written is read, in every mode and from mode to mode.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use knoll_event::{
    Event, Value, json,
    mode::{self, Format, Mode},
};
use proptest::{collection::vec, option, prelude::*};

/// Texts with everything that an attribute may hold.
const TEXT: &str = "[ -~\u{a0}-\u{d7ff}😀%\"]{0,16}";

fn values() -> impl Strategy<Value = Value> {
    let instants = (-60_000_000_000_i64..250_000_000_000, 0..1_000_000_000)
        .prop_map(|(second, nanosecond)| Value::Timestamp(jiff::Timestamp::new(second, nanosecond).expect("in range")));
    prop_oneof![
        any::<bool>().prop_map(Value::Boolean),
        any::<i32>().prop_map(Value::Integer),
        TEXT.prop_map(Value::from),
        vec(any::<u8>(), 0..20).prop_map(|bytes| Value::Binary(bytes.into())),
        instants,
    ]
}

fn payloads() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let kinds = prop_oneof![Just("application/json"), Just("application/a+json; x=y"), Just("text/plain"), Just("a/b")];
    let bytes = prop_oneof![
        vec(any::<u8>(), 1..60),
        "\\PC{1,30}".prop_map(String::into_bytes),
        Just(br#" {"a": [1, 2.50, "x\u00e9"], "a": null} "#.to_vec()),
        Just(b"[".repeat(5000)),
        Just([b"[".repeat(5000), b"]".repeat(5000)].concat()),
    ];
    (kinds, bytes)
}

fn events() -> impl Strategy<Value = Event> {
    let id = TEXT.prop_filter("not blank", |text| !text.trim().is_empty());
    let source = "[a-z]{1,5}:[!-$&-~é ]{0,10}|/[!-$&-~é ]{0,10}"
        .prop_filter_map("a reference", |text| Event::new("1", &text, "t").ok().map(|event| event.source().to_owned()));
    let subject = option::of(TEXT.prop_filter("not blank", |text| !text.trim().is_empty()));
    let extensions = vec(("x[a-z0-9]{0,6}", values()), 0..6);
    (id.clone(), source, id, subject, extensions, option::of(payloads()), any::<bool>()).prop_map(
        |(id, source, kind, subject, extensions, data, is_old)| {
            let mut event = Event::new(&id, &source, &kind).expect("an event");
            if let Some(subject) = subject {
                event.set("subject", subject).expect("a subject");
            }
            for (name, value) in extensions {
                event.set(&name, value).expect("an extension");
            }
            if let Some((kind, bytes)) = data {
                event.set_data(kind, bytes).expect("a media type");
            }
            if is_old { as_old(&event) } else { event }
        },
    )
}

/// The same in version 0.3.
fn as_old(event: &Event) -> Event {
    let mut headers = HeaderMap::new();
    let body = mode::write(event, Format::Binary, &mut headers);
    headers.insert("ce-specversion", "0.3".parse().expect("a value"));
    mode::read(&headers, body).expect("an event of 0.3")
}

fn header(name: &str) -> HeaderName {
    HeaderName::try_from(format!("ce-{name}")).expect("a name")
}

/// Attributes as text, and data: what every mode keeps.
fn seen(event: &Event) -> (Vec<(String, String)>, Option<Bytes>) {
    let attributes = event.attributes().filter(|(name, _)| *name != "datacontentencoding");
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.into_text().into_owned())).collect();
    (attributes, event.data().map(|data| data.bytes().clone()))
}

fn through(event: &Event, format: Format) -> Event {
    let mut headers = HeaderMap::new();
    let body = mode::write(event, format, &mut headers);
    let expected = match format {
        Format::Binary => Mode::Binary,
        Format::Json => Mode::Structured,
    };
    assert_eq!(Mode::of(&headers), Some(expected));
    mode::read(&headers, body).expect("what we write is an event")
}

/// White space around a value of JSON is not part of it.
fn trimmed(event: &Event) -> (Vec<(String, String)>, Option<Vec<u8>>) {
    let (attributes, data) = seen(event);
    (attributes, data.map(|data| data.trim_ascii().to_vec()))
}

proptest! {
    #[test]
    fn binary_mode_keeps_every_attribute_and_every_byte(event in events()) {
        let read = through(&event, Format::Binary);
        prop_assert_eq!(seen(&read), seen(&event));
        prop_assert_eq!(mode::as_read(event, Mode::Binary), Ok(read.clone()));
        prop_assert_eq!(through(&read, Format::Binary), read);
    }

    #[test]
    fn structured_mode_keeps_every_attribute_and_the_data(event in events()) {
        let read = through(&event, Format::Json);
        prop_assert_eq!(trimmed(&read), trimmed(&event));
        prop_assert_eq!(through(&read, Format::Json), read);
    }

    /// Of senders that encode, of those that do not, and of those of which one cannot tell.
    #[test]
    fn what_comes_in_headers_leaves_as_it_came(
        path in "[g-z/:0-9A-F% é]{0,6}",
        texts in vec("[g-z0-9A-F]([g-z/#0-9A-F% é\"]|%[2A][0F5]|%C3%A9){0,6}[g-z0-9A-F]", 1..4),
    ) {
        let mut headers = HeaderMap::new();
        let path = format!("/{path}");
        for (name, text) in [("specversion", "1.0"), ("id", "1"), ("source", path.trim()), ("type", "t")] {
            headers.insert(header(name), HeaderValue::from_bytes(text.as_bytes()).expect("a value"));
        }
        for (at, text) in texts.iter().enumerate() {
            headers.insert(header(&format!("x{at}")), HeaderValue::from_bytes(text.as_bytes()).expect("a value"));
        }
        // Some paths are no references however one reads them.
        if let Ok(event) = mode::read(&headers, Bytes::new()) {
            let mut written = HeaderMap::new();
            let body = mode::write(&event, Format::Binary, &mut written);
            prop_assert_eq!(mode::as_read(event.clone(), Mode::Binary), Ok(event.clone()));
            prop_assert_eq!(mode::read(&written, body), Ok(event));
            for name in headers.keys().filter(|name| *name != "ce-source") {
                prop_assert_eq!(&written[name], &headers[name]);
            }
        }
    }

    /// Also of events that changed modes before, and of what another mode than the last one kept of them.
    #[test]
    fn what_reading_makes_of_an_event_is_told_without_reading_it(event in events(), is_json: bool, formats in vec(any::<bool>(), 0..3)) {
        let of = |is_json| if is_json { Format::Json } else { Format::Binary };
        let event = formats.into_iter().fold(event, |event, is_json| through(&event, of(is_json)));
        let read = through(&event, of(is_json));
        match mode::as_read(event, if is_json { Mode::Structured } else { Mode::Binary }) {
            Ok(told) => prop_assert_eq!(told, read),
            // As what came in a body and says that it is JSON.
            Err(_) => prop_assert!(is_json && read.data().is_some()),
        }
    }

    /// What is kept as lines is what stands in a message.
    #[test]
    fn headers_are_told_as_they_are_written(event in events(), is_json: bool) {
        let format = if is_json { Format::Json } else { Format::Binary };
        let (mut written, mut told) = (HeaderMap::new(), HeaderMap::new());
        let body = mode::write(&event, format, &mut written);
        let mut again = Vec::new();
        let mode = mode::write_to(&event, format, &mut again, |_, name, value| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            told.append(name, HeaderValue::from_bytes(value).expect("a value"));
        });
        prop_assert_eq!((Some(mode), &told, &again[..]), (Mode::of(&written), &written, &body[..]));
    }

    #[test]
    fn modes_may_change_on_the_way(event in events()) {
        let there = through(&through(&event, Format::Json), Format::Binary);
        prop_assert_eq!(trimmed(&there), trimmed(&event));
        prop_assert_eq!(trimmed(&through(&there, Format::Json)), trimmed(&event));
    }

    #[test]
    fn a_batch_keeps_its_events_in_order(events in vec(events(), 0..5)) {
        let version = events.first().map(Event::version);
        let events: Vec<Event> = events.into_iter().filter(|event| Some(event.version()) == version).collect();
        let mut headers = HeaderMap::new();
        let body = mode::write_batch(&events, &mut headers);
        prop_assert_eq!(Mode::of(&headers), Some(Mode::Batched));
        let read = json::read_batch(&body).expect("what we write is a batch");
        prop_assert_eq!(read.iter().map(trimmed).collect::<Vec<_>>(), events.iter().map(trimmed).collect::<Vec<_>>());
    }
}
