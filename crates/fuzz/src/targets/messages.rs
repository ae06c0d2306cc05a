//! Frames: of WebSockets, and of the monitor.

use knoll_apiserver::parsers::{web_socket_frame, web_socket_messages};
use knoll_container::{
    parsers::{FrameError, frame, frames},
    protocol::{Call, MAX_CALL, MAX_FRAME, Message},
};

use crate::Target;

pub(super) const WEB_SOCKET: Target = Target {
    name: "web_socket",
    cases: 5000,
    words: &["\u{2}", "\u{0}", "\u{4}{\"Width\":80,\"Height\":24}"],
    check: web_socket,
};
pub(super) const MONITOR_FRAMES: Target = Target {
    name: "monitor_frames",
    cases: 2000,
    words: &[
        "{\"number\":1,\"request\":",
        "\"hello\"",
        "\"list\"",
        "\"fds\":",
        "{\"version\":2}",
        "\"start_container\"",
        "\"sandbox\":",
        "\"../\"",
        "\"reply\"",
    ],
    check: monitor_frames,
};

/// A future that waits for nothing but memory.
fn done<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("reading memory waits"),
    }
}

fn web_socket(input: &[u8]) {
    let messages = done(web_socket_messages(input));
    let bytes: usize = messages.iter().map(|message| message.len()).sum();
    assert!(bytes <= input.len(), "{bytes} of {}", input.len());
    // What we write is a whole frame, unmasked, of the length it says.
    let sent = done(web_socket_frame(1, input));
    let (head, length) = match sent[1] {
        126 => (4, usize::from(u16::from_be_bytes([sent[2], sent[3]]))),
        127 => (10, usize::try_from(u64::from_be_bytes(sent[2..10].try_into().expect("eight"))).expect("fits")),
        short => (2, usize::from(short)),
    };
    assert_eq!((sent[0], length, sent.len()), (0x82, input.len() + 1, head + length));
    // Masked as a client does it, it reads back.
    let mut masked = sent[..head].to_vec();
    masked[1] |= 0x80;
    let mask = [input.len() as u8, 0xa5, 0, 0x5a];
    masked.extend_from_slice(&mask);
    masked.extend(sent[head..].iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    let read = done(web_socket_messages(&masked));
    assert_eq!(read.len(), 1);
    assert_eq!((read[0][0], &read[0][1..]), (1, input));
}

fn monitor_frames(input: &[u8]) {
    // What fits into a socket at once.
    let input = &input[..input.len().min(64 << 10)];
    let (calls, error) = frames::<Call>(input, MAX_CALL).expect("a pair of sockets");
    for call in &calls {
        let written = frame(call, MAX_CALL).expect("what was read is no longer");
        let (again, _) = frames::<Call>(&written, MAX_CALL).expect("a pair of sockets");
        assert_eq!(format!("{:?}", again[0]), format!("{call:?}"));
    }
    if let Some(FrameError::TooLong { length, limit }) = error {
        assert!(length > limit);
    }
    let (messages, _) = frames::<Message>(input, MAX_FRAME).expect("a pair of sockets");
    assert!(messages.len() * 4 <= input.len());
}
