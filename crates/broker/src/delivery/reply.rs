//! What a subscriber's answer means.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use knoll_event::{
    Event,
    mode::{self, Format, Mode},
};

use super::retry::Cause;

/// How strict answers are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Of a Trigger's subscriber: a body has to be an event.
    Trigger,
    /// Of a Subscription's subscriber with a place for replies: a body that does not say that it is an event is ignored.
    Subscription,
    /// Of whom no reply is taken: a Subscription's subscriber without a place for replies, a place for replies, a dead
    /// letter sink. Only the status counts.
    StatusOnly,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Delivered, and nothing more.
    Delivered,
    /// Delivered, and here is an event in return, in the form in which it came.
    Reply(Box<Event>, Format),
    /// Not delivered, and why.
    Failed(Cause),
}

/// Reads an answer: success is a status from 200 to 299, with an event in return if the body is one. A 202 with an event
/// is a reply, as upstream has it and its specification has not.
pub fn meaning(reading: Reading, status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Meaning {
    if !status.is_success() {
        return Meaning::Failed(Cause::Status(status));
    }
    if reading == Reading::StatusOnly {
        return Meaning::Delivered;
    }
    let Some(mode) = Mode::of(headers) else {
        let is_ignored = body.is_empty() || reading == Reading::Subscription;
        return if is_ignored { Meaning::Delivered } else { Meaning::Failed(Cause::NoEvent) };
    };
    let format = if mode == Mode::Binary { Format::Binary } else { Format::Json };
    match mode::read(headers, body.clone()) {
        Ok(event) => Meaning::Reply(Box::new(event), format),
        Err(_) => Meaning::Failed(Cause::NoEvent),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[derive(Debug, PartialEq)]
    enum Short {
        Delivered,
        Reply,
        Failed(i32),
    }

    fn read(reading: Reading, status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Short {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), http::HeaderValue::from_static(value))
        };
        let headers = headers.iter().map(line).collect();
        let status = StatusCode::from_u16(status).expect("a status");
        match meaning(reading, status, &headers, &Bytes::from_static(body.as_bytes())) {
            Meaning::Delivered => Short::Delivered,
            Meaning::Reply(event, _) => {
                assert_eq!(event.id(), "1");
                Short::Reply
            }
            Meaning::Failed(cause) => Short::Failed(cause.code()),
        }
    }

    const BINARY: &[(&str, &str)] = &[("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
    const HALF: &[(&str, &str)] = &[("ce-specversion", "1.0"), ("ce-source", "/s"), ("ce-type", "t")];
    const STRUCTURED: &[(&str, &str)] = &[("content-type", "application/cloudevents+json; charset=utf-8")];
    const BATCH: &[(&str, &str)] = &[("content-type", "application/cloudevents-batch+json")];
    const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
    const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;

    #[test]
    fn a_triggers_subscriber_answers_with_nothing_or_with_an_event() {
        use Short::{Delivered, Failed, Reply};
        let cases = [
            (200, &[][..], "", Delivered),
            (202, &[], "", Delivered),
            (204, &[], "", Delivered),
            (200, JSON, "", Delivered),
            (200, BINARY, "", Reply),
            (200, BINARY, "x", Reply),
            (202, BINARY, "x", Reply),
            (299, STRUCTURED, EVENT, Reply),
            (200, JSON, "{\"ok\":true}", Failed(502)),
            (200, &[], "ok", Failed(502)),
            (202, &[], "ok", Failed(502)),
            (200, STRUCTURED, "{\"specversion\":", Failed(502)),
            (200, STRUCTURED, "", Failed(502)),
            (200, HALF, "", Failed(502)),
            (200, BATCH, "[]", Failed(502)),
            (199, &[], "", Failed(199)),
            (302, BINARY, "x", Failed(302)),
            (500, BINARY, "x", Failed(500)),
        ];
        for (status, headers, body, short) in cases {
            assert_eq!(read(Reading::Trigger, status, headers, body), short, "{status} {headers:?} {body}");
        }
    }

    #[test]
    fn a_subscriptions_subscriber_may_answer_with_anything_that_does_not_claim_to_be_an_event() {
        use Short::{Delivered, Failed, Reply};
        let cases = [
            (200, JSON, "{\"ok\":true}", Delivered),
            (200, &[][..], "ok", Delivered),
            (200, BINARY, "x", Reply),
            (200, HALF, "", Failed(502)),
            (404, &[], "", Failed(404)),
        ];
        for (status, headers, body, short) in cases {
            assert_eq!(read(Reading::Subscription, status, headers, body), short, "{status} {headers:?} {body}");
        }
    }

    #[test]
    fn where_no_reply_is_taken_only_the_status_counts() {
        for (headers, body) in [(BINARY, "x"), (HALF, ""), (JSON, "{}"), (STRUCTURED, "{")] {
            assert_eq!(read(Reading::StatusOnly, 200, headers, body), Short::Delivered);
            assert_eq!(read(Reading::StatusOnly, 503, headers, body), Short::Failed(503));
        }
    }
}
