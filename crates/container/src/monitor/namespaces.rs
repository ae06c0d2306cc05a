//! What a sandbox is made of before anybody claims it: namespaces, an address, a veth, cgroups.
//!
//! A helper process makes all of it: it enters new namespaces, which is why it cannot be the monitor itself, reports
//! over a packet socket, and stays until the monitor has picked the namespaces up.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::cgroup::Cgroups;
use crate::init::Mapping;
use crate::netlink::Socket;
use crate::netlink::route::{End, Mac, Route};
use crate::protocol::{IdRange, PodNetwork};
use crate::sys;

/// What a set of namespaces is to be.
#[derive(Debug, Clone)]
pub(super) struct NamespacesSpec {
    /// Where its network namespace is bound.
    pub(super) path: PathBuf,
    /// Its cgroup.
    pub(super) group: String,
    /// Its address, if it has one.
    pub(super) veth: Option<Veth>,
    /// What its user namespace maps, if it has one.
    pub(super) ids: Option<IdRange>,
}

/// An address and how it is reached.
#[derive(Debug, Clone)]
pub(super) struct Veth {
    pub(super) address: Ipv4Addr,
    pub(super) interface: String,
    pub(super) network: PodNetwork,
}

/// The namespaces of a sandbox, made.
pub(super) struct Namespaces {
    pub(super) spec: NamespacesSpec,
    pub(super) net: OwnedFd,
    pub(super) uts: OwnedFd,
    pub(super) ipc: OwnedFd,
    pub(super) user: Option<OwnedFd>,
}

impl Namespaces {
    /// Its user namespace, if it has one.
    pub(super) fn mapping(&self) -> Option<Mapping<'_>> {
        Some(Mapping { namespace: self.user.as_ref()?.as_fd(), ids: self.spec.ids? })
    }
}

impl NamespacesSpec {
    /// Where its user namespace is bound.
    pub(super) fn user_path(&self) -> PathBuf {
        beside(&self.path, "-user")
    }

    /// Opens its user namespace, if it has one.
    pub(super) fn open_user(&self) -> io::Result<Option<OwnedFd>> {
        self.ids.map(|_| File::open(self.user_path()).map(OwnedFd::from)).transpose()
    }

    /// Makes it, in a forked helper, and leaves the helper in its namespaces.
    pub(super) fn make(&self, cgroups: &Cgroups) -> io::Result<()> {
        let host = File::open("/proc/self/ns/net")?;
        let mut outside = Socket::route()?;
        match self.ids {
            Some(ids) => self.enter_mapped(ids)?,
            None => unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)?,
        }
        settings();
        let here = File::open("/proc/self/ns/net")?;
        let mut inside = Socket::route()?;
        let loopback = inside.link("lo")?;
        inside.up(loopback)?;
        if let Some(veth) = &self.veth {
            veth.make(&mut outside, &mut inside, host.as_fd(), here.as_fd())?;
        }
        drop(File::create(&self.path)?);
        mount(Some("/proc/self/ns/net"), &self.path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        cgroups.create(&self.group)
    }

    /// Enters namespaces that belong to a new user namespace, without entering that one itself: what is left to do
    /// outside needs the privileges of here.
    fn enter_mapped(&self, ids: IdRange) -> io::Result<()> {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let mut ours = Some(write);
        let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
        let holder = sys::spawn(flags, None, || {
            drop(ours.take());
            // Until the other end has been closed.
            i32::from(nix::unistd::read(&read, &mut [0; 1]).is_err())
        })?;
        let outcome = self.take_over(ids, holder.pid);
        drop(ours);
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(holder.pid), None)?;
        outcome
    }

    fn take_over(&self, ids: IdRange, pid: i32) -> io::Result<()> {
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{pid}/{map}"), format!("0 {} {}", ids.first, ids.length))?;
        }
        drop(File::create(self.user_path())?);
        let user = PathBuf::from(format!("/proc/{pid}/ns/user"));
        mount(Some(&user), &self.user_path(), None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        let kinds =
            [("net", CloneFlags::CLONE_NEWNET), ("uts", CloneFlags::CLONE_NEWUTS), ("ipc", CloneFlags::CLONE_NEWIPC)];
        kinds.iter().try_for_each(|(name, kind)| Ok(setns(File::open(format!("/proc/{pid}/ns/{name}"))?, *kind)?))
    }

    /// Removes what [`NamespacesSpec::make`] leaves in the file system; the kernel removes the veth with the last user of
    /// the namespace.
    pub(super) fn remove(&self) {
        unbind(&self.path);
        if self.ids.is_some() {
            unbind(&self.user_path());
        }
    }
}

/// A path with something appended to its name.
fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(what);
    PathBuf::from(name)
}

/// Lets go of a bound namespace, or of a mounted directory.
pub(super) fn unbind(path: &Path) {
    if let Err(error) = umount2(path, MntFlags::MNT_DETACH) {
        tracing::debug!(%error, path = %path.display(), "nothing is mounted there");
    }
    let removed = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "a place for a mount stays");
    }
}

/// What containers expect of a fresh network namespace. Kernels without one of these go without.
fn settings() {
    let all = [
        ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
        ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
        ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
    ];
    for (path, value) in all {
        if let Err(error) = fs::write(path, value) {
            tracing::debug!(%error, path, "a network setting stays as it is");
        }
    }
}

impl Veth {
    fn macs(&self) -> (Mac, Mac) {
        let [a, b, c, d] = self.address.octets();
        ([0x0a, 0x4b, a, b, c, d], [0x0a, 0x58, a, b, c, d])
    }

    /// Both ends know each other's hardware address for good, so that the first packet asks nobody.
    fn make(
        &self,
        outside: &mut Socket,
        inside: &mut Socket,
        host: BorrowedFd<'_>,
        here: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let (near_mac, far_mac) = self.macs();
        let near = End { name: &self.interface, mac: near_mac };
        let far = End { name: "eth0", mac: far_mac };
        let gateway = self.network.gateway;
        match outside.add_veth(&near, &far, here, self.network.mtu) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                outside.remove_link(&self.interface)?;
                outside.add_veth(&near, &far, here, self.network.mtu)?;
            }
            outcome => outcome?,
        }
        self.quiet(host, here)?;
        let near = outside.link(&self.interface)?;
        let far = inside.link("eth0")?;
        outside.up(near)?;
        inside.up(far)?;
        let to_pod = Route { destination: (self.address, 32), gateway: None, source: Some(gateway), link: Some(near) };
        outside.add_route(&to_pod)?;
        outside.add_neighbour(near, self.address, far_mac)?;

        inside.add_address(far, self.address, 0)?;
        inside.add_route(&Route { destination: (gateway, 32), gateway: None, source: None, link: Some(far) })?;
        let everywhere = (Ipv4Addr::UNSPECIFIED, 0);
        inside.add_route(&Route { destination: everywhere, gateway: Some(gateway), source: None, link: Some(far) })?;
        inside.add_neighbour(far, gateway, near_mac)
    }

    /// Keeps IPv6 from announcing itself on the host's end.
    fn quiet(&self, host: BorrowedFd<'_>, here: BorrowedFd<'_>) -> io::Result<()> {
        setns(host, CloneFlags::CLONE_NEWNET)?;
        let path = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", self.interface);
        if let Err(error) = fs::write(path, "1") {
            tracing::debug!(%error, "IPv6 stays on a veth");
        }
        Ok(setns(here, CloneFlags::CLONE_NEWNET)?)
    }
}
