//! The root file system and what every container finds in it.
//!
//! What comes from the host is picked up first, as detached copies of mounts. Then the new root becomes *the* root, and
//! only then everything is put in place, so that no path, however its links are laid, can lead out.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::{Container, Failure, Mapping, Step, device, target, volume};
use crate::cgroup::View;
use crate::protocol::Rootfs;
use crate::sys::{self, Filesystem, MountAttributes};

/// Hidden: they tell about the machine, or reach into it.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Readable only: they set the machine up.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The longest text the old mount call takes, with a margin for the other options.
const LONGEST_LOWERS: usize = 3500;

/// Makes the container's view of files and enters it.
pub(super) fn enter(c: &Container<'_>, ids: Option<&Mapping<'_>>) -> Result<(), Failure> {
    let privileged = c.spec.security.privileged;
    let devices = device::collect(privileged)?;
    let volumes = volume::collect(&c.spec.mounts, privileged, ids)?;
    let cgroups = collect_cgroups(c.cgroups.view(c.group), privileged)?;
    let shared_proc = c.proc.map(collect_proc).transpose()?;

    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).step(|| "cannot make mounts private".into())?;
    let root = mount_root(c, ids)?;
    sys::pivot_root_here(&root).step(|| "cannot change the root directory".into())?;

    proc_and_sys(shared_proc, privileged)?;
    place_cgroups(cgroups, privileged)?;
    device::place(devices, c.spec.shm_bytes, ids)?;
    volume::place(volumes)?;
    if !privileged && !c.spec.security.unmasked_proc {
        READ_ONLY.iter().try_for_each(|path| make_read_only(path))?;
        MASKED.iter().try_for_each(|path| mask(path))?;
    }
    if c.spec.security.read_only_root {
        let root = target::open(Path::new("/")).step(|| "cannot open the root directory".into())?;
        let read_only = MountAttributes { read_only: true, ..MountAttributes::default() };
        sys::set_attributes(root.as_fd(), read_only, 0, false).step(|| "cannot make the root read-only".into())?;
    }
    Ok(())
}

/// Mounts the root file system and opens it.
fn mount_root(c: &Container<'_>, ids: Option<&Mapping<'_>>) -> Result<OwnedFd, Failure> {
    let place = c.directory.join("root");
    let no_dev = !c.spec.security.privileged;
    match &c.spec.rootfs {
        Rootfs::Directory(path) => {
            let tree = sys::clone_tree(None, path, true).blame_spec(|| format!("cannot use {path:?} as root"))?;
            let attributes = MountAttributes { no_dev, ..MountAttributes::default() };
            sys::set_attributes(tree.as_fd(), attributes, MsFlags::MS_PRIVATE.bits(), true)
                .step(|| "cannot restrict the root file system".into())?;
            if let Some(mapping) = ids {
                map_ids(&tree, mapping, path)?;
            }
            let at = target::open(&place).step(|| format!("cannot open {place:?}"))?;
            sys::move_mount(tree.as_fd(), at.as_fd()).step(|| "cannot mount the root file system".into())?;
        }
        Rootfs::Overlay { lowers } => match ids {
            Some(mapping) => {
                let mapped = map_lowers(lowers, mapping, &place)?;
                overlay(lowers, &mapped, c.directory, &place, no_dev, ids)?;
            }
            None => overlay(lowers, lowers, c.directory, &place, no_dev, None)?,
        },
    }
    target::open(&place).step(|| format!("cannot open {place:?}"))
}

/// Shows a tree's owners as a user namespace has them.
pub(super) fn map_ids(tree: &OwnedFd, mapping: &Mapping<'_>, path: &Path) -> Result<(), Failure> {
    sys::map_ids(tree.as_fd(), mapping.namespace, true).step(|| {
        format!("cannot map the owners of {path:?} for a user namespace (its file system or this kernel cannot)")
    })
}

/// Mounts layers with their owners as a user namespace has them, side by side where the root will cover them, and
/// gives their places.
fn map_lowers(lowers: &[PathBuf], mapping: &Mapping<'_>, place: &Path) -> Result<Vec<PathBuf>, Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some("mode=700,size=1m"))
        .step(|| "cannot mount layers".into())?;
    let one = |(number, lower): (usize, &PathBuf)| {
        let tree = sys::clone_tree(None, lower, false).blame_spec(|| format!("cannot use layer {lower:?}"))?;
        map_ids(&tree, mapping, lower)?;
        let at = place.join(number.to_string());
        let attach = || {
            fs::create_dir(&at)?;
            sys::move_mount(tree.as_fd(), target::open(&at)?.as_fd())
        };
        attach().step(|| format!("cannot mount layer {lower:?}"))?;
        Ok(at)
    };
    lowers.iter().enumerate().map(one).collect()
}

/// `like` are the layers as they are, `lowers` where they are mounted from.
fn overlay(
    like: &[PathBuf],
    lowers: &[PathBuf],
    directory: &Path,
    place: &Path,
    no_dev: bool,
    ids: Option<&Mapping<'_>>,
) -> Result<(), Failure> {
    let (upper, work) = (directory.join("upper"), directory.join("work"));
    let top = like.last().ok_or_else(|| Failure::start("the root file system has no layers"))?;
    let like = fs::metadata(top).blame_spec(|| format!("cannot use layer {top:?}"))?;
    fs::set_permissions(&upper, fs::Permissions::from_mode(like.mode() & 0o7777))
        .step(|| "cannot set up the root".into())?;
    let owner = match ids {
        Some(mapping) => (mapping.outside(like.uid())?, mapping.outside(like.gid())?),
        None => (like.uid(), like.gid()),
    };
    if owner != (0, 0) {
        std::os::unix::fs::chown(&upper, Some(owner.0), Some(owner.1)).step(|| "cannot set up the root".into())?;
    }
    let what = || "cannot mount the root file system".to_owned();
    let lower: Vec<String> = lowers.iter().rev().map(|path| escape(path)).collect();
    let lower = lower.join(":");
    if lower.len() > LONGEST_LOWERS {
        return many_layers(lowers, &upper, &work, place, no_dev).step(what);
    }
    let flags = if no_dev { MsFlags::MS_NODEV } else { MsFlags::empty() };
    let base = format!("lowerdir={lower},upperdir={},workdir={}", escape(&upper), escape(&work));
    // The writable layer is thrown away with the container, so nothing in it needs to survive the machine.
    let volatile = format!("{base},volatile");
    match mount(Some("overlay"), place, Some("overlay"), flags, Some(volatile.as_str())) {
        Err(nix::errno::Errno::EINVAL) => {
            mount(Some("overlay"), place, Some("overlay"), flags, Some(base.as_str())).step(what)
        }
        outcome => outcome.step(what),
    }
}

/// Hundreds of layers: one option each.
fn many_layers(lowers: &[PathBuf], upper: &Path, work: &Path, place: &Path, no_dev: bool) -> io::Result<()> {
    let filesystem = Filesystem::open(c"overlay")?;
    for lower in lowers.iter().rev() {
        filesystem.set(c"lowerdir+", &sys::c_path(lower)?)?;
    }
    filesystem.set(c"upperdir", &sys::c_path(upper)?)?;
    filesystem.set(c"workdir", &sys::c_path(work)?)?;
    filesystem.flag(c"volatile")?;
    let tree = filesystem.mount(MountAttributes { no_dev, ..MountAttributes::default() })?;
    sys::move_mount(tree.as_fd(), target::open(place)?.as_fd())
}

/// Colons separate layers, commas options, and a backslash protects both.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}

/// Picks up the `/proc` of a process-id namespace that this process is not in itself.
fn collect_proc(path: &Path) -> Result<OwnedFd, Failure> {
    let collect = || {
        let tree = sys::clone_tree(None, path, false)?;
        let attributes = MountAttributes { no_suid: true, no_dev: true, no_exec: true, ..MountAttributes::default() };
        sys::set_attributes(tree.as_fd(), attributes, MsFlags::MS_PRIVATE.bits(), false)?;
        Ok::<_, io::Error>(tree)
    };
    collect().step(|| format!("cannot pick up the sandbox's /proc from {}", path.display()))
}

fn proc_and_sys(shared_proc: Option<OwnedFd>, privileged: bool) -> Result<(), Failure> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let proc = Path::new("/proc");
    target::own_directory(proc)?;
    match shared_proc {
        Some(tree) => target::open(proc).and_then(|at| sys::move_mount(tree.as_fd(), at.as_fd())),
        None => mount(Some("proc"), proc, Some("proc"), safe, None::<&str>).map_err(io::Error::from),
    }
    .step(|| "cannot mount /proc".into())?;
    target::own_directory(Path::new("/sys"))?;
    let flags = if privileged { safe } else { safe | MsFlags::MS_RDONLY };
    mount(Some("sysfs"), "/sys", Some("sysfs"), flags, None::<&str>).step(|| "cannot mount /sys".into())
}

fn collect_cgroups(views: Vec<View>, privileged: bool) -> Result<Vec<(View, OwnedFd)>, Failure> {
    let collect = |view: View| -> io::Result<(View, OwnedFd)> {
        let tree = sys::clone_tree(None, &view.source, false)?;
        let attributes = MountAttributes { read_only: !privileged, no_suid: true, no_dev: true, no_exec: true };
        sys::set_attributes(tree.as_fd(), attributes, MsFlags::MS_PRIVATE.bits(), false)?;
        Ok((view, tree))
    };
    views.into_iter().map(collect).collect::<io::Result<_>>().step(|| "cannot show cgroups".into())
}

/// Version 2 lies on `/sys/fs/cgroup` itself; the hierarchies of version 1 are side by side on a small tmpfs.
fn place_cgroups(views: Vec<(View, OwnedFd)>, privileged: bool) -> Result<(), Failure> {
    let base = Path::new("/sys/fs/cgroup");
    if !views.iter().any(|(view, _)| view.name.is_empty()) {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("tmpfs"), base, Some("tmpfs"), flags, Some("mode=755,size=64k"))
            .step(|| "cannot mount cgroups".into())?;
    }
    for (view, tree) in &views {
        place_view(base, view, tree).step(|| format!("cannot mount {}", view.source.display()))?;
    }
    if !privileged {
        make_read_only("/sys/fs/cgroup")?;
    }
    Ok(())
}

fn place_view(base: &Path, view: &View, tree: &OwnedFd) -> io::Result<()> {
    if view.name.is_empty() {
        return sys::move_mount(tree.as_fd(), target::open(base)?.as_fd());
    }
    let place = base.join(&view.name);
    fs::create_dir(&place)?;
    sys::move_mount(tree.as_fd(), target::open(&place)?.as_fd())?;
    view.links.iter().try_for_each(|link| symlink(&view.name, base.join(link)))
}

/// Makes what is at a path read-only, as a mount of its own if it is none.
fn make_read_only(path: &str) -> Result<(), Failure> {
    let tree = match sys::clone_tree(None, Path::new(path), true) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        outcome => outcome.step(|| format!("cannot open {path}"))?,
    };
    let attributes = MountAttributes { read_only: true, no_suid: true, no_dev: true, no_exec: true };
    let make = || {
        sys::set_attributes(tree.as_fd(), attributes, 0, true)?;
        sys::move_mount(tree.as_fd(), target::open(Path::new(path))?.as_fd())
    };
    make().step(|| format!("cannot make {path} read-only"))
}

/// Puts nothing in the place of what is at a path.
fn mask(path: &str) -> Result<(), Failure> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    let outcome = if metadata.is_dir() {
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("mode=755,size=4k"))
    } else {
        mount(Some("/dev/null"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
    };
    outcome.step(|| format!("cannot hide {path}"))
}
