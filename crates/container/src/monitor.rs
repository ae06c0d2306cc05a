//! The monitor: one thread, one loop, no runtime.
//!
//! It forks every container, so it must never have a second thread; everything it waits for is a descriptor in one
//! epoll set. What takes long (making namespaces, deleting files, pushing memory out) happens in forked helpers. Its
//! records are on disk before an answer leaves, so a new monitor can take over where one has died: containers keep
//! their output in named pipes, which nobody's death closes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use libc::sock_filter;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::capability::CapabilitySet;
use crate::cgroup::{Cgroups, Devices};
use crate::launch::Options;
use crate::protocol::{ContainerId, ExecId, SandboxId};
use crate::sys::{self, Spawned};

mod child;
mod connection;
mod container;
mod daemon;
mod deadline;
mod exec;
mod helper;
mod ids;
mod listeners;
mod log;
mod namespaces;
mod pause;
mod pool;
mod recover;
mod request;
mod sandbox;
mod state;

use connection::{Connections, Ticket};
use container::Container;
use deadline::Deadlines;
use exec::Exec;
use helper::Helpers;
use listeners::Listeners;
use pool::Pool;
use sandbox::Sandbox;

/// Why a monitor cannot run.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// Another monitor has the same state directory.
    #[error("another monitor runs with state directory {0}")]
    Running(String),
    /// The process has several threads, and forking would be unsafe.
    #[error("the monitor must be the only thread of its process")]
    Threads,
    /// Something it needs at the start is missing.
    #[error("cannot {what}")]
    Setup {
        /// What failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The loop itself failed.
    #[error("cannot wait for events")]
    Loop(#[source] io::Error),
}

trait Setup<T> {
    fn setup(self, what: &'static str) -> Result<T, MonitorError>;
}

impl<T, E: Into<io::Error>> Setup<T> for Result<T, E> {
    fn setup(self, what: &'static str) -> Result<T, MonitorError> {
        self.map_err(|error| MonitorError::Setup { what, source: error.into() })
    }
}

/// What a descriptor in the epoll set stands for.
#[derive(Debug, Clone)]
enum Source {
    Listener,
    Signals,
    Connection,
    Filler,
    /// A child whose work is done.
    Leaving,
    Helper,
    PauseStatus(SandboxId),
    Pause(SandboxId),
    Status(ContainerId),
    Process(ContainerId),
    Output(ContainerId, usize),
    ExecStatus(ExecId),
    ExecProcess(ExecId),
}

/// Our own namespaces, to come back to.
struct Home {
    net: OwnedFd,
    uts: OwnedFd,
    ipc: OwnedFd,
}

/// Programs in sealed memory.
struct Programs {
    /// Holds a process-id namespace.
    pause: OwnedFd,
    /// Is born in one and becomes the program of a container or an exec.
    birth: OwnedFd,
}

/// Everything the loop owns.
struct Monitor {
    options: Options,
    cgroups: Cgroups,
    /// None where the machine has no means for it, which is said at the start.
    devices: Option<Devices>,
    boot_id: String,
    bounding: CapabilitySet,
    started_at: Timestamp,
    home: Home,
    programs: Programs,
    events: Events,
    connections: Connections,
    listeners: Listeners,
    sandboxes: BTreeMap<SandboxId, Sandbox>,
    containers: BTreeMap<ContainerId, Container>,
    execs: BTreeMap<ExecId, Exec>,
    pool: Pool,
    ids: ids::IdRanges,
    helpers: Helpers,
    /// Children whose work is done, by their number in the epoll set.
    leaving: BTreeMap<u64, Spawned>,
    /// Such that have no place there.
    unwatched: Vec<Spawned>,
    /// Some child has ended, perhaps one that nobody here has made.
    children_ended: bool,
    deadlines: Deadlines,
    /// Whose output was copied last.
    last_output: u64,
    /// Given up for a moment when a client comes and no file can be opened.
    spare: Option<File>,
    filters: BTreeMap<CapabilitySet, Rc<[sock_filter]>>,
    /// Names things of which there must never be two, across restarts too.
    serial: u64,
    /// Groups that were still busy when they should have gone.
    leftovers: Vec<String>,
    ending: Option<Ending>,
}

/// How the monitor goes.
enum Ending {
    /// When every sandbox has been removed.
    Removing(Ticket),
    /// As soon as answers are written.
    Now,
}

/// The epoll set and what its numbers mean.
struct Events {
    epoll: Epoll,
    /// When `tick` is due.
    due: Option<Instant>,
    sources: BTreeMap<u64, Watched>,
    next: u64,
}

/// Something in the epoll set.
struct Watched {
    source: Source,
    fd: RawFd,
    panics: u32,
}

/// How often handling events of one source may panic before it is left alone.
const MAX_PANICS: u32 = 3;
/// No source's number: what is done now and then, and when it is done again after a panic.
const TICK: u64 = 0;
const TICK_AGAIN: Duration = Duration::from_secs(1);
/// Bytes of output that are copied between two looks at everything else.
const OUTPUT_A_TURN: usize = 256 * 1024;

impl Events {
    fn new() -> io::Result<Events> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Events { epoll, due: None, sources: BTreeMap::new(), next: 1 })
    }

    /// Watches a descriptor for input.
    fn add(&mut self, fd: impl AsFd, source: Source) -> io::Result<u64> {
        let token = self.next;
        self.next += 1;
        self.epoll.add(&fd, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        self.sources.insert(token, Watched { source, fd: fd.as_fd().as_raw_fd(), panics: 0 });
        Ok(token)
    }

    /// Counts a panic over an event. After too many its source is watched no longer, and is given.
    fn panicked(&mut self, token: u64) -> Option<Source> {
        let watched = self.sources.get_mut(&token)?;
        watched.panics += 1;
        if watched.panics < MAX_PANICS {
            return None;
        }
        let watched = self.sources.remove(&token)?;
        if let Err(error) = sys::epoll_forget(self.epoll.0.as_fd(), watched.fd) {
            tracing::debug!(%error, "a descriptor was not watched");
        }
        Some(watched.source)
    }

    /// Stops watching. The descriptor must still be open, because a forked child may keep it open for longer.
    fn remove(&mut self, fd: impl AsFd, token: u64) {
        if self.sources.remove(&token).is_some()
            && let Err(error) = self.epoll.delete(fd)
        {
            tracing::debug!(%error, "a descriptor was not watched");
        }
    }

    /// Watches for input, for room to write, for both or neither.
    fn watch_for(&self, fd: impl AsFd, token: u64, read: bool, write: bool) -> io::Result<()> {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, read);
        flags.set(EpollFlags::EPOLLOUT, write);
        Ok(self.epoll.modify(fd, &mut EpollEvent::new(flags, token))?)
    }

    /// Calls `tick` after a while, at the latest.
    fn wake_after(&mut self, delay: Duration) {
        let due = Instant::now() + delay;
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    fn is_output(&self, token: u64) -> bool {
        self.sources.get(&token).is_some_and(|watched| matches!(watched.source, Source::Output(..)))
    }

    fn timeout(&self, at_once: bool) -> EpollTimeout {
        if at_once {
            return EpollTimeout::ZERO;
        }
        let Some(due) = self.due else { return EpollTimeout::NONE };
        // Rounded up: waking early would only mean waiting again.
        let left = due.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
    }
}

/// Runs a monitor until it is told to end. As a daemon, this returns in the calling process once the monitor accepts
/// connections.
///
/// Call it before any thread is started. It takes a lock on the state directory, takes over what an earlier monitor
/// left running, and removes what nobody knows. It goes on from a view of the program that nobody can write to, which
/// begins with the same arguments: so it must be the first thing the program does.
pub fn run(options: &Options) -> Result<(), MonitorError> {
    if fs::read_dir("/proc/self/task").setup("count threads")?.count() != 1 {
        return Err(MonitorError::Threads);
    }
    // Nothing that whoever started us has left open may reach a container.
    crate::launch::close_inherited().setup("close inherited descriptors")?;
    for directory in [&options.state_dir, &options.runtime_dir] {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).setup("make its directories")?;
    }
    sys::run_sealed(c"knoll-monitor", &options.runtime_dir)
        .setup("run where nobody can write to its program (is vm.memfd_noexec 2? 0 or 1 will do)")?;
    let lock = daemon::lock(&options.state_dir)?;
    if options.foreground {
        return serve(options, &lock, || {});
    }
    daemon::detach(options, |ready| serve(options, &lock, ready))
}

fn serve(options: &Options, _lock: &File, ready: impl FnOnce()) -> Result<(), MonitorError> {
    sys::default_signals().setup("reset signals")?;
    // Of what is forked, containers and programs in them say for themselves how much they are worth.
    crate::launch::outlive_memory_shortage();
    // Children inherit it from the moment they are forked.
    nix::sys::prctl::set_dumpable(false).setup("close its memory to others")?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGCHLD);
    signals.thread_block().setup("block signals")?;
    let signals =
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).setup("take signals")?;
    let mut monitor = Monitor::new(options)?;
    monitor.recover()?;
    let listener = daemon::listen(&options.socket)?;
    monitor.events.add(&listener, Source::Listener).setup("watch its socket")?;
    monitor.events.add(&signals, Source::Signals).setup("watch signals")?;
    ready();
    let outcome = monitor.turn(&listener, &signals);
    monitor.withdraw();
    outcome
}

impl Monitor {
    fn new(options: &Options) -> Result<Monitor, MonitorError> {
        let cgroups = Cgroups::discover().setup("find cgroups")?;
        daemon::prepare(options, &cgroups)?;
        let devices = Devices::prepare(&cgroups, &options.cgroup_root);
        if let Err(error) = &devices {
            tracing::error!(%error, "control groups do not keep devices from containers; see `knoll doctor`");
        }
        let own =
            |kind: &str| File::open(format!("/proc/self/ns/{kind}")).map(OwnedFd::from).setup("open its namespaces");
        let home = Home { net: own("net")?, uts: own("uts")?, ipc: own("ipc")? };
        let status = fs::read_to_string("/proc/self/status").setup("read its capabilities")?;
        let events = Events::new().setup("make an epoll set")?;
        let started_at = Timestamp::now();
        Ok(Monitor {
            options: options.clone(),
            cgroups,
            devices: devices.ok(),
            boot_id: sys::boot_id().setup("read the boot id")?,
            bounding: CapabilitySet::bounding(&status),
            started_at,
            home,
            programs: Programs {
                pause: sys::pause().setup("make the pause program")?,
                birth: sys::birth().setup("make the birth program")?,
            },
            events,
            connections: Connections::default(),
            listeners: Listeners::default(),
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            pool: Pool::default(),
            ids: ids::IdRanges::default(),
            helpers: Helpers::default(),
            leaving: BTreeMap::new(),
            unwatched: Vec::new(),
            children_ended: false,
            deadlines: Deadlines::default(),
            last_output: 0,
            spare: Some(File::open("/dev/null").setup("open /dev/null")?),
            filters: BTreeMap::new(),
            serial: started_at.as_millisecond().cast_unsigned() << 8,
            leftovers: Vec::new(),
            ending: None,
        })
    }

    /// The loop.
    fn turn(&mut self, listener: &UnixListener, signals: &SignalFd) -> Result<(), MonitorError> {
        let mut ready = [EpollEvent::empty(); 64];
        while !self.finished() {
            if self.events.due.is_some_and(|due| due <= Instant::now()) {
                self.events.due = None;
                self.guard(TICK, Monitor::tick);
            }
            let timeout = self.events.timeout(self.connections.is_stalled());
            let count = match self.events.epoll.wait(&mut ready, timeout) {
                Err(nix::errno::Errno::EINTR) => continue,
                outcome => outcome.map_err(|errno| MonitorError::Loop(errno.into()))?,
            };
            let mut outputs = Vec::new();
            for event in &ready[..count] {
                if self.events.is_output(event.data()) {
                    outputs.push(event.data());
                } else {
                    let act = |monitor: &mut Monitor| {
                        monitor.dispatch(event.data(), event.events(), listener, signals);
                    };
                    self.guard(event.data(), act);
                }
            }
            self.copy_outputs(outputs);
            self.serve_stalled();
        }
        self.connections.flush_blocking();
        Ok(())
    }

    fn dispatch(&mut self, token: u64, flags: EpollFlags, listener: &UnixListener, signals: &SignalFd) {
        let Some(source) = self.events.sources.get(&token).map(|watched| watched.source.clone()) else { return };
        tracing::trace!(?source, "an event came");
        match source {
            Source::Listener => self.accept(listener),
            Source::Signals => self.take_signals(signals),
            Source::Connection => self.serve_connection(token, flags),
            Source::Filler => self.filler_says(token),
            Source::Leaving => self.left(token),
            Source::Helper => self.helper_exited(token),
            Source::PauseStatus(sandbox) => self.pause_says(&sandbox),
            Source::Pause(sandbox) => self.pause_exited(&sandbox),
            Source::Status(container) => self.container_says(&container, None),
            Source::Process(container) => self.container_exited(&container),
            Source::Output(container, stream) => drop(self.copy_output(&container, stream)),
            Source::ExecStatus(exec) => self.exec_says(exec, None),
            Source::ExecProcess(exec) => self.exec_exited(exec),
        }
    }

    /// Handles an event. A panic costs what the event is about, and that only when it happens again and again.
    fn guard(&mut self, token: u64, act: impl FnOnce(&mut Monitor)) {
        if catch_unwind(AssertUnwindSafe(|| act(self))).is_ok() {
            return;
        }
        tracing::error!(source = ?self.events.sources.get(&token).map(|w| &w.source), "an event could not be handled");
        match self.events.panicked(token) {
            Some(Source::Status(id) | Source::Output(id, _)) => {
                tracing::error!(container = %id, "a container is given up");
                self.kill_container(&id);
            }
            Some(Source::Connection) => {
                tracing::error!("a client is given up");
                self.close(token);
            }
            Some(Source::Filler) => self.give_filler_up(token),
            Some(Source::Helper) => self.give_helper_up(token),
            Some(Source::Leaving) => self.give_leaving_up(token),
            // Whoever hears nobody any more, or not that something has ended, is in the way of the monitor that would.
            Some(
                Source::Listener
                | Source::Signals
                | Source::Process(_)
                | Source::PauseStatus(_)
                | Source::Pause(_)
                | Source::ExecStatus(_)
                | Source::ExecProcess(_),
            ) => {
                tracing::error!("the monitor ends: the next takes over what runs");
                self.ending = Some(Ending::Now);
            }
            None if token == TICK => self.events.wake_after(TICK_AGAIN),
            None => self.go_on_with(token),
        }
    }

    /// Copies output of containers, a bounded part of it, beginning behind where the last turn ended: so whoever
    /// writes much waits for whoever writes little, and requests wait for neither.
    fn copy_outputs(&mut self, mut tokens: Vec<u64>) {
        tokens.sort_unstable();
        let behind = tokens.partition_point(|token| *token <= self.last_output);
        tokens.rotate_left(behind);
        let mut copied = 0;
        for token in tokens {
            if copied >= OUTPUT_A_TURN {
                return;
            }
            self.last_output = token;
            self.guard(token, |monitor| {
                if let Some(Watched { source: Source::Output(id, stream), .. }) = monitor.events.sources.get(&token) {
                    let (id, stream) = (id.clone(), *stream);
                    tracing::trace!(container = %id, "output came");
                    copied += monitor.copy_output(&id, stream);
                }
            });
        }
    }

    fn take_signals(&mut self, signals: &SignalFd) {
        while let Ok(Some(signal)) = signals.read_signal() {
            if i32::try_from(signal.ssi_signo) == Ok(libc::SIGCHLD) {
                if !self.children_ended {
                    self.children_ended = true;
                    self.events.wake_after(child::STRANGERS_WAIT);
                }
            } else {
                self.ending = Some(Ending::Now);
            }
        }
    }

    /// What is done now and then: filling the pool, removing groups that were busy.
    fn tick(&mut self) {
        tracing::trace!("what is done now and then is due");
        self.tend_pool();
        self.give_up_late();
        self.reap_unwatched();
        self.reap_strangers();
        let leftovers = std::mem::take(&mut self.leftovers);
        leftovers.into_iter().for_each(|group| self.remove_group(group));
    }

    /// Removes a group, now or when it is no longer busy.
    fn remove_group(&mut self, group: String) {
        if let Err(error) = self.cgroups.remove(&group) {
            tracing::debug!(%error, group, "a cgroup is still busy");
            if self.leftovers.len() < 4096 {
                self.leftovers.push(group);
            }
            self.events.wake_after(Duration::from_millis(100));
        }
    }

    fn finished(&mut self) -> bool {
        match &self.ending {
            Some(Ending::Now) => true,
            Some(Ending::Removing(ticket)) if self.sandboxes.is_empty() && self.is_idle() => {
                let ticket = *ticket;
                self.remove_everything();
                self.withdraw();
                self.reply(ticket, Ok(crate::protocol::Answer::Done));
                true
            }
            _ => false,
        }
    }

    /// Whether no child is on its way.
    fn is_idle(&self) -> bool {
        self.pool.is_idle() && self.leaving.is_empty() && self.unwatched.is_empty()
    }

    /// Takes the socket away: whoever connects from now on should start another monitor.
    fn withdraw(&self) {
        drop(fs::remove_file(&self.options.socket));
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// The filter for a set of capabilities, compiled once.
    fn filter(&mut self, capabilities: CapabilitySet) -> Rc<[sock_filter]> {
        let compile = || Rc::from(crate::seccomp::compile(capabilities));
        Rc::clone(self.filters.entry(capabilities).or_insert_with(compile))
    }
}
