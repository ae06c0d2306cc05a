//! The official Rust SDK as a second opinion on the JSON format.
//!
//! It knows fewer rules than we do (it takes names and times that the specification refuses), so what is asked is: what we
//! write it reads as we meant it, and what it writes we read as it meant it.

use bytes::Bytes;
use cloudevents::{AttributesReader as _, Data, Event as Theirs, EventBuilder as _, EventBuilderV03, EventBuilderV10};
use knoll_event::{Event, json};
use proptest::{collection::btree_map, option, prelude::*};

/// What both say about an event, as text.
#[derive(Debug, PartialEq)]
struct Seen {
    attributes: Vec<(String, String)>,
    data: Option<Vec<u8>>,
}

fn ours(event: &Event) -> Seen {
    // The SDK has 0.3's `datacontentencoding` on the wire only.
    let attributes = event.attributes().filter(|(name, _)| *name != "datacontentencoding");
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.into_text().into_owned())).collect();
    Seen { attributes, data: event.data().map(|data| compact(data.bytes())) }
}

/// JSON without white space, other bytes as they are: the SDK keeps trees where we keep text.
fn compact(bytes: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<serde_json::Value>(bytes) {
        Ok(value) => value.to_string().into_bytes(),
        Err(_) => bytes.to_vec(),
    }
}

fn theirs(event: &Theirs) -> Seen {
    let schema = if event.specversion().as_str() == "0.3" { "schemaurl" } else { "dataschema" };
    let own = [
        ("specversion", Some(event.specversion().to_string())),
        ("id", Some(event.id().to_owned())),
        ("source", Some(event.source().to_string())),
        ("type", Some(event.ty().to_owned())),
        ("subject", event.subject().map(str::to_owned)),
        ("datacontenttype", event.datacontenttype().map(str::to_owned)),
        (schema, event.dataschema().map(ToString::to_string)),
        ("time", event.time().map(|time| canonical(&time.to_rfc3339()))),
    ];
    let mut attributes: Vec<(String, String)> =
        own.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?))).collect();
    let mut extensions: Vec<_> =
        event.iter_extensions().map(|(name, value)| (name.to_owned(), value.to_string())).collect();
    extensions.sort();
    attributes.extend(extensions);
    let data = event.data().map(|data| match data {
        Data::Binary(bytes) => compact(bytes),
        Data::String(text) => compact(text.as_bytes()),
        Data::Json(value) => value.to_string().into_bytes(),
    });
    Seen { attributes, data }
}

/// A time as we write it.
fn canonical(text: &str) -> String {
    text.parse::<jiff::Timestamp>().expect("a time").to_string()
}

const TEXT: &str = "[ -~é€😀]{1,20}";

proptest! {
    #[test]
    fn what_we_write_the_sdk_reads_as_we_meant_it(
        id in "[!-~é€]{1,12}",
        source in "(https://[a-z]{1,8}\\.example)?/[a-z0-9/]{0,12}",
        kind in "[a-z.]{1,12}",
        subject in option::of("[!-~é€]{1,12}"),
        seconds in option::of(-60_000_000_000_i64..250_000_000_000),
        schema in option::of("https://[a-z]{1,8}\\.example/[a-z]{0,8}"),
        extensions in btree_map("x[a-z0-9]{1,8}", prop_oneof![any::<i32>().prop_map(Ok), TEXT.prop_map(Err)], 0..5),
        flag in option::of(any::<bool>()),
        data in option::of(prop_oneof![
            Just(("application/json", br#"{"a": [1, 2.5, "x"], "b": null}"#.to_vec())),
            TEXT.prop_map(|text| ("text/plain; charset=utf-8", text.into_bytes())),
            proptest::collection::vec(128_u8.., 1..40).prop_map(|bytes| ("application/octet-stream", bytes)),
        ]),
    ) {
        let mut event = Event::new(&id, &source, &kind).expect("an event");
        for (name, text) in [("subject", &subject), ("dataschema", &schema)] {
            if let Some(text) = text { event.set(name, text.as_str()).expect("valid"); }
        }
        if let Some(seconds) = seconds { event.set("time", jiff::Timestamp::from_second(seconds).unwrap()).expect("valid"); }
        for (name, value) in extensions {
            match value {
                Ok(number) => event.set(&name, number),
                Err(text) => event.set(&name, text),
            }.expect("valid");
        }
        if let Some(flag) = flag { event.set("flag", flag).expect("valid"); }
        if let Some((kind, bytes)) = data { event.set_data(kind, bytes).expect("a media type"); }
        let read: Theirs = serde_json::from_slice(&json::write(&event)).expect("the SDK reads it");
        prop_assert_eq!(theirs(&read), ours(&event));
    }

    #[test]
    fn what_the_sdk_writes_we_read_as_it_meant_it(
        is_old in any::<bool>(),
        id in "[!-~é€]{1,12}",
        kind in "[a-z.]{1,12}",
        subject in option::of("[!-~é€]{1,12}"),
        number in option::of(i64::from(i32::MIN)..=i64::from(i32::MAX)),
        data in option::of(prop_oneof![
            Just(("application/json", Data::Json(serde_json::json!({"a": [1, 2.5, "x"], "b": null})))),
            TEXT.prop_map(|text| ("text/plain", Data::String(text))),
            proptest::collection::vec(128_u8.., 1..40).prop_map(|bytes| ("application/octet-stream", Data::Binary(bytes))),
        ]),
    ) {
        macro_rules! build {
            ($builder:expr) => {{
                let mut builder = $builder.id(&id).source("https://a.example/b").ty(&kind).time("2023-06-30T09:45:22.25+02:00");
                if let Some(subject) = &subject { builder = builder.subject(subject.as_str()); }
                if let Some(number) = number { builder = builder.extension("number", number); }
                if let Some((kind, data)) = data.clone() { builder = builder.data(kind, data); }
                builder.extension("flag", true).extension("text", "a b").build().expect("an event")
            }};
        }
        let event = if is_old { build!(EventBuilderV03::new()) } else { build!(EventBuilderV10::new()) };
        let written = serde_json::to_vec(&event).expect("the SDK writes it");
        let read = json::read(&Bytes::from(written)).expect("we read it");
        prop_assert_eq!(ours(&read), theirs(&event));
    }
}
