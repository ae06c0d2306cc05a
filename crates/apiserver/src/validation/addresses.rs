//! Addresses to which traffic may be led.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use crate::status::Cause;

/// Reads an address in its one form: what maps IPv4 into IPv6 is the IPv4 address, as the kernel takes it.
pub(crate) fn parse(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Why no traffic is led to an address, whoever asks: it means the machine itself, a neighbour of the link, or many.
pub(crate) fn special(address: IpAddr) -> Option<String> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let link_local_multicast = match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    let why = if address.is_unspecified() {
        return Some(format!("may not be unspecified ({address})"));
    } else if address.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    } else if link_local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    } else if link_local_multicast {
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
    } else if address.is_multicast() {
        "may not be a multicast address (224.0.0.0/4, ff00::/8)"
    } else if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        "may not be the broadcast address (255.255.255.255)"
    } else if is_this_network(address) {
        "may not be in the range of this host on this network (0.0.0.0/8)"
    } else {
        return None;
    };
    Some(why.into())
}

/// Linux takes all of 0.0.0.0/8 for nobody else's; some programs take it for the machine itself. So is an IPv6
/// address that holds an IPv4 one in its compatible form.
fn is_this_network(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.segments()[..6] == Ipv6Addr::UNSPECIFIED.segments()[..6],
    }
}

/// Whether it is an address at all.
pub(crate) fn address(text: &str, field: &str, causes: &mut Vec<Cause>) -> Option<IpAddr> {
    let parsed = parse(text);
    if parsed.is_none() {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        causes.push(Cause::invalid(field, &text.into(), why));
    }
    parsed
}

/// Whether it is a network, `address/bits`.
pub(crate) fn network(value: &Value, field: &str, causes: &mut Vec<Cause>) {
    let text = value.as_str().unwrap_or_default().trim();
    let fits = text.split_once('/').and_then(|(address, bits)| {
        let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
        Some(bits <= if address.is_ipv4() { 32 } else { 128 })
    });
    if fits != Some(true) {
        let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        causes.push(Cause::invalid(field, value, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_machine_itself_and_of_many_are_special() {
        for text in [
            "127.0.0.1",
            "127.8.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "::",
            "0.1.2.3",
            "169.254.169.254",
            "fe80::1",
            "224.0.0.1",
            "239.1.1.1",
            "ff02::1",
            "ff05::1",
            "255.255.255.255",
            "::7f00:1",
        ] {
            let address = parse(text).expect("an address");
            assert!(special(address).is_some(), "{text}");
        }
        for text in ["10.0.0.1", "192.0.2.7", "8.8.8.8", "2001:db8::1", "::ffff:192.0.2.1"] {
            assert_eq!(special(parse(text).expect("an address")), None, "{text}");
        }
        assert_eq!(parse("010.0.0.1"), None, "octal or decimal: programs differ");
    }

    #[test]
    fn the_words_are_those_of_kubernetes() {
        let of = |text| special(parse(text).expect("an address")).expect("is special");
        assert_eq!(of("0.0.0.0"), "may not be unspecified (0.0.0.0)");
        assert_eq!(of("127.0.0.1"), "may not be in the loopback range (127.0.0.0/8, ::1/128)");
        assert_eq!(of("169.254.1.1"), "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
        assert_eq!(of("ff02::2"), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}
