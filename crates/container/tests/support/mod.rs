//! A monitor of one's own: state, cgroup, addresses and rootfs that no other test shares, all gone in the end.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use knoll_container::client::Client;
use knoll_container::launch::{Launcher, Options};
use knoll_container::protocol::{
    Configuration, ContainerId, ContainerSpec, ContainerStatus, ExitStatus, PodNetwork, Rootfs, SandboxId, SandboxSpec,
    SandboxStatus,
};

/// How long anything is waited for: a busy machine takes its time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static NEXT: AtomicU8 = AtomicU8::new(0);

/// A monitor and where it keeps things.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) launcher: Launcher,
    pub(crate) network: PodNetwork,
    pub(crate) number: u8,
    pub(crate) name: String,
}

impl Site {
    /// `file` tells test files apart: they run as different processes at the same time.
    pub(crate) fn new(file: u8) -> Site {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::Builder::new().prefix("knoll-test-").tempdir().expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("chmod");
        let name = format!("knolltest{}f{file}n{number}", std::process::id());
        let options = Options {
            socket: dir.path().join("monitor.sock"),
            state_dir: dir.path().join("state"),
            runtime_dir: dir.path().join("run"),
            cgroup_root: name.clone(),
            foreground: false,
        };
        let launcher = Launcher { program: env!("CARGO_BIN_EXE_knoll-monitor").into(), args: vec![], options };
        let letter = |n: u8| char::from(b'a' + n % 26);
        let network = PodNetwork {
            address: Ipv4Addr::new(10, 200 + file, number, 0),
            prefix: 24,
            gateway: Ipv4Addr::new(169, 254, 100 + file, number + 1),
            interface_prefix: format!("kt{}{}", letter(file), letter(number)),
            mtu: 1500,
        };
        let site = Site { dir, launcher, network, number, name };
        site.make_rootfs();
        site
    }

    /// With a network of its own for this thread, so that rules and routes are nobody else's.
    pub(crate) fn isolated(file: u8) -> Site {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
        Site::new(file)
    }

    /// Starts (or finds) the monitor and connects. A child of one that has just died may hold its socket for a moment.
    pub(crate) async fn connect(&self) -> Client {
        let begin = Instant::now();
        loop {
            self.launcher.ensure().expect("a monitor");
            match Client::connect(&self.launcher.options.socket).await {
                Ok(client) => return client,
                Err(error) => assert!(begin.elapsed() < PATIENCE, "waited in vain: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Connects and configures the pod network.
    pub(crate) async fn networked(&self, pool: u32) -> Client {
        let client = self.connect().await;
        let network = Some(self.network.clone());
        client.configure(Configuration { network, pool }).await.expect("a configuration");
        client
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    fn make_rootfs(&self) {
        let root = self.rootfs();
        for name in ["bin", "etc", "tmp", "var/log"] {
            fs::create_dir_all(root.join(name)).expect("a directory");
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod");
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
        for name in "sh cat echo sleep id ls mount hostname stat test true false nc ip ping httpd tftp mkdir kill ps dd awk readlink touch tty tail head seq date wc unshare mknod chroot rm mkfifo grep chown umount".split(' ') {
            symlink("busybox", root.join("bin").join(name)).expect("a link");
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
            .expect("passwd");
        fs::write(root.join("etc/group"), "root:x:0:\napp:x:1001:\nextra:x:2000:app\n").expect("group");
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join("logs").join(format!("{name}.log"))
    }

    /// A sandbox without addresses.
    pub(crate) async fn sandbox(&self, client: &Client, name: &str) -> SandboxStatus {
        let mut spec = SandboxSpec::new(sandbox_id(name), name);
        spec.network = knoll_container::protocol::Network::None;
        client.prepare_sandbox(spec).await.expect("a sandbox")
    }

    /// A sandbox with an address.
    pub(crate) async fn pod(&self, client: &Client, name: &str) -> Ipv4Addr {
        let status = client.prepare_sandbox(SandboxSpec::new(sandbox_id(name), name)).await.expect("a sandbox");
        status.address.expect("an address")
    }

    /// A container that runs a shell script, with a log.
    pub(crate) fn spec(&self, sandbox: &str, name: &str, script: &str) -> ContainerSpec {
        let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let rootfs = Rootfs::Overlay { lowers: vec![self.rootfs()] };
        let mut spec = ContainerSpec::new(container_id(name), sandbox_id(sandbox), rootfs, args);
        spec.log_path = Some(self.log(name));
        spec
    }

    pub(crate) async fn start(&self, client: &Client, sandbox: &str, name: &str, script: &str) -> ContainerStatus {
        client.start_container(self.spec(sandbox, name, script)).await.expect("a container")
    }

    /// Runs a spec to its end and gives its output without time stamps.
    pub(crate) async fn run(&self, client: &Client, spec: ContainerSpec) -> (ExitStatus, String) {
        let id = spec.id.clone();
        client.start_container(spec).await.expect("a container");
        let exit = client.wait(id.clone()).await.expect("an exit");
        (exit, self.output(id.as_str()))
    }

    /// Runs a script to its end in a sandbox of its own.
    pub(crate) async fn script(&self, client: &Client, name: &str, script: &str) -> (ExitStatus, String) {
        self.sandbox(client, name).await;
        let outcome = self.run(client, self.spec(name, name, script)).await;
        client.remove_sandbox(sandbox_id(name)).await.expect("removed");
        outcome
    }

    /// What a container has written so far: `stdout text` lines.
    pub(crate) fn output(&self, name: &str) -> String {
        let text = fs::read_to_string(self.log(name)).unwrap_or_default();
        let strip = |line: &str| {
            let mut parts = line.splitn(4, ' ');
            let (_, stream, _, text) = (parts.next(), parts.next(), parts.next(), parts.next());
            format!("{} {}\n", stream.unwrap_or("?"), text.unwrap_or(""))
        };
        text.lines().map(strip).collect::<String>().replace("stdout ", "")
    }

    /// What a container has written so far on its standard output and error, each with its stream before it as [`Self::output`]
    /// has them. Between the two there is no order: each has a pipe of its own.
    pub(crate) fn streams(&self, name: &str) -> (String, String) {
        let output = self.output(name);
        let (errors, lines): (Vec<&str>, Vec<&str>) =
            output.split_inclusive('\n').partition(|line| line.starts_with("stderr "));
        (lines.concat(), errors.concat())
    }

    /// Waits until a container has written something.
    pub(crate) async fn wait_for_output(&self, name: &str, wanted: &str) {
        until(&format!("{wanted:?} from {name}"), || self.output(name).contains(wanted)).await;
    }

    /// Ends the monitor with everything it holds, and sees that nothing is left.
    pub(crate) async fn finish(self, client: &Client) {
        client.shutdown(true).await.expect("an end");
        let root = self.name.clone();
        until("the cgroups are gone", || !cgroups(&root).iter().any(|path| path.exists())).await;
        assert!(!self.launcher.options.socket.exists());
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let ours = self.dir.path().to_str().expect("a path").to_owned();
        assert!(!mounts.contains(&ours), "mounts are left");
        let prefix = self.network.interface_prefix.clone();
        until("the interfaces are gone", || interfaces(&prefix).is_empty()).await;
    }
}

impl Drop for Site {
    /// A test that failed must not leave a monitor either.
    fn drop(&mut self) {
        let Ok(pids) = fs::read_to_string(format!("/sys/fs/cgroup/memory/{}/monitor/cgroup.procs", self.name))
            .or_else(|_| fs::read_to_string(format!("/sys/fs/cgroup/{}/monitor/cgroup.procs", self.name)))
        else {
            return;
        };
        eprintln!("{}", fs::read_to_string(self.launcher.options.state_dir.join("monitor.log")).unwrap_or_default());
        if pids.trim().is_empty() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let socket = self.launcher.options.socket.clone();
        let ended = std::thread::spawn(move || {
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                if let Ok(client) = Client::connect(&socket).await {
                    drop(tokio::time::timeout(Duration::from_secs(5), client.shutdown(true)).await);
                }
            });
        });
        drop(ended.join());
    }
}

pub(crate) fn sandbox_id(name: &str) -> SandboxId {
    SandboxId::new(name).expect("an id")
}

pub(crate) fn container_id(name: &str) -> ContainerId {
    ContainerId::new(name).expect("an id")
}

/// Every directory a cgroup could have.
pub(crate) fn cgroups(group: &str) -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    let mut found = vec![base.join(group)];
    for entry in fs::read_dir(base).expect("cgroups").flatten() {
        found.push(entry.path().join(group));
    }
    found
}

/// The interfaces of this thread's network.
pub(crate) fn interfaces(prefix: &str) -> Vec<String> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").expect("interfaces");
    let names = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// Waits for a condition, with the patience of all tests.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    until_after(PATIENCE, what, condition).await;
}

/// Waits for a condition, for so long at most.
pub(crate) async fn until_after(patience: Duration, what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < patience, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
