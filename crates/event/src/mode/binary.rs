//! Binary mode (HTTP binding, section 3.1): an attribute is a header `ce-<name>` with a percent-encoded value, but for
//! `datacontenttype`, which is Content-Type as it is.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};

use crate::{Data, Event, Fault, Invalid, ReadError, Value, data::Form, limits, percent};

/// The header without which no message is in this mode.
pub(super) const SPEC_VERSION: &str = "ce-specversion";
const PREFIX: &str = "ce-";
const CONTENT_TYPE_ATTRIBUTE: &str = "datacontenttype";

pub(super) fn read(headers: &HeaderMap, body: Bytes) -> Result<Event, ReadError> {
    let mut given: Vec<(Box<str>, Value)> = Vec::new();
    for (header, value) in headers {
        let (name, text) = match header.as_str().strip_prefix(PREFIX) {
            Some(CONTENT_TYPE_ATTRIBUTE) => {
                return Err(Invalid::new(CONTENT_TYPE_ATTRIBUTE, Fault::ContentTypeTwice).into());
            }
            Some(name) => (name, percent::decode(value.as_bytes()).ok_or(Fault::Utf8)),
            None if header == CONTENT_TYPE => {
                (CONTENT_TYPE_ATTRIBUTE, value.to_str().map(str::to_owned).map_err(|_| Fault::MediaType))
            }
            None => continue,
        };
        if given.len() > limits::MOST_EXTENSIONS + 10 {
            return Err(Invalid::new(name, Fault::TooMany).into());
        }
        let text = text.map_err(|fault| Invalid::new(name, fault))?;
        given.push((name.into(), text.into()));
    }
    // A body of no bytes and none are one and the same in HTTP.
    let data = (!body.is_empty()).then(|| Data::new(body, Form::Plain));
    Ok(Event::of(given)?.with_data(data))
}

pub(super) fn write(event: &Event, headers: &mut HeaderMap) -> Bytes {
    for (name, value) in event.attributes() {
        let text = value.into_text();
        let (header, text) = match name {
            CONTENT_TYPE_ATTRIBUTE => (CONTENT_TYPE, text),
            name => {
                let header = HeaderName::try_from([PREFIX, name].concat());
                (header.expect("letters and digits name a header"), percent::encode(&text).into_owned().into())
            }
        };
        let value = HeaderValue::try_from(text.into_owned());
        headers.insert(header, value.expect("media types and encoded texts are printable ASCII"));
    }
    let Some(data) = event.data() else { return Bytes::new() };
    // A value of JSON is one without saying so in JSON only (JSON format, section 3.1.2).
    if data.form() == Form::Json && event.data_content_type().is_none() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    data.bytes().clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attribute, SpecVersion, invalid::DataFault, json};

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

    #[test]
    fn values_are_decoded_on_the_way_in_and_encoded_on_the_way_out() {
        for (sent, decoded, written) in [
            ("Euro%20%E2%82%AC%20100%25", "Euro € 100%", "Euro%20%E2%82%AC%20100%25"),
            ("Euro € 100%", "Euro € 100%", "Euro%20%E2%82%AC%20100%25"),
            ("\"a b\"", "a b", "a%20b"),
        ] {
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
            (&[("ce-subject", "%C3%28")][..], "subject", Fault::Utf8),
            (&[("ce-id", "2")], "id", Fault::Twice),
            (&[("content-type", "a/b"), ("content-type", "a/b")], "datacontenttype", Fault::Twice),
            (&[("ce-datacontenttype", "a/b")], "datacontenttype", Fault::ContentTypeTwice),
            (&[("content-type", "text")], "datacontenttype", Fault::MediaType),
            (&[("ce-time", "2020-06-17 12:52:43Z")], "time", Fault::Time),
            (&[("ce-foo-bar", "x")], "foo-bar", Fault::Name),
            (&[("ce-", "x")], "", Fault::Name),
            (&[("ce-data", "x")], "data", Fault::Reserved),
            (&[("ce-ext", "a%0Ab")], "ext", Fault::Characters),
        ];
        for (lines, name, fault) in cases {
            let error = read(&message(lines), Bytes::new()).expect_err(name);
            assert_eq!(error, Invalid::new(name, fault).into(), "{lines:?}");
        }
        let mut headers = message(&[]);
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
        assert_eq!(read(r#""data_base64":null"#), Ok(None));
        assert_eq!(read(r#""data":null"#), Ok(Some("null".into())));
        assert_eq!(read(r#""datacontenttype":"text/xml","data":"<a b=\"c\"/>""#), Ok(Some("<a b=\"c\"/>".into())));
        assert_eq!(read(r#""data_base64":"\/wA=""#), Ok(Some(Bytes::from_static(b"\xff\x00"))));
    }
}
