//! Taking over what an earlier monitor left, and leaving nothing behind.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::container::{Container, Stage};
use super::log::Output;
use super::namespaces::{Namespaces, NamespacesSpec, Veth, unbind};
use super::pause::Pause;
use super::sandbox::Sandbox;
use super::state::{DAMAGED, SandboxRecord, is_passing};
use super::{Monitor, MonitorError, Setup, Source, daemon};
use crate::netlink::Socket;
use crate::protocol::{ContainerStatus, Network, Phase, SandboxId, Stdin};
use crate::sys::{self, PidExit, Spawned};

/// How often, and how far apart, a monitor that ends tries to remove its cgroups.
const LAST_LOOKS: u32 = 200;
const LAST_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

impl Monitor {
    /// Takes over every sandbox and container that is still there, and removes what nobody has a record of.
    pub(super) fn recover(&mut self) -> Result<(), MonitorError> {
        if let Some(configuration) = self.saved_configuration().setup("read its records")? {
            self.restore_configuration(configuration).setup("read its records")?;
        }
        let containers = self.saved_containers().setup("read its records")?;
        for record in self.saved_sandboxes().setup("read its records")? {
            let id = record.status.spec.id.clone();
            if let Err(error) = self.adopt_sandbox(record, &containers) {
                if is_passing(&error) {
                    return Err(error).setup("take a sandbox over");
                }
                tracing::warn!(%error, sandbox = %id, "a sandbox cannot be taken over");
                drop(fs::remove_file(self.sandbox_file(&id)));
            }
        }
        for (directory, status) in containers {
            let known = status.filter(|status| self.sandboxes.contains_key(&status.spec.sandbox));
            match known.filter(|status| status.boot_id == self.boot_id) {
                Some(status) => self.adopt_container(status).setup("take a container over")?,
                None => self.throw_away(&directory),
            }
        }
        self.remove_strangers();
        self.empty_trash();
        self.fill_pool();
        Ok(())
    }

    fn adopt_sandbox(
        &mut self,
        record: SandboxRecord,
        containers: &[(PathBuf, Option<ContainerStatus>)],
    ) -> io::Result<()> {
        let status = record.status;
        if status.boot_id != self.boot_id {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the machine has restarted"));
        }
        let id = status.spec.id.clone();
        let namespaces = match &status.network_namespace {
            Some(path) if status.spec.network != Network::Host => {
                let member = containers.iter().filter_map(|(_, status)| status.as_ref());
                let member = member.filter(|c| c.spec.sandbox == id && c.phase == Phase::Running);
                let mut pids = Vec::new();
                for container in member {
                    if alive(container)?.is_some() {
                        pids.push(container.pid.cast_signed());
                    }
                }
                Some(self.adopt_namespaces(path, &status, &pids)?)
            }
            _ => None,
        };
        let pause = match record.pause {
            Some((pid, start_ticks)) => self.adopt_pause(&id, pid, start_ticks)?,
            None => None,
        };
        if let Some(address) = status.address {
            self.pool.take_address(address);
        }
        if let Some(ids) = status.ids {
            self.ids.take(ids);
        }
        let lost = status.spec.shared_pid && pause.is_none();
        self.sandboxes.insert(id.clone(), Sandbox { status, namespaces, pause, removing: None });
        if lost {
            // Its processes died with the one that held them together, so it can only go.
            self.begin_removal(&id, None);
        }
        Ok(())
    }

    fn adopt_namespaces(
        &self,
        path: &Path,
        status: &crate::protocol::SandboxStatus,
        members: &[i32],
    ) -> io::Result<Namespaces> {
        let net = OwnedFd::from(File::open(path)?);
        daemon::inside(&net, &self.home.net, nix::sched::CloneFlags::CLONE_NEWNET, || Ok(()))?;
        // One that has just ended is there until it is reaped, and in no namespace any more.
        let of = |pid| Ok((daemon::namespace(pid, "uts")?, daemon::namespace(pid, "ipc")?));
        let mut names = members.iter().rev().map(|pid| of(*pid));
        let (uts, ipc) = match names.find(|names| names.as_ref().err().is_none_or(is_passing)) {
            Some(names) => names?,
            None => fresh_names(&status.spec.hostname)?,
        };
        let veth = match (status.address, &status.interface, self.pool.network()) {
            (Some(address), Some(interface), Some(network)) => {
                Some(Veth { address, interface: interface.clone(), network: network.clone() })
            }
            _ => None,
        };
        let spec = NamespacesSpec { path: path.to_owned(), group: status.cgroup.clone(), veth, ids: status.ids };
        let user = spec.open_user()?;
        Ok(Namespaces { spec, net, uts, ipc, user })
    }

    fn adopt_pause(&mut self, id: &SandboxId, pid: i32, start_ticks: u64) -> io::Result<Option<Pause>> {
        let Some(pidfd) = same_process(pid, start_ticks)? else { return Ok(None) };
        let token = self.events.add(&pidfd, Source::Pause(id.clone()))?;
        Ok(Some(Pause { spawned: Spawned { pid, pidfd }, token, start_ticks, starting: None }))
    }

    fn adopt_container(&mut self, status: ContainerStatus) -> io::Result<()> {
        let id = status.spec.id.clone();
        let runtime = self.options.runtime_dir.join("containers").join(id.as_str());
        let (stage, process) = match &status.phase {
            Phase::Exited(exit) => (Stage::Exited(exit.clone()), None),
            Phase::Running => match alive(&status)? {
                Some(pidfd) => {
                    let token = self.events.add(&pidfd, Source::Process(id.clone()))?;
                    (Stage::Running, Some((pidfd, token)))
                }
                None => (Stage::Running, None),
            },
        };
        let unseen = matches!(stage, Stage::Running) && process.is_none();
        let output = match &status.spec.log_path {
            Some(path) if matches!(stage, Stage::Running) => match Output::open(&runtime, path) {
                Ok(output) => Some(output),
                Err(error) => {
                    tracing::error!(%error, container = %id, "a container's output cannot be taken over");
                    None
                }
            },
            _ => None,
        };
        let stdin = (status.spec.stdin == Stdin::Pipe).then(|| runtime.join("stdin"));
        let container = Container {
            group: status.cgroup,
            pid: status.pid.cast_signed(),
            process,
            start_ticks: status.pid_start_ticks,
            boot_id: status.boot_id,
            started_at: status.started_at,
            stage,
            output,
            stdin,
            waiters: Vec::new(),
            spec: status.spec,
        };
        self.containers.insert(id.clone(), container);
        self.watch_output(&id);
        if unseen {
            self.record_exit(&id, PidExit::Unknown);
        }
        Ok(())
    }

    /// Removes groups, namespaces and directories that belong to nothing we know.
    fn remove_strangers(&mut self) {
        let root = self.options.cgroup_root.clone();
        for name in self.cgroups.children(&root) {
            let group = format!("{root}/{name}");
            let known = name == "monitor" || self.sandboxes.values().any(|sandbox| sandbox.status.cgroup == group);
            if !known {
                self.remove_group_with_all(&group);
            }
        }
        self.remove_stray_groups();
        let known = |path: &Path| {
            self.sandboxes.values().any(|s| {
                let shared = || s.status.spec.shared_pid && self.shared_proc(&s.status.cgroup) == path;
                let spec = s.namespaces.as_ref().map(|namespaces| &namespaces.spec);
                let user = || spec.is_some_and(|spec| spec.ids.is_some() && spec.user_path() == path);
                s.status.network_namespace.as_deref() == Some(path) || user() || shared()
            })
        };
        let namespaces = paths(&self.options.runtime_dir.join("net"));
        namespaces.iter().filter(|path| !known(path)).for_each(|path| unbind(path));
        for path in paths(&self.options.runtime_dir.join("containers")) {
            let name = path.file_name().and_then(|name| name.to_str());
            if !self.containers.keys().any(|id| Some(id.as_str()) == name) {
                remove(&path);
            }
        }
    }

    /// Removes what an earlier monitor made in sandboxes that are still there, and did not live to note down: processes
    /// that no container owns.
    fn remove_stray_groups(&mut self) {
        let sandboxes = self.sandboxes.values().map(|sandbox| (sandbox.status.cgroup.clone(), sandbox.pause.is_some()));
        for (sandbox, has_pause) in sandboxes.collect::<Vec<_>>() {
            for name in self.cgroups.children(&sandbox) {
                let group = format!("{sandbox}/{name}");
                let owned = (has_pause && name == "pause") || self.containers.values().any(|c| c.group == group);
                if !owned {
                    tracing::warn!(group, "processes of a container that was never noted down are ended");
                    self.remove_group_with_all(&group);
                }
            }
        }
    }

    fn remove_group_with_all(&mut self, group: &str) {
        if let Err(error) = self.cgroups.kill(group) {
            tracing::warn!(%error, group, "cannot kill what nobody knows");
        }
        for name in self.cgroups.children(group) {
            self.remove_group(format!("{group}/{name}"));
        }
        self.remove_group(group.to_owned());
    }

    /// The last thing a monitor does when it is asked to take everything with it.
    pub(super) fn remove_everything(&mut self) {
        self.discard_pool();
        self.join_helpers();
        if let Err(error) = self.cgroups.enter("") {
            tracing::warn!(%error, "cannot leave the monitor's cgroup");
        }
        let root = self.options.cgroup_root.clone();
        self.remove_group_with_all(&format!("{root}/monitor"));
        self.remove_group(root.clone());
        if let Err(error) = self.cgroups.remove_devices(&root) {
            tracing::warn!(%error, "the groups of devices stay");
        }
        // What is only just dying is gone in a moment; parents wait for their children.
        for _ in 0..LAST_LOOKS {
            if self.leftovers.is_empty() {
                break;
            }
            std::thread::sleep(LAST_PAUSE);
            let leftovers = std::mem::take(&mut self.leftovers);
            leftovers.into_iter().for_each(|group| self.remove_group(group));
        }
        if let Some(network) = self.pool.network() {
            let gateway = network.gateway;
            if let Err(error) = drop_gateway(gateway) {
                tracing::warn!(%error, "cannot remove the gateway address");
            }
        }
        unbind(&self.options.runtime_dir.join("net"));
        ["net", "containers"].iter().for_each(|name| remove(&self.options.runtime_dir.join(name)));
        let records = ["containers", "sandboxes", "trash", DAMAGED, "configuration.json"];
        records.iter().for_each(|name| remove(&self.options.state_dir.join(name)));
    }
}

/// Removes what may hold whatever a container has written.
fn remove(path: &Path) {
    if let Err(error) = knoll_tree::remove(path) {
        tracing::warn!(%error, path = %path.display(), "cannot delete");
    }
}

fn drop_gateway(gateway: Ipv4Addr) -> io::Result<()> {
    let mut socket = Socket::route()?;
    let loopback = socket.link("lo")?;
    socket.remove_address(loopback, gateway)
}

/// A handle on a recorded container's process, if it is the same and still runs.
fn alive(status: &ContainerStatus) -> io::Result<Option<OwnedFd>> {
    same_process(status.pid.cast_signed(), status.pid_start_ticks)
}

/// An error only where it cannot be known now.
fn same_process(pid: i32, start_ticks: u64) -> io::Result<Option<OwnedFd>> {
    let look = || Ok((sys::pidfd_open(pid)?, sys::process_start_ticks(pid)?));
    match look() {
        Ok((pidfd, ticks)) => Ok((ticks == start_ticks).then_some(pidfd)),
        Err(error) if is_passing(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// New host name and IPC namespaces, for a sandbox that lost its last container while no monitor was there.
fn fresh_names(hostname: &str) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let mut end = hostname.len().min(63);
    while !hostname.is_char_boundary(end) {
        end -= 1;
    }
    let mut ours = Some(write);
    let child = sys::spawn(libc::CLONE_NEWUTS | libc::CLONE_NEWIPC, None, || {
        drop(ours.take());
        let named = nix::unistd::sethostname(&hostname[..end]);
        // The monitor lets go when it has picked the namespaces up, or hears nothing when the name cannot be set.
        let left = nix::unistd::read(&read, &mut [0; 1]);
        i32::from(named.is_err() || left.is_err())
    })?;
    let opened = daemon::namespace(child.pid, "uts").and_then(|uts| Ok((uts, daemon::namespace(child.pid, "ipc")?)));
    drop(ours);
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child.pid), None)?;
    opened
}

fn paths(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}
