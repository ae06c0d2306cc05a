//! Sockets between the roles of one machine, for where they are processes of their own.
//!
//! Each is a Unix socket below `/run/knoll` that only root opens: the kernel says who is on the other side, and nothing of
//! it can be reached over a network. What goes over them makes things quick and is never the only word: a role whose peer
//! is gone goes on with what the API says, and connects again.
//!
//! | socket | listens | connects | what goes |
//! |---|---|---|---|
//! | `autoscaler.sock` | autoscaler | gateway | what revisions carried, each second; who waits for an instance |
//! | `gateway.sock` | gateway | node | instances that begin and cease to take requests; whether one is drained |
//! | `node.sock` | node | API server | logs, commands and ports of containers |
//!
//! Frames are JSON behind their length (`tokio_util`'s length-delimited codec), at most [`LONGEST`] bytes.

pub(crate) mod instances;
pub(crate) mod stats;
pub(crate) mod streams;
mod wire;

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::{paths::RUNTIME, private};

/// Longest frame, bytes.
pub(crate) const LONGEST: usize = 1 << 20;
/// Pauses before a peer that is gone is looked for again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Where a role listens for others of this machine.
pub(crate) fn socket(role: &str) -> PathBuf {
    Path::new(RUNTIME).join(format!("{role}.sock"))
}

/// Listens on a socket that only its owner opens, in place of one that an earlier process left.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    private::directory(path.parent().unwrap_or(path))?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A peer on such a socket.
pub(crate) struct Peer(pub(crate) Framed<UnixStream, LengthDelimitedCodec>);

impl Peer {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self(LengthDelimitedCodec::builder().max_frame_length(LONGEST).new_framed(stream))
    }

    /// Connects, however long it takes until somebody listens.
    pub(crate) async fn find(path: &Path) -> Self {
        let mut pause = PAUSE.0;
        loop {
            match UnixStream::connect(path).await {
                Ok(stream) => return Self::new(stream),
                Err(error) => tracing::debug!(path = %path.display(), %error, "nobody listens yet"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    pub(crate) async fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        self.0.send(Bytes::from(serde_json::to_vec(message)?)).await
    }

    /// The next message; nothing once the peer has closed. Loses nothing when it is dropped before it ends.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        match self.0.next().await {
            Some(frame) => Ok(Some(serde_json::from_slice(&frame?)?)),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_its_owners_only_and_a_frame_has_a_bound() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("run/role.sock");
        drop(listen(&path).expect("listens"));
        let listener = listen(&path).expect("takes the place of the old one");
        assert_eq!(fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o600);
        let mut there = Peer::find(&path).await;
        let mut here = Peer::new(listener.accept().await.expect("comes").0);
        there.send(&"word").await.expect("goes");
        assert_eq!(here.next::<String>().await.expect("comes").as_deref(), Some("word"));
        let long = "x".repeat(LONGEST);
        there.send(&long).await.expect_err("too long to send");
        drop(there);
        assert_eq!(here.next::<String>().await.expect("closed"), None);
    }
}
