//! Control groups, version 1, version 2, or both: limits come from wherever the controllers are, killing and freezing
//! from the unified tree wherever it is mounted. Without one, systemd tells its services' processes by a hierarchy of
//! its own, which has to be left, too, so that stopping a service does not stop what it has started.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

mod devices;
mod limits;
mod usage;

pub(crate) use devices::Devices;

/// How this machine's control groups are set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Controllers in their own hierarchies, no unified tree.
    V1,
    /// Controllers in their own hierarchies beside a unified tree without any.
    Hybrid,
    /// One unified tree.
    V2,
}

/// A version 1 hierarchy.
#[derive(Debug, Clone)]
struct Hierarchy {
    mount: PathBuf,
    controllers: Vec<String>,
}

/// The hierarchies containers live in.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    v1: Vec<Hierarchy>,
    unified: Option<PathBuf>,
    /// The version 1 hierarchy that only decides about devices. Containers have no group of their own in it.
    devices: Option<PathBuf>,
    mode: Mode,
}

/// What containers are limited by, and, without a unified tree, frozen and told from services with.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuacct", "memory", "pids", "freezer", SERVICES];
/// How systemd's own hierarchy of version 1 is mounted.
const SERVICES: &str = "name=systemd";

impl Cgroups {
    /// Reads what is mounted.
    pub(crate) fn discover() -> io::Result<Cgroups> {
        Cgroups::from_mountinfo(&fs::read_to_string("/proc/self/mountinfo")?)
    }

    fn from_mountinfo(text: &str) -> io::Result<Cgroups> {
        let mut v1: Vec<Hierarchy> = Vec::new();
        let mut unified = None;
        let mut devices = None;
        for line in text.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let (Some(mount), mut right) = (left.split(' ').nth(4).map(unescape), right.split(' ')) else { continue };
            match (right.next(), right.nth(1)) {
                (Some("cgroup2"), _) => unified = unified.or(Some(mount)),
                (Some("cgroup"), Some(options)) => {
                    // One that decides about more is not ours to give a group of its own.
                    if options.split(',').any(|o| o == "devices")
                        && !options.split(',').any(|o| CONTROLLERS.contains(&o))
                    {
                        devices = devices.or(Some(mount.clone()));
                    }
                    let wanted = options.split(',').filter(|o| CONTROLLERS.contains(o));
                    let controllers: Vec<String> = wanted.map(str::to_owned).collect();
                    let known = |c: &String| v1.iter().any(|h| h.controllers.contains(c));
                    if !controllers.is_empty() && !controllers.iter().any(known) {
                        v1.push(Hierarchy { mount, controllers });
                    }
                }
                _ => {}
            }
        }
        if unified.is_some() {
            v1.retain(|h| h.controllers != [SERVICES]);
        }
        let mode = match (&unified, v1.is_empty()) {
            (None, true) => return Err(io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy is mounted")),
            (None, false) => Mode::V1,
            (Some(_), true) => Mode::V2,
            (Some(_), false) => Mode::Hybrid,
        };
        if unified.is_some() {
            v1.retain(|h| h.controllers != ["freezer"]);
        }
        Ok(Cgroups { v1, unified, devices, mode })
    }

    /// How this machine's control groups are set up.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether a controller can be had.
    pub(crate) fn offers(&self, controller: &str) -> bool {
        let unified = || fs::read_to_string(self.unified.as_ref()?.join("cgroup.controllers")).ok();
        match self.mode {
            Mode::V2 => unified().is_some_and(|names| names.split_whitespace().any(|name| name == controller)),
            Mode::V1 | Mode::Hybrid => self.controller(controller, "").is_some(),
        }
    }

    /// Where a controller's files of a group are.
    fn controller(&self, name: &str, group: &str) -> Option<PathBuf> {
        let hierarchy = self.v1.iter().find(|h| h.controllers.iter().any(|c| c == name));
        hierarchy.map(|h| h.mount.join(group))
    }

    /// Where the unified tree's files of a group are.
    fn unified(&self, group: &str) -> Option<PathBuf> {
        self.unified.as_ref().map(|mount| mount.join(group))
    }

    /// The group's directory in every hierarchy.
    fn directories<'a>(&'a self, group: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
        self.v1.iter().map(|h| &h.mount).chain(&self.unified).map(move |mount| mount.join(group))
    }

    /// Makes a group everywhere. Its parents must exist.
    pub(crate) fn create(&self, group: &str) -> io::Result<()> {
        if self.mode == Mode::V2
            && let (Some(mount), Some(parent)) = (&self.unified, Path::new(group).parent())
        {
            pass_controllers_down(&mount.join(parent));
        }
        for directory in self.directories(group) {
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes an empty group everywhere; absent is fine.
    pub(crate) fn remove(&self, group: &str) -> io::Result<()> {
        let mut outcome = Ok(());
        for directory in self.directories(group) {
            match fs::remove_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => outcome = Err(error),
                _ => {}
            }
        }
        outcome
    }

    /// The groups directly below one, by name.
    pub(crate) fn children(&self, group: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .directories(group)
            .filter_map(|directory| fs::read_dir(directory).ok())
            .flat_map(|entries| entries.flatten())
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The group in the unified tree, to be born into.
    pub(crate) fn birthplace(&self, group: &str) -> io::Result<Option<OwnedFd>> {
        self.unified(group).map(|path| File::open(path).map(OwnedFd::from)).transpose()
    }

    /// Moves this process, which has one thread, into a group of every version 1 hierarchy.
    pub(crate) fn join(&self, group: &str) -> io::Result<()> {
        // A lone thread that moves itself takes no machine-wide lock, unlike `cgroup.procs`.
        self.v1.iter().try_for_each(|hierarchy| write(&hierarchy.mount.join(group).join("tasks"), "0"))
    }

    /// Moves this whole process into a group everywhere.
    pub(crate) fn enter(&self, group: &str) -> io::Result<()> {
        self.directories(group).try_for_each(|directory| write(&directory.join("cgroup.procs"), "0"))
    }

    /// The processes of a group and of all below it.
    pub(crate) fn processes(&self, group: &str) -> Vec<i32> {
        let mut found = Vec::new();
        for directory in self.directories(group) {
            collect_processes(&directory, &mut found);
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Sends SIGKILL to everything in a group and below.
    pub(crate) fn kill(&self, group: &str) -> io::Result<()> {
        if let Some(directory) = self.unified(group)
            && write(&directory.join("cgroup.kill"), "1").is_ok()
        {
            return Ok(());
        }
        // A process may fork while it is being looked at, so look again; each round leaves fewer that can.
        for _ in 0..64 {
            let processes = self.processes(group);
            if processes.is_empty() {
                break;
            }
            // A number may be somebody else's by now. A handle on it is not, if it still is in the group afterwards.
            let handles = processes.iter().filter_map(|pid| Some((*pid, crate::sys::pidfd_open(*pid).ok()?)));
            let handles: Vec<(i32, OwnedFd)> = handles.collect();
            let still = self.processes(group);
            for (_, handle) in handles.iter().filter(|(pid, _)| still.binary_search(pid).is_ok()) {
                match crate::sys::pidfd_signal(handle.as_fd(), libc::SIGKILL) {
                    Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Asks for a group to be frozen or thawed. [`Cgroups::is_frozen`] tells when it has happened.
    pub(crate) fn freeze(&self, group: &str, frozen: bool) -> io::Result<()> {
        if let Some(directory) = self.unified(group) {
            return write(&directory.join("cgroup.freeze"), if frozen { "1" } else { "0" });
        }
        let directory = self.controller("freezer", group).ok_or(io::ErrorKind::Unsupported)?;
        write(&directory.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })
    }

    /// Whether everything in a group has stopped.
    pub(crate) fn is_frozen(&self, group: &str) -> io::Result<bool> {
        if let Some(directory) = self.unified(group) {
            return Ok(fs::read_to_string(directory.join("cgroup.events"))?.lines().any(|line| line == "frozen 1"));
        }
        let directory = self.controller("freezer", group).ok_or(io::ErrorKind::Unsupported)?;
        Ok(fs::read_to_string(directory.join("freezer.state"))?.trim() == "FROZEN")
    }

    /// What a container should see at `/sys/fs/cgroup`: its own directories, by name; the empty name stands for the
    /// mount point itself.
    pub(crate) fn view(&self, group: &str) -> Vec<View> {
        if self.mode == Mode::V2 {
            return self.unified(group).into_iter().map(View::whole).collect();
        }
        self.v1.iter().filter_map(|hierarchy| View::of(hierarchy, group)).collect()
    }
}

/// A directory a container sees below `/sys/fs/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    /// Its name there.
    pub(crate) name: String,
    /// The group's directory on the host.
    pub(crate) source: PathBuf,
    /// Further names for it.
    pub(crate) links: Vec<String>,
}

impl View {
    fn whole(source: PathBuf) -> View {
        View { name: String::new(), source, links: Vec::new() }
    }

    fn of(hierarchy: &Hierarchy, group: &str) -> Option<View> {
        let name = hierarchy.mount.file_name()?.to_str()?.to_owned();
        let links = hierarchy.controllers.iter().filter(|c| **c != name && *c != SERVICES).cloned().collect();
        Some(View { name, source: hierarchy.mount.join(group), links })
    }
}

/// Lets the children of a unified group have the controllers it has. What cannot be had is reported by `doctor`.
fn pass_controllers_down(directory: &Path) {
    for controller in ["+cpu", "+memory", "+pids"] {
        if let Err(error) = write(&directory.join("cgroup.subtree_control"), controller) {
            tracing::debug!(%error, controller, directory = %directory.display(), "a controller is not passed down");
        }
    }
}

fn collect_processes(directory: &Path, found: &mut Vec<i32>) {
    if let Ok(text) = fs::read_to_string(directory.join("cgroup.procs")) {
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    }
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        collect_processes(&entry.path(), found);
    }
}

/// Writes a control file in one call, without creating it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

/// `\040` and its like in mountinfo.
fn unescape(text: &str) -> PathBuf {
    let text = text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    PathBuf::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn hybrid_limits_by_version_1_and_freezes_by_version_2() {
        let cgroups = Cgroups::from_mountinfo(HYBRID).unwrap();
        assert_eq!((cgroups.mode(), &cgroups.devices), (Mode::Hybrid, &None));
        let more = format!("{HYBRID}36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices\n");
        assert_eq!(Cgroups::from_mountinfo(&more).unwrap().devices, Some(PathBuf::from("/sys/fs/cgroup/devices")));
        assert_eq!(cgroups.controller("cpuacct", "k"), Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/k")));
        assert_eq!(cgroups.controller("freezer", "k"), None);
        let view = cgroups.view("k/a");
        assert_eq!(view.len(), 2);
        assert_eq!(
            (view[0].name.as_str(), view[0].links.as_slice()),
            ("cpu,cpuacct", &["cpu".into(), "cpuacct".into()][..])
        );
    }

    #[test]
    fn version_1_leaves_the_hierarchy_of_services_too() {
        let text: Vec<&str> = HYBRID.lines().filter(|line| !line.contains("cgroup2")).collect();
        let cgroups = Cgroups::from_mountinfo(&text.join("\n")).unwrap();
        assert_eq!(cgroups.mode(), Mode::V1);
        let names: Vec<String> = cgroups.view("k").into_iter().map(|view| view.name).collect();
        assert_eq!(names, ["cpu,cpuacct", "memory", "freezer", "systemd"]);
        assert_eq!(cgroups.controller(SERVICES, "k"), Some(PathBuf::from("/sys/fs/cgroup/systemd/k")));
        assert_eq!(Cgroups::from_mountinfo(HYBRID).unwrap().controller(SERVICES, "k"), None);
    }

    #[test]
    fn pure_version_2_shows_itself() {
        let text = "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n";
        let cgroups = Cgroups::from_mountinfo(text).unwrap();
        assert_eq!(cgroups.mode(), Mode::V2);
        assert_eq!(cgroups.view("k"), [View::whole(PathBuf::from("/sys/fs/cgroup/k"))]);
        let beside = text.to_owned() + HYBRID.lines().find(|line| line.contains("name=systemd")).unwrap();
        assert_eq!(Cgroups::from_mountinfo(&beside).unwrap().mode(), Mode::V2);
        assert!(Cgroups::from_mountinfo("").is_err());
    }
}
