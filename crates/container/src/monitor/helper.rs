//! Work that would hold the loop up, done by forked helpers: deleting files and pushing memory out.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use super::connection::Ticket;
use super::request::{Internal, Outcome, absent_sandbox};
use super::{Monitor, Source};
use crate::protocol::{Answer, SandboxId};
use crate::sys::{self, Spawned};

/// Helpers at work.
#[derive(Default)]
pub(super) struct Helpers {
    running: BTreeMap<u64, Helper>,
    /// Directories given to the trash so far.
    thrown: u64,
    cleaning: bool,
    /// Something came into the trash while it was being emptied.
    more: bool,
}

struct Helper {
    spawned: Spawned,
    /// Who waits for it; nobody waits for the trash.
    ticket: Option<Ticket>,
}

impl Helpers {
    /// Whether a process is one of them.
    pub(super) fn has(&self, pid: i32) -> bool {
        self.running.values().any(|helper| helper.spawned.pid == pid)
    }
}

impl Monitor {
    /// Starts a helper. Whoever holds the ticket hears `Done` when it has ended, however it went.
    fn help(&mut self, ticket: Option<Ticket>, work: impl FnOnce()) -> std::io::Result<()> {
        let spawned = sys::spawn(0, None, || {
            work();
            0
        })?;
        let token = self.events.add(&spawned.pidfd, Source::Helper)?;
        self.helpers.running.insert(token, Helper { spawned, ticket });
        Ok(())
    }

    pub(super) fn helper_exited(&mut self, token: u64) {
        let Some(helper) = self.helpers.running.get(&token) else { return };
        if sys::exit_of(helper.spawned.pid, helper.spawned.pidfd.as_fd()).is_none() {
            return;
        }
        let Some(helper) = self.helpers.running.remove(&token) else { return };
        self.events.remove(&helper.spawned.pidfd, token);
        self.helped(helper.ticket);
    }

    fn helped(&mut self, ticket: Option<Ticket>) {
        match ticket {
            Some(ticket) => self.reply(ticket, Ok(Answer::Done)),
            None => {
                self.helpers.cleaning = false;
                if std::mem::take(&mut self.helpers.more) {
                    self.empty_trash();
                }
            }
        }
    }

    /// Gives a helper up whose end cannot be handled.
    pub(super) fn give_helper_up(&mut self, token: u64) {
        let Some(Helper { spawned, ticket }) = self.helpers.running.remove(&token) else { return };
        self.dismiss(spawned);
        self.helped(ticket);
    }

    /// Pushes a sandbox's memory out, in the background.
    pub(super) fn reclaim(&mut self, ticket: Ticket, sandbox: &SandboxId) -> Outcome {
        let found = self.sandboxes.get(sandbox).ok_or_else(|| absent_sandbox(sandbox))?;
        let (group, cgroups) = (found.status.cgroup.clone(), self.cgroups.clone());
        self.help(Some(ticket), || cgroups.reclaim(&group)).internal("start a helper")?;
        Ok(None)
    }

    /// Deletes a directory of ours, in the background.
    pub(super) fn throw_away(&mut self, directory: &Path) {
        self.helpers.thrown += 1;
        let name = format!("{}-{}", self.started_at.as_nanosecond(), self.helpers.thrown);
        let place = self.options.state_dir.join("trash").join(name);
        match fs::rename(directory, &place) {
            Ok(()) => self.empty_trash(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%error, directory = %directory.display(), "cannot throw a directory away");
            }
        }
    }

    /// Empties the trash, in the background.
    pub(super) fn empty_trash(&mut self) {
        if self.helpers.cleaning {
            self.helpers.more = true;
            return;
        }
        let trash = self.options.state_dir.join("trash");
        match self.help(None, || empty(&trash)) {
            Ok(()) => self.helpers.cleaning = true,
            Err(error) => tracing::warn!(%error, "cannot empty the trash"),
        }
    }

    /// Waits for every helper; only for the end.
    pub(super) fn join_helpers(&mut self) {
        for helper in std::mem::take(&mut self.helpers.running).into_values() {
            let pid = nix::unistd::Pid::from_raw(helper.spawned.pid);
            if let Err(error) = nix::sys::wait::waitpid(pid, None) {
                tracing::debug!(%error, "a helper is gone");
            }
        }
    }
}

fn empty(trash: &Path) {
    let Ok(entries) = fs::read_dir(trash) else { return };
    for entry in entries.flatten() {
        if let Err(error) = knoll_tree::remove(&entry.path()) {
            tracing::warn!(%error, path = %entry.path().display(), "cannot delete");
        }
    }
}
