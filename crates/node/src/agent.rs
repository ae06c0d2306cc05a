//! The node as a whole: which pods are here, and everything that runs beside them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use knoll_container::client::Client as MonitorClient;
use knoll_container::protocol::{Listing, SandboxId};
use knoll_oci::ImageStore;
use kube::Client as KubeClient;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use crate::api::Api;
use crate::config::{Callbacks, Config};
use crate::feed::{self, Change, Subject};
use crate::machine::Machine;
use crate::network::{dns, services};
use crate::pod::ObservedPod;
use crate::recorder::Recorder;
use crate::shared::{Monitor, Shared};
use crate::sources::{self, SourceName};
use crate::worker::{self, PodVersion, uid};
use crate::{images, machine};

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
    Part(&'static str),
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
    parts: Arc<Mutex<Option<Parts>>>,
}

/// What [`Node::run`] polls.
struct Parts {
    recorder: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
    services: watch::Sender<Option<Arc<crate::shared::ServiceIndex>>>,
    machine: Machine,
}

impl Node {
    /// A node. Nothing happens before [`Node::run`].
    ///
    /// # Errors
    /// When the machine cannot be described or its directories cannot be made. Blocking for a few file accesses.
    pub fn new(
        config: Config,
        client: KubeClient,
        monitor: MonitorClient,
        images: ImageStore,
        callbacks: Callbacks,
    ) -> Result<Node, NodeError> {
        for dir in [config.data_dir.join("pods"), config.runtime_dir.join("pods")] {
            make_private(&dir).map_err(|source| NodeError::Directory { path: dir.display().to_string(), source })?;
        }
        let machine = Machine::look(&config.data_dir).map_err(NodeError::Machine)?;
        let api = Api(client);
        let (recorder, recording) = Recorder::new(api.clone(), config.name.clone());
        let (services, known_services) = watch::channel(None);
        let shared = Arc::new(Shared {
            pulls: Semaphore::new(config.parallel_pulls.max(1)),
            writes: Shared::write_slots(),
            allocatable: machine.allocatable(),
            memory_capacity: machine.memory_bytes,
            services: known_services,
            monitor: Monitor::new(monitor),
            store: images,
            images: Mutex::default(),
            config,
            api,
            callbacks,
            recorder,
        });
        let parts = Parts { recorder: Box::pin(recording), services, machine };
        Ok(Node { shared, pods: Arc::default(), parts: Arc::new(Mutex::new(Some(parts))) })
    }

    /// Runs the node until `shutdown` is true or its sender is gone. Containers go on when it ends.
    ///
    /// # Errors
    /// When it cannot begin, or a part of it ends by itself. May be called once; a second call returns at once.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) -> Result<(), NodeError> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Parts { recorder, services, machine }) = parts else { return Ok(()) };
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
        let mut tasks: JoinSet<&'static str> = JoinSet::new();
        let shared = &self.shared;
        let (changed, changes) = tokio::sync::mpsc::channel(sources::QUEUE);
        part(&mut tasks, "the event recorder", recorder);
        part(
            &mut tasks,
            "the watch of ConfigMaps",
            sources::follow(Arc::clone(shared), sources::Kind::ConfigMap, changed.clone()),
        );
        part(&mut tasks, "the watch of Secrets", sources::follow(Arc::clone(shared), sources::Kind::Secret, changed));
        part(&mut tasks, "the Service addresses", services::run(Arc::clone(shared), services, names));
        part(&mut tasks, "the heartbeat", machine::run(Arc::clone(shared), machine));
        part(&mut tasks, "the image collection", images::run(self.clone()));
        let keeper = Arc::clone(shared);
        part(&mut tasks, "the monitor's connection", async move { keeper.monitor.keep(&keeper.callbacks).await });
        if let Some(dns) = dns {
            part(&mut tasks, "the DNS server", dns.run());
        }
        let mut roster = Roster { node: self.clone(), handles: HashMap::new(), workers: JoinSet::new() };
        let ended = tokio::select! {
            () = roster.run(listing, changes) => Err(NodeError::Part("the watch of pods")),
            Some(ended) = tasks.join_next() => match ended {
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                ended => Err(NodeError::Part(ended.unwrap_or("a part"))),
            },
            _ = shutdown.wait_for(|stop| *stop) => Ok(()),
        };
        roster.leave().await;
        ended
    }
}

fn part(tasks: &mut JoinSet<&'static str>, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        work.await;
        name
    });
}

/// A directory that only root may look into.
fn make_private(dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(dir)
}

/// The pods of this node and their workers.
struct Roster {
    node: Node,
    handles: HashMap<String, Handle>,
    workers: JoinSet<String>,
}

impl Roster {
    async fn run(&mut self, listing: Listing, mut sources: tokio::sync::mpsc::Receiver<SourceName>) {
        let shared = Arc::clone(&self.node.shared);
        let subject = Subject {
            path: "/api/v1/pods".into(),
            field_selector: Some(format!("spec.nodeName={}", shared.config.name)),
        };
        let (sender, mut changes) = tokio::sync::mpsc::channel::<Change<Pod>>(QUEUE);
        let follow = feed::follow(shared.api.0.clone(), subject, sender);
        let mut follow = std::pin::pin!(follow);
        let mut listing = Some(listing);
        loop {
            tokio::select! {
                biased;
                Some(change) = changes.recv() => match change {
                    Change::All(pods) => self.take_all(pods, listing.take()).await,
                    Change::Put(pod) => self.put(Arc::new(pod), None),
                    Change::Gone(pod) => self.gone(uid(&pod), Some(pod.clone())),
                },
                () = &mut follow => return,
                Some(ended) = self.workers.join_next(), if !self.workers.is_empty() => self.take_end(ended),
                Some(name) = sources.recv() => self.source_changed(&name),
            }
        }
    }

    /// Takes a whole list: new pods begin, vanished ones end. With `listing`, which is known only after a start, what
    /// runs is taken up, and what no pod claims is removed.
    async fn take_all(&mut self, pods: Vec<Pod>, listing: Option<Listing>) {
        let present: BTreeSet<String> = pods.iter().map(|pod| uid(pod).to_owned()).collect();
        let vanished: Vec<_> = self.handles.keys().filter(|uid| !present.contains(*uid)).cloned().collect();
        for uid in vanished {
            self.gone(&uid, None);
        }
        let Some(listing) = listing else {
            for pod in pods {
                self.put(Arc::new(pod), None);
            }
            return;
        };
        let mut kept = self.records().await;
        for pod in pods {
            let record = kept.remove(uid(&pod));
            let seen = worker::adopt(&pod, record.map(|r| r.seen), &listing, &self.node.shared.config);
            self.put(Arc::new(pod), Some(seen));
        }
        self.remove_orphans(kept, &listing, &present).await;
    }

    /// Everything kept on disk, by uid.
    async fn records(&self) -> BTreeMap<String, worker::Record> {
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
        records: BTreeMap<String, worker::Record>,
        listing: &Listing,
        present: &BTreeSet<String>,
    ) {
        let shared = Arc::clone(&self.node.shared);
        for (uid, record) in &records {
            tracing::info!(uid, "a pod is gone from the API: it is stopped");
            let seen = worker::adopt(&record.pod, Some(record.seen.clone()), listing, &shared.config);
            self.begin(Arc::new(record.pod.clone()), ObservedPod { gone: true, ..seen }, true);
        }
        let unknown = listing.sandboxes.iter().map(|s| s.spec.id.as_str());
        for uid in unknown.filter(|uid| !present.contains(*uid) && !records.contains_key(*uid)) {
            tracing::info!(uid, "a sandbox without a pod is removed");
            if let Ok(id) = SandboxId::new(uid)
                && let Err(error) = shared.monitor.get().remove_sandbox(id).await
            {
                tracing::warn!(uid, %error, "a sandbox cannot be removed");
            }
        }
    }

    fn put(&mut self, pod: Arc<Pod>, seen: Option<ObservedPod>) {
        let uid = uid(&pod).to_owned();
        let Some(handle) = self.handles.get_mut(&uid) else {
            // A pod that ended before this node knew it has nothing to be done, except to be let go.
            return self.begin(pod, seen.unwrap_or_default(), false);
        };
        handle.references = references(&pod);
        lock(&self.node.pods).insert(uid, Arc::clone(&pod));
        handle.versions.send_replace(PodVersion { pod, gone: false });
    }

    fn begin(&mut self, pod: Arc<Pod>, mut seen: ObservedPod, gone: bool) {
        let uid = uid(&pod).to_owned();
        let ended =
            pod.status.as_ref().and_then(|s| s.phase.as_deref()).is_some_and(|p| matches!(p, "Succeeded" | "Failed"));
        if ended && seen.containers.is_empty() && seen.verdict.is_none() {
            seen.verdict = Some(verdict_of(&pod));
        }
        let (versions, receiver) = watch::channel(PodVersion { pod: Arc::clone(&pod), gone });
        let sources_changed = Arc::new(Notify::new());
        let worker = worker::run(Arc::clone(&self.node.shared), seen, receiver, Arc::clone(&sources_changed));
        let name = uid.clone();
        self.workers.spawn(async move {
            worker.await;
            name
        });
        lock(&self.node.pods).insert(uid.clone(), Arc::clone(&pod));
        self.handles.insert(uid, Handle { versions, sources_changed, references: references(&pod) });
    }

    fn gone(&mut self, uid: &str, last: Option<Pod>) {
        if let Some(handle) = self.handles.get(uid) {
            let pod = last.map_or_else(|| Arc::clone(&handle.versions.borrow().pod), Arc::new);
            handle.versions.send_replace(PodVersion { pod, gone: true });
        }
    }

    fn take_end(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => {
                self.handles.remove(&uid);
                lock(&self.node.pods).remove(&uid);
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {}
        }
    }

    fn source_changed(&self, name: &SourceName) {
        for handle in self.handles.values().filter(|h| h.references.contains(name)) {
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

/// How a pod ended that ended before this node could see it.
fn verdict_of(pod: &Pod) -> crate::pod::Verdict {
    let status = pod.status.as_ref();
    crate::pod::Verdict {
        reason: status.and_then(|s| s.reason.clone()).unwrap_or_default(),
        message: status.and_then(|s| s.message.clone()).unwrap_or_default(),
    }
}

fn references(pod: &Pod) -> BTreeSet<SourceName> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let (maps, secrets) = worker::references(pod);
    let name = |kind, name| SourceName { kind, namespace: namespace.clone(), name };
    let maps = maps.into_iter().map(|n| name(sources::Kind::ConfigMap, n)).collect::<Vec<_>>();
    maps.into_iter().chain(secrets.into_iter().map(|n| name(sources::Kind::Secret, n))).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
