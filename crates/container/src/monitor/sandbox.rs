//! Sandboxes: claimed, dressed for their pod, frozen, removed.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use jiff::Timestamp;
use nix::sched::CloneFlags;

use super::connection::Ticket;
use super::namespaces::{Namespaces, unbind};
use super::pause::Pause;
use super::request::{Internal, Outcome, absent_sandbox, refuse};
use super::{Monitor, daemon};
use crate::cgroup::Mode;
use crate::protocol::{
    Answer, ContainerId, Network, Refusal, RefusalKind, Resources, SandboxId, SandboxSpec, SandboxStatus,
};
use crate::sys;

/// The most sandboxes at a time.
const MAX_SANDBOXES: usize = 16_384;
/// The most bytes of annotations a sandbox or container carries.
pub(super) const MAX_ANNOTATIONS: usize = 1 << 20;
/// How often to look whether a group has frozen, and how long to wait in between.
const FREEZE_LOOKS: u32 = 200;
const FREEZE_PAUSE: std::time::Duration = std::time::Duration::from_micros(50);

/// A claimed sandbox.
pub(super) struct Sandbox {
    pub(super) status: SandboxStatus,
    /// None on the host's network.
    pub(super) namespaces: Option<Namespaces>,
    /// The first process of a process-id namespace that all containers share.
    pub(super) pause: Option<Pause>,
    /// Who waits for its removal, once that has begun.
    pub(super) removing: Option<Vec<Ticket>>,
}

impl Sandbox {
    /// Its network namespace; none for the host's.
    pub(super) fn net(&self) -> Option<&OwnedFd> {
        self.namespaces.as_ref().map(|namespaces| &namespaces.net)
    }
}

impl Monitor {
    pub(super) fn prepare_sandbox(&mut self, ticket: Ticket, spec: SandboxSpec) -> Outcome {
        if self.ending.is_some() {
            return Err(refuse(RefusalKind::State, "the monitor is ending"));
        }
        if self.sandboxes.contains_key(&spec.id) || self.is_being_made(&spec) {
            return Err(refuse(RefusalKind::Exists, format!("sandbox {} exists", spec.id)));
        }
        if self.sandboxes.len() >= MAX_SANDBOXES {
            return Err(refuse(RefusalKind::Exhausted, format!("there are {MAX_SANDBOXES} sandboxes already")));
        }
        check(&spec)?;
        if spec.network == Network::Host {
            return self.host_sandbox(ticket, spec);
        }
        match self.claim(ticket, spec)? {
            Some((spec, namespaces)) => self.dress(ticket, spec, namespaces),
            None => Ok(None),
        }
    }

    /// A set of namespaces for a request that waited has been made.
    pub(super) fn sandbox_made(&mut self, ticket: Ticket, spec: SandboxSpec, namespaces: Namespaces) {
        match self.dress(ticket, spec, namespaces) {
            Ok(Some(answer)) => self.reply(ticket, Ok(answer)),
            Ok(None) => {}
            Err(refusal) => self.reply(ticket, Err(refusal)),
        }
    }

    fn host_sandbox(&mut self, ticket: Ticket, spec: SandboxSpec) -> Outcome {
        let serial = self.next_serial();
        let group = format!("{}/{serial:x}", self.options.cgroup_root);
        self.cgroups.create(&group).internal("make a cgroup")?;
        self.admit(ticket, spec, None, group)
    }

    /// Gives a set of namespaces the name and the limits of a sandbox.
    fn dress(&mut self, ticket: Ticket, spec: SandboxSpec, namespaces: Namespaces) -> Outcome {
        if let Err(refusal) = self.name_and_settings(&spec, &namespaces) {
            self.discard(&namespaces);
            return Err(refusal);
        }
        let group = namespaces.spec.group.clone();
        self.admit(ticket, spec, Some(namespaces), group)
    }

    fn name_and_settings(&self, spec: &SandboxSpec, namespaces: &Namespaces) -> Result<(), Refusal> {
        let mut end = spec.hostname.len().min(63);
        while !spec.hostname.is_char_boundary(end) {
            end -= 1;
        }
        let set_name = || Ok(nix::unistd::sethostname(&spec.hostname[..end])?);
        daemon::inside(&namespaces.uts, &self.home.uts, CloneFlags::CLONE_NEWUTS, set_name)
            .internal("set the host name")?;
        for (name, value) in &spec.sysctls {
            let path = format!("/proc/sys/{}", name.replace('.', "/"));
            let write = || fs::write(&path, value);
            let outcome = if name.starts_with("net.") {
                daemon::inside(&namespaces.net, &self.home.net, CloneFlags::CLONE_NEWNET, write)
            } else {
                daemon::inside(&namespaces.ipc, &self.home.ipc, CloneFlags::CLONE_NEWIPC, write)
            };
            outcome.map_err(|error| refuse(RefusalKind::Invalid, format!("cannot set {name}: {error}")))?;
        }
        Ok(())
    }

    fn admit(&mut self, ticket: Ticket, spec: SandboxSpec, namespaces: Option<Namespaces>, group: String) -> Outcome {
        let veth = namespaces.as_ref().and_then(|namespaces| namespaces.spec.veth.as_ref());
        let status = SandboxStatus {
            address: veth.map(|veth| veth.address),
            network_namespace: namespaces.as_ref().map(|namespaces| namespaces.spec.path.clone()),
            interface: veth.map(|veth| veth.interface.clone()),
            cgroup: group,
            created_at: Timestamp::now(),
            boot_id: self.boot_id.clone(),
            ids: namespaces.as_ref().and_then(|namespaces| namespaces.spec.ids),
            frozen: false,
            spec,
        };
        let id = status.spec.id.clone();
        self.sandboxes.insert(id.clone(), Sandbox { status: status.clone(), namespaces, pause: None, removing: None });
        let outcome = self.settle(ticket, &id, &status);
        if outcome.is_err() {
            self.begin_removal(&id, None);
        }
        outcome
    }

    fn settle(&mut self, ticket: Ticket, id: &SandboxId, status: &SandboxStatus) -> Outcome {
        if status.spec.resources != Resources::default() {
            self.cgroups.limit(&status.cgroup, &status.spec.resources, false).internal("set limits")?;
        }
        if status.spec.shared_pid {
            self.start_pause(id, ticket)?;
            return Ok(None);
        }
        self.save_sandbox(id).internal("record a sandbox")?;
        Ok(Some(Answer::Sandbox(Box::new(status.clone()))))
    }

    pub(super) fn freeze(&mut self, id: &SandboxId, frozen: bool) -> Outcome {
        let sandbox = self.sandboxes.get_mut(id).ok_or_else(|| absent_sandbox(id))?;
        let group = &sandbox.status.cgroup;
        self.cgroups.freeze(group, frozen).internal("freeze or thaw")?;
        let mut looks = 0;
        while self.cgroups.is_frozen(group).internal("see whether it is frozen")? != frozen {
            looks += 1;
            if looks > FREEZE_LOOKS {
                self.cgroups.freeze(group, !frozen).internal("freeze or thaw")?;
                return Err(refuse(RefusalKind::State, "a process does not stop; the sandbox is not frozen"));
            }
            std::thread::sleep(FREEZE_PAUSE);
        }
        sandbox.status.frozen = frozen;
        self.save_sandbox(id).internal("record a sandbox")?;
        Ok(Some(Answer::Done))
    }

    pub(super) fn remove_sandbox(&mut self, ticket: Ticket, id: &SandboxId) -> Outcome {
        if !self.sandboxes.contains_key(id) {
            return Ok(Some(Answer::Done));
        }
        self.begin_removal(id, Some(ticket));
        Ok(None)
    }

    /// Kills everything in a sandbox; the rest happens when the last process has gone.
    pub(super) fn begin_removal(&mut self, id: &SandboxId, ticket: Option<Ticket>) {
        let Some(sandbox) = self.sandboxes.get_mut(id) else { return };
        sandbox.removing.get_or_insert_default().extend(ticket);
        let group = &sandbox.status.cgroup;
        // The freezer of version 1 holds even SIGKILL back.
        if sandbox.status.frozen
            && self.cgroups.mode() == Mode::V1
            && let Err(error) = self.cgroups.freeze(group, false)
        {
            tracing::warn!(%error, "cannot thaw a sandbox to kill it");
        }
        if let Err(error) = self.cgroups.kill(group) {
            tracing::warn!(%error, group, "cannot kill a sandbox by its cgroup");
        }
        let pause = sandbox.pause.as_ref().map(|pause| pause.spawned.pidfd.as_fd());
        let containers = self.containers.values().filter(|c| c.spec.sandbox == *id);
        let processes = containers.filter_map(|c| c.process.as_ref()).map(|(process, _)| process.as_fd());
        for process in processes.chain(pause) {
            // The kill above may have been faster.
            drop(sys::pidfd_signal(process, libc::SIGKILL));
        }
        self.finish_removal(id);
    }

    /// Removes a sandbox whose processes have gone, if that is wanted.
    pub(super) fn finish_removal(&mut self, id: &SandboxId) {
        let Some(sandbox) = self.sandboxes.get(id) else { return };
        let alive = sandbox.pause.is_some() || self.containers.values().any(|c| c.spec.sandbox == *id && c.is_alive());
        if sandbox.removing.is_none() || alive {
            return;
        }
        let containers: Vec<ContainerId> =
            self.containers.values().filter(|c| c.spec.sandbox == *id).map(|c| c.spec.id.clone()).collect();
        containers.iter().for_each(|container| self.forget_container(container));
        let Some(sandbox) = self.sandboxes.remove(id) else { return };
        drop(fs::remove_file(self.sandbox_file(id)));
        if sandbox.status.spec.shared_pid {
            self.remove_group(format!("{}/pause", sandbox.status.cgroup));
            unbind(&self.shared_proc(&sandbox.status.cgroup));
        }
        match &sandbox.namespaces {
            Some(namespaces) => self.discard(namespaces),
            None => self.remove_group(sandbox.status.cgroup.clone()),
        }
        // One that was taken over without a configuration has no veth here that knows it.
        if let Some(address) = sandbox.status.address {
            self.pool.release(address);
        }
        drop(sandbox.namespaces);
        for ticket in sandbox.removing.into_iter().flatten() {
            self.reply(ticket, Ok(Answer::Done));
        }
    }

    pub(super) fn sandbox_file(&self, id: &SandboxId) -> PathBuf {
        self.options.state_dir.join("sandboxes").join(format!("{id}.json"))
    }
}

/// Kernel settings that belong to a sandbox's own namespaces.
fn is_namespaced(name: &str) -> bool {
    const IPC: [&str; 7] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
    ];
    let plain =
        name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) && !name.contains("..");
    plain
        && (name.starts_with("net.")
            || name.starts_with("fs.mqueue.")
            || name == "kernel.shm_rmid_forced"
            || IPC.contains(&name))
}

fn check(spec: &SandboxSpec) -> Result<(), Refusal> {
    let size: usize = spec.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_ANNOTATIONS {
        return Err(refuse(RefusalKind::Invalid, "the annotations are longer than 1 MiB"));
    }
    if spec.shared_pid && spec.host_pid {
        return Err(refuse(RefusalKind::Invalid, "process ids are either shared in the sandbox or the host's"));
    }
    if spec.user_namespace && (spec.network == Network::Host || spec.host_pid || spec.host_ipc) {
        return Err(refuse(RefusalKind::Invalid, "a user namespace of its own cannot go with a namespace of the host"));
    }
    if let Some(name) = spec.sysctls.keys().find(|name| !is_namespaced(name) || spec.network == Network::Host) {
        return Err(refuse(RefusalKind::Invalid, format!("setting {name} does not belong to the sandbox")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_namespaced;

    #[test]
    fn only_namespaced_settings_pass() {
        assert!(is_namespaced("net.ipv4.tcp_syncookies") && is_namespaced("kernel.shmmax"));
        for bad in ["kernel.core_pattern", "net..", "net./../kernel", "vm.swappiness", "net.ipv4.../x"] {
            assert!(!is_namespaced(bad), "{bad}");
        }
    }
}
