//! The server's side of WebSocket (RFC 6455), as far as channels need it: binary and text messages whole, pings
//! answered, no extensions.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};

use crate::{
    body::{self, Body},
    status::Status,
};

/// Longest message, in bytes.
const LONGEST: usize = 4 * 1024 * 1024;
/// What RFC 6455 §1.3 appends to a client's key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// An open connection's bytes.
pub(crate) type Socket = TokioIo<Upgraded>;

/// Whether a client asks for WebSocket.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let value = headers.get(header::UPGRADE).and_then(|v| v.to_str().ok());
    value.is_some_and(|v| v.eq_ignore_ascii_case("websocket"))
}

/// Picks the first of the client's protocols that is ours.
pub(crate) fn protocol<'a>(headers: &HeaderMap, ours: &[&'a str]) -> Option<&'a str> {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let mut offered = offered.flat_map(|v| v.split(',')).map(str::trim);
    offered.find_map(|o| ours.iter().find(|p| **p == o).copied())
}

/// The answer that opens the connection.
///
/// # Errors
/// 400 without a key.
pub(crate) fn switch(headers: &HeaderMap, protocol: &str) -> Result<Response<Body>, Status> {
    let key =
        headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| Status::bad_request("Sec-WebSocket-Key is missing"))?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(GUID);
    let accept = STANDARD.encode(context.finish());
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    for (name, value) in [(header::SEC_WEBSOCKET_ACCEPT, accept.as_str()), (header::SEC_WEBSOCKET_PROTOCOL, protocol)] {
        headers.insert(name, HeaderValue::from_str(value).map_err(Status::internal)?);
    }
    Ok(response)
}

/// What comes in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// A message, whole.
    Data(Bytes),
    /// The client asks whether we live; to be answered with the same bytes.
    Ping(Bytes),
}

/// Reads messages.
pub(crate) struct Reader<R> {
    source: R,
    buffer: BytesMut,
    /// Parts of a message that is not yet whole.
    parts: BytesMut,
}

struct Frame {
    last: bool,
    code: u8,
    payload: Bytes,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, buffer: BytesMut::with_capacity(8192), parts: BytesMut::new() }
    }

    /// The next message. `None` when the client closes, breaks off or breaks the rules. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            while let Some(frame) = self.frame()? {
                match frame.code {
                    0..=2 => {
                        if self.parts.len() + frame.payload.len() > LONGEST {
                            return None;
                        }
                        if frame.last && self.parts.is_empty() {
                            return Some(Message::Data(frame.payload));
                        }
                        self.parts.extend_from_slice(&frame.payload);
                        if frame.last {
                            return Some(Message::Data(self.parts.split().freeze()));
                        }
                    }
                    9 => return Some(Message::Ping(frame.payload)),
                    10 => {}
                    _ => return None,
                }
            }
            if self.source.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// A frame if the buffer holds one; the outer `None` when it breaks the rules.
    fn frame(&mut self) -> Option<Option<Frame>> {
        let [first, second, ..] = self.buffer[..] else { return Some(None) };
        // Clients must mask, and nobody may use the reserved bits without an extension.
        if first & 0x70 != 0 || second & 0x80 == 0 {
            return None;
        }
        let (extra, length) = match second & 0x7f {
            126 => (2, self.buffer.get(2..4).map(|b| u64::from(u16::from_be_bytes([b[0], b[1]])))),
            127 => (8, self.buffer.get(2..10).map(|b| b.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))),
            short => (0, Some(u64::from(short))),
        };
        let Some(length) = length else { return Some(None) };
        let length = usize::try_from(length).ok().filter(|&l| l <= LONGEST)?;
        let head = 2 + extra + 4;
        if self.buffer.len() < head + length {
            return Some(None);
        }
        let mask: [u8; 4] = self.buffer[head - 4..head].try_into().ok()?;
        self.buffer.advance(head);
        let mut payload = self.buffer.split_to(length);
        payload.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= mask[at % 4]);
        Some(Some(Frame { last: first & 0x80 != 0, code: first & 0x0f, payload: payload.freeze() }))
    }
}

/// Writes messages.
pub(crate) struct Writer<W> {
    target: W,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(crate) fn new(target: W) -> Self {
        Self { target }
    }

    /// A binary message on a channel: the channel's byte, then the data.
    pub(crate) async fn channel(&mut self, channel: u8, data: &[u8]) -> std::io::Result<()> {
        self.frame(2, Some(channel), data).await
    }

    /// Asks whether the client lives. Its answer is read over.
    pub(crate) async fn ping(&mut self) -> std::io::Result<()> {
        self.frame(9, None, b"").await
    }

    /// The answer to a ping.
    pub(crate) async fn pong(&mut self, data: &[u8]) -> std::io::Result<()> {
        self.frame(10, None, data).await
    }

    /// Says that all went well and nothing follows.
    pub(crate) async fn close(&mut self) -> std::io::Result<()> {
        self.frame(8, None, &1000_u16.to_be_bytes()).await
    }

    async fn frame(&mut self, code: u8, channel: Option<u8>, data: &[u8]) -> std::io::Result<()> {
        let length = data.len() + usize::from(channel.is_some());
        let mut frame = Vec::with_capacity(length + 10);
        frame.push(0x80 | code);
        match (length, u16::try_from(length)) {
            (0..=125, _) => frame.push(length as u8),
            (_, Ok(short)) => {
                frame.push(126);
                frame.extend_from_slice(&short.to_be_bytes());
            }
            (long, Err(_)) => {
                frame.push(127);
                frame.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        frame.extend(channel);
        frame.extend_from_slice(data);
        self.target.write_all(&frame).await?;
        self.target.flush().await
    }
}

/// Both directions of an open connection.
pub(crate) fn split(socket: Socket) -> (Reader<ReadHalf<Socket>>, Writer<WriteHalf<Socket>>) {
    let (source, target) = tokio::io::split(socket);
    (Reader::new(source), Writer::new(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(code: u8, data: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![code, 0x80 | data.len() as u8];
        frame.extend_from_slice(&mask);
        frame.extend(data.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        frame
    }

    #[tokio::test]
    async fn parts_become_one_message_around_a_ping() {
        let mut bytes = masked(0x02, b"ab");
        bytes.extend(masked(0x89, b"?"));
        bytes.extend(masked(0x80, b"cd"));
        bytes.extend(masked(0x88, b""));
        let mut reader = Reader::new(&bytes[..]);
        assert_eq!(reader.next().await, Some(Message::Ping("?".into())));
        assert_eq!(reader.next().await, Some(Message::Data("abcd".into())));
        assert_eq!(reader.next().await, None);
    }

    #[tokio::test]
    async fn an_unmasked_frame_ends_the_connection() {
        assert_eq!(Reader::new(&[0x82, 0x01, b'x'][..]).next().await, None);
    }

    #[test]
    fn the_accept_header_is_that_of_the_standard() {
        let mut headers = HeaderMap::new();
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        let response = switch(&headers, "v5.channel.k8s.io").unwrap();
        assert_eq!(response.headers()[header::SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
