//! The node as a whole: which pods are here, and everything that runs beside them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use knoll_api::clock::SteadyClock;
use knoll_client::Client as ApiClient;
use knoll_container::client::Client as MonitorClient;
use knoll_container::protocol::{Listing, SandboxId};
use knoll_oci::ImageStore;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use knoll_faults::{catch, caught};

use crate::api::Api;
use crate::config::{Callbacks, Config};
use crate::counters::{Counters, Reading};
use crate::feed::{self, Change, Subject};
use crate::machine::Machine;
use crate::mount_points;
use crate::network::{dns, services};
use crate::panics;
use crate::probes::Crowd;
use crate::pulls::PullSlots;
use crate::recorder::{Recorder, Recording};
use crate::room::Room;
use crate::shared::{Attempts, MonitorConnection, Shared};
use crate::sources::{self, SourceName};
use crate::streams::Streams;
use crate::worker::{self, PodVersion, Start, uid};
use crate::{clocks, disk, expected, images, machine, pod};

/// Changes of pods that wait to be taken in; more wait in the API server.
const QUEUE: usize = 64;

/// Why a node cannot run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A directory cannot be made.
    #[error("cannot make {path}")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The machine cannot be described.
    #[error("cannot describe the machine")]
    Machine(#[source] std::io::Error),
    /// The monitor does not say what it holds.
    #[error("cannot ask the monitor what runs")]
    Monitor(#[source] knoll_container::client::ClientError),
    /// The DNS server's address is taken.
    #[error("cannot listen for DNS on {address}")]
    Dns {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A part of the node ended.
    #[error("{0} has ended unexpectedly")]
    Task(&'static str),
}

/// A pod that a worker lives for.
struct Handle {
    versions: watch::Sender<PodVersion>,
    sources_changed: Arc<Notify>,
    references: BTreeSet<SourceName>,
}

/// What is known of the pods here, for streams from outside.
pub(crate) type Handles = Mutex<HashMap<String, Arc<Pod>>>;

/// The node of this machine. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pods: Arc<Handles>,
    prepared: Arc<Mutex<Option<Prepared>>>,
}

/// What [`Node::run`] begins with.
struct Prepared {
    recording: Recording,
    services: watch::Sender<Option<crate::shared::ServiceIndex>>,
    machine: Machine,
}

impl Node {
    /// A node. Nothing happens before [`Node::run`].
    ///
    /// # Errors
    /// When the machine cannot be described or its directories cannot be made. Blocking for a few file accesses.
    pub fn new(
        config: Config,
        client: ApiClient,
        monitor: MonitorClient,
        images: ImageStore,
        callbacks: Callbacks,
    ) -> Result<Node, NodeError> {
        for dir in [&config.data_dir, &config.runtime_dir].into_iter().flat_map(|top| [top.clone(), top.join("pods")]) {
            make_private(&dir).map_err(|source| NodeError::Directory { path: dir.display().to_string(), source })?;
        }
        let unmade = |source| NodeError::Directory { path: config.data_dir.display().to_string(), source };
        mount_points::make(&config).map_err(unmade)?;
        let machine = Machine::look(&config.data_dir).map_err(NodeError::Machine)?;
        let api = Api(client);
        let counters = Arc::new(Counters::default());
        let (recorder, recording) =
            Recorder::new(api.clone(), config.name.clone(), callbacks.rush.clone(), Arc::clone(&counters));
        let (services, known_services) = watch::channel(None);
        let shared = Arc::new(Shared {
            pulls: PullSlots::new(config.parallel_pulls),
            pressure: watch::Sender::default(),
            evictions: watch::Sender::default(),
            measuring: Arc::new(Semaphore::new(1)),
            writes: Shared::write_slots(),
            allocatable: machine.allocatable(),
            room: Room::new(machine.allocatable(), config.max_pods),
            memory_capacity: machine.memory_bytes,
            services: known_services,
            monitor: MonitorConnection::new(monitor),
            store: images,
            images: Mutex::default(),
            config,
            clock: SteadyClock::new(clocks),
            clock_set: watch::Sender::default(),
            api,
            callbacks,
            recorder,
            crowd: Crowd::default(),
            counters,
            pod_addresses: Arc::default(),
            attempts: Attempts::default(),
            streams: Streams::logs_and_programs(),
            forwarded: Streams::forwarded(),
        });
        let prepared = Prepared { recording, services, machine };
        Ok(Node { shared, pods: Arc::default(), prepared: Arc::new(Mutex::new(Some(prepared))) })
    }

    /// Runs the node until `shutdown` is true or its sender is gone. Containers go on when it ends.
    ///
    /// # Errors
    /// When it cannot begin, or a part of it ends by itself. May be called once; a second call returns at once.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) -> Result<(), NodeError> {
        let prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Prepared { recording, services, machine }) = prepared else { return Ok(()) };
        let listing = self.shared.monitor.get().list().await.map_err(NodeError::Monitor)?;
        let names = watch::Sender::new(Arc::default());
        let dns = match self.shared.config.dns_port {
            None => None,
            Some(port) => {
                let address = std::net::SocketAddr::from((self.shared.config.gateway, port));
                let server = dns::Server::bind(address, &self.shared, names.subscribe()).await;
                Some(server.map_err(|source| NodeError::Dns { address, source })?)
            }
        };
        let (changed, changes) = tokio::sync::mpsc::channel(sources::QUEUE);
        let mut tasks = Tasks { set: JoinSet::new(), counters: Arc::clone(&self.shared.counters) };
        let recorder = Arc::new(tokio::sync::Mutex::new(recording));
        tasks.begin("the event recorder", move || {
            let recorder = Arc::clone(&recorder);
            async move { recorder.lock().await.run().await }
        });
        for (name, kind) in [
            ("the watch of ConfigMaps", sources::SourceKind::ConfigMap),
            ("the watch of Secrets", sources::SourceKind::Secret),
        ] {
            let (shared, changed) = (Arc::clone(&self.shared), changed.clone());
            tasks.begin(name, move || sources::follow(Arc::clone(&shared), kind, changed.clone()));
        }
        let shared = Arc::clone(&self.shared);
        tasks.begin("the Service addresses", move || {
            services::run(Arc::clone(&shared), services.clone(), names.clone())
        });
        let shared = Arc::clone(&self.shared);
        tasks.begin("the heartbeat", move || machine::run(Arc::clone(&shared), machine.clone()));
        let node = self.clone();
        tasks.begin("the image collection", move || images::run(node.clone()));
        let node = self.clone();
        tasks.begin("the look at the disk", move || disk::run(node.clone()));
        let shared = Arc::clone(&self.shared);
        tasks.begin("the monitor's connection", move || {
            let shared = Arc::clone(&shared);
            async move { shared.monitor.keep(&shared.callbacks).await }
        });
        let shared = Arc::clone(&self.shared);
        tasks.begin("the announcing of sandboxes", move || expected::run(Arc::clone(&shared)));
        if let Some(dns) = dns {
            let dns = Arc::new(dns);
            tasks.begin("the DNS server", move || {
                let dns = Arc::clone(&dns);
                async move { dns.run().await }
            });
        }
        let mut roster = Roster {
            node: self.clone(),
            handles: HashMap::new(),
            users: BTreeMap::new(),
            workers: JoinSet::new(),
            listing: Some(Arc::new(listing)),
            changes,
        };
        let ended = tokio::select! {
            () = roster.run_for_ever() => Err(NodeError::Task("the watch of pods")),
            Some(ended) = tasks.set.join_next() => Err(NodeError::Task(ended.unwrap_or("a part"))),
            _ = shutdown.wait_for(|stop| *stop) => Ok(()),
        };
        roster.leave().await;
        ended
    }

    /// What the node counts.
    pub fn counts(&self) -> Reading {
        self.shared.counters.read()
    }
}

/// What runs beside the pods. A part that panics is begun again.
struct Tasks {
    set: JoinSet<&'static str>,
    counters: Arc<Counters>,
}

impl Tasks {
    fn begin<F>(&mut self, name: &'static str, mut make: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        let counters = Arc::clone(&self.counters);
        self.set.spawn(async move {
            restarted(name, &counters, &mut make).await;
            name
        });
    }
}

/// Runs what `make` makes until it ends by itself; a panic is counted, told, and followed by another run.
async fn restarted<F>(name: &'static str, counters: &Counters, make: &mut (impl FnMut() -> F + Send))
where
    F: Future<Output = ()> + Send,
{
    let mut pauses = panics::pauses();
    loop {
        let begun = std::time::Instant::now();
        let Err(message) = caught(make()).await else { return };
        let panics = counters.panics.add();
        tracing::error!(part = name, message, panics, "a part of the node panicked and is begun again");
        tokio::time::sleep(pauses.after(begun.elapsed())).await;
    }
}

/// A directory that only root may enter; one that is there already is closed. Containers reach what lies in it by their
/// own mounts, so nobody else needs a way in.
fn make_private(dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}

/// The pods of this node and their workers.
struct Roster {
    node: Node,
    handles: HashMap<String, Handle>,
    /// The pods that refer to a source, by uid.
    users: BTreeMap<SourceName, BTreeSet<String>>,
    workers: JoinSet<String>,
    /// What ran when this node began; taken with the first list of pods.
    listing: Option<Arc<Listing>>,
    /// Sources that changed.
    changes: tokio::sync::mpsc::Receiver<SourceName>,
}

impl Roster {
    /// Follows the pods until their watch ends. What the workers do cannot end it, and a panic of its own begins the
    /// watch again.
    async fn run_for_ever(&mut self) {
        let mut pauses = panics::pauses();
        loop {
            let begun = std::time::Instant::now();
            let Err(message) = caught(Box::pin(self.run())).await else { return };
            let panics = self.node.shared.counters.panics.add();
            tracing::error!(message, panics, "the watch of pods panicked and is begun again");
            tokio::time::sleep(pauses.after(begun.elapsed())).await;
        }
    }

    async fn run(&mut self) {
        let shared = Arc::clone(&self.node.shared);
        let subject = Subject {
            path: "/api/v1/pods".into(),
            field_selector: Some(format!("spec.nodeName={}", shared.config.name)),
        };
        let (sender, mut changes) = tokio::sync::mpsc::channel::<Change<Pod>>(QUEUE);
        let follow = feed::follow(shared.api.0.clone(), subject, Arc::clone(&shared.counters), sender);
        let mut follow = std::pin::pin!(follow);
        loop {
            tokio::select! {
                biased;
                Some(change) = changes.recv() => match change {
                    Change::All { items, unreadable } => self.take_all(items, &unreadable).await,
                    Change::Put(pod) => self.put(Arc::new(pod), Start::New),
                    Change::Gone(pod) => self.gone(uid(&pod), Some(pod.clone())),
                },
                () = &mut follow => return,
                Some(ended) = self.workers.join_next(), if !self.workers.is_empty() => self.take_end(ended),
                Some(name) = self.changes.recv() => self.source_changed(&name),
            }
        }
    }

    /// Takes a whole list: new pods begin, vanished ones end; one that cannot be read goes on as it is. After a start,
    /// what runs is taken up, and what no pod claims is removed.
    async fn take_all(&mut self, pods: Vec<Pod>, unreadable: &[String]) {
        let mut present: BTreeSet<String> = pods.iter().map(|pod| uid(pod).to_owned()).collect();
        present.extend(unreadable.iter().cloned());
        let vanished: Vec<_> = self.handles.keys().filter(|uid| !present.contains(*uid)).cloned().collect();
        for uid in vanished {
            self.gone(&uid, None);
        }
        let Some(listing) = self.listing.take() else {
            for pod in pods {
                self.put(Arc::new(pod), Start::New);
            }
            return;
        };
        let mut kept = self.records().await;
        // All that is here is counted before anything new is.
        let shared = Arc::clone(&self.node.shared);
        let sandboxes: BTreeSet<&str> = listing.sandboxes.iter().map(|sandbox| sandbox.spec.id.as_str()).collect();
        let is_here = |uid: &str| kept.contains_key(uid) || sandboxes.contains(uid);
        for pod in pods.iter().filter(|pod| is_here(uid(pod)) && !pod::has_ended(pod)) {
            shared.room.hold(uid(pod), pod);
        }
        for uid in unreadable {
            // As this machine knew it last: it must not be taken for an orphan.
            if let Some(record) = kept.remove(uid) {
                self.put(Arc::new(record.pod), Start::known(Some(record.seen), &listing));
            }
        }
        for pod in pods {
            let record = kept.remove(uid(&pod));
            self.put(Arc::new(pod), Start::known(record.map(|r| r.seen), &listing));
        }
        self.remove_orphans(kept, &listing, &present).await;
    }

    /// Everything kept on disk, by uid.
    async fn records(&self) -> BTreeMap<String, worker::PodRecord> {
        let shared = Arc::clone(&self.node.shared);
        let read = tokio::task::spawn_blocking(move || {
            let dir = std::fs::read_dir(shared.config.data_dir.join("pods"));
            let names = dir.into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
            names.filter_map(|uid| Some((uid.clone(), worker::load_record(&shared.config, &uid)?))).collect()
        });
        read.await.unwrap_or_default()
    }

    /// Ends what the API no longer knows.
    async fn remove_orphans(
        &mut self,
        records: BTreeMap<String, worker::PodRecord>,
        listing: &Arc<Listing>,
        present: &BTreeSet<String>,
    ) {
        let shared = Arc::clone(&self.node.shared);
        let known: BTreeSet<String> = records.keys().cloned().collect();
        // Listed before any later pod begins, so that nothing of one that is new is taken for a leftover.
        let found = worker::on_disk(&shared).await.into_iter();
        let leftovers = found.filter(|uid| !present.contains(uid) && !known.contains(uid)).collect();
        tokio::spawn(worker::remove_leftovers(Arc::clone(&shared), leftovers));
        for (uid, record) in records {
            tracing::info!(uid, "a pod is gone from the API: it is stopped");
            self.begin(Arc::new(record.pod), Start::known(Some(record.seen), listing), true);
        }
        let unknown = listing.sandboxes.iter().map(|s| s.spec.id.as_str());
        for uid in unknown.filter(|uid| !present.contains(*uid) && !known.contains(*uid)) {
            tracing::info!(uid, "a sandbox without a pod is removed");
            if let Ok(id) = SandboxId::new(uid)
                && let Err(error) = shared.monitor.get().remove_sandbox(id).await
            {
                tracing::warn!(uid, %error, "a sandbox cannot be removed");
            }
        }
    }

    fn put(&mut self, pod: Arc<Pod>, start: Start) {
        let uid = uid(&pod).to_owned();
        if !self.handles.contains_key(&uid) {
            return self.begin(pod, start, false);
        }
        self.refer(&uid, references(&pod));
        lock(&self.node.pods).insert(uid.clone(), Arc::clone(&pod));
        if let Some(handle) = self.handles.get(&uid) {
            handle.versions.send_replace(PodVersion { pod, gone: false });
        }
    }

    /// Notes what a pod refers to now.
    fn refer(&mut self, uid: &str, now: BTreeSet<SourceName>) {
        let Some(handle) = self.handles.get_mut(uid) else { return };
        if handle.references == now {
            return;
        }
        for name in now.difference(&handle.references) {
            self.users.entry(name.clone()).or_default().insert(uid.to_owned());
        }
        let before = std::mem::replace(&mut handle.references, now);
        for name in before.difference(&handle.references) {
            if let Some(users) = self.users.get_mut(name) {
                users.remove(uid);
                if users.is_empty() {
                    self.users.remove(name);
                }
            }
        }
    }

    fn begin(&mut self, pod: Arc<Pod>, start: Start, gone: bool) {
        let uid = uid(&pod).to_owned();
        let (versions, receiver) = watch::channel(PodVersion { pod: Arc::clone(&pod), gone });
        let sources_changed = Arc::new(Notify::new());
        let life = worker::live(Arc::clone(&self.node.shared), start, receiver, Arc::clone(&sources_changed));
        let name = uid.clone();
        self.workers.spawn(async move {
            life.await;
            name
        });
        lock(&self.node.pods).insert(uid.clone(), Arc::clone(&pod));
        self.handles.insert(uid.clone(), Handle { versions, sources_changed, references: BTreeSet::new() });
        self.refer(&uid, references(&pod));
    }

    fn gone(&mut self, uid: &str, last: Option<Pod>) {
        // At once: whoever takes its place may be next.
        self.node.shared.room.release(uid);
        if let Some(handle) = self.handles.get(uid) {
            let pod = last.map_or_else(|| Arc::clone(&handle.versions.borrow().pod), Arc::new);
            handle.versions.send_replace(PodVersion { pod, gone: true });
        }
    }

    fn take_end(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => {
                self.node.shared.room.release(&uid);
                self.refer(&uid, BTreeSet::new());
                self.handles.remove(&uid);
                lock(&self.node.pods).remove(&uid);
            }
            // A life catches what its worker does; its own end this way would be ours to repair.
            Err(error) => {
                let ended = |(_, handle): &(&String, &Handle)| handle.versions.is_closed();
                let uids: Vec<String> = self.handles.iter().filter(ended).map(|(uid, _)| uid.clone()).collect();
                tracing::error!(%error, ?uids, "the life of a pod ended by itself and is begun again");
                self.node.shared.counters.panics.add();
                for uid in uids {
                    self.refer(&uid, BTreeSet::new());
                    let Some(handle) = self.handles.remove(&uid) else { continue };
                    let PodVersion { pod, gone } = handle.versions.borrow().clone();
                    self.begin(pod, Start::Again, gone);
                }
            }
        }
    }

    fn source_changed(&self, name: &SourceName) {
        for handle in self.users.get(name).into_iter().flatten().filter_map(|uid| self.handles.get(uid)) {
            handle.sources_changed.notify_one();
        }
    }

    /// Lets the workers write down what they know.
    async fn leave(mut self) {
        self.handles.clear();
        let all = async { while self.workers.join_next().await.is_some() {} };
        if tokio::time::timeout(std::time::Duration::from_secs(5), all).await.is_err() {
            tracing::warn!("some pods could not be written down in time");
        }
    }
}

/// What a pod refers to. A pod that makes this panic has a worker that says so.
fn references(pod: &Pod) -> BTreeSet<SourceName> {
    catch(|| sources_of(pod)).unwrap_or_default()
}

fn sources_of(pod: &Pod) -> BTreeSet<SourceName> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let (maps, secrets) = worker::references(pod);
    let name = |kind, name| SourceName { kind, namespace: namespace.clone(), name };
    let maps = maps.into_iter().map(|n| name(sources::SourceKind::ConfigMap, n)).collect::<Vec<_>>();
    maps.into_iter().chain(secrets.into_iter().map(|n| name(sources::SourceKind::Secret, n))).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_panics_is_begun_again_each_time() {
        let (counters, lives) = (Counters::default(), AtomicU32::new(0));
        let mut make = || async { assert!(lives.fetch_add(1, Ordering::Relaxed) >= 2, "it panics twice") };
        restarted("a part", &counters, &mut make).await;
        assert_eq!((lives.load(Ordering::Relaxed), counters.read().panics), (3, 2));
    }
}
