//! JobSinks over HTTP, as upstream's answer.
//!
//! | request | answer |
//! |---|---|
//! | `POST /<namespace>/<name>` | 202 once the event has its Job; `Location` says where to ask how that is doing |
//! | `GET /namespaces/<namespace>/name/<name>/sources/<source>/ids/<id>` | 200 with `Reason: Complete`, 400 with `Reason: Failed`, or 202 before it has ended |
//! | anything else, and what no JobSink of the address is there for | 400 |
//!
//! A Job that cannot be made or is not there is a 500 with the reason in `Reason` as well as in the body. Namespace, name,
//! source and id of a `Location` are percent-encoded.

use std::fmt;

use http::{
    HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, LOCATION},
    request::Parts,
};
use http_body::Body;
use http_body_util::Full;
use knoll_api::Resource;

use super::{Answer, Bytes, Inner, Message, empty, one, refusal, target};
use crate::{sinks::Progress, topology::NotFound};

const REASON: HeaderName = HeaderName::from_static("reason");
const ALLOWED: HeaderValue = HeaderValue::from_static("GET, POST");
/// Why a message of several events is refused.
const ONE_JOB: &str = "a Job is made of one event: send them one by one";

impl Inner {
    /// Answers a request that is for JobSinks by its host.
    pub(super) async fn answer_for_job_sinks<B>(&self, head: &Parts, body: B) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes>,
    {
        let answered = match head.method {
            Method::GET => self.job_progress(head).await,
            Method::POST => self.job_of(head, body).await,
            _ => Err(refusal(StatusCode::BAD_REQUEST, "events are posted; what became of one is asked with GET")),
        };
        let mut response = answered.unwrap_or_else(|answer| {
            let reason = HeaderValue::from_str(&answer.reason).ok().filter(|_| answer.status.is_server_error());
            let mut response = self.refused(answer);
            response.headers_mut().extend(reason.map(|reason| (REASON, reason)));
            response
        });
        response.headers_mut().insert(ALLOW, ALLOWED);
        response
    }

    async fn job_of<B>(&self, head: &Parts, body: B) -> Result<Response<Full<Bytes>>, Answer>
    where
        B: Body<Data = Bytes>,
    {
        let _place = self.place(head)?;
        let target = target(head);
        self.topology()?.job_sink_at(target).map_err(no_sink)?;
        let Message { events, held: _held, .. } = self.message(head, body).await?;
        let (event, _) = one(events, ONE_JOB)?;
        // Whatever it was when the request began, it is now that the event is taken.
        let sink = self.topology()?.job_sink_at(target).map_err(no_sink)?.clone();
        let at = Location {
            namespace: sink.object.namespace().to_owned(),
            name: sink.object.name().to_owned(),
            source: event.source().to_owned(),
            id: event.id().to_owned(),
        };
        self.sinks.make_job(&sink, &head.headers, event).await?;
        Ok(accepted(&at))
    }

    async fn job_progress(&self, head: &Parts) -> Result<Response<Full<Bytes>>, Answer> {
        let (_place, _held) = (self.place(head)?, self.held(head)?);
        let at = Location::parse(target(head)).ok_or_else(|| {
            let form = "/namespaces/<namespace>/name/<name>/sources/<source>/ids/<id>";
            refusal(
                StatusCode::BAD_REQUEST,
                format!("what became of an event is asked at {form}, each percent-encoded"),
            )
        })?;
        let topology = self.topology()?;
        let sink = topology.job_sink(&at.namespace, &at.name).ok_or_else(|| no_sink(NotFound::Unknown))?;
        let ended = |status, reason| {
            let mut response = empty(status);
            response.headers_mut().insert(REASON, HeaderValue::from_static(reason));
            response
        };
        Ok(match self.sinks.progress(sink, &head.headers, at.source.clone(), at.id.clone()).await? {
            Progress::Running => accepted(&at),
            Progress::Complete => ended(StatusCode::OK, "Complete"),
            Progress::Failed => ended(StatusCode::BAD_REQUEST, "Failed"),
        })
    }
}

fn accepted(at: &Location) -> Response<Full<Bytes>> {
    let mut response = empty(StatusCode::ACCEPTED);
    let at = HeaderValue::try_from(at.to_string());
    response.headers_mut().insert(LOCATION, at.expect("what is percent-encoded fits into a header"));
    response
}

/// As upstream has it, one that is not there is a bad request, too.
fn no_sink(error: NotFound) -> Answer {
    let is_known = error != NotFound::NotYet;
    refusal(if is_known { StatusCode::BAD_REQUEST } else { StatusCode::SERVICE_UNAVAILABLE }, error)
}

/// Where is asked what became of an event.
#[derive(Debug, PartialEq, Eq)]
struct Location {
    namespace: String,
    name: String,
    source: String,
    id: String,
}

impl Location {
    fn parse(target: &str) -> Option<Self> {
        let parts: Vec<&str> = target.strip_suffix('/').unwrap_or(target).split('/').collect();
        let ["", "namespaces", namespace, "name", name, "sources", source, "ids", id] = parts[..] else { return None };
        let [namespace, name, source, id] = [namespace, name, source, id].map(decoded);
        Some(Self { namespace: namespace?, name: name?, source: source?, id: id? })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [namespace, name] = [&self.namespace, &self.name].map(|part| encoded(part));
        write!(f, "/namespaces/{namespace}/name/{name}/sources/{}/ids/{}", encoded(&self.source), encoded(&self.id))
    }
}

/// One part of a path. What upstream leaves as it is stays so.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+:=@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

/// The text that a part of a path stands for; nothing when it stands for none.
fn decoded(part: &str) -> Option<String> {
    let (mut bytes, mut out) = (part.bytes(), Vec::with_capacity(part.len()));
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let value = digit()? << 4 | digit()?;
        out.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn location(source: &str, id: &str) -> Location {
        Location { namespace: "ns".into(), name: "j".into(), source: source.into(), id: id.into() }
    }

    #[test]
    fn a_location_is_upstreams() {
        let at = location("/a b/ü?", "1;2:3").to_string();
        assert_eq!(at, "/namespaces/ns/name/j/sources/%2Fa%20b%2F%C3%BC%3F/ids/1%3B2:3");
        assert_eq!(Location::parse(&(at + "/")), Some(location("/a b/ü?", "1;2:3")));
    }

    #[test]
    fn what_is_no_location_is_told() {
        for target in [
            "/",
            "/ns/j",
            "/namespaces/ns/name/j/sources/s",
            "/namespaces/ns/name/j/sources/s/ids/1/2",
            "/namespaces/ns/names/j/sources/s/ids/1",
            "/namespaces/ns/name/j/sources/%2/ids/1",
            "/namespaces/ns/name/j/sources/%zz/ids/1",
            "/namespaces/ns/name/j/sources/%ff/ids/1",
        ] {
            assert_eq!(Location::parse(target), None, "{target}");
        }
    }

    proptest! {
        #[test]
        fn every_event_is_found_where_it_is_said_to_be(source in "\\PC{1,12}", id in "\\PC{1,12}") {
            let at = location(&source, &id);
            prop_assert_eq!(Location::parse(&at.to_string()), Some(at));
        }

        #[test]
        fn anything_may_be_asked_for(target in "(/|namespaces|ids|%|\\PC){0,30}") {
            drop(Location::parse(&target));
        }
    }
}
