//! Binary mode (HTTP binding, section 3.1): an attribute is a header `ce-<name>` with a percent-encoded value, but for
//! `datacontenttype`, which is Content-Type as it is. Messages of senders that do not encode stay as they are.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};

use crate::{
    Data, Event, Fault, Invalid, ReadError, SpecVersion, UriReference, Value, data::Form, knative, limits, percent,
    value::check_characters,
};

/// The header without which no message is in this mode.
pub(super) const SPEC_VERSION: &str = "ce-specversion";
const PREFIX: &str = "ce-";
const CONTENT_TYPE_ATTRIBUTE: &str = "datacontenttype";
/// What data is that came as a value of JSON and does not say so.
pub(super) const IMPLIED: &str = "application/json";

pub(super) fn read(headers: &HeaderMap, body: Bytes) -> Result<Event, ReadError> {
    let is_unencoded = came_unencoded(headers);
    let mut given: Vec<(Cow<'_, str>, Value)> = Vec::with_capacity(8);
    for (header, value) in headers {
        let (name, text) = match header.as_str().strip_prefix(PREFIX) {
            Some(CONTENT_TYPE_ATTRIBUTE) => {
                return Err(Invalid::new(CONTENT_TYPE_ATTRIBUTE, Fault::ContentTypeTwice).into());
            }
            Some(name) => (name, text(value.as_bytes(), is_unencoded)),
            None if header == CONTENT_TYPE => {
                (CONTENT_TYPE_ATTRIBUTE, value.to_str().map(str::to_owned).map_err(|_| Fault::MediaType))
            }
            None => continue,
        };
        if given.len() > limits::MOST_EXTENSIONS + 15 {
            return Err(Invalid::new(name, Fault::TooMany).into());
        }
        let text = text.map_err(|fault| Invalid::new(name, fault))?;
        given.push((Cow::Borrowed(name), text.into()));
    }
    // A body of no bytes and none are one and the same in HTTP.
    let data = (!body.is_empty()).then(|| Data::new(body, Form::Plain));
    Ok(Event::of(given)?.with_data(data).with_unencoded(is_unencoded))
}

/// What a value stands for. Of those that are encoded each has been decoded once before.
fn text(value: &[u8], is_unencoded: bool) -> Result<String, Fault> {
    let text = if is_unencoded { str::from_utf8(value).ok().map(Into::into) } else { percent::decode(value) };
    text.map(Cow::into_owned).ok_or(Fault::Utf8)
}

/// Whether one of the values shows that none of them was encoded. What is no UTF-8 as it stands shows nothing.
fn came_unencoded(headers: &HeaderMap) -> bool {
    let is_old = headers.get(SPEC_VERSION).is_some_and(|value| value == SpecVersion::V03.as_str());
    let version = if is_old { SpecVersion::V03 } else { SpecVersion::V1 };
    headers.iter().any(|(header, value)| {
        let name = header.as_str().strip_prefix(PREFIX);
        name.is_some_and(|name| str::from_utf8(value.as_bytes()).is_ok_and(|text| is_unencoded(version, name, text)))
    })
}

/// Whether a value shows that its sender does not encode.
fn is_unencoded(version: SpecVersion, name: &str, text: &str) -> bool {
    let Some(decoded) = percent::decode(text.as_bytes()) else { return true };
    if decoded == text {
        return false;
    }
    let is_reference = name == "source" || name == version.schema_name();
    check_characters(&decoded).is_err()
        || is_reference && !UriReference::is_strict(&decoded) && UriReference::is_strict(text)
}

/// Whether an event goes without encoding: it came so, and who reads it can tell.
pub(super) fn goes_unencoded(event: &Event) -> bool {
    let values = || event.attributes().filter(|(name, _)| *name != CONTENT_TYPE_ATTRIBUTE);
    event.is_unencoded()
        && values().any(|(name, value)| is_unencoded(event.version(), name, &value.into_text()))
        // White space around a value is not part of it.
        && values().all(|(_, value)| value.clone().into_text().trim_ascii().len() == value.into_text().len())
}

/// What the header of an attribute is called.
#[derive(Clone, Copy)]
enum Header<'a> {
    /// That of `datacontenttype`.
    ContentType,
    /// Of any other one, which has this name.
    Attribute(&'a str),
}

impl Header<'_> {
    /// The name of one that nearly every event has: it needs no text to be put together.
    fn common(self) -> Option<&'static str> {
        Some(match self {
            Self::ContentType => "content-type",
            Self::Attribute("specversion") => SPEC_VERSION,
            Self::Attribute("id") => "ce-id",
            Self::Attribute("source") => "ce-source",
            Self::Attribute("type") => "ce-type",
            Self::Attribute("time") => "ce-time",
            Self::Attribute("subject") => "ce-subject",
            Self::Attribute(knative::TTL) => "ce-knativebrokerttl",
            Self::Attribute(knative::ARRIVAL_TIME) => "ce-knativearrivaltime",
            Self::Attribute(_) => return None,
        })
    }

    /// Tells its name as it stands in a message.
    fn tell<T>(self, tell: impl FnOnce(&str) -> T) -> T {
        match (self.common(), self) {
            (Some(name), _) => tell(name),
            (None, Self::Attribute(name)) => tell(&[PREFIX, name].concat()),
            (None, Self::ContentType) => tell(CONTENT_TYPE.as_str()),
        }
    }

    fn name(self) -> HeaderName {
        match self.common() {
            Some(name) => HeaderName::from_static(name),
            None => {
                self.tell(|name| HeaderName::from_bytes(name.as_bytes()).expect("letters and digits name a header"))
            }
        }
    }
}

/// An event as headers, each once.
pub(super) struct Lines<'a>(Vec<(Header<'a>, Cow<'a, str>)>);

impl<'a> Lines<'a> {
    pub(super) fn of(event: &'a Event) -> Self {
        let is_unencoded = goes_unencoded(event);
        let mut lines: Vec<(Header<'a>, Cow<'a, str>)> = Vec::with_capacity(16);
        for (name, value) in event.attributes() {
            let text = value.into_text();
            lines.push(match name {
                CONTENT_TYPE_ATTRIBUTE => (Header::ContentType, text),
                name if is_unencoded || percent::is_encoded(&text) => (Header::Attribute(name), text),
                name => (Header::Attribute(name), Cow::Owned(percent::encode(&text).into_owned())),
            });
        }
        // A value of JSON is one without saying so in JSON only (JSON format, section 3.1.2).
        if event.data().is_some_and(|data| data.form() == Form::Json) && event.data_content_type().is_none() {
            lines.push((Header::ContentType, Cow::Borrowed(IMPLIED)));
        }
        Self(lines)
    }

    /// Whether servers take them.
    pub(super) fn fits(&self) -> bool {
        // The colon, the space and the end of the line.
        let line = |(header, text): &(Header<'_>, Cow<'_, str>)| header.tell(str::len) + text.len() + 4;
        let bytes: usize = self.0.iter().map(line).sum();
        self.0.len() <= limits::MOST_HEADERS && bytes <= limits::LONGEST_HEADERS
    }

    /// Tells each of them: name and value.
    pub(super) fn each(&self, mut tell: impl FnMut(&str, &[u8])) {
        self.0.iter().for_each(|(header, text)| header.tell(|name| tell(name, text.as_bytes())));
    }

    pub(super) fn write(&self, headers: &mut HeaderMap) {
        headers.reserve(self.0.len());
        for (header, text) in &self.0 {
            let value = HeaderValue::from_bytes(text.as_bytes());
            headers.insert(header.name(), value.expect("no attribute holds a control character"));
        }
    }
}

/// The data as the body of a message.
pub(super) fn body(event: &Event) -> Bytes {
    event.data().map(|data| data.bytes().clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attribute, SpecVersion, invalid::DataFault, json};

    fn write(event: &Event, headers: &mut HeaderMap) -> Bytes {
        Lines::of(event).write(headers);
        body(event)
    }

    fn message(lines: &[(&str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")]
            .iter()
            .chain(lines)
            .map(line)
            .collect()
    }

    fn text(event: &Event, name: &str) -> Option<String> {
        event.attribute(name).map(|value| value.into_text().into_owned())
    }

    #[test]
    fn headers_are_attributes_and_the_body_is_the_data_itself() {
        let body = Bytes::from_static(b"\x00\xff");
        let headers = message(&[
            ("Content-Type", "application/octet-stream; a=\"b c\""),
            ("Ce-Time", "2023-06-30T09:45:22+02:00"),
            ("ce-ext", "5"),
            ("x-other", "ignored"),
            ("authorization", "Bearer x"),
        ]);
        let event = read(&headers, body.clone()).expect("an event");
        let listed: Vec<_> = event.attributes().map(|(name, value)| format!("{name}={}", value.into_text())).collect();
        let expected = [
            "specversion=1.0",
            "id=1",
            "source=/s",
            "type=t",
            "datacontenttype=application/octet-stream; a=\"b c\"",
            "time=2023-06-30T07:45:22Z",
            "ext=5",
        ];
        assert_eq!(listed, expected);
        assert_eq!(event.data().expect("data").bytes().as_ptr(), body.as_ptr());
        assert_eq!(read(&message(&[]), Bytes::new()).expect("an event").data(), None);
    }

    /// As `sdk-go` sends them, and as it must find them again.
    #[test]
    fn a_message_that_was_not_encoded_leaves_as_it_came_and_means_what_it_says() {
        for (name, sent) in [
            ("source", "/a%20b"),
            ("source", "/100%25"),
            ("source", "/bucket/a%23b"),
            ("source", "https://a.example/%E2%82%AC?q=a%2Fb"),
            ("dataschema", "https://a.example/a%20b"),
            ("subject", "a%2Fb"),
            ("subject", "100%"),
            ("subject", "Euro € 100%"),
            ("subject", "my \"subject\""),
            ("ext", "a%0Ab"),
            ("ext", "%C3%28"),
            ("id", "a b"),
        ] {
            let mut headers = message(&[("ce-plain", "a%20b")]);
            headers.insert(
                HeaderName::try_from(format!("ce-{name}")).unwrap(),
                HeaderValue::from_bytes(sent.as_bytes()).unwrap(),
            );
            let event = read(&headers, Bytes::new()).expect(sent);
            assert_eq!(text(&event, name).as_deref(), Some(sent));
            assert_eq!(text(&event, "plain").as_deref(), Some("a%20b"), "one sender, one way: {sent}");
            let mut written = HeaderMap::new();
            write(&event, &mut written);
            assert_eq!(written, headers, "{sent}");
        }
    }

    #[test]
    fn a_message_that_was_encoded_leaves_as_it_came_and_means_what_it_stands_for() {
        for (name, sent, decoded) in [
            ("source", "/a%2520b", "/a%20b"),
            ("subject", "a%252Fb", "a%2Fb"),
            ("subject", "Euro%20%E2%82%AC%20100%25", "Euro € 100%"),
            ("schemaurl", "a%20b", "a b"),
        ] {
            let mut headers = message(&[]);
            headers.insert(
                HeaderName::try_from(format!("ce-{name}")).unwrap(),
                HeaderValue::from_bytes(sent.as_bytes()).unwrap(),
            );
            let event = read(&headers, Bytes::new()).expect(sent);
            assert_eq!(text(&event, name).as_deref(), Some(decoded));
            let mut written = HeaderMap::new();
            write(&event, &mut written);
            assert_eq!(written, headers, "{sent}");
        }
    }

    #[test]
    fn an_event_that_no_longer_shows_how_it_came_is_encoded() {
        let mut event =
            read(&message(&[("ce-subject", "a%2Fb"), ("ce-ext", "a%20b")]), Bytes::new()).expect("an event");
        for (subject, written) in [("c", "a%2520b"), (" a%2Fb", "a%2520b"), ("d%2Fe", "a%20b")] {
            event.set("subject", subject).expect("a subject");
            let mut headers = HeaderMap::new();
            write(&event, &mut headers);
            assert_eq!(headers["ce-ext"], written, "{subject:?}");
            assert_eq!(text(&read(&headers, Bytes::new()).expect("an event"), "subject").as_deref(), Some(subject));
        }
    }

    #[test]
    fn values_are_decoded_on_the_way_in_and_encoded_on_the_way_out() {
        for (sent, decoded, written) in
            [("Euro%20%E2%82%AC%20100%25", "Euro € 100%", "Euro%20%E2%82%AC%20100%25"), ("\"a b\"", "a b", "a%20b")]
        {
            let event = read(&message(&[("ce-subject", sent)]), Bytes::new()).expect("an event");
            assert_eq!(event.subject(), Some(decoded));
            let mut headers = HeaderMap::new();
            write(&event, &mut headers);
            assert_eq!(headers["ce-subject"], written);
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused_by_name() {
        let cases = [
            (&[("ce-id", "2")][..], "id", Fault::Twice),
            (&[("content-type", "a/b"), ("content-type", "a/b")], "datacontenttype", Fault::Twice),
            (&[("ce-datacontenttype", "a/b")], "datacontenttype", Fault::ContentTypeTwice),
            (&[("content-type", "text")], "datacontenttype", Fault::MediaType),
            (&[("ce-time", "2020-06-17 12:52:43Z")], "time", Fault::Time),
            (&[("ce-foo-bar", "x")], "foo-bar", Fault::Name),
            (&[("ce-", "x")], "", Fault::Name),
            (&[("ce-data", "x")], "data", Fault::Reserved),
        ];
        for (lines, name, fault) in cases {
            let error = read(&message(lines), Bytes::new()).expect_err(name);
            assert_eq!(error, Invalid::new(name, fault).into(), "{lines:?}");
        }
        let mut headers = message(&[]);
        headers.insert("ce-subject", HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(read(&headers, Bytes::new()), Err(Invalid::new("subject", Fault::Utf8).into()));
        headers.remove("ce-subject");
        headers.insert("ce-specversion", HeaderValue::from_static("0.2"));
        assert_eq!(read(&headers, Bytes::new()), Err(Invalid::new("specversion", Fault::Version).into()));
    }

    #[test]
    fn an_attribute_of_sixteen_thousand_bytes_and_two_hundred_of_them_travel() {
        let names: Vec<String> = (0..200).map(|at| format!("ce-ext{at}")).collect();
        let long = "h".repeat(16_000);
        let mut lines: Vec<_> = names.iter().map(|name| (&**name, "x")).collect();
        lines.push(("ce-big", &long));
        let event = read(&message(&lines), Bytes::new()).expect("an event");
        let mut headers = HeaderMap::new();
        write(&event, &mut headers);
        assert_eq!(headers, message(&lines));
        let names: Vec<String> = (0..300).map(|at| format!("ce-ext{at}")).collect();
        let lines: Vec<_> = names.iter().map(|name| (&**name, "x")).collect();
        let error = read(&message(&lines), Bytes::new()).expect_err("too many");
        assert!(matches!(error, ReadError::Attribute(Invalid { fault: Fault::TooMany, .. })));
    }

    #[test]
    fn version_0_3_keeps_its_version_its_names_and_its_encoding() {
        let mut headers = message(&[
            ("ce-schemaurl", "/x"),
            ("ce-datacontentencoding", "base64"),
            ("content-type", "application/octet-stream"),
        ]);
        headers.insert("ce-specversion", HeaderValue::from_static("0.3"));
        let event = read(&headers, Bytes::from_static(b"\x00\xff")).expect("an event");
        assert_eq!((event.version(), event.data_schema()), (SpecVersion::V03, Some("/x")));
        let mut written = HeaderMap::new();
        assert_eq!(write(&event, &mut written), &b"\x00\xff"[..]);
        assert_eq!(written, headers);
        let json = json::write(&event);
        let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(value["data"], "AP8=");
        assert_eq!(value["datacontentencoding"], "base64");
        let again = json::read(&json).expect("an event");
        assert_eq!(again.data().expect("data").bytes(), &b"\x00\xff"[..]);
        assert_eq!(text(&again, "schemaurl").as_deref(), Some("/x"));
    }

    #[test]
    fn json_without_a_content_type_gets_one_where_it_is_not_implied() {
        let body = br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":"I'm just a string"}"#;
        let event = json::read(&Bytes::from_static(body)).expect("an event");
        let mut headers = HeaderMap::new();
        assert_eq!(write(&event, &mut headers), &b"\"I'm just a string\""[..]);
        assert_eq!(headers[CONTENT_TYPE], "application/json");
        assert_eq!(event.attribute("datacontenttype"), None);
    }

    #[test]
    fn a_body_that_is_not_what_it_says_still_arrives_as_it_is() {
        for (content_type, body, member) in [
            ("application/json", &b"{broken"[..], "data_base64"),
            ("application/json", b"\xff", "data_base64"),
            ("text/plain", b"\xff", "data_base64"),
            ("text/plain", b"{broken", "data"),
            ("application/json", b" [1,  2.50] ", "data"),
        ] {
            let event = read(&message(&[("content-type", content_type)]), Bytes::from_static(body)).expect("an event");
            let json = json::write(&event);
            let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
            assert!(value.get(member).is_some(), "{content_type} {body:?}: {value}");
            let again = json::read(&json).expect("an event");
            assert_eq!(again.data().expect("data").bytes().trim_ascii(), body.trim_ascii());
        }
    }

    #[test]
    fn types_of_json_are_kept_in_json_and_become_text_in_headers() {
        let body = br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","n":-5,"b":true,"s":"5","u":null}"#;
        let event = json::read(&Bytes::from_static(body)).expect("an event");
        let types = ["n", "b", "s", "u"].map(|name| event.attribute(name));
        let string = Some(Attribute::String("5".into()));
        assert_eq!(types, [Some(Attribute::Integer(-5)), Some(Attribute::Boolean(true)), string, None]);
        let mut headers = HeaderMap::new();
        write(&event, &mut headers);
        assert_eq!(
            (&headers["ce-n"], &headers["ce-b"], headers.get("ce-u")),
            (&"-5".parse().unwrap(), &"true".parse().unwrap(), None)
        );
        let value: serde_json::Value = serde_json::from_slice(&json::write(&event)).expect("JSON");
        assert_eq!((&value["n"], &value["b"], &value["s"]), (&(-5).into(), &true.into(), &"5".into()));
    }

    #[test]
    fn data_that_json_cannot_hold_by_its_rules_is_refused() {
        let read = |members: &str| {
            let body = format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t",{members}}}"#);
            json::read(&body.into()).map(|event| event.data().map(|data| data.bytes().clone()))
        };
        let cases = [
            (r#""data":1,"data_base64":"AA==""#, DataFault::Twice),
            (r#""data":1,"data":2"#, DataFault::Twice),
            (r#""data_base64":"A""#, DataFault::Base64),
            (r#""data_base64":5"#, DataFault::Base64),
            (r#""datacontenttype":"text/xml","data":{}"#, DataFault::NotString),
        ];
        for (members, fault) in cases {
            assert_eq!(read(members), Err(ReadError::Data(fault)), "{members}");
        }
        assert_eq!(read(r#""datacontenttype":"text/xml","data":"<a b=\"c\"/>""#), Ok(Some("<a b=\"c\"/>".into())));
        assert_eq!(read(r#""data_base64":"\/wA=""#), Ok(Some(Bytes::from_static(b"\xff\x00"))));
    }

    #[test]
    fn null_is_data_where_data_is_json_and_none_elsewhere() {
        for (members, data) in [
            (r#""data":null"#, Some("null")),
            (r#""datacontenttype":"application/a+json","data":null"#, Some("null")),
            (r#""datacontenttype":"text/plain","data":null"#, None),
            (r#""data_base64":null"#, None),
            (r#""data":5,"data_base64":null"#, Some("5")),
            (r#""data_base64":"QQ==","data":null"#, Some("A")),
            (r#""data":null,"data_base64":null"#, Some("null")),
        ] {
            let of = |version: &str| {
                let body = format!(r#"{{"specversion":"{version}","id":"1","source":"/s","type":"t",{members}}}"#);
                json::read(&body.into()).map(|event| event.data().map(|data| data.bytes().clone()))
            };
            assert_eq!(of("1.0"), Ok(data.map(Bytes::from)), "{members}");
            if !members.contains("QQ==") {
                assert_eq!(of("0.3"), Ok(data.map(Bytes::from)), "{members}");
            }
        }
        let body =
            r#"{"specversion":"0.3","id":"1","source":"/s","type":"t","datacontentencoding":"base64","data":null}"#;
        assert_eq!(json::read(&body.into()).expect("an event").data(), None);
    }
}
