//! The monitor process: the other half of `knoll up`.

use std::{
    ffi::OsString,
    fs,
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use knoll_cli::Exit;
use knoll_container::{
    client::{Client, ClientError},
    launch::{Launcher, Options},
    monitor,
    protocol::{Configuration, ContainerStatus, GATEWAY, Phase, PodNetwork},
};

use nix::sys::stat::{Mode, umask};

use crate::{
    failure::{Failure, chain},
    kept::Wanted,
    paths::Paths,
};

/// What the host's ends of the pods' veths are called, before a number.
pub(crate) const VETHS: &str = "knoll";
/// Largest packet between pods and the machine, bytes: what every link takes.
const MTU: u32 = 1400;
/// How long containers may take to end when everything is stopped.
const GRACE: Duration = Duration::from_secs(10);
/// Between two looks at a monitor that ends.
const LOOK: Duration = Duration::from_millis(10);
/// `SIGTERM`.
const TERM: i32 = 15;

/// Runs the monitor in this process. Comes back when it was told to end.
pub(crate) fn serve(options: &str) -> Result<(), Failure> {
    let options: Options =
        serde_json::from_str(options).map_err(|e| Failure::text(Exit::Usage, format!("monitor --options: {e}")))?;
    // What containers are made of is for more users than root; the monitor says where that is not so.
    umask(Mode::from_bits_truncate(0o022));
    monitor::run(&options).map_err(|e| Failure::new(Exit::System, &e))
}

/// Finds the monitor, or starts it.
#[derive(Clone)]
pub(crate) struct Finder {
    launcher: Arc<Launcher>,
    configuration: Configuration,
    sockets: Arc<OnceLock<Wanted>>,
}

impl Finder {
    pub(crate) fn new(paths: &Paths, pods: (Ipv4Addr, u8), pool: u32) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(|e| Failure::io("find this program", &e))?;
        let launcher = Launcher { program, args: vec![OsString::from("monitor")], options: paths.monitor() };
        let (address, prefix) = pods;
        let network = PodNetwork { address, prefix, gateway: GATEWAY, interface_prefix: VETHS.into(), mtu: MTU };
        let configuration = Configuration { network: Some(network), pool };
        Ok(Self { launcher: Arc::new(launcher), configuration, sockets: Arc::default() })
    }

    /// A connection to the monitor, which runs from here on.
    pub(crate) async fn connect(&self) -> Result<Client, ClientError> {
        let launcher = self.launcher.clone();
        let launched = tokio::task::spawn_blocking(move || launcher.ensure()).await;
        match launched {
            Ok(Ok(_)) => {}
            // Connecting says why it cannot be reached; this says why it was not started.
            Ok(Err(error)) => tracing::error!(error = chain(&error), "start the monitor"),
            Err(error) => tracing::error!(%error, "start the monitor"),
        }
        let client = Client::connect(&self.launcher.options.socket).await?;
        client.configure(self.configuration.clone()).await?;
        // The pods matter more: without the sockets clients are refused while the server restarts, and no more.
        if let Some(sockets) = self.sockets.get()
            && let Err(error) = sockets.hand_over(&client).await
        {
            tracing::error!(error = chain(&error), "the monitor does not keep the listening sockets");
        }
        Ok(client)
    }

    /// Has the monitor keep sockets, and every one that is found or started from now on.
    pub(crate) async fn keep(&self, sockets: Wanted, monitor: &Client) -> Result<(), ClientError> {
        self.sockets.get_or_init(|| sockets).hand_over(monitor).await
    }

    /// Asks what is left of the containers to end, then ends the monitor, and with it whatever did not.
    pub(crate) async fn end(&self) {
        let ended = async {
            let client = Client::connect(&self.launcher.options.socket).await?;
            let running: Vec<_> = client.list().await?.containers.into_iter().filter(is_running).collect();
            for container in &running {
                client.signal(container.spec.id.clone(), TERM).await?;
            }
            let all = async {
                for container in running {
                    client.wait(container.spec.id).await?;
                }
                Ok::<_, ClientError>(())
            };
            if let Ok(outcome) = tokio::time::timeout(GRACE, all).await {
                outcome?;
            }
            client.shutdown(true).await
        };
        if let Err(error) = ended.await {
            tracing::warn!(error = chain(&error), "end the containers");
        }
    }
}

/// Ends a monitor that another data directory left, with which nothing here could be recorded.
///
/// # Errors
/// When containers of that data directory run, and it is still there.
pub(crate) async fn displace(paths: &Paths) -> Result<(), Failure> {
    let options = paths.monitor();
    let Ok(client) = Client::connect(&options.socket).await else { return Ok(()) };
    let theirs = client.monitor().state_dir.clone();
    if theirs.as_os_str().is_empty() || is_same(&theirs, &options.state_dir) {
        return Ok(());
    }
    let end = async {
        if theirs.exists() && client.list().await?.containers.iter().any(is_running) {
            return Ok(false);
        }
        client.shutdown(true).await?;
        while Client::connect(&options.socket).await.is_ok() {
            tokio::time::sleep(LOOK).await;
        }
        Ok::<_, ClientError>(true)
    };
    let data = theirs.parent().unwrap_or(&theirs).display().to_string();
    match tokio::time::timeout(GRACE, end).await {
        Ok(Ok(true)) => tracing::info!(data, "the monitor of another data directory had nothing to do, and was ended"),
        Ok(Ok(false)) => {
            let text = format!(
                "containers of another data directory run on this machine: go on with `knoll up --data-dir {data}`, or \
                 remove them with `knoll reset --data-dir {data}`"
            );
            return Err(Failure::text(Exit::Unavailable, text));
        }
        Ok(Err(error)) => return Err(Failure::new(Exit::System, &error)),
        Err(_) => return Err(Failure::text(Exit::System, format!("the monitor of {data} does not end"))),
    }
    Ok(())
}

/// Whether both name one directory.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other || fs::canonicalize(one).is_ok_and(|one| fs::canonicalize(other).is_ok_and(|other| one == other))
}

fn is_running(container: &ContainerStatus) -> bool {
    container.phase == Phase::Running
}
