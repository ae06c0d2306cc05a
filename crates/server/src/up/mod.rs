//! `knoll up`: everything, in one process.

pub(crate) mod certificates;
mod planes;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use knoll_apiserver::auth::{Pki, ServingCertificate};
use knoll_cli::{
    ApiSockets, Exit, UpArguments,
    instance::{RunningInstance, process_start},
};
use knoll_container::protocol::GATEWAY;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
};

use crate::{
    admin::Admin,
    components::{api::machine_addresses, monitor},
    detach, doctor,
    failure::Failure,
    kept::Kept,
    kubeconfig,
    log_file::Lines,
    logging::{self, LogLevel},
    machine, notify,
    paths::Paths,
    ports::{self, ApiPorts},
    private, store,
    supervise::Tasks,
};
use planes::{Planes, Ports};

/// Address of `default/kubernetes`, the first of the Services' range.
const KUBERNETES: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// How long requests under way may go on once the instance is told to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// Most open files asked for: systemd's own bound for services.
const OPEN_FILES: u64 = 1 << 20;

/// With fewer the gateway takes fewer connections than it could.
const FEW_FILES: u64 = 140_000;

/// Lets this process open as many files as the machine allows it: every connection is one, and a shell gives 1,024.
pub(crate) fn raise_open_files() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let wanted = hard.min(OPEN_FILES);
    if soft < wanted
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
    {
        tracing::warn!(%error, soft, "cannot open as many files as the machine allows");
    }
    if wanted < FEW_FILES {
        tracing::warn!(
            wanted,
            "few files may be open, so the gateway takes fewer connections: raise the limit (ulimit -Hn)"
        );
    }
}

/// How many files this process may open.
pub(crate) fn open_files() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

/// Runs an instance until it is told to stop.
pub(crate) fn run(arguments: &UpArguments) -> Result<(), Failure> {
    let paths = Paths::new(&arguments.data.data_dir);
    let level = logging::start_to(&arguments.logging.log, Lines::of(&paths.log()))?;
    raise_open_files();
    doctor::require(&paths)?;
    private::by_default();
    let _alone = machine::claim()?;
    tracing::debug!("no other instance runs");
    own(&paths)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::io("start the runtime", &e))?;
    let outcome = runtime.block_on(live(arguments, &paths, level));
    RunningInstance::retract(&paths.data);
    // What hangs in a blocking thread must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

/// Makes the data directory root's alone and marks it as ours, before anything is put into it.
pub(crate) fn own(paths: &Paths) -> Result<(), Failure> {
    knoll_store::prepare(&paths.store()).map_err(|e| Failure::new(store::exit_of(&e), &e))?;
    private::mend(paths).map_err(|e| Failure::io(format!("close {} to others", paths.data.display()), &e))
}

/// How the instance was told to stop.
enum Call {
    /// Stop, and stop the pods, too.
    Everything,
    /// Stop, and leave the pods for the next instance.
    KeepPods,
}

async fn live(arguments: &UpArguments, paths: &Paths, level: LogLevel) -> Result<(), Failure> {
    monitor::displace(paths).await?;
    let monitor = paths.monitor().socket;
    let mut kept = Kept::find(&monitor).await;
    let names = ports::names(arguments, &kept);
    kept.keep_only(&names, &monitor).await;
    tracing::debug!("the monitor told of the sockets it keeps");
    let api = ApiPorts::bind(&arguments.api, &mut kept)?;
    let http = ports::bind_gateway(&arguments.gateway, &mut kept)?;
    let mut ports = Ports { api, http, kept };
    let pki = Arc::new(Pki::open(&paths.pki(), Timestamp::now()).map_err(|e| Failure::new(Exit::Config, &e))?);
    let instance = describe(&arguments.api, paths, &ports.api, ports::addresses(&ports.http))?;
    kubeconfig::write(paths, &pki, &instance.api)?;
    let names = names_of(&arguments.api);
    let serving = ServingCertificate::new(&pki, &names(), Timestamp::now());
    let serving = serving.map_err(|e| Failure::new(Exit::Usage, &e))?;
    let certificate = Arc::new(serving.tls(&pki).map_err(|e| Failure::new(Exit::System, &e))?);
    tracing::debug!("the certificates are there");
    let admin = Admin::new(level, Handle::current());
    let outside = ports.api.admin.take().map(|listener| (listener, certificate.clone()));
    admin.start(&Paths::admin(), outside).map_err(|e| Failure::io("start the admin endpoint", &e))?;

    let mut tasks = Tasks::new();
    certificates::keep(&mut tasks, paths.clone(), pki.clone(), serving, instance.api.clone(), names, Timestamp::now);
    let planes = Planes::start(arguments, paths, ports, &pki, certificate, &admin, &mut tasks).await?;
    announce(&instance, paths)?;
    println!("{}", detach::summary(&instance));
    notify::ready();

    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| Failure::io("listen for signals", &e))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| Failure::io("listen for signals", &e))?;
    let (call, outcome) = tokio::select! {
        _ = interrupt.recv() => (Call::Everything, Ok(())),
        _ = terminate.recv() => (Call::KeepPods, Ok(())),
        (name, why) = tasks.first_end() => {
            tracing::error!(task = name, why, "a task ended that must not");
            (Call::KeepPods, Err(Failure::text(Exit::Software, format!("{name}: {why}"))))
        }
    };
    tracing::info!("stopping");
    planes.stop(tasks, matches!(call, Call::Everything), DRAIN).await;
    outcome
}

/// Names under which clients may speak to the API server; what of them changes is asked for each time.
pub(crate) fn names_of(arguments: &ApiSockets) -> impl Fn() -> Vec<String> + Send + Sync + use<> {
    let (address, given) = (arguments.api_addr.ip(), arguments.api_names.clone());
    move || names(address, &given)
}

fn names(address: IpAddr, given: &[String]) -> Vec<String> {
    let mut names: Vec<String> = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "::1",
    ]
    .map(str::to_owned)
    .into();
    names.push(KUBERNETES.to_string());
    names.push(GATEWAY.to_string());
    if address.is_unspecified() {
        names.extend(machine_addresses().unwrap_or_default().iter().map(IpAddr::to_string));
    } else {
        names.push(address.to_string());
    }
    if let Ok(host) = fs::read_to_string("/proc/sys/kernel/hostname") {
        names.push(host.trim().to_lowercase());
    }
    names.extend(given.iter().cloned());
    names.sort();
    names.dedup();
    // A host name may hold what a certificate cannot; it is a courtesy, not a promise.
    let fits = |name: &String| {
        name.parse::<IpAddr>().is_ok() || name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
    };
    names.retain(fits);
    names
}

/// The address clients are told for a socket that listens on all of them.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()) } else { address }
}

pub(crate) fn describe(
    arguments: &ApiSockets,
    paths: &Paths,
    ports: &ApiPorts,
    gateway: Vec<SocketAddr>,
) -> Result<RunningInstance, Failure> {
    let unknown = |e: std::io::Error| Failure::io("find the address of a socket", &e);
    let api = reachable(ports.api.local_addr().map_err(unknown)?);
    // The first name given is the one other machines use.
    let api = match arguments.api_names.first() {
        Some(name) => format!("https://{name}:{}", api.port()),
        None => format!("https://{api}"),
    };
    let pid = i32::try_from(std::process::id()).expect("process numbers are small");
    Ok(RunningInstance {
        pid,
        started: process_start(pid).unwrap_or_default(),
        api,
        gateway: gateway.into_iter().map(reachable).collect(),
        admin: Paths::admin(),
        registry: reachable(ports.registry.local_addr().map_err(unknown)?),
        images: Paths::images_socket(),
        kubeconfig: paths.kubeconfig(),
    })
}

/// Leaves word of this instance for commands to find it by.
pub(crate) fn announce(instance: &RunningInstance, paths: &Paths) -> Result<(), Failure> {
    let path = paths.instance();
    let text = instance.to_text();
    let written = private::write(&path, text.as_bytes()).or_else(|error| match error.kind() {
        // What an instance that was killed left has room for it.
        io::ErrorKind::StorageFull => private::overwrite(&path, text.as_bytes()),
        _ => Err(error),
    });
    written.map_err(|e| Failure::io(format!("write {}", path.display()), &e))
}
