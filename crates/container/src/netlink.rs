//! Netlink by hand, synchronous: messages, attributes, acknowledgements.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

pub(crate) mod route;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;
const HEADER: usize = 16;

/// A message being built. Integers are in host order unless a method says otherwise.
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Begins with a type, flags and the family's own header.
    pub(crate) fn new(kind: u16, flags: u16, header: &[u8]) -> Message {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(header);
        pad(&mut bytes);
        Message { bytes }
    }

    /// Appends an attribute.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Message {
        attribute(&mut self.bytes, kind, value);
        self
    }

    /// Appends a text with its closing zero.
    pub(crate) fn text(self, kind: u16, value: &str) -> Message {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Appends attributes inside an attribute.
    pub(crate) fn nested(mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) -> Message {
        nested(&mut self.bytes, kind, fill);
        self
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// Appends an attribute to a buffer.
pub(crate) fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    pad(bytes);
}

/// Appends attributes inside an attribute to a buffer. The inside may be at most 64 KiB long.
pub(crate) fn nested(bytes: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    fill(bytes);
    let length = u16::try_from(bytes.len() - start).unwrap_or(u16::MAX);
    bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    bytes[start + 2..start + 4].copy_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A netlink socket. It belongs to the network namespace it was made in.
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// For links, addresses, routes and neighbours.
    pub(crate) fn route() -> io::Result<Socket> {
        Socket::open(SockProtocol::NetlinkRoute)
    }

    /// For nf_tables.
    pub(crate) fn netfilter() -> io::Result<Socket> {
        Socket::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> io::Result<Socket> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Socket { fd, sequence: 0 })
    }

    /// Sends a request and waits for its acknowledgement.
    pub(crate) fn request(&mut self, message: Message) -> io::Result<()> {
        let sequence = self.send(vec![message], NLM_F_REQUEST | NLM_F_ACK)?;
        self.acknowledged(sequence, |_| {})
    }

    /// Sends a request and gives the first reply's body, after its header.
    pub(crate) fn ask(&mut self, message: Message) -> io::Result<Vec<u8>> {
        let sequence = self.send(vec![message], NLM_F_REQUEST | NLM_F_ACK)?;
        let mut reply = None;
        self.acknowledged(sequence, |body| {
            reply.get_or_insert_with(|| body.to_vec());
        })?;
        reply.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Sends messages as one transaction; the last one is acknowledged, or any of them refused.
    pub(crate) fn batch(&mut self, begin: Message, messages: Vec<Message>, end: Message) -> io::Result<()> {
        self.sequence += 1;
        let first = self.sequence;
        let mut bytes = begin.finish(first);
        let mut last = first;
        let count = messages.len();
        for (index, mut message) in messages.into_iter().enumerate() {
            self.sequence += 1;
            last = self.sequence;
            let ack = if index + 1 == count { NLM_F_ACK } else { 0 };
            message.add_flags(NLM_F_REQUEST | ack);
            bytes.extend(message.finish(last));
        }
        self.sequence += 1;
        bytes.extend(end.finish(self.sequence));
        nix::sys::socket::setsockopt(&self.fd, nix::sys::socket::sockopt::SndBufForce, &bytes.len().max(256 * 1024))?;
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        self.acknowledged(last, |_| {})
    }

    fn send(&mut self, messages: Vec<Message>, flags: u16) -> io::Result<u32> {
        self.sequence += 1;
        let mut bytes = Vec::new();
        for mut message in messages {
            message.add_flags(flags);
            bytes.extend(message.finish(self.sequence));
        }
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        Ok(self.sequence)
    }

    /// Reads until the acknowledgement with this number, or any error, handing over other replies' bodies.
    fn acknowledged(&mut self, sequence: u32, mut other: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(nix::errno::Errno::EINTR) => continue,
                outcome => outcome?,
            };
            let mut rest = &buffer[..length];
            while let Some(message) = split(&mut rest) {
                match message.kind {
                    NLMSG_ERROR => match message.error() {
                        0 if message.sequence == sequence => return Ok(()),
                        0 => {}
                        code => return Err(io::Error::from_raw_os_error(-code)),
                    },
                    NLMSG_DONE if message.sequence == sequence => return Ok(()),
                    _ => other(message.body),
                }
            }
        }
    }
}

impl Message {
    fn add_flags(&mut self, flags: u16) {
        let old = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]);
        self.bytes[6..8].copy_from_slice(&(old | flags).to_ne_bytes());
    }
}

struct Received<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Received<'_> {
    fn error(&self) -> i32 {
        self.body.first_chunk::<4>().map_or(-libc::EBADMSG, |code| i32::from_ne_bytes(*code))
    }
}

fn split<'a>(rest: &mut &'a [u8]) -> Option<Received<'a>> {
    let header = rest.first_chunk::<HEADER>()?;
    let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let kind = u16::from_ne_bytes([header[4], header[5]]);
    let sequence = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
    let body = rest.get(HEADER..length)?;
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    Some(Received { kind, sequence, body })
}
