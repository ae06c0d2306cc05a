//! What travels beside an event, from its sender to subscribers and from a subscriber to where its reply goes.
//!
//! Upstream's list, and what it makes anew from its own traces: W3C Trace Context and Baggage pass as they are, so that a
//! trace goes on. Everything else stops here, credentials first.

use std::num::NonZeroU32;

use http::{HeaderMap, HeaderName, HeaderValue};
use knoll_api::table::{CAPACITY_HEADER, SENDER_HEADER};

/// Says that a reply is asked for.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
/// The value of [`PREFER`].
pub const REPLY: HeaderValue = HeaderValue::from_static("reply");
/// The namespace of the broker or channel that sends.
pub const NAMESPACE: HeaderName = HeaderName::from_static(SENDER_HEADER);
/// How many requests at a time whoever answers takes.
pub const CAPACITY: HeaderName = HeaderName::from_static(CAPACITY_HEADER);

const EXACT: [&str; 2] = ["x-request-id", "retry-after"];
/// A trace, and what goes with it.
const TRACE: [&str; 3] = ["traceparent", "tracestate", "baggage"];
const PREFIXES: [&str; 2] = ["knative-", "x-b3-"];

/// Most bytes of what travels beside one event, counted as [`bytes()`] counts it: it is kept with each event of a batch.
pub const MOST_BESIDE: usize = 16 << 10;
/// What a line costs beside its name and value.
const LINE: usize = 6;

/// What travels beside an event is more than may.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the headers that travel beside an event are more than {MOST_BESIDE} bytes, {longest} the most of them: make it shorter"
)]
pub struct TooMuchBeside {
    /// The header that takes the most.
    pub longest: HeaderName,
}

/// How many bytes headers are kept as.
pub fn bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(line).sum()
}

fn line((name, value): (&HeaderName, &HeaderValue)) -> usize {
    name.as_str().len() + value.len() + LINE
}

/// Whether a header travels.
pub fn passes(name: &HeaderName) -> bool {
    let name = name.as_str();
    EXACT.contains(&name) || TRACE.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Those of a message that travel.
pub fn passing(headers: &HeaderMap) -> HeaderMap {
    headers.iter().filter(|(name, _)| passes(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Those of a message that travel, and how many bytes they are kept as.
///
/// # Errors
/// When they are more than [`MOST_BESIDE`].
pub fn bounded(headers: &HeaderMap) -> Result<(HeaderMap, usize), TooMuchBeside> {
    let passing = passing(headers);
    let all = bytes(&passing);
    if all <= MOST_BESIDE {
        return Ok((passing, all));
    }
    let of = |name: &HeaderName| passing.get_all(name).iter().map(|value| line((name, value))).sum::<usize>();
    match passing.keys().max_by_key(|name| of(name)) {
        Some(longest) => Err(TooMuchBeside { longest: longest.clone() }),
        None => Ok((passing, all)),
    }
}

/// How many requests at a time an answer says that are taken, if it says so.
pub fn capacity(answer: &HeaderMap) -> Option<NonZeroU32> {
    answer.get(CAPACITY)?.to_str().ok()?.parse().ok()
}

/// What travels beside a reply: what its answer says, and the trace of the event that it replies to, as upstream makes the
/// two parts of one trace whatever the answer says.
pub fn beside_reply(answer: &HeaderMap, event: &HeaderMap) -> HeaderMap {
    let mut headers = passing(answer);
    if event.contains_key(TRACE[0]) {
        for name in TRACE {
            headers.remove(name);
            let values = event.get_all(name).iter();
            headers.extend(values.map(|value| (HeaderName::from_static(name), value.clone())));
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_list_and_traces_pass_and_nothing_else() {
        let passing_names = [
            "X-Request-Id",
            "Retry-After",
            "Knative-Foo",
            "X-B3-TraceId",
            "X-B3-Sampled",
            "traceparent",
            "tracestate",
            "baggage",
        ];
        let stopped = [
            "authorization",
            "cookie",
            "x-custom",
            "ce-id",
            "content-type",
            "host",
            "prefer",
            "kn-namespace",
            "x-request-id2",
            "b3",
            "connection",
            "transfer-encoding",
        ];
        let value = HeaderValue::from_static("v");
        let headers: HeaderMap = passing_names
            .iter()
            .chain(&stopped)
            .map(|name| (name.parse::<HeaderName>().expect("a name"), value.clone()))
            .collect();
        let passed = passing(&headers);
        assert_eq!(passed.len(), passing_names.len());
        assert!(passing_names.iter().all(|name| passed.contains_key(*name)));
    }

    #[test]
    fn what_is_no_number_of_requests_says_nothing() {
        let said = |value: &'static str| capacity(&[(CAPACITY, HeaderValue::from_static(value))].into_iter().collect());
        assert_eq!(["7", "0", "-1", "many", "99999999999"].map(said), [NonZeroU32::new(7), None, None, None, None]);
        assert_eq!(capacity(&HeaderMap::new()), None);
    }

    #[test]
    fn a_header_that_comes_twice_travels_twice() {
        let name = HeaderName::from_static("knative-a");
        let headers =
            [(name.clone(), HeaderValue::from_static("1")), (name.clone(), HeaderValue::from_static("2"))].into_iter();
        assert_eq!(passing(&headers.collect()).get_all(name).iter().count(), 2);
    }

    #[test]
    fn what_travels_is_bounded_and_the_header_that_takes_most_is_named() {
        let line = |name: &'static str, length: usize| {
            (HeaderName::from_static(name), "x".repeat(length).parse::<HeaderValue>().expect("a value"))
        };
        let fits: HeaderMap =
            [line("knative-a", MOST_BESIDE - 9 - LINE), line("cookie", 1 << 16)].into_iter().collect();
        assert_eq!(bounded(&fits).map(|(passing, bytes)| (passing.len(), bytes)), Ok((1, MOST_BESIDE)));
        let lines = [line("knative-a", 9000), line("baggage", 5000), line("baggage", 5000)];
        let refused = bounded(&lines.into_iter().collect());
        assert_eq!(refused, Err(TooMuchBeside { longest: HeaderName::from_static("baggage") }));
    }

    #[test]
    fn a_reply_goes_on_with_the_trace_of_its_event() {
        let headers = |lines: &[(&'static str, &'static str)]| -> HeaderMap {
            let line = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            lines.iter().map(line).collect()
        };
        let event =
            headers(&[("traceparent", "of-event"), ("baggage", "a=1"), ("baggage", "b=2"), ("knative-a", "no")]);
        let answer =
            headers(&[("traceparent", "of-answer"), ("tracestate", "x"), ("knative-b", "yes"), ("cookie", "c")]);
        let wanted =
            headers(&[("knative-b", "yes"), ("traceparent", "of-event"), ("baggage", "a=1"), ("baggage", "b=2")]);
        assert_eq!(beside_reply(&answer, &event), wanted);
        let wanted = headers(&[("traceparent", "of-answer"), ("tracestate", "x"), ("knative-b", "yes")]);
        assert_eq!(beside_reply(&answer, &HeaderMap::new()), wanted);
    }
}
