//! What reads strangers' bytes without a connection around it: for the fuzz targets, which need nothing else of a
//! gateway.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use knoll_api::Key;

use crate::{
    headers::{self, Origin, Seen, Trusted, is_internal},
    route,
};

/// The headers that an instance gets of those a client at `ip` sent. So many proxies before the gateway are believed;
/// `None` stands for a client inside the cluster, who may say what it likes.
pub fn headers_to_instance(sent: HeaderMap, host: &HeaderValue, ip: IpAddr, hops: Option<u32>) -> HeaderMap {
    let mut headers = sent;
    let seen = Seen::scan(&headers);
    let origin = Origin::new(ip, false, hops.map_or(Trusted::All, Trusted::Hops));
    headers::to_instance(&mut headers, seen, &origin, host);
    headers
}

/// The headers that a client gets of those an instance sent.
pub fn headers_to_client(sent: HeaderMap) -> HeaderMap {
    let mut headers = sent;
    headers::to_client(&mut headers);
    headers
}

/// Whether a header is between the parts of the platform, which no container sees.
pub fn is_platforms(name: &str) -> bool {
    is_internal(name)
}

/// A host as routes are found by it, and the Service it names when it is one of the cluster.
pub fn host(text: &str, cluster_domain: &str) -> (String, Option<Key>) {
    let name = route::normalize(text);
    let service = route::service_of(&name, cluster_domain);
    (name, service)
}
