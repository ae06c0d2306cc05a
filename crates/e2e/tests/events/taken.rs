//! What a broker takes, and what of it arrives.

use knoll_e2e::{Namespace, Reply, Sink};
use serde_json::json;

use super::{broker, post, structured, take, trigger_object};

const BINARY: [(&str, &str); 5] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "1"),
    ("ce-source", "/s"),
    ("ce-type", "es.t"),
    ("content-type", "application/json"),
];

/// The headers of an event, one of them other than usual, or with one more.
fn with<'a>(name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let others = BINARY.into_iter().filter(|(known, _)| *known != name);
    others.chain([(name, value)]).collect()
}

#[test]
fn events_that_are_none_are_refused_with_a_reason() {
    let space = Namespace::new("none");
    let sink = Sink::open();
    let place = broker(&space, &[trigger_object("t", json!({}), &sink.url())]);
    for missing in ["ce-specversion", "ce-id", "ce-source", "ce-type"] {
        let headers: Vec<_> = BINARY.into_iter().filter(|(name, _)| *name != missing).collect();
        assert_eq!(post(&place, &headers, "{}").status, 400, "without {missing}");
    }
    for event in [
        "",
        "{",
        "[]",
        r#""x""#,
        r#"{"specversion":"1.0"}"#,
        r#"{"id":"1","source":"/s","type":"t"}"#,
        r#"{"specversion":"1.0","id":"","source":"/s","type":"t"}"#,
        r#"{"specversion":"1.0","id":null,"source":"/s","type":"t"}"#,
        r#"{"specversion":"1.0","id":1,"source":"/s","type":"t"}"#,
        r#"{"specversion":"1.0","id":"1","source":"","type":"t"}"#,
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","ext":{"a":1}}"#,
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","ext":[1]}"#,
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","ext":3000000000}"#,
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","dataschema":"/relative"}"#,
    ] {
        assert_eq!(structured(&place, event).status, 400, "{event}");
    }
    assert_eq!(post(&place, &with("ce-source", ":bad"), "{}").status, 400);
    let answer = post(&place, &[("content-type", "text/plain")], "hi");
    assert!(answer.status == 400 && !answer.body.is_empty(), "{answer:?}");
    place.take("good", "t");
    sink.wait_for(1);
    assert_eq!(sink.received()[0].attribute("id"), "good", "nothing else was delivered");
}

#[test]
fn times_are_those_of_rfc_3339_and_arrive_as_the_same_instant() {
    let space = Namespace::new("times");
    let sink = Sink::open();
    let place = broker(&space, &[trigger_object("t", json!({}), &sink.url())]);
    for (count, (time, utc)) in [
        ("2023-06-30T07:45:22Z", "2023-06-30T07:45:22"),
        ("2023-06-30T07:45:22.341714+00:00", "2023-06-30T07:45:22.341714"),
        ("2023-06-30T09:45:22.123456789+02:00", "2023-06-30T07:45:22.123456789"),
        ("1937-01-01T12:00:27.87+00:20", "1937-01-01T11:40:27.87"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(post(&place, &with("ce-time", time), "{}").status, 202, "{time}");
        let arrived = sink.wait_for(count + 1)[count].attribute("time").to_owned();
        assert!(
            arrived == time || arrived.trim_end_matches('Z').trim_end_matches('0') == utc.trim_end_matches('0'),
            "{time}: {arrived}"
        );
    }
    for time in [
        "2020-06-17 12:52:43Z",
        "2023-01-25T19:07:06.370582GMT",
        "2023-06-30",
        "2023-06-30T07:45:22",
        "2023-13-01T00:00:00Z",
        "1688111122",
        "soon",
    ] {
        assert_eq!(post(&place, &with("ce-time", time), "{}").status, 400, "{time}");
        let event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "time": time});
        assert_eq!(structured(&place, &event.to_string()).status, 400, "{time}");
    }
    place.take("last", "t");
    assert_eq!(sink.wait_for(5).last().expect("some").attribute("id"), "last");
}

#[test]
fn letters_beyond_ascii_arrive_and_filters_see_them_as_they_are() {
    let (subject, encoded) = ("Euro € 100%", "Euro%20%E2%82%AC%20100%25");
    let space = Namespace::new("letters");
    let (all, some) = (Sink::open(), Sink::open());
    let exact = json!({"filters": [{"exact": {"subject": subject}}]});
    let place =
        broker(&space, &[trigger_object("all", json!({}), &all.url()), trigger_object("some", exact, &some.url())]);
    take(&place, "s", json!({"subject": subject}));
    assert_eq!(post(&place, &with("ce-subject", encoded), "{}").status, 202);
    for sink in [&all, &some] {
        let subjects: Vec<String> =
            sink.wait_for(2).iter().map(|received| received.attribute("subject").to_owned()).collect();
        // In structured mode it is text, in binary mode a header.
        assert!(subjects.contains(&subject.to_owned()) && subjects.contains(&encoded.to_owned()), "{subjects:?}");
    }
}

#[test]
fn large_events_and_large_replies_arrive_whole() {
    let space = Namespace::new("large");
    let asked = Sink::new(|received| Reply { body: "y".repeat(12_288), ..Reply::event(received, "es.reply") });
    let answered = Sink::open();
    let of = |kind: &str| json!({"filter": {"attributes": {"type": kind}}});
    let place = broker(
        &space,
        &[
            trigger_object("asked", of("es.t"), &asked.url()),
            trigger_object("answered", of("es.reply"), &answered.url()),
        ],
    );
    for (count, size) in [12 << 10, 1 << 20, 5 << 20].into_iter().enumerate() {
        let answer = place.send(&size.to_string(), "es.t", &"x".repeat(size));
        assert_eq!(answer.status, 202, "{size}: {}", answer.body);
        let arrived = &asked.wait_for(count + 1)[count];
        assert!(arrived.body.len() == size && arrived.body.bytes().all(|byte| byte == b'x'), "{size}");
        assert_eq!(answered.wait_for(count + 1)[count].body.len(), 12_288);
    }
    let attribute = "h".repeat(16_000);
    assert_eq!(post(&place, &with("ce-big", &attribute), "{}").status, 202);
    assert_eq!(asked.wait_for(4)[3].attribute("big"), attribute);
}

#[test]
fn tracing_travels_and_credentials_do_not() {
    let space = Namespace::new("headers");
    let sink = {
        let before = std::sync::atomic::AtomicBool::new(false);
        Sink::new(move |_| {
            let tried = before.swap(true, std::sync::atomic::Ordering::Relaxed);
            Reply::status(if tried { 202 } else { 503 })
        })
    };
    let again = json!({"delivery": {"retry": 1, "backoffPolicy": "linear", "backoffDelay": "PT0.1S"}});
    let place = broker(&space, &[trigger_object("t", again, &sink.url())]);
    let more = [
        ("authorization", "Bearer secret"),
        ("cookie", "a=b"),
        ("x-custom", "c"),
        ("x-request-id", "r1"),
        ("knative-foo", "f"),
        ("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
    ];
    assert_eq!(post(&place, &[&BINARY[..], &more[..]].concat(), "{}").status, 202);
    for received in sink.wait_for(2) {
        for (name, wanted) in [
            ("authorization", None),
            ("cookie", None),
            ("x-custom", None),
            ("x-request-id", Some("r1")),
            ("knative-foo", Some("f")),
            ("x-b3-traceid", Some("80f198ee56343ba864fe8b2a57d3eff7")),
            ("prefer", Some("reply")),
            ("kn-namespace", Some(space.name.as_str())),
        ] {
            assert_eq!(received.headers.get(name).map(String::as_str), wanted, "{name}");
        }
    }
}
