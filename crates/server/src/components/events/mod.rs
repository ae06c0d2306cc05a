//! The data plane of Eventing: its log, its socket, its Services in the API, and what an operator sees of it.

mod event_types;
mod jobs;
mod operations;
mod senders;
mod tokens;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use knoll_api::metrics::MetricFamily;
use knoll_broker::{
    Adopted, Config, DataPlane, EventTypes, Hooks, Log, Resolve, Topology, resolve_as_the_machine_does, serve,
    topology::Names,
};
use knoll_container::protocol::GATEWAY;
use knoll_drive::EventLinks;
use knoll_journal::{Directory, events::EventOptions};
use knoll_node::network::dns::lookup;
use knoll_plan::Settings;
use nix::sys::statvfs::statvfs;
use tokio::{net::TcpListener, sync::watch};

use self::jobs::ApiJobs;
pub(super) use self::tokens::tokens;
use super::{objects, port_of};
use crate::{
    admin::Sources,
    failure::{Failure, chain},
    supervise::{Stop, Tasks},
    up::open_files,
};

/// What the kernel draws anew at each start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Where pods ask for names.
const DNS: (std::net::Ipv4Addr, u16) = (GATEWAY, 53);
/// Of the files that the process may open, so much is for senders' connections: one in so many.
const FILES_SHARE: u64 = 8;
/// The same of the disk, for the event log.
const DISK_SHARE: u64 = 4;
/// How long the log's thread may take to write what it was asked for, when the data plane ends.
const CLOSE: Duration = Duration::from_secs(5);

/// The data plane as others see it: nothing while its log is not open.
#[derive(Clone, Default)]
pub(crate) struct Running {
    plane: Arc<Mutex<Option<DataPlane>>>,
    event_types: Option<Arc<EventTypes>>,
}

impl Running {
    /// The data plane, while it runs.
    pub(crate) fn get(&self) -> Option<DataPlane> {
        self.plane.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, plane: Option<DataPlane>) {
        *self.plane.lock().unwrap_or_else(PoisonError::into_inner) = plane;
    }

    /// Shows itself to an operator, and does what one asks.
    pub(crate) fn attend(self, sources: &mut Sources, names: Names) {
        let (counting, checked) = (self.clone(), self.clone());
        sources.metrics(move || counting.metrics());
        sources
            .check("events", move || checked.get().map(|_| ()).ok_or_else(|| "the event log is not open".to_owned()));
        sources
            .operate("events", move |operation| Box::pin(operations::operate(self.clone(), names.clone(), operation)));
    }

    fn metrics(&self) -> Vec<MetricFamily> {
        let mut families = self.get().map(|plane| plane.metrics()).unwrap_or_default();
        families.extend(self.event_types.iter().flat_map(|types| types.metrics()));
        families
    }
}

/// What every life of the data plane needs.
struct Parts {
    directory: PathBuf,
    snapshots: watch::Receiver<Option<Topology>>,
    adopted: Adopted,
    domain: String,
    listener: std::net::TcpListener,
    client: kube::Client,
    event_types: Arc<EventTypes>,
    running: Running,
}

/// The data plane's settings: who may say where events go is not trusted with the machine, and senders leave files for the
/// rest of the process.
pub(super) fn config() -> Config {
    let default = Config::default();
    let connections = usize::try_from(open_files() / FILES_SHARE).unwrap_or(usize::MAX);
    Config { loopback: false, max_connections: default.max_connections.min(connections).max(1), ..default }
}

/// What addresses of brokers and channels are made of.
pub(crate) fn names(settings: &Settings) -> Names {
    Names {
        system_namespace: settings.eventing_namespace.as_str().into(),
        cluster_domain: settings.cluster_domain.as_str().into(),
    }
}

/// Where pods find a socket of the gateway's address.
pub(crate) fn place(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    Ok(SocketAddr::from((GATEWAY, port_of(listener)?)))
}

/// Publishes the Services that brokers and channels are reached by, beside what else starts: nobody's first answer waits for
/// them.
pub(crate) fn publish(tasks: &mut Tasks, client: kube::Client, at: SocketAddr) {
    tasks.restartable("the Services of brokers and channels", move || {
        let client = client.clone();
        async move { objects::publish_ingresses(&client, at).await.map_err(|e| chain(&e)) }
    });
}

/// Takes events from this socket and delivers them, until the process ends. A log that fails is opened again: nothing
/// was acknowledged that it does not hold. `client` asks for tokens, and whose those of senders are, and
/// makes Jobs. The other end of the links is the control loop's.
pub(crate) fn start(
    tasks: &mut Tasks,
    directory: PathBuf,
    names: &Names,
    client: kube::Client,
    listener: TcpListener,
) -> Result<(EventLinks, Running), Failure> {
    let (topology, snapshots) = watch::channel(None);
    let adopted = Adopted::default();
    let listener = listener.into_std().map_err(|e| Failure::io("hand a socket over", &e))?;
    let event_types = event_types::make(tasks, client.clone());
    let running = Running { event_types: Some(event_types.clone()), ..Running::default() };
    let parts = Parts {
        directory,
        snapshots,
        adopted: adopted.clone(),
        domain: names.cluster_domain.to_string(),
        listener,
        client,
        event_types: event_types.clone(),
        running: running.clone(),
    };
    let (parts, stop) = (Arc::new(parts), tasks.stop());
    tasks.restartable("events", move || live(parts.clone(), stop.clone()));
    Ok((EventLinks { topology, adopted, event_types }, running))
}

async fn live(parts: Arc<Parts>, stop: Stop) -> Result<(), String> {
    let directory = parts.directory.clone();
    let opened = tokio::task::spawn_blocking(move || open(directory)).await.map_err(|e| chain(&e))?;
    let (log, thread) = opened?;
    let hooks = Hooks {
        resolve: resolve(&parts.domain),
        tokens: Some(tokens(parts.client.clone())),
        authorize: Some(senders::authorize(parts.client.clone())),
        jobs: Some(Arc::new(ApiJobs::new(parts.client.clone()))),
        adopted: parts.adopted.clone(),
        taken: Some(parts.event_types.taken()),
    };
    let plane = DataPlane::new(log, parts.snapshots.clone(), config(), hooks).map_err(|e| chain(&e))?;
    let listener = parts.listener.try_clone().and_then(TcpListener::from_std).map_err(|e| chain(&e))?;
    parts.running.set(Some(plane.clone()));
    let ended = {
        let serving = serve(plane.ingress(), listener, stop.clone().wait());
        let delivering = plane.deliver(stop.wait());
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            delivered = delivering => match delivered {
                // Senders under way are still answered.
                Ok(()) => { serving.await; Ok(()) }
                Err(error) => Err(chain(&error)),
            },
            () = &mut serving => Ok(()),
        }
    };
    parts.running.set(None);
    drop(plane);
    let closing = tokio::task::spawn_blocking(move || thread.join());
    if let Ok(Ok(Err(error))) = tokio::time::timeout(CLOSE, closing).await {
        tracing::warn!(error = chain(&error), "the event log closed with an error");
    }
    ended
}

/// Opens the log and tells what of it is damaged. Blocks.
fn open(directory: PathBuf) -> Result<(Log, knoll_broker::LogThread), String> {
    let run = fs::read(BOOT_ID).unwrap_or_default();
    let disk = Directory::make(&directory).map_err(|e| chain(&e))?;
    let default = EventOptions::default();
    let budget_bytes = default.budget_bytes.min(capacity(&directory).map_err(|e| chain(&e))? / DISK_SHARE);
    let options = EventOptions { run, budget_bytes, ..default };
    let (log, thread, recovery) = Log::open(Arc::new(disk), options).map_err(|e| chain(&e))?;
    for damage in &recovery.damages {
        tracing::error!(?damage, "a place of the event log is no more what was written; the rest is served");
    }
    for lost in &recovery.lost {
        tracing::error!(?lost, "events are lost by it");
    }
    Ok((log, thread))
}

/// Bytes of the disk that a directory is on.
fn capacity(directory: &Path) -> io::Result<u64> {
    let disk = statvfs(directory)?;
    Ok(disk.blocks() * disk.fragment_size())
}

/// Finds names inside the cluster as pods do, and others as the machine does.
pub(super) fn resolve(domain: &str) -> Resolve {
    let (outside, suffix) = (resolve_as_the_machine_does(), format!(".{domain}"));
    Arc::new(move |host| {
        if !is_inside(&host, &suffix) {
            return outside(host);
        }
        Box::pin(async move {
            let found: io::Result<Vec<_>> = lookup(DNS.into(), &host).await;
            Ok(found?.into_iter().map(|address| SocketAddr::new(address, 0)).collect())
        })
    })
}

fn is_inside(host: &str, suffix: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.len() > suffix.len() && host.is_char_boundary(host.len() - suffix.len()) && {
        host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
    }
}

#[cfg(test)]
mod tests {
    use super::is_inside;

    #[test]
    fn the_cluster_is_asked_for_its_own_names_only() {
        for (host, inside) in [
            ("app.default.svc.cluster.local", true),
            ("App.default.svc.Cluster.Local.", true),
            ("cluster.local", false),
            ("notcluster.local", false),
            ("example.com", false),
            ("éé.example", false),
        ] {
            assert_eq!(is_inside(host, ".cluster.local"), inside, "{host}");
        }
    }
}
