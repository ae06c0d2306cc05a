use super::*;

fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, value.parse().expect("header value"));
    }
    headers
}

fn sent(ip: &str, trusted: Trusted, pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = map(pairs);
    let seen = Seen::scan(&headers);
    let origin = Origin::new(ip.parse().expect("address"), false, trusted);
    to_instance(&mut headers, seen, &origin, &HeaderValue::from_static("hello.example.com"));
    headers
}

#[track_caller]
fn check(headers: &HeaderMap, name: &str, wanted: &str) {
    let values: Vec<_> = headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect();
    assert_eq!(values, [wanted], "{name}");
}

#[test]
fn a_plain_request_learns_where_it_came_from() {
    let headers = sent("10.1.2.3", Trusted::All, &[]);
    check(&headers, "x-forwarded-for", "10.1.2.3");
    check(&headers, "x-forwarded-proto", "http");
    check(&headers, "x-forwarded-host", "hello.example.com");
    check(&headers, "forwarded", "for=10.1.2.3;host=hello.example.com;proto=http");
}

#[test]
fn connection_cannot_take_away_what_the_gateway_says() {
    let lists = "close, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Forwarded, Traceparent, X-Theirs";
    let pairs = [
        ("connection", lists),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "a"),
        ("forwarded", "for=1.1.1.1"),
        ("traceparent", "00-1"),
        ("x-theirs", "1"),
    ];
    for trusted in [Trusted::All, Trusted::Hops(0), Trusted::Hops(1)] {
        let headers = sent("10.1.2.3", trusted, &pairs);
        check(&headers, "x-forwarded-for", "10.1.2.3");
        check(&headers, "x-forwarded-proto", "http");
        check(&headers, "x-forwarded-host", "hello.example.com");
        check(&headers, "forwarded", "for=10.1.2.3;host=hello.example.com;proto=http");
        assert!(headers.contains_key("traceparent") && !headers.contains_key("x-theirs"));
    }
}

#[test]
fn earlier_hops_are_kept() {
    let hops = [("x-forwarded-for", "1.1.1.1, 2001:db8::1"), ("x-forwarded-proto", "https")];
    let headers = sent("10.1.2.3", Trusted::All, &hops);
    check(&headers, "x-forwarded-for", "1.1.1.1, 2001:db8::1, 10.1.2.3");
    check(&headers, "x-forwarded-proto", "https");
    let wanted = "for=1.1.1.1;host=hello.example.com;proto=https, for=\"[2001:db8::1]\", for=10.1.2.3";
    check(&headers, "forwarded", wanted);
    check(&sent("::1", Trusted::All, &[("forwarded", "for=x")]), "forwarded", "for=x");
}

#[test]
fn strangers_are_not_believed() {
    let claims = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-client-cert", "Subject=admin"),
        ("x-forwarded-prefix", "/admin"),
        ("forwarded", "for=1.1.1.1"),
    ];
    let headers = sent("10.1.2.3", Trusted::Hops(0), &claims);
    check(&headers, "x-forwarded-for", "10.1.2.3");
    check(&headers, "x-forwarded-proto", "http");
    check(&headers, "forwarded", "for=10.1.2.3;host=hello.example.com;proto=http");
    assert!(!headers.contains_key("x-forwarded-client-cert") && !headers.contains_key("x-forwarded-prefix"));
}

#[test]
fn as_many_entries_as_there_are_proxies_are_believed() {
    let claims =
        [("x-forwarded-for", "6.6.6.6, 7.7.7.7"), ("x-forwarded-for", "8.8.8.8"), ("x-forwarded-proto", "https")];
    let headers = sent("10.1.2.3", Trusted::Hops(1), &claims);
    check(&headers, "x-forwarded-for", "8.8.8.8, 10.1.2.3");
    check(&headers, "x-forwarded-proto", "https");
    check(&headers, "forwarded", "for=8.8.8.8;host=hello.example.com;proto=https, for=10.1.2.3");
    check(&sent("10.1.2.3", Trusted::Hops(2), &claims), "x-forwarded-for", "7.7.7.7, 8.8.8.8, 10.1.2.3");
    check(&sent("10.1.2.3", Trusted::Hops(9), &claims), "x-forwarded-for", "6.6.6.6, 7.7.7.7, 8.8.8.8, 10.1.2.3");
    let forwarded = sent("10.1.2.3", Trusted::Hops(1), &[("forwarded", "for=6.6.6.6, for=8.8.8.8;proto=https")]);
    check(&forwarded, "forwarded", "for=8.8.8.8;proto=https");
}

#[test]
fn a_trace_is_kept_or_begun() {
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    check(&sent("::1", Trusted::All, &[("traceparent", given)]), "traceparent", given);
    let (one, two) = (sent("::1", Trusted::All, &[]), sent("::1", Trusted::All, &[]));
    let begun = one["traceparent"].to_str().expect("text");
    let parts: Vec<_> = begun.split('-').map(str::len).collect();
    assert_eq!(parts, [2, 32, 16, 2], "{begun}");
    assert!(begun.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()), "{begun}");
    assert_ne!(one["traceparent"], two["traceparent"]);
}

#[test]
fn the_platform_keeps_its_headers_to_itself() {
    let internal = [
        ("knative-serving-revision", "rev"),
        ("knative-serving-namespace", "ns"),
        ("k-original-host", "x"),
        ("k-proxy-request", "activator"),
        ("k-pop", "stays"),
    ];
    let headers = sent("::1", Trusted::All, &internal);
    let left: Vec<_> = headers.keys().map(HeaderName::as_str).filter(|name| name.starts_with('k')).collect();
    assert_eq!(left, ["k-pop"]);
}

#[test]
fn hop_by_hop_headers_end_here() {
    let hops = [
        ("connection", "keep-alive, X-Secret"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("expect", "100-continue"),
        ("x-secret", "1"),
        ("te", "gzip"),
        ("accept", "*/*"),
    ];
    let headers = sent("::1", Trusted::All, &hops);
    for name in ["connection", "keep-alive", "transfer-encoding", "upgrade", "expect", "x-secret", "te"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    check(&headers, "accept", "*/*");
    check(&sent("::1", Trusted::All, &[("te", "trailers"), ("connection", "te")]), "te", "trailers");
}

#[test]
fn responses_lose_what_concerns_one_hop() {
    let mut headers = map(&[("connection", "close, x-hop"), ("x-hop", "1"), ("upgrade", "h2c"), ("date", "now")]);
    to_client(&mut headers);
    assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["date"]);
}

#[test]
fn cookies_come_as_one() {
    check(&sent("::1", Trusted::All, &[("cookie", "a=1"), ("cookie", "b=2")]), "cookie", "a=1; b=2");
}

#[test]
fn probes_and_upgrades_are_seen() {
    assert!(Seen::scan(&map(&[("k-network-probe", "probe")])).network_probe);
    assert!(!Seen::scan(&map(&[("k-network-probe", "")])).network_probe);
    assert!(Seen::scan(&map(&[("user-agent", "kube-probe/1.35")])).kubelet_agent);
    let upgrade = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
    assert_eq!(Seen::scan(&upgrade).upgrade_to(&upgrade), Some(HeaderValue::from_static("websocket")));
    let unlisted = map(&[("connection", "close"), ("upgrade", "websocket")]);
    assert_eq!(Seen::scan(&unlisted).upgrade_to(&unlisted), None);
}
