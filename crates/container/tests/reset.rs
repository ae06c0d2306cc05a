//! Looking at the machine and leaving it as it was. Needs root and busybox-static.

mod support;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use knoll_container::network::{self, Config};
use knoll_container::{doctor, reset};
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use support::{Site, cgroups, container_id, interfaces, sandbox_id, until, until_after};

const FILE: u8 = 4;
/// Removing the deepest trees takes a second where nothing else goes on.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_machine_that_runs_these_tests_has_what_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    let before = interfaces("").len();
    let checks = doctor::examine(dir.path(), &[]);
    let names: Vec<&str> = checks.iter().map(|check| check.name).collect();
    let looked_at =
        ["kernel", "privileges", "cgroups", "devices", "overlayfs", "seccomp", "mounts", "veth", "nf_tables"];
    assert_eq!(names, looked_at);
    assert!(checks.iter().all(|check| check.ok && check.fix.is_empty()), "{checks:#?}");
    assert_eq!(interfaces("").len(), before);
}

#[tokio::test]
async fn a_reset_removes_every_trace() {
    let site = Site::isolated(FILE);
    let config = Config {
        table: "knoll".into(),
        pods: (site.network.address, site.network.prefix),
        services: (Ipv4Addr::new(10, 96, 0, 0), 12),
        gateway: site.network.gateway,
        veth_prefix: site.network.interface_prefix.clone(),
    };
    let _network = network::setup(config.clone()).unwrap();
    let client = site.networked(2).await;
    site.pod(&client, "pod").await;
    site.start(&client, "pod", "stubborn", "trap '' TERM; echo up; while true; do sleep 1; done").await;
    site.wait_for_output("stubborn", "up").await;
    let options = &site.launcher.options;
    reset::reset(options, Some(&config)).unwrap();
    assert!(cgroups(&site.name).iter().all(|path| !path.exists()));
    assert!(!options.state_dir.exists() && !options.runtime_dir.exists() && !options.socket.exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(site.dir.path().to_str().unwrap()));
    until("the veths are gone", || interfaces(&site.network.interface_prefix).is_empty()).await;
    assert!(client.list().await.is_err());
    reset::reset(options, Some(&config)).unwrap();
}

/// Where trees are made that only our own removal gets rid of: in memory, which is faster than a disk.
struct Depths(PathBuf);

impl Depths {
    /// Has a monitor keep everything there.
    fn hold(site: &mut Site) -> Depths {
        let depths = Depths(PathBuf::from("/dev/shm").join(&site.name));
        site.launcher.options.state_dir = depths.0.join("state");
        site.launcher.options.runtime_dir = depths.0.join("run");
        depths
    }
}

impl Drop for Depths {
    fn drop(&mut self) {
        drop(knoll_tree::remove(&self.0));
    }
}

/// A tree as a container makes it that wants nobody to remove it: deeper than a program has stack or descriptors.
fn endless(top: &Path) {
    fs::create_dir_all(top).unwrap();
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut at = open(top, flags, Mode::empty()).unwrap();
    for _ in 0..50_000 {
        mkdirat(&at, c"d", Mode::from_bits_truncate(0o755)).unwrap();
        at = openat(&at, c"d", flags, Mode::empty()).unwrap();
    }
}

fn holds_nothing(directory: &Path) -> bool {
    fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}

#[tokio::test]
async fn the_deepest_tree_of_a_container_goes_with_it() {
    let mut site = Site::new(FILE);
    let _depths = Depths::hold(&mut site);
    let state = site.launcher.options.state_dir.clone();
    let client = site.connect().await;
    site.sandbox(&client, "deep").await;
    site.run(&client, site.spec("deep", "deep", "true")).await;
    endless(&state.join("containers/deep/upper/deep"));
    client.remove_container(container_id("deep")).await.unwrap();
    client.remove_sandbox(sandbox_id("deep")).await.unwrap();
    until_after(LONG, "the trash is empty", || {
        holds_nothing(&state.join("trash")) && holds_nothing(&state.join("containers"))
    })
    .await;
    site.finish(&client).await;
}

#[tokio::test]
async fn the_deepest_tree_is_in_the_way_of_no_end() {
    let mut site = Site::new(FILE);
    let _depths = Depths::hold(&mut site);
    let (state, runtime) = (site.launcher.options.state_dir.clone(), site.launcher.options.runtime_dir.clone());
    let client = site.connect().await;
    // What nobody knows of, so that only the end itself comes by.
    endless(&state.join("containers/unknown/upper"));
    client.shutdown(true).await.unwrap();
    until_after(LONG, "everything is gone", || {
        !["containers", "trash", "sandboxes"].iter().any(|name| state.join(name).exists())
    })
    .await;
    endless(&state.join("containers/unknown/upper"));
    reset::reset(&site.launcher.options, None).unwrap();
    assert!(!state.exists() && !runtime.exists());
}
