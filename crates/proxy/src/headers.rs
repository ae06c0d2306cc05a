//! Which headers pass, which stop here, and which the gateway adds.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use knoll_api::table::{CAPACITY_HEADER, SENDER_HEADER};

use crate::balance::random;
use crate::gateway::Visibility;

pub(crate) static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static CAPACITY: HeaderName = HeaderName::from_static(CAPACITY_HEADER);

/// Set on a request when it asks something of the network, not of the user's container.
pub(crate) static NETWORK_PROBE: HeaderName = HeaderName::from_static("k-network-probe");
/// Names the configuration a probe expects.
pub(crate) static NETWORK_HASH: HeaderName = HeaderName::from_static("k-network-hash");
/// Marks a kubelet's probe whose user agent was rewritten.
static KUBELET_PROBE: HeaderName = HeaderName::from_static("k-kubelet-probe");

/// Headers between the parts of the platform, which no container sees.
const INTERNAL: [&str; 6] =
    ["k-network-probe", "k-network-hash", "k-kubelet-probe", "k-proxy-request", "k-original-host", "k-passthrough-lb"];

/// Whether a header is between the parts of the platform.
pub(crate) fn is_internal(name: &str) -> bool {
    name.starts_with('k') && (name.starts_with("knative-") || INTERNAL.contains(&name))
}

/// What one look over a request's headers found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    connection: bool,
    hop_by_hop: bool,
    te: bool,
    upgrade: bool,
    expect: bool,
    forwarded: bool,
    forwarded_for: bool,
    forwarded_proto: bool,
    forwarded_host: bool,
    x_forwarded: bool,
    trace: bool,
    cookies: usize,
    internal: bool,
    network_probe: bool,
    kubelet_agent: bool,
    kubelet_probe: bool,
    event: bool,
}

impl Seen {
    /// Looks over `headers` once.
    pub(crate) fn scan(headers: &HeaderMap) -> Self {
        let mut seen = Self::default();
        for (name, value) in headers {
            match name.as_str() {
                "connection" => seen.connection = true,
                "keep-alive" | "proxy-connection" | "transfer-encoding" => seen.hop_by_hop = true,
                "te" => seen.te = true,
                "upgrade" => seen.upgrade = true,
                "expect" => seen.expect = true,
                "forwarded" => seen.forwarded = true,
                name if name.starts_with("x-forwarded-") => {
                    seen.x_forwarded = true;
                    match name {
                        "x-forwarded-for" => seen.forwarded_for = true,
                        "x-forwarded-proto" => seen.forwarded_proto = true,
                        "x-forwarded-host" => seen.forwarded_host = true,
                        _ => {}
                    }
                }
                "traceparent" => seen.trace = true,
                SENDER_HEADER => seen.event = true,
                "cookie" => seen.cookies += 1,
                "user-agent" => seen.kubelet_agent |= value.as_bytes().starts_with(b"kube-probe/"),
                name if is_internal(name) => {
                    seen.internal = true;
                    seen.network_probe |= name == NETWORK_PROBE.as_str() && !value.is_empty();
                    seen.kubelet_probe |= name == KUBELET_PROBE.as_str() && !value.is_empty();
                }
                _ => {}
            }
        }
        seen
    }

    /// Whether a request is a kubelet's question about the gateway. Only pods' side may say so by a header of the
    /// platform.
    pub(crate) fn asks_kubelet(&self, visibility: Visibility) -> bool {
        self.kubelet_agent || (self.kubelet_probe && visibility == Visibility::ClusterLocal)
    }

    /// Whether a request asks about the network. From outside only the configuration can be asked for, which is what
    /// an ingress answers to everybody.
    pub(crate) fn asks_network(&self, visibility: Visibility, headers: &HeaderMap) -> bool {
        self.network_probe
            && (visibility == Visibility::ClusterLocal
                || headers.get(&NETWORK_PROBE).is_some_and(|value| value == "probe"))
    }

    /// Whether a request is an event of a broker or channel, on pods' side.
    pub(crate) fn is_event(&self, visibility: Visibility) -> bool {
        self.event && visibility == Visibility::ClusterLocal
    }

    /// The protocol a request asks to change to.
    pub(crate) fn upgrade_to(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let asked = self.upgrade && self.connection && lists(headers, &header::CONNECTION, "upgrade");
        headers.get(header::UPGRADE).filter(|_| asked).cloned()
    }
}

/// What a client may say of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trusted {
    /// As much as so many proxies in front of the gateway have added.
    Hops(u32),
    /// Whatever it likes: what pods say of each other is between them.
    All,
}

/// Where a request came from, as its headers will say.
#[derive(Debug)]
pub(crate) struct Origin {
    ip: IpAddr,
    ip_value: HeaderValue,
    proto: HeaderValue,
    trusted: Trusted,
    /// The last host of this connection, and the `Forwarded` that goes with it.
    forwarded: std::cell::RefCell<Option<(HeaderValue, HeaderValue)>>,
}

impl Origin {
    /// A client at `ip`, and how far it is believed.
    pub(crate) fn new(ip: IpAddr, tls: bool, trusted: Trusted) -> Self {
        let ip_value = HeaderValue::try_from(ip.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        let proto = HeaderValue::from_static(if tls { "https" } else { "http" });
        Self { ip, ip_value, proto, trusted, forwarded: std::cell::RefCell::default() }
    }

    fn forwarded(&self, host: &HeaderValue) -> HeaderValue {
        let mut cached = self.forwarded.borrow_mut();
        match &*cached {
            Some((for_host, value)) if for_host == host => value.clone(),
            _ => {
                let value = forwarded(&[&self.ip.to_string()], host, &self.proto);
                cached.replace((host.clone(), value.clone()));
                value
            }
        }
    }
}

/// Makes a client's headers into those an instance gets. `host` is the client's.
pub(crate) fn to_instance(headers: &mut HeaderMap, mut seen: Seen, origin: &Origin, host: &HeaderValue) {
    drop_hop_by_hop(headers, seen);
    if seen.connection {
        // What `Connection` lists is gone: a client must not take away so what the gateway says.
        seen = Seen::scan(headers);
    }
    if seen.internal {
        drop_internal(headers);
    }
    if seen.cookies > 1 {
        join_cookies(headers);
    }
    // One growth instead of several.
    headers.reserve(6);
    match origin.trusted {
        Trusted::All => {}
        Trusted::Hops(0) => {
            if seen.forwarded || seen.x_forwarded {
                drop_forwarded(headers);
            }
            (seen.forwarded, seen.forwarded_for, seen.forwarded_proto, seen.forwarded_host) = Default::default();
        }
        Trusted::Hops(hops) => {
            for (name, seen) in [(&header::FORWARDED, seen.forwarded), (&X_FORWARDED_FOR, seen.forwarded_for)] {
                if seen {
                    keep_last(headers, name, hops);
                }
            }
        }
    }
    if !seen.forwarded_proto {
        headers.insert(X_FORWARDED_PROTO.clone(), origin.proto.clone());
    }
    if !seen.forwarded_host {
        headers.insert(X_FORWARDED_HOST.clone(), host.clone());
    }
    if seen.forwarded_for {
        append_forwarded_for(headers, origin);
    } else {
        headers.insert(X_FORWARDED_FOR.clone(), origin.ip_value.clone());
    }
    if !seen.forwarded {
        let plain = !(seen.forwarded_for || seen.forwarded_proto || seen.forwarded_host);
        let value = if plain { origin.forwarded(host) } else { forwarded_from(headers) };
        headers.insert(header::FORWARDED, value);
    }
    if !seen.trace {
        headers.insert(TRACEPARENT.clone(), traceparent());
    }
}

/// Makes an instance's headers into those the client gets.
pub(crate) fn to_client(headers: &mut HeaderMap) {
    let (mut connection, mut others) = (false, false);
    for name in headers.keys() {
        match name.as_str() {
            "connection" => connection = true,
            "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => others = true,
            _ => {}
        }
    }
    if connection {
        drop_listed(headers);
    }
    if others {
        for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &header::TRANSFER_ENCODING, &header::UPGRADE] {
            headers.remove(name);
        }
    }
}

/// Says how many requests at a time are taken, so that who sends events keeps the others.
pub(crate) fn tell_capacity(headers: &mut HeaderMap, capacity: usize) {
    headers.insert(CAPACITY.clone(), HeaderValue::from(capacity));
}

fn drop_hop_by_hop(headers: &mut HeaderMap, seen: Seen) {
    if seen.te && !lists(headers, &header::TE, "trailers") {
        headers.remove(header::TE);
    }
    if seen.connection {
        let trailers = headers.get(header::TE).cloned();
        drop_listed(headers);
        if let Some(trailers) = trailers {
            headers.insert(header::TE, trailers);
        }
    }
    if seen.hop_by_hop {
        for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &header::TRANSFER_ENCODING] {
            headers.remove(name);
        }
    }
    if seen.upgrade {
        headers.remove(header::UPGRADE);
    }
    if seen.expect {
        // The gateway itself answers 100 when the instance takes the body.
        headers.remove(header::EXPECT);
    }
}

/// Drops `Connection` and what it lists.
fn drop_listed(headers: &mut HeaderMap) {
    let values: Vec<HeaderValue> = headers.get_all(header::CONNECTION).iter().cloned().collect();
    headers.remove(header::CONNECTION);
    for name in values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')) {
        if let Ok(name) = HeaderName::from_bytes(name.trim().as_bytes()) {
            // `close` and `keep-alive` are options, not names; removing what is not there does no harm.
            headers.remove(name);
        }
    }
}

/// Drops all that says where a request came from.
fn drop_forwarded(headers: &mut HeaderMap) {
    let forwarded = |name: &&HeaderName| **name == header::FORWARDED || name.as_str().starts_with("x-forwarded-");
    let names: Vec<HeaderName> = headers.keys().filter(forwarded).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Keeps the last `most` elements of a comma-separated header.
fn keep_last(headers: &mut HeaderMap, name: &HeaderName, most: u32) {
    let elements = |value: &'_ HeaderValue| -> Vec<Vec<u8>> {
        value.as_bytes().split(|byte| *byte == b',').map(|element| element.trim_ascii().to_vec()).collect()
    };
    let all: Vec<Vec<u8>> = headers.get_all(name).iter().flat_map(elements).collect();
    let kept = &all[all.len().saturating_sub(most as usize)..];
    match HeaderValue::from_bytes(&kept.join(&b", "[..])) {
        Ok(value) => headers.insert(name.clone(), value),
        Err(_) => headers.remove(name),
    };
}

fn drop_internal(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| is_internal(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// HTTP/2 may send cookies one by one; HTTP/1.1 knows one header.
fn join_cookies(headers: &mut HeaderMap) {
    let parts: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Whether a comma-separated header lists `wanted`, whatever its case.
fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']))
        .any(|item| item.trim().eq_ignore_ascii_case(wanted))
}

fn append_forwarded_for(headers: &mut HeaderMap, origin: &Origin) {
    let mut all: Vec<&[u8]> = headers.get_all(&X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    all.push(origin.ip_value.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&all.join(&b", "[..])) {
        headers.insert(X_FORWARDED_FOR.clone(), value);
    }
}

/// `Forwarded` from the `X-Forwarded-*` in `headers`.
fn forwarded_from(headers: &HeaderMap) -> HeaderValue {
    let empty = HeaderValue::from_static("");
    let value = |name: &HeaderName| headers.get(name).unwrap_or(&empty);
    let list = value(&X_FORWARDED_FOR).to_str().unwrap_or_default();
    let nodes: Vec<&str> = list.split(',').map(str::trim).filter(|node| !node.is_empty()).collect();
    forwarded(&nodes, value(&X_FORWARDED_HOST), value(&X_FORWARDED_PROTO))
}

/// `for=<first>;host=<host>;proto=<proto>, for=<second>, …`
fn forwarded(nodes: &[&str], host: &HeaderValue, proto: &HeaderValue) -> HeaderValue {
    let mut parts = String::with_capacity(64);
    let (host, proto) = (host.to_str().unwrap_or_default(), proto.to_str().unwrap_or_default());
    for (at, node) in nodes.iter().enumerate() {
        if at > 0 {
            parts.push_str(", ");
        }
        push_node(&mut parts, node);
        if at == 0 {
            push_pair(&mut parts, "host", host);
            push_pair(&mut parts, "proto", proto);
        }
    }
    HeaderValue::try_from(parts).unwrap_or(HeaderValue::from_static("for=unknown"))
}

fn push_node(parts: &mut String, node: &str) {
    let (open, close) = if matches!(node.parse(), Ok(IpAddr::V6(_))) { ("\"[", "]\"") } else { ("", "") };
    for part in ["for=", open, node, close] {
        parts.push_str(part);
    }
}

fn push_pair(parts: &mut String, name: &str, value: &str) {
    if !value.is_empty() {
        for part in [";", name, "=", value] {
            parts.push_str(part);
        }
    }
}

/// A new trace, sampled so that the container's own sampler keeps its default.
fn traceparent() -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut value = *b"00-00000000000000000000000000000000-0000000000000000-01";
    let mut fill = |from: usize| {
        // Zero would be an invalid id.
        let mut bits = random() | 1;
        for place in &mut value[from..from + 16] {
            *place = HEX[(bits >> 60) as usize];
            bits <<= 4;
        }
    };
    fill(3);
    fill(19);
    fill(36);
    HeaderValue::from_bytes(&value).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests;
