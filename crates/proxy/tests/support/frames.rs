//! HTTP/2 as bytes, for clients that do what no library lets them. The API server's tests use this very file, too.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).expect("short").to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The head of a `GET`, in literal headers without a table.
pub(crate) fn head(scheme: &str, authority: &str, path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", "GET"), (":scheme", scheme), (":authority", authority), (":path", path)] {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("short"));
            block.extend(text.as_bytes());
        }
    }
    block
}

/// Goes past the preface of a connection.
pub(crate) async fn begin(to: &mut (impl AsyncWrite + Unpin)) {
    to.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("written");
    to.write_all(&frame(4, 0, 0, &[])).await.expect("written");
}

/// A hundred requests with this head, each taken back at once; another hundred for each `round`.
pub(crate) fn taken_back(round: u32, head: &[u8]) -> Vec<u8> {
    let cancel = 8_u32.to_be_bytes();
    let streams = (0..100).map(|at| 2 * (100 * round + at) + 1);
    streams.flat_map(|stream| [frame(1, 0x5, stream, head), frame(3, 0, stream, &cancel)].concat()).collect()
}

/// A part of the headers of stream 1, none of which is the last.
pub(crate) fn more_headers() -> Vec<u8> {
    frame(9, 0, 1, &[&[0, 1, b'x', 100][..], &[b'y'; 100]].concat())
}

/// Sends `attack` again and again, reading what comes, until the server hangs up.
pub(crate) async fn until_hung_up(
    mut read: impl AsyncRead + Unpin + Send + 'static,
    mut write: impl AsyncWrite + Unpin,
    mut attack: impl FnMut(u32) -> Vec<u8>,
) {
    let reading = tokio::spawn(async move {
        let mut taken = Vec::new();
        drop(read.read_to_end(&mut taken).await);
    });
    for round in 0..u32::MAX {
        let sent = async {
            write.write_all(&attack(round)).await?;
            write.flush().await
        };
        if reading.is_finished() || sent.await.is_err() {
            break;
        }
    }
    reading.await.expect("no panic");
}
