//! `/dev`. The nodes are the host's, mounted one by one on a tmpfs that allows none of its own: so even a program that
//! may call `mknod` reaches no other device, on every version of cgroups.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::{Failure, Mapping, Step, target};
use crate::sys::{self, MountAttributes};

const NODES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
const DEFAULT_SHM: u64 = 64 << 20;

/// Device nodes picked up from the host.
pub(super) enum Devices {
    Few(Vec<(&'static str, OwnedFd)>),
    All(OwnedFd),
}

/// Picks the nodes up.
pub(super) fn collect(privileged: bool) -> Result<Devices, Failure> {
    let tree = |path: &Path, recursive| {
        let tree = sys::clone_tree(None, path, recursive)?;
        let attributes = MountAttributes { no_suid: true, no_exec: true, ..MountAttributes::default() };
        sys::set_attributes(tree.as_fd(), attributes, MsFlags::MS_PRIVATE.bits(), recursive)?;
        Ok(tree)
    };
    let node = |name: &&'static str| Ok((*name, tree(&Path::new("/dev").join(name), false)?));
    let few = || NODES.iter().map(node).collect::<io::Result<_>>();
    let all = || tree(Path::new("/dev"), true);
    let outcome: io::Result<Devices> = if privileged { all().map(Devices::All) } else { few().map(Devices::Few) };
    outcome.step(|| "cannot pick up devices".into())
}

/// Sets `/dev` up in the current root.
pub(super) fn place(devices: Devices, shm_bytes: Option<u64>, ids: Option<&Mapping<'_>>) -> Result<(), Failure> {
    let root = ids.map_or(0, |mapping| mapping.ids.first);
    let dev = Path::new("/dev");
    target::own_directory(dev)?;
    match devices {
        Devices::All(tree) => {
            let at = target::open(dev).step(|| "cannot open /dev".into())?;
            return sys::move_mount(tree.as_fd(), at.as_fd()).step(|| "cannot mount /dev".into());
        }
        Devices::Few(nodes) => {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_STRICTATIME;
            let options = format!("mode=755,size=65536k,uid={root},gid={root}");
            mount(Some("tmpfs"), dev, Some("tmpfs"), flags, Some(options.as_str()))
                .step(|| "cannot mount /dev".into())?;
            for (name, tree) in nodes {
                place_node(&dev.join(name), &tree).step(|| format!("cannot mount /dev/{name}"))?;
            }
        }
    }
    for (name, to) in LINKS {
        symlink(to, dev.join(name)).step(|| format!("cannot make /dev/{name}"))?;
    }
    file_systems(shm_bytes.unwrap_or(DEFAULT_SHM), root)
}

fn place_node(path: &Path, tree: &OwnedFd) -> io::Result<()> {
    drop(File::create_new(path)?);
    sys::move_mount(tree.as_fd(), target::open(path)?.as_fd())
}

/// `root` owns what has an owner; terminals belong to the group 5 of where `root` is 0.
fn file_systems(shm_bytes: u64, root: u32) -> Result<(), Failure> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let terminal = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let shm = format!("mode=1777,size={shm_bytes},uid={root},gid={root}");
    let terminals = format!("newinstance,ptmxmode=0666,mode=0620,gid={}", root + 5);
    let all = [
        ("/dev/pts", "devpts", terminal, Some(terminals.as_str())),
        ("/dev/shm", "tmpfs", safe, Some(shm.as_str())),
        ("/dev/mqueue", "mqueue", safe, None),
    ];
    for (path, kind, flags, options) in all {
        fs::create_dir(path).step(|| format!("cannot make {path}"))?;
        match mount(Some(kind), path, Some(kind), flags, options) {
            Err(nix::errno::Errno::ENODEV) if kind == "mqueue" => {}
            outcome => outcome.step(|| format!("cannot mount {path}"))?,
        }
    }
    Ok(())
}
