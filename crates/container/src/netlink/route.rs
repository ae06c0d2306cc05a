//! Links, addresses, routes and neighbours.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Message, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Socket, attribute, nested};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
pub(crate) const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
const RTNH_F_ONLINK: u32 = 4;
const NUD_PERMANENT: u16 = 0x80;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// One end of a veth pair.
pub(crate) struct End<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
}

/// A route.
pub(crate) struct Route {
    pub(crate) destination: (Ipv4Addr, u8),
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) source: Option<Ipv4Addr>,
    /// By which interface. Without one whoever sends there is told that nobody is, unless any other route leads there.
    pub(crate) link: Option<u32>,
}

fn link_header(index: u32, up: bool) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        header[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        header[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    header
}

fn with_zero(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

impl Socket {
    /// Makes a veth pair: `near` here, `far` in another network namespace, both down.
    pub(crate) fn add_veth(
        &mut self,
        near: &End<'_>,
        far: &End<'_>,
        there: BorrowedFd<'_>,
        mtu: u32,
    ) -> io::Result<()> {
        let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link_header(0, false))
            .text(IFLA_IFNAME, near.name)
            .attribute(IFLA_ADDRESS, &near.mac)
            .attribute(IFLA_MTU, &mtu.to_ne_bytes())
            .nested(IFLA_LINKINFO, |info| {
                attribute(info, IFLA_INFO_KIND, b"veth");
                nested(info, IFLA_INFO_DATA, |data| {
                    nested(data, VETH_INFO_PEER, |peer| {
                        peer.extend_from_slice(&link_header(0, false));
                        attribute(peer, IFLA_IFNAME, &with_zero(far.name));
                        attribute(peer, IFLA_ADDRESS, &far.mac);
                        attribute(peer, IFLA_MTU, &mtu.to_ne_bytes());
                        attribute(peer, IFLA_NET_NS_FD, &there.as_raw_fd().to_ne_bytes());
                    });
                });
            });
        self.request(message)
    }

    /// The number of a link.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<u32> {
        let reply = self.ask(Message::new(RTM_GETLINK, 0, &link_header(0, false)).text(IFLA_IFNAME, name))?;
        let index = reply.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
        index.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Switches a link on.
    pub(crate) fn up(&mut self, link: u32) -> io::Result<()> {
        self.request(Message::new(RTM_NEWLINK, 0, &link_header(link, true)))
    }

    /// Removes a link; absent is fine.
    pub(crate) fn remove_link(&mut self, name: &str) -> io::Result<()> {
        match self.request(Message::new(RTM_DELLINK, 0, &link_header(0, false)).text(IFLA_IFNAME, name)) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            outcome => outcome,
        }
    }

    /// Gives a link an address of its own (/32); having it already is fine.
    pub(crate) fn add_address(&mut self, link: u32, address: Ipv4Addr, scope: u8) -> io::Result<()> {
        self.request(address_message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, link, address, scope))
    }

    /// Takes an address away; absent is fine.
    pub(crate) fn remove_address(&mut self, link: u32, address: Ipv4Addr) -> io::Result<()> {
        match self.request(address_message(RTM_DELADDR, 0, link, address, 0)) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            outcome => outcome,
        }
    }

    /// Adds a route, replacing one to the same destination.
    pub(crate) fn add_route(&mut self, route: &Route) -> io::Result<()> {
        self.request(route_message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route))
    }

    /// Removes a route; absent is fine.
    pub(crate) fn remove_route(&mut self, route: &Route) -> io::Result<()> {
        match self.request(route_message(RTM_DELROUTE, 0, route)) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            outcome => outcome,
        }
    }

    /// States for good which hardware address a neighbour has, so that nobody needs to ask.
    pub(crate) fn add_neighbour(&mut self, link: u32, address: Ipv4Addr, mac: Mac) -> io::Result<()> {
        const NDA_DST: u16 = 1;
        const NDA_LLADDR: u16 = 2;
        let mut header = [0; 12];
        header[0] = AF_INET;
        header[4..8].copy_from_slice(&link.to_ne_bytes());
        header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        self.request(
            Message::new(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &header)
                .attribute(NDA_DST, &address.octets())
                .attribute(NDA_LLADDR, &mac),
        )
    }
}

fn route_message(kind: u16, flags: u16, route: &Route) -> Message {
    const RTA_DST: u16 = 1;
    const RTA_OIF: u16 = 4;
    const RTA_GATEWAY: u16 = 5;
    const RTA_PRIORITY: u16 = 6;
    const RTA_PREFSRC: u16 = 7;
    let (scope, how, onlink) = match (route.link, route.gateway) {
        (None, _) => (RT_SCOPE_UNIVERSE, RTN_UNREACHABLE, 0),
        (Some(_), Some(_)) => (RT_SCOPE_UNIVERSE, RTN_UNICAST, RTNH_F_ONLINK),
        (Some(_), None) => (RT_SCOPE_LINK, RTN_UNICAST, 0),
    };
    let (to, prefix) = route.destination;
    let mut header = vec![AF_INET, prefix, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, how];
    header.extend_from_slice(&onlink.to_ne_bytes());
    let message = Message::new(kind, flags, &header).attribute(RTA_DST, &to.octets());
    let mut message = match route.link {
        Some(link) => message.attribute(RTA_OIF, &link.to_ne_bytes()),
        None => message.attribute(RTA_PRIORITY, &u32::MAX.to_ne_bytes()),
    };
    if let Some(gateway) = route.gateway {
        message = message.attribute(RTA_GATEWAY, &gateway.octets());
    }
    if let Some(source) = route.source {
        message = message.attribute(RTA_PREFSRC, &source.octets());
    }
    message
}

fn address_message(kind: u16, flags: u16, link: u32, address: Ipv4Addr, scope: u8) -> Message {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let mut header = vec![AF_INET, 32, 0, scope];
    header.extend_from_slice(&link.to_ne_bytes());
    Message::new(kind, flags, &header).attribute(IFA_LOCAL, &address.octets()).attribute(IFA_ADDRESS, &address.octets())
}
