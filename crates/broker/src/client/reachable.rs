//! Which addresses events are sent to: those that others than the machine itself reach as well.

use std::net::{IpAddr, Ipv4Addr};

use http::Uri;

use crate::Config;

/// Why an address is not sent to.
pub(super) const REFUSED: &str = "it is an address of the machine's own, of its link, or of many: events are not sent to those. Name a Service, or an address that pods reach";

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reachable {
    all: bool,
    gateway: Option<IpAddr>,
}

impl Reachable {
    pub(super) fn new(config: &Config) -> Self {
        Self { all: config.loopback, gateway: config.gateway }
    }

    /// Whether an address is sent to. What listens where only the machine reaches trusts whoever comes, and what its link
    /// has, such as a cloud's metadata, tells it more than others.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.all || self.gateway == Some(address.to_canonical()) || !is_refused(address)
    }

    /// Whether a URI may lead somewhere: it names an address that is sent to, or none.
    pub(super) fn has_literal(&self, uri: &Uri) -> bool {
        literal(uri).is_none_or(|address| self.has(address))
    }
}

fn is_refused(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let is_special = address.is_link_local() || address.is_multicast() || address == Ipv4Addr::BROADCAST;
            address.is_loopback() || address.octets()[0] == 0 || is_special
        }
        // Those that mean one of version 4 among them, and `::` and `::1`, which read as 0.0.0.0 and 0.0.0.1.
        IpAddr::V6(address) => {
            let is_special = address.is_unicast_link_local() || address.is_multicast();
            is_special || address.to_ipv4().is_some_and(|address| is_refused(address.into()))
        }
    }
}

/// The address that a URI names, if it names none by a name.
fn literal(uri: &Uri) -> Option<IpAddr> {
    let host = uri.host()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_machine_and_its_link_reach_is_told_from_the_rest() {
        let gateway = Some(IpAddr::from([169, 254, 77, 1]));
        let (strict, open) = (Reachable { all: false, gateway }, Reachable { all: true, gateway: None });
        for (uri, reachable) in [
            ("http://127.0.0.1:8080/", false),
            ("http://127.9.9.9/", false),
            ("http://0.0.0.0/", false),
            ("http://[::1]/", false),
            ("http://[::]/", false),
            ("http://[::ffff:127.0.0.1]/", false),
            ("http://[::127.0.0.1]/", false),
            ("http://169.254.169.254/", false),
            ("http://[::ffff:169.254.169.254]/", false),
            ("http://[fe80::1]/", false),
            ("http://[febf::1]/", false),
            ("http://224.0.0.1/", false),
            ("http://[ff02::1]/", false),
            ("http://255.255.255.255/", false),
            ("http://10.96.0.1/", true),
            ("http://169.254.77.1/", true),
            ("http://[::ffff:169.254.77.1]/", true),
            ("http://192.168.1.1/", true),
            ("http://[2001:db8::1]/", true),
            ("http://localhost/", true),
        ] {
            assert_eq!(strict.has_literal(&Uri::from_static(uri)), reachable, "{uri}");
            assert!(open.has_literal(&Uri::from_static(uri)), "{uri}");
        }
    }
}
