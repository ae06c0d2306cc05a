//! Containers: what to run, in which file system, as whom, with which limits; and how it went.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ContainerId, SandboxId};

/// What a container should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its name.
    pub id: ContainerId,
    /// Where it runs.
    pub sandbox: SandboxId,
    /// Its root file system.
    pub rootfs: Rootfs,
    /// What is mounted into it, in this order (shorter destinations first is up to the caller).
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// The program and its arguments; not empty. A name without a slash is looked up in `PATH` of `env`.
    pub args: Vec<String>,
    /// `NAME=value`. `PATH` and `HOME` get defaults when absent.
    #[serde(default)]
    pub env: Vec<String>,
    /// The working directory, made when missing. Empty means `/`.
    #[serde(default)]
    pub cwd: PathBuf,
    /// Who it runs as and what it may do.
    #[serde(default)]
    pub security: Security,
    /// Its limits.
    #[serde(default)]
    pub resources: Resources,
    /// Process limits by name (`nofile`, `core`, …).
    #[serde(default)]
    pub rlimits: BTreeMap<String, Rlimit>,
    /// How eagerly the kernel kills it when memory is short, -1000 to 1000.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// What it reads from.
    #[serde(default)]
    pub stdin: Stdin,
    /// Where stdout and stderr go, in the format of the CRI (`<RFC 3339> stdout F text`): this file, and up to two
    /// older ones with `.1` and `.2` appended, 10 MiB each. Its directory is made. Without it output is discarded.
    #[serde(default)]
    pub log_path: Option<PathBuf>,
    /// The size of `/dev/shm`, in bytes. Default 64 MiB.
    #[serde(default)]
    pub shm_bytes: Option<u64>,
    /// Whatever the caller wants back from List; the monitor does not read it. At most 1 MiB in all.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl ContainerSpec {
    /// A container that runs `args` as the image's default user with the default confinement, without limits or log.
    pub fn new(id: ContainerId, sandbox: SandboxId, rootfs: Rootfs, args: Vec<String>) -> ContainerSpec {
        ContainerSpec {
            id,
            sandbox,
            rootfs,
            mounts: Vec::new(),
            args,
            env: Vec::new(),
            cwd: PathBuf::new(),
            security: Security::default(),
            resources: Resources::default(),
            rlimits: BTreeMap::new(),
            oom_score_adj: None,
            stdin: Stdin::default(),
            log_path: None,
            shm_bytes: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// A root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    /// Shared read-only layers, lowest first, with a private writable one on top that the monitor makes and removes.
    Overlay {
        /// Absolute paths, at least one, at most 500.
        lowers: Vec<PathBuf>,
    },
    /// A directory used as it is.
    Directory(PathBuf),
}

/// Something mounted into a container. Missing mount points are made in the writable layer; symbolic links in the
/// container's file system are followed inside it only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute, inside the container.
    pub destination: PathBuf,
    /// What appears there.
    pub source: MountSource,
    /// Whether the container may not write.
    #[serde(default)]
    pub read_only: bool,
    /// Whether later mounts pass through.
    #[serde(default)]
    pub propagation: MountPropagation,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A file or directory of the host, with everything mounted below it.
    Bind {
        /// Absolute; must exist.
        path: PathBuf,
        /// A path below it to use instead, resolved without ever leaving `path`; made as a directory when missing.
        #[serde(default)]
        sub_path: Option<PathBuf>,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// In bytes; the kernel's default is half the machine's memory.
        #[serde(default)]
        size: Option<u64>,
        /// Permission bits of its root, e.g. `0o1777`.
        mode: u32,
    },
}

/// Whether mounts pass between host and container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountPropagation {
    /// Neither way.
    #[default]
    Private,
    /// From the host into the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// Who a container runs as and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// Who it runs as.
    #[serde(default)]
    pub user: User,
    /// Changes to the default capabilities.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// All capabilities, no filter, nothing masked, all devices.
    #[serde(default)]
    pub privileged: bool,
    /// Whether set-user-id programs gain nothing.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    #[serde(default)]
    pub seccomp: Seccomp,
    /// Whether its root file system cannot be written.
    #[serde(default)]
    pub read_only_root: bool,
    /// Hide nothing below `/proc` (Kubernetes' `procMount: Unmasked`); with a user namespace of its own only.
    #[serde(default)]
    pub unmasked_proc: bool,
}

impl Default for Security {
    fn default() -> Security {
        Security {
            user: User::default(),
            capabilities: Capabilities::default(),
            privileged: false,
            no_new_privileges: true,
            seccomp: Seccomp::Default,
            read_only_root: false,
            unmasked_proc: false,
        }
    }
}

/// Who a container runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// As in an image's config: empty (root), `1000`, `1000:1000`, `app`, `app:app`; names are looked up in the
    /// container's `/etc/passwd` and `/etc/group`.
    #[serde(default)]
    pub name: String,
    /// Replaces the group found so.
    #[serde(default)]
    pub gid: Option<u32>,
    /// Supplementary groups, beside those the container's `/etc/group` names for the user.
    #[serde(default)]
    pub groups: Vec<u32>,
}

impl User {
    /// A user by number, with the group its `/etc/passwd` entry names, or 0.
    pub fn uid(uid: u32) -> User {
        User { name: uid.to_string(), gid: None, groups: Vec::new() }
    }
}

/// Changes to the default capabilities. Names as in Kubernetes, with or without `CAP_`; `ALL` means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Given.
    #[serde(default)]
    pub add: Vec<String>,
    /// Taken, before `add` is given.
    #[serde(default)]
    pub drop: Vec<String>,
}

/// Which system calls a container may make.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// The usual allow-list; more with certain capabilities.
    #[default]
    Default,
    /// All.
    Unconfined,
}

/// Limits. What is absent is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// The share of the CPU under contention, in the unit of cgroup v1 (1024 is one CPU), 2 to 262144.
    #[serde(default)]
    pub cpu_shares: Option<u64>,
    /// CPU time a period, in microseconds.
    #[serde(default)]
    pub cpu_quota_us: Option<u64>,
    /// The period, in microseconds, 1000 to 1000000. Default 100000.
    #[serde(default)]
    pub cpu_period_us: Option<u64>,
    /// Memory, in bytes; swap is not given beside it.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    #[serde(default)]
    pub pids: Option<u64>,
}

/// A process limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// What holds now.
    pub soft: u64,
    /// What the process may raise it to.
    pub hard: u64,
}

/// What a container reads from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdin {
    /// End of file at once.
    #[default]
    Null,
    /// A pipe: the FIFO that [`ContainerStatus::stdin`] names. It stays open until the container exits.
    Pipe,
}

/// A container that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// As asked for.
    pub spec: ContainerSpec,
    /// Where it stands.
    pub phase: Phase,
    /// Its first process, on the host.
    pub pid: u32,
    /// The start time of that process in clock ticks since boot; with the boot id it names the process for good.
    pub pid_start_ticks: u64,
    /// The boot it lives or lived in.
    pub boot_id: String,
    /// Its cgroup, below every hierarchy's mount point.
    pub cgroup: String,
    /// When the program was executed.
    pub started_at: Timestamp,
    /// The FIFO behind its stdin, for [`Stdin::Pipe`].
    #[serde(default)]
    pub stdin: Option<PathBuf>,
}

/// Where a container stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its program has been executed and has not exited.
    Running,
    /// It has exited.
    Exited(ExitStatus),
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// The exit code; 128 + n after signal n. 255 with `known` false.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed something in the container because its memory limit was reached.
    pub oom_killed: bool,
    /// `false` when nobody was there to see it: the monitor was down, or the machine restarted.
    pub known: bool,
    /// When.
    pub at: Timestamp,
}

/// A further program in a running container. Namespaces, limits and confinement are the container's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Which container.
    pub container: ContainerId,
    /// The program and its arguments; not empty.
    pub args: Vec<String>,
    /// `NAME=value`, beside and before the container's own.
    #[serde(default)]
    pub env: Vec<String>,
    /// The working directory; the container's when absent.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// Who it runs as; the container's user when absent.
    #[serde(default)]
    pub user: Option<User>,
    /// Gives it a terminal instead of pipes.
    #[serde(default)]
    pub tty: bool,
    /// How long it may take until its program is executed, in milliseconds, two minutes at most; 30 seconds when
    /// absent. Past it, it is killed and refused.
    #[serde(default)]
    pub start_timeout_ms: Option<u64>,
}
