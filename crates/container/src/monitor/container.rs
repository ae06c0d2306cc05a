//! Containers: started, watched, signalled, forgotten.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use jiff::Timestamp;
use libc::sock_filter;
use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::child::{self, Progress};
use super::connection::Ticket;
use super::deadline::{self, Start};
use super::log::{self, Output};
use super::namespaces::Namespaces;
use super::request::{Internal, Outcome, absent_sandbox, refuse};
use super::sandbox::MAX_ANNOTATIONS;
use super::{Monitor, Source};
use crate::capability::CapabilitySet;
use crate::init::{self, Birth, Privileges};
use crate::protocol::{
    Answer, ContainerEvent, ContainerId, ContainerSpec, ContainerStatus, ExitStatus, Network, Phase, Refusal,
    RefusalKind, Resources, Rootfs, SandboxId, Seccomp, Security, Stdin,
};
use crate::sys::{self, PidExit, Spawned};

/// The most containers at a time.
const MAX_CONTAINERS: usize = 32_768;
/// The most clients that wait for one container.
const MAX_WAITERS: usize = 1024;
/// The most layers the kernel stacks.
const MAX_LAYERS: usize = 500;

/// A container, from its fork until it is forgotten.
pub(super) struct Container {
    pub(super) spec: ContainerSpec,
    pub(super) group: String,
    pub(super) pid: i32,
    /// Its first process and that one's number in the epoll set; none once it has exited.
    pub(super) process: Option<(OwnedFd, u64)>,
    pub(super) start_ticks: u64,
    pub(super) boot_id: String,
    pub(super) started_at: Timestamp,
    pub(super) stage: Stage,
    pub(super) output: Option<Output>,
    pub(super) stdin: Option<PathBuf>,
    pub(super) waiters: Vec<Ticket>,
}

/// Where a container stands.
pub(super) enum Stage {
    /// The child prepares for its program.
    Starting(Starting),
    Running,
    Exited(ExitStatus),
}

/// A child that prepares for its program.
pub(super) struct Starting {
    /// Who is answered; nobody once it has been given up.
    pub(super) ticket: Option<Ticket>,
    pub(super) status: OwnedFd,
    pub(super) token: u64,
    pub(super) progress: Progress,
}

impl Container {
    /// As clients see it; nothing until its program runs.
    pub(super) fn status(&self) -> Option<ContainerStatus> {
        let phase = match &self.stage {
            Stage::Starting(_) => return None,
            Stage::Running => Phase::Running,
            Stage::Exited(exit) => Phase::Exited(exit.clone()),
        };
        Some(ContainerStatus {
            spec: self.spec.clone(),
            phase,
            pid: self.pid.unsigned_abs(),
            pid_start_ticks: self.start_ticks,
            boot_id: self.boot_id.clone(),
            cgroup: self.group.clone(),
            started_at: self.started_at,
            stdin: self.stdin.clone(),
        })
    }

    /// What its child has said, until its program runs.
    pub(super) fn progress(&self) -> Option<&Progress> {
        match &self.stage {
            Stage::Starting(starting) => Some(&starting.progress),
            Stage::Running | Stage::Exited(_) => None,
        }
    }

    /// Whether its first process has not exited.
    pub(super) fn is_alive(&self) -> bool {
        self.process.is_some()
    }
}

/// What a started child and its parent share.
struct Child {
    spawned: Spawned,
    status: OwnedFd,
}

/// What a spec says about privileges, worked out.
pub(super) struct Confinement {
    capabilities: CapabilitySet,
    bounding: CapabilitySet,
    filter: Option<Rc<[sock_filter]>>,
}

impl Confinement {
    /// In the form the child takes.
    pub(super) fn privileges(&self) -> Privileges<'_> {
        Privileges { capabilities: self.capabilities, bounding: self.bounding, filter: self.filter.as_deref() }
    }
}

/// Directories of a container.
struct Places {
    state: PathBuf,
    runtime: PathBuf,
}

impl Monitor {
    pub(super) fn start_container(&mut self, ticket: Ticket, spec: ContainerSpec) -> Outcome {
        self.check_start(&spec)?;
        let confinement = self.confinement(&spec.security, &spec.sandbox)?;
        let sandbox = self.sandboxes.get(&spec.sandbox).ok_or_else(|| absent_sandbox(&spec.sandbox))?;
        let group = format!("{}/{}", sandbox.status.cgroup, spec.id);
        let places = self.places(&spec.id);
        let outcome = self.make_places(&spec, &group, &places).and_then(|output| {
            let child = self.fork_container(&spec, &confinement, &group, &places, output.is_some())?;
            Ok((output, child))
        });
        let (output, child) = match outcome {
            Ok(made) => made,
            Err(refusal) => {
                self.remove_places(&group, &places);
                return Err(refusal);
            }
        };
        let stdin = (spec.stdin == Stdin::Pipe).then(|| places.runtime.join("stdin"));
        self.admit_container(ticket, spec, group, child, output, stdin)?;
        Ok(None)
    }

    fn check_start(&self, spec: &ContainerSpec) -> Result<(), Refusal> {
        let invalid = |message: &str| Err(refuse(RefusalKind::Invalid, message));
        let sandbox = self.sandboxes.get(&spec.sandbox).ok_or_else(|| absent_sandbox(&spec.sandbox))?;
        if sandbox.removing.is_some() {
            return Err(refuse(RefusalKind::State, format!("sandbox {} is being removed", spec.sandbox)));
        }
        if sandbox.pause.as_ref().is_some_and(|pause| pause.starting.is_some()) {
            return Err(refuse(RefusalKind::State, format!("sandbox {} is being made", spec.sandbox)));
        }
        if self.containers.contains_key(&spec.id) {
            return Err(refuse(RefusalKind::Exists, format!("container {} exists", spec.id)));
        }
        if spec.id.as_str() == "pause" {
            return invalid("no container may be called pause");
        }
        if self.containers.len() >= MAX_CONTAINERS {
            return Err(refuse(RefusalKind::Exhausted, format!("there are {MAX_CONTAINERS} containers already")));
        }
        if spec.args.is_empty() {
            return invalid("a container needs a program");
        }
        if spec.security.unmasked_proc && !spec.security.privileged && !sandbox.status.spec.user_namespace {
            return invalid("an unmasked /proc needs a user namespace of the sandbox's own");
        }
        if let Rootfs::Overlay { lowers } = &spec.rootfs
            && !(1..=MAX_LAYERS).contains(&lowers.len())
        {
            return invalid("a root file system has 1 to 500 layers");
        }
        let size: usize = spec.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > MAX_ANNOTATIONS {
            return invalid("the annotations are longer than 1 MiB");
        }
        Ok(())
    }

    /// Works out what a program may do.
    pub(super) fn confinement(&mut self, security: &Security, sandbox: &SandboxId) -> Result<Confinement, Refusal> {
        let wanted =
            if security.privileged { Ok(CapabilitySet::all()) } else { CapabilitySet::changed(&security.capabilities) };
        let unknown = |name| refuse(RefusalKind::Invalid, format!("there is no capability {name:?}"));
        let capabilities = wanted.map_err(unknown)?.and(self.bounding);
        let filtered = !security.privileged && security.seccomp == Seccomp::Default;
        let filter = filtered.then(|| self.filter(capabilities));
        // Whoever enters a user namespace has everything there, whatever it had outside.
        let mapped = self.sandboxes.get(sandbox).is_some_and(|sandbox| sandbox.status.ids.is_some());
        let bounding = if mapped { CapabilitySet::all() } else { self.bounding };
        Ok(Confinement { capabilities, bounding, filter })
    }

    fn places(&self, id: &ContainerId) -> Places {
        Places {
            state: self.options.state_dir.join("containers").join(id.as_str()),
            runtime: self.options.runtime_dir.join("containers").join(id.as_str()),
        }
    }

    fn make_places(&mut self, spec: &ContainerSpec, group: &str, places: &Places) -> Result<Option<Output>, Refusal> {
        let private = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        let state = || -> io::Result<()> {
            private(&places.state)?;
            ["root", "upper", "work"].iter().try_for_each(|name| private(&places.state.join(name)))
        };
        state().internal("make a container's directories")?;
        let runtime = || -> io::Result<()> {
            private(&places.runtime)?;
            if spec.stdin == Stdin::Pipe {
                mkfifo(&places.runtime.join("stdin"), Mode::from_bits_truncate(0o600))?;
            }
            if spec.log_path.is_some() { log::make_fifos(&places.runtime) } else { Ok(()) }
        };
        runtime().internal("make a container's pipes")?;
        self.cgroups.create(group).internal("make a container's cgroup")?;
        if spec.resources != Resources::default() {
            self.cgroups.limit(group, &spec.resources, false).internal("set limits")?;
        }
        if let Some(devices) = self.devices.as_ref().filter(|_| !spec.security.privileged) {
            devices.confine_group(&self.cgroups, group).internal("keep devices from a container")?;
        }
        let open = |path: &PathBuf| Output::open(&places.runtime, path).internal("open a container's log");
        spec.log_path.as_ref().map(open).transpose()
    }

    fn remove_places(&mut self, group: &str, places: &Places) {
        self.throw_away(&places.state);
        drop(knoll_tree::remove(&places.runtime));
        self.remove_group(group.to_owned());
    }

    fn fork_container(
        &self,
        spec: &ContainerSpec,
        confinement: &Confinement,
        group: &str,
        places: &Places,
        logged: bool,
    ) -> Result<Child, Refusal> {
        let stdio = || -> io::Result<[OwnedFd; 3]> {
            let null = OwnedFd::from(File::options().read(true).write(true).open("/dev/null")?);
            let input = match spec.stdin {
                Stdin::Null => null.try_clone()?,
                Stdin::Pipe => log::write_end(&places.runtime.join("stdin"))?,
            };
            if !logged {
                return Ok([input, null.try_clone()?, null]);
            }
            let end = |stream| log::write_end(&log::fifo(&places.runtime, stream));
            Ok([input, end(0)?, end(1)?])
        };
        let stdio = stdio().internal("open a container's pipes")?;
        let (status, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .internal("make a socket")?;
        let birthplace = self.cgroups.birthplace(group).internal("open a container's cgroup")?;
        let sandbox = self.sandboxes.get(&spec.sandbox).ok_or_else(|| absent_sandbox(&spec.sandbox))?;
        let (namespaces, mut flags) = namespaces(sandbox);
        flags |= libc::CLONE_NEWNS;
        let birth = sandbox
            .pause
            .as_ref()
            .map(|pause| Birth { program: self.programs.birth.as_fd(), namespace: pause.spawned.pidfd.as_fd() });
        let proc = birth.is_some().then(|| self.shared_proc(&sandbox.status.cgroup));
        let container = init::Container {
            spec,
            privileges: confinement.privileges(),
            cgroups: &self.cgroups,
            group,
            namespaces,
            directory: &places.state,
            stdio: [stdio[0].as_fd(), stdio[1].as_fd(), stdio[2].as_fd()],
            status: theirs.as_fd(),
            birth,
            proc: proc.as_deref(),
            devices: self.devices.as_ref(),
            ids: sandbox.namespaces.as_ref().and_then(Namespaces::mapping),
        };
        let birthplace = birthplace.as_ref().map(AsFd::as_fd);
        let spawned = sys::spawn(flags, birthplace, || init::container(&container)).internal("fork")?;
        Ok(Child { spawned, status })
    }

    fn admit_container(
        &mut self,
        ticket: Ticket,
        spec: ContainerSpec,
        group: String,
        child: Child,
        output: Option<Output>,
        stdin: Option<PathBuf>,
    ) -> Result<(), Refusal> {
        let id = spec.id.clone();
        let Child { spawned, status } = child;
        let by_sibling = self.sandboxes.get(&spec.sandbox).is_some_and(|sandbox| sandbox.pause.is_some());
        let watched = self.events.add(&status, Source::Status(id.clone())).and_then(|token| {
            let process = self.events.add(&spawned.pidfd, Source::Process(id.clone()));
            process.inspect_err(|_| self.events.remove(&status, token)).map(|process| (token, process))
        });
        let (token, process_token) = match watched {
            Ok(tokens) => tokens,
            Err(error) => {
                self.dismiss(spawned);
                let places = self.places(&id);
                self.remove_places(&group, &places);
                return Err(error).internal("watch a child");
            }
        };
        let container = Container {
            group,
            pid: spawned.pid,
            process: Some((spawned.pidfd, process_token)),
            start_ticks: 0,
            boot_id: self.boot_id.clone(),
            started_at: Timestamp::now(),
            stage: Stage::Starting(Starting {
                ticket: Some(ticket),
                status,
                token,
                progress: Progress { by_sibling, ..Progress::default() },
            }),
            output,
            stdin,
            waiters: Vec::new(),
            spec,
        };
        self.containers.insert(id.clone(), container);
        self.watch_output(&id);
        self.expect(Start::Container(id), deadline::CONTAINER);
        Ok(())
    }

    /// Watches the pipes of a container's output.
    pub(super) fn watch_output(&mut self, id: &ContainerId) {
        let Some(output) = self.containers.get_mut(id).and_then(|container| container.output.as_mut()) else { return };
        for stream in 0..2 {
            match self.events.add(output.pipe(stream), Source::Output(id.clone(), stream)) {
                Ok(token) => *output.token(stream) = Some(token),
                Err(error) => tracing::error!(%error, container = %id, "cannot watch a container's output"),
            }
        }
    }

    /// Copies a turn's worth of output and says how much; what is left wakes the loop again.
    pub(super) fn copy_output(&mut self, id: &ContainerId, stream: usize) -> usize {
        let output = self.containers.get_mut(id).and_then(|container| container.output.as_mut());
        output.map_or(0, |output| output.copy(stream))
    }

    /// The child has something to say, or has become its program. What `ended` has not said by now it will not say.
    pub(super) fn container_says(&mut self, id: &ContainerId, ended: Option<i32>) {
        loop {
            let Some(container) = self.containers.get_mut(id) else { return };
            let Stage::Starting(starting) = &mut container.stage else { return };
            match child::packet(&starting.status) {
                Err(()) if ended != Some(container.pid) => return,
                Err(()) | Ok(None) => break,
                Ok(Some(packet)) => {
                    let program = container.spec.args.first().map_or("", String::as_str);
                    if let Some(pid) = starting.progress.take(&packet, program) {
                        self.container_born(id, pid);
                    }
                }
            }
        }
        let Some(container) = self.containers.get_mut(id) else { return };
        let Stage::Starting(starting) = &mut container.stage else { return };
        self.events.remove(&starting.status, starting.token);
        if starting.progress.executed() {
            self.container_runs(id);
        }
        // Otherwise the child is about to exit, and is answered for then.
    }

    /// A sibling of the child that prepared everything is the container's first process.
    fn container_born(&mut self, id: &ContainerId, pid: i32) {
        let watched = self.sibling(pid).and_then(|sibling| {
            let token = self.events.add(&sibling.pidfd, Source::Process(id.clone())).internal("watch a child")?;
            Ok((sibling, token))
        });
        let Some(container) = self.containers.get_mut(id) else { return };
        match watched {
            Ok((sibling, token)) => {
                let parent = std::mem::replace(&mut container.pid, sibling.pid);
                if let Some((pidfd, token)) = container.process.replace((sibling.pidfd, token)) {
                    self.events.remove(&pidfd, token);
                    self.reap_later(Spawned { pid: parent, pidfd });
                }
            }
            Err(refusal) => {
                tracing::error!(error = refusal.message, container = %id, "a container's process is lost");
                if let Stage::Starting(starting) = &mut container.stage {
                    starting.progress.failure = Some(refusal);
                }
                self.kill_container(id);
            }
        }
    }

    fn container_runs(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Stage::Starting(mut starting) = std::mem::replace(&mut container.stage, Stage::Running) else { return };
        container.started_at = Timestamp::now();
        container.start_ticks = sys::process_start_ticks(container.pid).unwrap_or(0);
        let status = container.status();
        // Without a record a later monitor would not know it; so it does not run without one.
        if let Err(refusal) = self.save_container(id).internal("record a container") {
            tracing::error!(error = refusal.message, container = %id, "a container is ended again");
            starting.progress.failure = Some(refusal);
            if let Some(container) = self.containers.get_mut(id) {
                container.stage = Stage::Starting(starting);
            }
            return self.kill_container(id);
        }
        if let (Some(status), Some(ticket)) = (status, starting.ticket) {
            self.reply(ticket, Ok(Answer::Container(Box::new(status))));
        }
    }

    /// Kills a container and whatever runs in it.
    pub(super) fn kill_container(&self, id: &ContainerId) {
        let Some(container) = self.containers.get(id) else { return };
        if let Some((process, _)) = &container.process {
            // It may have exited a moment ago.
            drop(sys::pidfd_signal(process.as_fd(), libc::SIGKILL));
        }
        if let Err(error) = self.cgroups.kill(&container.group) {
            tracing::error!(%error, container = %id, "a container cannot be killed");
        }
    }

    /// A container's first process has exited.
    pub(super) fn container_exited(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get(id) else { return };
        let ended = container.process.as_ref().is_some_and(|(process, _)| sys::has_exited(process.as_fd()));
        let before = container.pid;
        self.container_says(id, ended.then_some(before));
        let Some(container) = self.containers.get_mut(id) else { return };
        if !ended || container.pid != before {
            return;
        }
        let Some((process, token)) = container.process.take() else { return };
        let Some(ended) = sys::exit_of(container.pid, process.as_fd()) else {
            container.process = Some((process, token));
            return;
        };
        self.events.remove(&process, token);
        let sandbox = container.spec.sandbox.clone();
        if let Stage::Starting(starting) = &mut container.stage {
            let died = || refuse(RefusalKind::Start, "the container was killed before its program ran");
            let (ticket, refusal) = (starting.ticket, starting.progress.failure.take().unwrap_or_else(died));
            self.forget_container(id);
            if let Some(ticket) = ticket {
                self.reply(ticket, Err(refusal));
            }
        } else {
            self.record_exit(id, ended);
        }
        self.finish_removal(&sandbox);
    }

    /// Records how a container ended and tells everybody.
    pub(super) fn record_exit(&mut self, id: &ContainerId, ended: PidExit) {
        let Some(container) = self.containers.get_mut(id) else { return };
        // With a process-id namespace that is not its own, some of its processes may live on.
        if let Err(error) = self.cgroups.kill(&container.group) {
            tracing::debug!(%error, container = %id, "cannot kill what a container left");
        }
        let oom_killed = self.cgroups.oom_kills(&container.group) > 0;
        let exit = exit(ended, oom_killed);
        if let Some(mut output) = container.output.take() {
            output.finish();
            for stream in 0..2 {
                if let Some(token) = output.token(stream).take() {
                    self.events.remove(output.pipe(stream), token);
                }
            }
        }
        container.stage = Stage::Exited(exit.clone());
        let waiters = std::mem::take(&mut container.waiters);
        let event = ContainerEvent::Exited {
            sandbox: container.spec.sandbox.clone(),
            container: id.clone(),
            exit: exit.clone(),
        };
        if let Err(error) = self.save_container(id) {
            tracing::error!(%error, container = %id, "an exit is not recorded");
        }
        self.publish(&event);
        waiters.into_iter().for_each(|ticket| self.reply(ticket, Ok(Answer::Exit(exit.clone()))));
    }

    fn found(&mut self, id: &ContainerId) -> Result<&mut Container, Refusal> {
        let absent = || refuse(RefusalKind::NotFound, format!("there is no container {id}"));
        self.containers.get_mut(id).filter(|c| !matches!(c.stage, Stage::Starting(_))).ok_or_else(absent)
    }

    /// A container that runs.
    pub(super) fn running(&mut self, id: &ContainerId) -> Result<&mut Container, Refusal> {
        let container = self.found(id)?;
        match container.stage {
            Stage::Running => Ok(container),
            _ => Err(refuse(RefusalKind::State, format!("container {id} does not run"))),
        }
    }

    pub(super) fn signal(&mut self, id: &ContainerId, signal: i32) -> Outcome {
        let container = self.found(id)?;
        if !(1..=64).contains(&signal) {
            return Err(refuse(RefusalKind::Invalid, format!("there is no signal {signal}")));
        }
        if let Some((process, _)) = &container.process {
            match sys::pidfd_signal(process.as_fd(), signal) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error).internal("send a signal")?,
                _ => {}
            }
        }
        Ok(Some(Answer::Done))
    }

    pub(super) fn kill(&mut self, id: &ContainerId) -> Outcome {
        let container = self.found(id)?;
        if let Some((process, _)) = &container.process {
            let group = container.group.clone();
            // It may have exited a moment ago.
            drop(sys::pidfd_signal(process.as_fd(), libc::SIGKILL));
            self.cgroups.kill(&group).internal("kill a container")?;
        }
        Ok(Some(Answer::Done))
    }

    pub(super) fn wait(&mut self, ticket: Ticket, id: &ContainerId) -> Outcome {
        let container = self.found(id)?;
        if let Stage::Exited(exit) = &container.stage {
            return Ok(Some(Answer::Exit(exit.clone())));
        }
        if container.waiters.len() >= MAX_WAITERS {
            return Err(refuse(RefusalKind::Exhausted, "too many clients wait for this container"));
        }
        container.waiters.push(ticket);
        Ok(None)
    }

    pub(super) fn remove_container(&mut self, id: &ContainerId) -> Outcome {
        match self.containers.get(id) {
            Some(container) if container.is_alive() => Err(refuse(RefusalKind::State, format!("container {id} runs"))),
            Some(_) => {
                self.forget_container(id);
                Ok(Some(Answer::Done))
            }
            None => Ok(Some(Answer::Done)),
        }
    }

    /// Removes what is left of a container that has exited.
    pub(super) fn forget_container(&mut self, id: &ContainerId) {
        let Some(mut container) = self.containers.remove(id) else { return };
        if let Some(output) = &mut container.output {
            output.finish();
            for stream in 0..2 {
                if let Some(token) = output.token(stream).take() {
                    self.events.remove(output.pipe(stream), token);
                }
            }
        }
        let gone = refuse(RefusalKind::NotFound, format!("container {id} has been removed"));
        container.waiters.iter().for_each(|ticket| self.reply(*ticket, Err(gone.clone())));
        let places = self.places(id);
        self.remove_places(&container.group, &places);
    }

    pub(super) fn update(&mut self, id: &ContainerId, resources: Resources) -> Outcome {
        let container = self.running(id)?;
        let group = container.group.clone();
        self.cgroups.limit(&group, &resources, true).internal("set limits")?;
        self.running(id)?.spec.resources = resources;
        self.save_container(id).internal("record a container")?;
        Ok(Some(Answer::Done))
    }
}

/// The namespaces a container joins, and the `CLONE_NEW…` flags for those of its own.
fn namespaces(sandbox: &super::Sandbox) -> (Vec<(BorrowedFd<'_>, CloneFlags)>, libc::c_int) {
    let spec = &sandbox.status.spec;
    let mut join = Vec::new();
    let mut flags = 0;
    match &sandbox.namespaces {
        Some(namespaces) => {
            join.push((namespaces.net.as_fd(), CloneFlags::CLONE_NEWNET));
            join.push((namespaces.uts.as_fd(), CloneFlags::CLONE_NEWUTS));
            if !spec.host_ipc {
                join.push((namespaces.ipc.as_fd(), CloneFlags::CLONE_NEWIPC));
            }
        }
        None if !spec.host_ipc && spec.network == Network::Host => flags |= libc::CLONE_NEWIPC,
        None => {}
    }
    if sandbox.pause.is_none() && !spec.host_pid {
        flags |= libc::CLONE_NEWPID;
    }
    (join, flags)
}

/// How a process ended, in the protocol's words.
pub(super) fn exit(ended: PidExit, oom_killed: bool) -> ExitStatus {
    let (code, signal, known) = match ended {
        PidExit::Code(code) => (code, None, true),
        PidExit::Signal(signal) => (128 + signal, Some(signal), true),
        PidExit::Unknown => (255, None, false),
    };
    ExitStatus { code, signal, oom_killed, known, at: Timestamp::now() }
}
