//! WebSockets, as far as the actor speaks them.

use crate::Connection;

/// A WebSocket that the actor echoes on.
pub struct Socket(Connection);

impl Socket {
    /// Opens one at `address` for `host`.
    ///
    /// # Panics
    /// When it is not let through, or not by the protocol.
    pub fn open(address: &str, host: &str) -> Self {
        let mut socket = Connection::open(address).expect("it listens");
        let headers = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        socket.send(host, "GET", "/socket", &headers, "").expect("it is sent");
        let head = socket.head().expect("the head comes");
        assert_eq!(head.status, 101);
        assert_eq!(head.header("upgrade").to_lowercase(), "websocket");
        // The example of RFC 6455, section 1.3.
        assert_eq!(head.header("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        Self(socket)
    }

    /// Whether a frame that is sent comes back.
    pub fn echoes(&mut self, round: u8) -> bool {
        // A masked text frame with a mask of zeros.
        let frame = [&[0x81, 0x85, 0, 0, 0, 0][..], b"ping", &[b'0' + round % 10]].concat();
        let mut echo = vec![0; frame.len()];
        self.0.write(&frame).and_then(|()| self.0.read(&mut echo)).is_ok() && echo == frame
    }
}
