//! What the monitor and its clients say to each other.
//!
//! A frame is a little-endian `u32` length and that many bytes of JSON, at most [`MAX_FRAME`]. The first frame of a
//! connection is [`Request::Hello`]. Every request carries a number chosen by the client and gets exactly one reply
//! with the same number; replies may overtake each other. File descriptors travel beside a frame (`SCM_RIGHTS`) and
//! are counted in it. Unknown fields are ignored, so that a newer client can talk to an older monitor of the same
//! [`VERSION`].

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod container;
mod id;
mod sandbox;

pub use container::{
    Capabilities, ContainerSpec, ContainerStatus, ExecSpec, ExitStatus, Mount, MountPropagation, MountSource, Phase,
    Resources, Rlimit, Rootfs, Seccomp, Security, Stdin, User,
};
pub use id::{ContainerId, ExecId, InvalidId, ListenerName, SandboxId};
pub use sandbox::{IdRange, Network, PodNetwork, SandboxSpec, SandboxStatus};

/// The protocol's version. A monitor refuses a client that speaks another one.
pub const VERSION: u32 = 3;

/// The largest frame either side accepts, in bytes.
pub const MAX_FRAME: usize = 16 * 1024 * 1024;

/// The largest frame a client sends, in bytes: so that what it describes fits an answer.
pub const MAX_CALL: usize = 4 * 1024 * 1024;

/// The most sockets the monitor keeps for the server.
pub const MAX_LISTENERS: usize = 32;

/// A request and its number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the client, unique among its unanswered requests.
    pub number: u64,
    /// How many file descriptors travel with this frame.
    #[serde(default)]
    pub fds: usize,
    /// What is asked.
    pub request: Request,
}

/// What a client may ask.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Opens the conversation. Answer: [`Answer::Hello`].
    Hello {
        /// The client's [`VERSION`].
        version: u32,
    },
    /// Sets what the warm pool hands out. Idempotent; existing sandboxes keep what they have. Answer: `Done`.
    Configure(Configuration),
    /// Says that so many more sandboxes are about to be claimed: a few are begun at once, however small the warm pool
    /// is. What nobody has claimed five seconds later is removed. Answer: `Done`.
    ExpectSandboxes {
        /// How many more.
        more: u32,
    },
    /// Claims a sandbox (from the warm pool where possible). Answer: `Sandbox`.
    PrepareSandbox(SandboxSpec),
    /// Kills whatever runs in a sandbox, removes its containers, namespaces, cgroups and address. Removing an absent
    /// sandbox succeeds. Answer: `Done`, when the processes are gone.
    RemoveSandbox {
        /// Which one.
        sandbox: SandboxId,
    },
    /// Creates a container in a sandbox and starts its process. Answer: `Container`, when the program has been
    /// executed, or the error with the step that failed.
    StartContainer(Box<ContainerSpec>),
    /// Sends a signal to a container's first process. Answer: `Done`; also when it has exited already.
    Signal {
        /// Which one.
        container: ContainerId,
        /// A signal number.
        signal: i32,
    },
    /// Kills every process of a container. Answer: `Done`.
    Kill {
        /// Which one.
        container: ContainerId,
    },
    /// Answers `Exit` as soon as the container has exited, at once if it has.
    Wait {
        /// Which one.
        container: ContainerId,
    },
    /// Forgets an exited container and removes its files (not its log). Removing an absent one succeeds; a running
    /// one is refused. Answer: `Done`.
    RemoveContainer {
        /// Which one.
        container: ContainerId,
    },
    /// Runs a further program in a running container. Without a terminal three descriptors come along: stdin, stdout
    /// and stderr; with one none do, and the terminal's controlling side comes back with the answer `Exec`.
    Exec(ExecSpec),
    /// Answers `Exit` when a program started by [`Request::Exec`] has exited. May be asked once.
    WaitExec {
        /// Which one.
        exec: ExecId,
    },
    /// Sends a signal to a program started by [`Request::Exec`]. Answer: `Done`.
    SignalExec {
        /// Which one.
        exec: ExecId,
        /// A signal number.
        signal: i32,
    },
    /// What there is, a part at a time: what follows `after`, or all from the beginning. Answer: `Listing`.
    List {
        /// [`Listing::next`] of the part before.
        #[serde(default)]
        after: Option<Cursor>,
    },
    /// What a sandbox uses now. Answer: `Stats`.
    Stats {
        /// Which one.
        sandbox: SandboxId,
    },
    /// Replaces a container's limits while it runs. Answer: `Done`.
    Update {
        /// Which one.
        container: ContainerId,
        /// The new limits; absent fields become unlimited.
        resources: Resources,
    },
    /// Freezes or thaws every process of a sandbox. Answer: `Done`, when the state is reached.
    Freeze {
        /// Which one.
        sandbox: SandboxId,
        /// `true` to freeze.
        frozen: bool,
    },
    /// Asks the kernel to push a sandbox's memory out. Answer: `Done`, best effort.
    Reclaim {
        /// Which one.
        sandbox: SandboxId,
    },
    /// A new unconnected TCP (IPv4) socket that lives in the sandbox's network, as one descriptor. Answer: `Socket`.
    Socket {
        /// Which one.
        sandbox: SandboxId,
    },
    /// Keeps listening sockets for a server that restarts: connections wait in them meanwhile. Each replaces the one of
    /// its name; as many descriptors come along, in the same order. Other names stay. They are let go of when the
    /// monitor ends. Answer: `Done`.
    KeepListeners {
        /// Their names.
        names: Vec<ListenerName>,
    },
    /// Duplicates of all kept sockets. Answer: `Listeners`.
    Listeners,
    /// Lets go of kept sockets. Absent ones are fine. Answer: `Done`.
    DropListeners {
        /// Their names.
        names: Vec<ListenerName>,
    },
    /// From now on send a [`ContainerEvent`] for every container that exits. Answer: `Done`.
    Subscribe,
    /// Ends the monitor. With `remove` every sandbox goes first; without, running containers go on and a later
    /// monitor takes them over. Answer: `Done`, then the connection closes.
    Shutdown {
        /// Remove every sandbox, and the empty pool, first.
        remove: bool,
    },
}

/// What the warm pool hands out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Addresses and host interfaces; without it only [`Network::Host`] and [`Network::None`] sandboxes can be made.
    pub network: Option<PodNetwork>,
    /// How many ready sandboxes to keep. 0 turns the pool off.
    pub pool: u32,
}

/// A message from the monitor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The reply to a request.
    Reply {
        /// The request's number.
        number: u64,
        /// How many file descriptors travel with this frame.
        #[serde(default)]
        fds: usize,
        /// The outcome.
        result: Result<Answer, Refusal>,
    },
    /// Something a subscriber wants to know.
    Event(ContainerEvent),
}

/// What a subscriber hears.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerEvent {
    /// A container's first process has exited.
    Exited {
        /// Its sandbox.
        sandbox: SandboxId,
        /// The container.
        container: ContainerId,
        /// How it ended.
        exit: ExitStatus,
    },
}

/// A successful reply.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Hello`].
    Hello(MonitorInfo),
    /// There is nothing to tell.
    Done,
    /// A claimed sandbox.
    Sandbox(Box<SandboxStatus>),
    /// A started container.
    Container(Box<ContainerStatus>),
    /// A container or an exec has exited.
    Exit(ExitStatus),
    /// A started exec; with a terminal its controlling side comes along.
    Exec(ExecId),
    /// What there is, or a part of it.
    Listing(Listing),
    /// What a sandbox uses.
    Stats(Stats),
    /// A socket comes along.
    Socket,
    /// Kept sockets, by name; as many descriptors come along, in the same order.
    Listeners(Vec<ListenerName>),
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorInfo {
    /// The monitor's [`VERSION`].
    pub version: u32,
    /// The monitor's process id.
    pub pid: u32,
    /// The kernel's boot id; containers of another boot are gone.
    pub boot_id: String,
    /// When this monitor started.
    pub started_at: Timestamp,
    /// Where it keeps what it knows of containers: whose they are. Empty when it does not say.
    #[serde(default)]
    pub state_dir: PathBuf,
}

/// Where a part of a listing ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cursor {
    /// With this sandbox.
    Sandbox(SandboxId),
    /// With all sandboxes and this container.
    Container(ContainerId),
}

/// What a monitor holds, or a part of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Listing {
    /// Claimed sandboxes, ordered by id.
    pub sandboxes: Vec<SandboxStatus>,
    /// Running and exited containers, ordered by id.
    pub containers: Vec<ContainerStatus>,
    /// Ready sandboxes nobody has claimed.
    pub pooled: u32,
    /// What to ask for next; none with the last part.
    #[serde(default)]
    pub next: Option<Cursor>,
}

/// What a sandbox and each of its containers use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// All of it together.
    pub total: Usage,
    /// By container.
    pub containers: BTreeMap<ContainerId, Usage>,
}

/// What a cgroup uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time since it began, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory now, in bytes, page cache included.
    pub memory_bytes: u64,
    /// Memory now without inactive page cache, in bytes; what Kubernetes calls the working set.
    pub working_set_bytes: u64,
    /// Processes and threads now.
    pub pids: u64,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of refusal.
    pub kind: RefusalKind,
    /// One sentence for people, lower case.
    pub message: String,
}

/// Kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// There is no such sandbox, container or exec.
    NotFound,
    /// The id is taken.
    Exists,
    /// The request makes no sense.
    Invalid,
    /// Not in this state, e.g. exec in an exited container.
    State,
    /// A bound was reached: addresses, containers, connections.
    Exhausted,
    /// The image or spec cannot be run: no such program, a bad user, a working directory that cannot be made. The
    /// message reads like the one other runtimes print. Exit code 128 (127 and 126 are the shell's) fits it.
    Start,
    /// The kernel or the monitor failed.
    Internal,
}

/// The default link-local address a node answers on, towards its pods.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);
