//! Listening sockets that outlive the server: the monitor holds duplicates, and the next server takes them up, so that
//! a client meanwhile waits instead of being refused.

use std::{
    collections::BTreeMap,
    io, net,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use knoll_container::{
    client::{Client, ClientError},
    protocol::ListenerName,
};
use tokio::net::TcpListener;

/// Sockets that an earlier server left with the monitor, and those this one wants to be kept.
#[derive(Default)]
pub(crate) struct Kept {
    left: BTreeMap<ListenerName, OwnedFd>,
    wanted: Vec<(ListenerName, OwnedFd)>,
}

/// Sockets that the monitor is to keep. The server holds them, too: a monitor may die first.
pub(crate) struct Wanted(Vec<(ListenerName, OwnedFd)>);

impl Wanted {
    /// Hands them to a monitor, which keeps them from now on.
    pub(crate) async fn hand_over(&self, monitor: &Client) -> Result<(), ClientError> {
        let copies = self.0.iter().map(|(name, socket)| Ok((name.clone(), socket.try_clone()?)));
        monitor.keep_listeners(copies.collect::<io::Result<_>>()?).await
    }
}

/// A name for a socket that says what it is for and where it listens.
pub(crate) fn name(what: &str, address: net::SocketAddr) -> ListenerName {
    let place = address.to_string().replace(|c: char| !(c.is_ascii_alphanumeric() || c == '.'), "_");
    ListenerName::new(format!("{what}-{place}")).expect("letters, digits, dots, dashes and underscores")
}

impl Kept {
    /// What the monitor at `socket` holds; nothing when none runs, or it is of another version.
    pub(crate) async fn find(socket: &Path) -> Self {
        let left = async { Client::connect(socket).await?.listeners().await };
        let left: Result<_, ClientError> = left.await;
        let left = left.inspect_err(|error| tracing::debug!(%error, "no socket was left with the monitor"));
        Self { left: left.unwrap_or_default().into_iter().collect(), wanted: Vec::new() }
    }

    /// Whether a socket of this name was left.
    pub(crate) fn has(&self, name: &ListenerName) -> bool {
        self.left.contains_key(name)
    }

    /// Lets go, here and in the monitor at `socket`, of what is not among `names`: their addresses may be wanted otherwise.
    pub(crate) async fn keep_only(&mut self, names: &[ListenerName], socket: &Path) {
        let strange: Vec<ListenerName> = self.left.keys().filter(|name| !names.contains(name)).cloned().collect();
        if strange.is_empty() {
            return;
        }
        self.left.retain(|name, _| names.contains(name));
        let dropped: Result<(), ClientError> =
            async { Client::connect(socket).await?.drop_listeners(strange).await }.await;
        if let Err(error) = dropped {
            tracing::warn!(%error, "the monitor keeps sockets that nobody wants");
        }
    }

    /// The socket of this name that was left, or else the one that `bind` makes; it will be kept, too.
    pub(crate) fn take_or<E: From<io::Error>>(
        &mut self,
        name: ListenerName,
        bind: impl FnOnce() -> Result<TcpListener, E>,
    ) -> Result<TcpListener, E> {
        let listener = match self.left.remove(&name) {
            Some(left) => {
                let listener = net::TcpListener::from(left);
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener)?
            }
            None => bind()?,
        };
        self.wanted.push((name, listener.as_fd().try_clone_to_owned()?));
        Ok(listener)
    }

    /// What the monitor is to keep: this one, and each that comes after it.
    pub(crate) fn wanted(self) -> Wanted {
        Wanted(self.wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_was_left_is_taken_up_with_the_clients_that_wait_in_it() {
        let first = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = first.local_addr().unwrap();
        let name = name("api", address);
        let mut kept = Kept::default();
        kept.left.insert(name.clone(), OwnedFd::from(first.try_clone().unwrap()));
        drop(first);
        let _waiting = net::TcpStream::connect(address).expect("it waits in the backlog");
        let listener = kept.take_or::<io::Error>(name, || panic!("it is there already")).unwrap();
        assert_eq!(listener.local_addr().unwrap(), address);
        listener.accept().await.expect("who waited is let in");
        assert_eq!(kept.wanted.len(), 1);
    }

    #[test]
    fn names_tell_roles_and_addresses_apart() {
        let of = |what, address: &str| name(what, address.parse().unwrap()).to_string();
        assert_eq!(of("http", "127.0.0.1:80"), "http-127.0.0.1_80");
        assert_eq!(of("api", "[::1]:6443"), "api-___1__6443");
        assert_ne!(of("http", "127.0.0.1:80"), of("api", "127.0.0.1:80"));
    }
}
