//! From the node to the gateway: instances, ahead of what the API says of them, and back: when one is drained.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use knoll_api::{Key, table::Instance};
use knoll_proxy::EndpointHints;
use serde::{Deserialize, Serialize};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{Peer, wire::Place};

/// What may wait to be told. More is left to the API.
const WAITING: usize = 4096;
/// Nodes at a time; more are closed at once.
const NODES: usize = 16;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Order {
    Up(Place),
    Down(Place),
    /// Say so once nobody waits for an answer of it.
    Drain(u64, Place),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Drained(u64);

/// Whom a node tells of its instances.
#[derive(Clone)]
pub(crate) enum Hints {
    /// A gateway of this process.
    Here(EndpointHints),
    /// One of another.
    There(Remote),
}

/// A gateway of another process.
#[derive(Clone)]
pub(crate) struct Remote {
    orders: mpsc::Sender<(Order, Option<oneshot::Sender<()>>)>,
    next: Arc<AtomicU64>,
}

impl Hints {
    pub(crate) fn up(&self, revision: Key, instance: Instance) {
        match self {
            Self::Here(gateway) => gateway.instance_up(revision, instance),
            Self::There(gateway) => gateway.order(Order::Up(Place::new(&revision, &instance)), None),
        }
    }

    pub(crate) fn down(&self, revision: &Key, instance: &Instance) {
        match self {
            Self::Here(gateway) => gateway.instance_down(revision, instance),
            Self::There(gateway) => gateway.order(Order::Down(Place::new(revision, instance)), None),
        }
    }

    /// Ends once nobody waits for an answer of that instance; at once when there is no gateway that could.
    pub(crate) async fn drained(&self, revision: &Key, instance: &Instance) {
        match self {
            Self::Here(gateway) => gateway.drained(revision, instance).await,
            Self::There(gateway) => {
                let (done, drained) = oneshot::channel();
                let id = gateway.next.fetch_add(1, Relaxed);
                gateway.order(Order::Drain(id, Place::new(revision, instance)), Some(done));
                // An error means that the gateway is gone, and with it who waited there.
                drained.await.ok();
            }
        }
    }
}

impl Remote {
    fn order(&self, order: Order, done: Option<oneshot::Sender<()>>) {
        if self.orders.try_send((order, done)).is_err() {
            tracing::debug!("too much to tell the gateway: it hears of an instance from the API");
        }
    }

    /// One that listens at `path`, and the task that tells it.
    pub(crate) fn at(path: &Path) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (orders, mut waiting) = mpsc::channel(WAITING);
        let path = path.to_owned();
        let task = async move {
            loop {
                let mut peer = {
                    let found = Peer::find(&path);
                    tokio::pin!(found);
                    loop {
                        tokio::select! {
                            peer = &mut found => break peer,
                            // Nobody is there to be told; who waits for the end of draining is let go with this.
                            dropped = waiting.recv() => if dropped.is_none() { return },
                        }
                    }
                };
                tracing::info!("the gateway listens");
                match tell(&mut peer, &mut waiting).await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(%error, "the gateway is gone; it is looked for"),
                }
            }
        };
        (Self { orders, next: Arc::default() }, task)
    }
}

async fn tell(peer: &mut Peer, waiting: &mut mpsc::Receiver<(Order, Option<oneshot::Sender<()>>)>) -> io::Result<()> {
    let mut draining = HashMap::new();
    loop {
        tokio::select! {
            order = waiting.recv() => {
                let Some((order, done)) = order else { return Ok(()) };
                if let (Order::Drain(id, _), Some(done)) = (&order, done) {
                    draining.retain(|_, done: &mut oneshot::Sender<()>| !done.is_closed());
                    draining.insert(*id, done);
                }
                peer.send(&order).await?;
            }
            said = peer.next::<Drained>() => {
                let Drained(id) = said?.ok_or(io::ErrorKind::ConnectionAborted)?;
                if let Some(done) = draining.remove(&id) {
                    // Who no longer waits needs no word.
                    done.send(()).ok();
                }
            }
        }
    }
}

/// Lets nodes tell a gateway, for ever.
pub(crate) async fn serve(listener: &UnixListener, gateway: EndpointHints) {
    let mut peers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if peers.len() < NODES => {
                    peers.spawn(hear(stream, gateway.clone()));
                }
                Ok(_) => tracing::warn!(most = NODES, "too many nodes; one is turned away"),
                Err(error) => {
                    tracing::warn!(%error, "a node could not be let in");
                    tokio::time::sleep(super::PAUSE.1).await;
                }
            },
            Some(ended) = peers.join_next(), if !peers.is_empty() => {
                if let Ok(Err(error)) = ended {
                    tracing::warn!(%error, "a node's word broke off");
                }
            }
        }
    }
}

async fn hear(stream: UnixStream, gateway: EndpointHints) -> io::Result<()> {
    let mut peer = Peer::new(stream);
    let mut draining = FuturesUnordered::new();
    loop {
        tokio::select! {
            order = peer.next() => match order? {
                None => return Ok(()),
                Some(Order::Up(place)) => {
                    let (revision, instance) = place.into_parts();
                    gateway.instance_up(revision, instance);
                }
                Some(Order::Down(place)) => {
                    let (revision, instance) = place.into_parts();
                    gateway.instance_down(&revision, &instance);
                }
                Some(Order::Drain(id, place)) => {
                    let (revision, instance) = place.into_parts();
                    let gateway = gateway.clone();
                    draining.push(async move {
                        gateway.drained(&revision, &instance).await;
                        id
                    });
                }
            },
            Some(id) = draining.next(), if !draining.is_empty() => peer.send(&Drained(id)).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use knoll_proxy::Gateway;
    use tokio::sync::watch;

    use super::*;

    #[tokio::test]
    async fn a_node_that_waits_for_a_gateway_is_let_go_when_that_is_gone() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("gateway.sock");
        let listener = crate::links::listen(&path).expect("listens");
        let (_table, tables) = watch::channel(None);
        let config = knoll_proxy::Config { threads: 1, ..knoll_proxy::Config::default() };
        let (gateway, _feeds) = Gateway::new(config, tables).expect("a gateway");
        let (remote, task) = Remote::at(&path);
        let telling = tokio::spawn(task);
        let hints = Hints::There(remote);
        let (revision, instance) =
            (Key::new("ns", "r"), Instance { address: "10.0.0.1:80".parse().expect("an address"), pod: "p".into() });
        let serving = tokio::spawn({
            let hints = gateway.hints();
            async move { serve(&listener, hints).await }
        });
        hints.up(revision.clone(), instance.clone());
        hints.down(&revision, &instance);
        hints.drained(&revision, &instance).await;
        serving.abort();
        serving.await.expect_err("ends");
        hints.drained(&revision, &instance).await;
        drop(hints);
        telling.await.expect("ends with its node");
    }
}
