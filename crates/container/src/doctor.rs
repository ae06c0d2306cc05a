//! What a machine lacks to run containers, found by trying. Nothing is changed: what has to be made is made in
//! namespaces that are thrown away.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;

use knoll_faults::chain;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::capability::CapabilitySet;
use crate::cgroup::{Cgroups, Mode};
use crate::netlink::Socket;
use crate::netlink::route::End;
use crate::network::{self, Config};
use crate::sys::Filesystem;

/// The oldest kernel with every call the monitor makes (`mount_setattr`, `cgroup.kill`).
const OLDEST_KERNEL: (u32, u32) = (5, 14);

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What, e.g. `kernel`.
    pub name: &'static str,
    /// Whether it will do.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What to do about it; empty when there is nothing to do.
    pub fix: String,
}

/// Looks at everything. `state_dir` need not exist; `ports` are those the server wants to listen on, on all addresses.
pub fn examine(state_dir: &Path, ports: &[u16]) -> Vec<Check> {
    let mut checks = vec![kernel(), root(), cgroups(), devices(), overlay(state_dir), seccomp()];
    let scratch = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
        Ok::<_, Errno>([mounts(), veths(), tables()])
    });
    match scratch.join() {
        Ok(Ok(tried)) => checks.extend(tried),
        Ok(Err(errno)) => checks.push(failed("namespaces", &io::Error::from(errno), "run as root")),
        Err(_) => {
            checks.push(Check { name: "namespaces", ok: false, found: "the check failed".into(), fix: String::new() })
        }
    }
    checks.extend(ports.iter().map(|port| self::port(*port)));
    checks
}

fn good(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, ok: true, found: found.into(), fix: String::new() }
}

fn bad(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { name, ok: false, found: found.into(), fix: fix.into() }
}

fn failed(name: &'static str, error: &dyn std::error::Error, fix: &str) -> Check {
    bad(name, chain(error), fix)
}

fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let (major, minor) = OLDEST_KERNEL;
    if version(&release).is_some_and(|found| found >= OLDEST_KERNEL) {
        good("kernel", release)
    } else {
        bad("kernel", release, format!("use Linux {major}.{minor} or newer"))
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn root() -> Check {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.replace("CapBnd:", "").replace("CapEff:", "CapBnd:");
    let has = CapabilitySet::bounding(&effective);
    let needed = [
        "SYS_ADMIN",
        "NET_ADMIN",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SETUID",
        "SETGID",
        "SETPCAP",
        "CHOWN",
        "DAC_OVERRIDE",
        "KILL",
    ];
    let missing: Vec<&str> = needed.into_iter().filter(|name| !has.has(name)).collect();
    if missing.is_empty() {
        good("privileges", "root")
    } else {
        bad("privileges", format!("without {}", missing.join(", ")), "run as root, outside a restricted container")
    }
}

fn cgroups() -> Check {
    let cgroups = match Cgroups::discover() {
        Ok(cgroups) => cgroups,
        Err(error) => return failed("cgroups", &error, "mount cgroup2 at /sys/fs/cgroup"),
    };
    let missing: Vec<&str> = ["cpu", "memory", "pids"].into_iter().filter(|name| !cgroups.offers(name)).collect();
    let mode = match cgroups.mode() {
        Mode::V1 => "version 1",
        Mode::Hybrid => "version 1 with a unified tree",
        Mode::V2 => "version 2",
    };
    if missing.is_empty() {
        good("cgroups", mode)
    } else {
        bad(
            "cgroups",
            format!("{mode}, without {}", missing.join(", ")),
            "enable these controllers on the kernel's command line",
        )
    }
}

fn devices() -> Check {
    const NAME: &str = "devices";
    match Cgroups::discover().and_then(|cgroups| cgroups.means_against_devices()) {
        Ok(means) => good(NAME, means),
        Err(error) => failed(
            NAME,
            &error,
            "mount the devices hierarchy of version 1, or use a kernel with CONFIG_CGROUP_BPF: until then a container \
             with SYS_ADMIN reaches the machine's devices",
        ),
    }
}

fn overlay(state_dir: &Path) -> Check {
    let known = Filesystem::open(c"overlay");
    if let Err(error) = known {
        return failed("overlayfs", &error, "load the overlay module");
    }
    // An overlay's writable layer cannot lie on an overlay.
    let existing = state_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match nix::sys::statfs::statfs(existing) {
        Ok(stat) if stat.filesystem_type() == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC => {
            let fix = "put the data directory on another file system, e.g. a volume";
            bad("overlayfs", format!("{} lies on an overlay itself", existing.display()), fix)
        }
        Ok(_) => good("overlayfs", "available"),
        Err(errno) => failed("overlayfs", &io::Error::from(errno), "make the data directory accessible"),
    }
}

fn seccomp() -> Check {
    match fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if actions.contains("errno") => good("seccomp", "available"),
        _ => bad("seccomp", "not available", "use a kernel built with CONFIG_SECCOMP_FILTER"),
    }
}

/// Whether mounts can be made that nobody else sees, which every container begins with.
fn mounts() -> Check {
    const NAME: &str = "mounts";
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    match mount(None::<&str>, "/", None::<&str>, private, None::<&str>) {
        Ok(()) => good(NAME, "/ is a mount point"),
        Err(Errno::EINVAL) => bad(
            NAME,
            "/ is no mount point, as in a plain chroot",
            "mount the directory onto itself before you change into it: mount --bind DIR DIR, chroot DIR",
        ),
        Err(errno) => failed(NAME, &io::Error::from(errno), "run as root, outside a restricted container"),
    }
}

fn veths() -> Check {
    let make = || -> io::Result<()> {
        let here = fs::File::open("/proc/thread-self/ns/net")?;
        let near = End { name: "near", mac: [2, 0, 0, 0, 0, 1] };
        let far = End { name: "far", mac: [2, 0, 0, 0, 0, 2] };
        Socket::route()?.add_veth(&near, &far, here.as_fd(), 1500)
    };
    match make() {
        Ok(()) => good("veth", "available"),
        Err(error) => failed("veth", &error, "load the veth module"),
    }
}

fn tables() -> Check {
    let config = Config {
        table: "knoll".into(),
        pods: (Ipv4Addr::new(10, 244, 0, 0), 16),
        services: (Ipv4Addr::new(10, 96, 0, 0), 12),
        gateway: crate::protocol::GATEWAY,
        veth_prefix: "knoll".into(),
    };
    match network::setup(config) {
        Ok(_) => good("nf_tables", "available"),
        Err(error) => failed(
            "nf_tables",
            &error,
            "load the modules nf_tables, nft_nat, nft_masq, nft_numgen, nft_hash and nft_fib_ipv4",
        ),
    }
}

fn port(port: u16) -> Check {
    const NAME: &str = "port";
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => good(NAME, port.to_string()),
        Err(error) => failed(
            NAME,
            &io::Error::new(error.kind(), format!("{port}: {error}")),
            "stop what listens there, or choose another port",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("5.4.0"), Some((5, 4)));
        assert!(version("5.4.0").unwrap() < OLDEST_KERNEL && version("5.15").unwrap() > OLDEST_KERNEL);
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn a_root_that_is_no_mount_point_is_told_with_what_to_do() {
        let plain = tempfile::tempdir().unwrap();
        // Another root, and mounts, of this thread alone.
        let changed = || {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).expect("mounts of its own, as root");
            let before = mounts();
            nix::unistd::chroot(plain.path()).expect("changes its root");
            (before, mounts())
        };
        let (before, after) = std::thread::scope(|threads| threads.spawn(changed).join()).unwrap();
        assert!(before.ok, "{before:?}");
        assert!(!after.ok && after.found.contains("no mount point") && after.fix.contains("mount --bind"), "{after:?}");
    }

    #[test]
    fn a_taken_port_is_reported() {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let taken = port(listener.local_addr().unwrap().port());
        assert!(!taken.ok && taken.found.contains("in use"), "{taken:?}");
    }
}
