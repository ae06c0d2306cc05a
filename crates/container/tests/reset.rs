//! Looking at the machine and leaving it as it was. Needs root and busybox-static.

mod support;

use std::fs;
use std::net::Ipv4Addr;

use knoll_container::network::{self, Config};
use knoll_container::{doctor, reset};
use support::{Site, cgroups, interfaces, until};

const FILE: u8 = 4;

#[test]
fn a_machine_that_runs_these_tests_has_what_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    let before = interfaces("").len();
    let checks = doctor::examine(dir.path(), &[]);
    let names: Vec<&str> = checks.iter().map(|check| check.name).collect();
    assert_eq!(names, ["kernel", "privileges", "cgroups", "devices", "overlayfs", "seccomp", "veth", "nf_tables"]);
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
