//! What every pod of a node shares.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use imbl::OrdMap;
use k8s_openapi::api::core::v1::{Pod, Service};
use knoll_api::{Key, clock::SteadyClock};
use knoll_container::client::{Client, ClientError};
use knoll_container::protocol::RefusalKind;
use knoll_container::protocol::{ContainerId, ExitStatus};
use knoll_oci::{Image, ImageStore, Keychain, Progress, PullError, PullPolicy};
use tokio::sync::{Semaphore, watch};

use crate::api::Api;
use crate::config::{Callbacks, Config};
use crate::counters::Counters;
use crate::env::Allocatable;
use crate::network::lean::Compact;
use crate::pod::EndReason;
use crate::pressure::Pressure;
use crate::probes::Crowd;
use crate::pulls::PullSlots;
use crate::recorder::Recorder;
use crate::room::Room;
use crate::streams::Streams;

/// Services by namespace and name.
pub(crate) type ServiceIndex = OrdMap<Key, Compact<Service>>;

/// Images remembered ready to run.
const REMEMBERED_IMAGES: usize = 512;
/// Status writes at a time.
const PARALLEL_WRITES: usize = 32;

/// Which pod of which namespace has which address.
#[derive(Default)]
pub(crate) struct PodAddresses(Mutex<HashMap<Ipv4Addr, (String, String)>>);

impl PodAddresses {
    /// A pod has an address from now on.
    pub(crate) fn put(&self, address: Ipv4Addr, namespace: &str, uid: &str) {
        self.lock().insert(address, (namespace.to_owned(), uid.to_owned()));
    }

    /// A pod has its address no more; the next one may have it already.
    pub(crate) fn remove(&self, address: Ipv4Addr, uid: &str) {
        let mut all = self.lock();
        if all.get(&address).is_some_and(|(_, holder)| holder == uid) {
            all.remove(&address);
        }
    }

    /// Whether a pod of a namespace has an address.
    pub(crate) fn is_in(&self, address: Ipv4Addr, namespace: &str) -> bool {
        self.lock().get(&address).is_some_and(|(of, _)| of == namespace)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Ipv4Addr, (String, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The newest attempt to run a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) number: u32,
    /// Whether it ever ran.
    pub(crate) started: bool,
}

/// The newest attempts of all pods' containers, by the pod's uid and the container's name. The API lags behind.
#[derive(Default)]
pub(crate) struct Attempts(Mutex<HashMap<String, BTreeMap<String, Attempt>>>);

impl Attempts {
    /// A pod's containers stand like this.
    pub(crate) fn put(&self, uid: &str, all: BTreeMap<String, Attempt>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), all);
    }

    /// A pod has no worker any more.
    pub(crate) fn remove(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// The newest attempt of a container.
    pub(crate) fn of(&self, uid: &str, container: &str) -> Option<Attempt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(uid)?.get(container).copied()
    }
}

/// What every pod of a node shares.
pub(crate) struct Shared {
    pub(crate) config: Config,
    /// What pods' deadlines and pauses are measured by, and their stamps made with.
    pub(crate) clock: SteadyClock,
    /// Tells that the wall clock was set.
    pub(crate) clock_set: watch::Sender<()>,
    pub(crate) api: Api,
    pub(crate) monitor: MonitorConnection,
    pub(crate) store: ImageStore,
    pub(crate) images: Mutex<BTreeMap<String, Image>>,
    pub(crate) callbacks: Callbacks,
    pub(crate) recorder: Recorder,
    /// Containers that are asked whether they are there yet.
    pub(crate) crowd: Crowd,
    pub(crate) counters: Arc<Counters>,
    pub(crate) pod_addresses: Arc<PodAddresses>,
    pub(crate) attempts: Attempts,
    pub(crate) streams: Arc<Streams>,
    pub(crate) forwarded: Arc<Streams>,
    pub(crate) allocatable: Allocatable,
    /// What of it pods hold.
    pub(crate) room: Room,
    pub(crate) memory_capacity: u64,
    /// `None` until they were listed for the first time.
    pub(crate) services: watch::Receiver<Option<ServiceIndex>>,
    /// What the machine is short of.
    pub(crate) pressure: watch::Sender<Pressure>,
    /// Pods that must go, by uid.
    pub(crate) evictions: watch::Sender<BTreeMap<String, EndReason>>,
    /// Whose turn it is to be measured.
    pub(crate) measuring: Arc<Semaphore>,
    pub(crate) pulls: PullSlots,
    pub(crate) writes: Semaphore,
}

impl Shared {
    pub(crate) fn write_slots() -> Semaphore {
        Semaphore::new(PARALLEL_WRITES)
    }

    /// Remembers an image under the reference it was pulled by.
    pub(crate) fn remember(&self, reference: &str, image: Image) {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if images.len() >= REMEMBERED_IMAGES {
            images.clear();
        }
        images.insert(reference.to_owned(), image);
    }

    /// An image that is known to be here.
    pub(crate) fn remembered(&self, reference: &str) -> Option<Image> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).get(reference).cloned()
    }

    /// An image that is here already, though it may have to be looked at first, whoever may run it: for what runs
    /// from it already.
    pub(crate) async fn find(&self, reference: &str) -> Result<Image, PullError> {
        self.store.find(reference).await
    }

    /// Whether nothing newer than what is here can be asked for under a reference, even by who always asks.
    pub(crate) fn is_settled(&self, reference: &str) -> bool {
        self.store.is_settled(reference)
    }

    /// Pulls an image for whoever has these credentials and tells how far it has come.
    pub(crate) async fn pull(
        &self,
        reference: &str,
        policy: PullPolicy,
        keychain: Keychain,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<Image, PullError> {
        pull(&self.store, reference, policy, &keychain, &progress).await
    }

    /// The Services whose addresses a pod is told: those of its namespace, unless it wants no links, and the API
    /// server's. Waits until they are known.
    pub(crate) async fn services_for(&self, pod: &Pod) -> Vec<Arc<Service>> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut services = self.services.clone();
        let Ok(index) = services.wait_for(Option::is_some).await.map(|index| index.clone()) else { return Vec::new() };
        let Some(index) = index else { return Vec::new() };
        let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
        let master = Key::new("default", "kubernetes");
        let own = index.range(Key::new(namespace, "")..).take_while(|(key, _)| links && key.namespace == namespace);
        let own = own.filter(|(key, _)| **key != master).map(|(_, service)| service);
        own.chain(index.get(&master)).map(|service| Arc::new(service.read())).collect()
    }
}

/// Pulls for as long as it is polled: whoever gives a pull up gives up all of it. What it reads of the store meanwhile
/// is small, and unpacking has threads of its own.
async fn pull(
    store: &ImageStore,
    reference: &str,
    policy: PullPolicy,
    keychain: &Keychain,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Image, PullError> {
    store.pull(reference, policy, keychain, progress).await
}

/// The monitor, across lost connections.
pub(crate) struct MonitorConnection {
    client: watch::Sender<Client>,
}

impl MonitorConnection {
    pub(crate) fn new(client: Client) -> MonitorConnection {
        MonitorConnection { client: watch::Sender::new(client) }
    }

    /// The connection that is used now.
    pub(crate) fn get(&self) -> Client {
        self.client.borrow().clone()
    }

    /// Hears when a new connection is made.
    pub(crate) fn changes(&self) -> watch::Receiver<Client> {
        self.client.subscribe()
    }

    /// Waits until a container has exited, however often the connection is lost meanwhile. A container that the
    /// monitor does not know has exited without a witness.
    pub(crate) async fn wait(&self, id: &ContainerId) -> ExitStatus {
        let mut changes = self.changes();
        loop {
            let client = changes.borrow_and_update().clone();
            match client.wait(id.clone()).await {
                Ok(exit) => return exit,
                Err(error) if error.kind() == Some(RefusalKind::NotFound) => return unseen(),
                Err(error) => {
                    tracing::debug!(%id, %error, "waiting for a container again");
                    let pause = tokio::time::timeout(Duration::from_millis(500), changes.changed());
                    // Either way the next try asks whoever is connected then.
                    drop(pause.await);
                }
            }
        }
    }

    /// Keeps a connection for as long as it is polled.
    pub(crate) async fn keep(&self, callbacks: &Callbacks) {
        loop {
            let client = self.get();
            match client.subscribe().await {
                Ok(mut events) => while events.recv().await.is_some() {},
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            if client.list().await.is_ok() {
                // Only the subscription was too slow, or was refused.
                continue;
            }
            tracing::warn!("the monitor is gone: connecting again");
            let mut pause = Duration::from_millis(50);
            let fresh = loop {
                match (callbacks.reconnect)().await {
                    Ok(client) => break client,
                    Err(error) => tracing::warn!(%error, "the monitor cannot be reached"),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            };
            self.client.send_replace(fresh);
        }
    }
}

/// The exit of a container that nobody saw.
pub(crate) fn unseen() -> ExitStatus {
    ExitStatus { code: 255, signal: None, oom_killed: false, known: false, at: jiff::Timestamp::now() }
}

/// Whether an error means that the connection was lost rather than that the monitor said no.
pub(crate) fn is_lost(error: &ClientError) -> bool {
    matches!(error, ClientError::Closed | ClientError::Io(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_that_is_given_up_holds_no_thread() {
        let dir = tempfile::tempdir().expect("a directory");
        // A registry that takes connections and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
        let host = silent.local_addr().expect("is bound").to_string();
        let store = ImageStore::open(dir.path(), knoll_oci::Config::default()).expect("opens");
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).max_blocking_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            for number in 0..4 {
                let (store, reference) = (store.clone(), format!("{host}/app:{number}"));
                let keychain = Keychain::default();
                let task = tokio::spawn(async move {
                    drop(pull(&store, &reference, PullPolicy::Always, &keychain, &|_| {}).await);
                });
                let (listener, accepted) = (silent.try_clone().expect("a listener"), std::sync::mpsc::channel());
                std::thread::spawn(move || drop(accepted.0.send(listener.accept())));
                let wait = async {
                    while accepted.1.try_recv().is_err() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the registry is asked");
                task.abort();
            }
            let free = tokio::task::spawn_blocking(|| ());
            tokio::time::timeout(Duration::from_secs(10), free).await.expect("a thread is free").expect("it runs");
        });
        runtime.shutdown_background();
    }
}
