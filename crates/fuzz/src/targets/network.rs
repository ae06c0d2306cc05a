//! What comes over the network before anybody is known: questions to the DNS server, hosts and headers of requests.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use knoll_node::network::dns::packet::{Answer, Malformed, Query, Record, RecordData, addresses, kind, shape};
use knoll_proxy::parsers::{headers_to_client, headers_to_instance, host as read_host, is_platforms};
use simple_dns::Packet;

use crate::Target;

pub(super) const DNS: Target = Target {
    name: "dns",
    cases: 10_000,
    words: &["\u{0}\u{1}\u{0}\u{1}", "\u{3}svc\u{7}cluster\u{5}local\u{0}", "\u{0}\u{0})\u{10}\u{0}", "\u{0}"],
    check: dns,
};
pub(super) const HOST: Target = Target {
    name: "host",
    cases: 5000,
    words: &[".", ":80", "[::1]", "[", "]", ".svc", ".svc.cluster.local", "@", "%00", "cluster.local", "é"],
    check: host,
};
pub(super) const HEADERS: Target = Target {
    name: "headers",
    cases: 5000,
    words: &[
        "Connection: ",
        "close",
        "keep-alive",
        "Upgrade: ",
        "websocket",
        "TE: ",
        "trailers",
        "Transfer-Encoding: ",
        "chunked",
        "Forwarded: ",
        "for=",
        "X-Forwarded-For: ",
        "X-Forwarded-Proto: ",
        "X-Forwarded-Host: ",
        "X-Forwarded-Prefix: ",
        "Cookie: ",
        "K-Network-Probe: ",
        "Knative-Serving-Revision: ",
        "K-Proxy-Request: ",
        "Traceparent: ",
        "Expect: ",
        "Host: ",
        ", ",
        "; ",
        "\n",
        "203.0.113.9",
    ],
    check: headers,
};

/// Ours and `simple-dns` see the same question; answers are readable and no longer than they may be.
fn dns(input: &[u8]) {
    answer_of_a_resolver(input);
    let query = match Query::parse(input) {
        Ok(query) => query,
        Err(Malformed::Hopeless | Malformed::Refused(..)) => return,
    };
    assert!(query.udp_limit >= 512 && query.udp_limit <= 4096);
    if let Ok(theirs) = Packet::parse(input)
        && let Some(question) = theirs.questions.first()
    {
        assert_eq!(theirs.id(), query.id);
        let name = question.qname.to_string().to_ascii_lowercase();
        // Where a label holds other signs both write them in ways of their own.
        if query.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-') {
            assert_eq!(name.trim_end_matches('.'), query.name);
        }
    }
    let asked = query.to_resolver(7);
    let again = Query::parse(&asked).expect("our own question is one");
    assert_eq!((&again.name, again.kind, again.id), (&query.name, query.kind, 7));
    let record = |name: &str, data| Record { name: name.into(), ttl: 5, data };
    let answer = Answer {
        answers: (0..40).map(|last| record("", RecordData::A(Ipv4Addr::new(10, 0, 0, last)))).collect(),
        authority: vec![record("cluster.local", RecordData::Soa { zone: "cluster.local".into(), minimum: 5 })],
        additional: vec![record("a.b.svc.cluster.local", RecordData::Srv { port: 80, target: "c.d".into() })],
        ..Answer::default()
    };
    let written = query.answer(&answer, query.udp_limit);
    assert!(written.len() <= query.udp_limit, "{} bytes where {} may be", written.len(), query.udp_limit);
    let told = shape(&written).expect("our own answer has a shape");
    assert_eq!(addresses(&written).len() == 40, !told.truncated);
    assert!(query.is_answered_by(&written, &written));
    // It knows fewer kinds of records than there are.
    assert!(Packet::parse(input).is_err() || Packet::parse(&written).is_ok(), "others do not read our answer");
    assert!(query.cut(vec![0; 5000]).len() <= query.udp_limit);
}

fn answer_of_a_resolver(input: &[u8]) {
    if let Some(shape) = shape(input) {
        for at in &shape.ttl_offsets {
            assert!(at + 4 <= input.len(), "a time to live at {at} of {}", input.len());
        }
        assert_eq!(shape.ttl.is_some(), !shape.ttl_offsets.is_empty());
    }
    assert!(addresses(input).len() * 4 <= input.len());
    let asked = Query::of("example.com", kind::A).expect("is a name");
    if asked.is_answered_by(&asked.to_resolver(9), input) {
        let adopted = asked.adopt(input.to_vec()).expect("is long enough");
        assert_eq!(adopted.len(), input.len());
    }
}

fn host(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let (name, service) = read_host(text, "cluster.local");
    assert!(name.len() <= text.len() && !name.bytes().any(|byte| byte.is_ascii_uppercase()));
    if !name.contains([':', '[', ']']) {
        // A final dot is one: two are two names.
        assert_eq!(read_host(&format!("{name}:80"), "cluster.local").0, name.strip_suffix('.').unwrap_or(&name));
    }
    if let Some(key) = service {
        let parts = [&*key.namespace, &*key.name];
        assert!(parts.iter().all(|part| !part.is_empty() && !part.contains('.')) || key.name.is_empty(), "{key:?}");
    }
}

/// The headers that lines of `name: value` are.
fn header_map(text: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n').take(200) {
        let at = line.iter().position(|byte| *byte == b':');
        let Some((name, value)) = at.map(|at| (&line[..at], line[at + 1..].trim_ascii())) else { continue };
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// What `Connection` lists is dropped, the platform's headers pass nowhere, and nobody says for others where they are.
fn headers(input: &[u8]) {
    let sent = header_map(input);
    let host = sent.get(header::HOST).cloned().unwrap_or(HeaderValue::from_static("a.example"));
    let ip = IpAddr::from([203, 0, 113, 7]);
    for hops in [Some(0), Some(1), Some(u32::MAX), None] {
        let got = headers_to_instance(sent.clone(), &host, ip, hops);
        for hop in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "expect"] {
            assert!(!got.contains_key(hop), "{hop} passed");
        }
        assert!(got.keys().all(|name| !is_platforms(name.as_str())), "{got:?}");
        let list = |name: &str| -> Vec<String> {
            let values = got.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            values.flat_map(|value| value.split(',').map(|part| part.trim().to_owned()).collect::<Vec<_>>()).collect()
        };
        let from = list("x-forwarded-for");
        assert_eq!(from.last().map(String::as_str), Some("203.0.113.7"), "{from:?}");
        for ours in ["traceparent", "forwarded", "x-forwarded-proto", "x-forwarded-host"] {
            assert!(got.contains_key(ours), "{ours} is missing");
        }
        if let Some(hops) = hops {
            assert!(from.len() <= hops.saturating_add(1) as usize, "{from:?} with {hops} hops");
        }
        if hops == Some(0) {
            assert_eq!(list("x-forwarded-proto"), ["http"]);
            assert_eq!(got.get("x-forwarded-host"), Some(&host));
            let others = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
            assert!(
                got.keys().all(|name| !name.as_str().starts_with("x-forwarded-") || others.contains(&name.as_str()))
            );
        }
        assert!(got.get_all(header::COOKIE).iter().count() <= 1);
    }
    let got = headers_to_client(sent);
    for hop in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        assert!(!got.contains_key(hop), "{hop} passed back");
    }
}
