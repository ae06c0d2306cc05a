//! Children between their fork and their program: what they say, and siblings they leave the work to.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv};

use super::request::refuse;
use super::{Monitor, Source};
use crate::init::{Word, not_executed};
use crate::protocol::{Refusal, RefusalKind};
use crate::sys::{self, Spawned};

/// How long an ended child that nobody here has made may wait to be reaped: it takes a look at everything there is.
pub(super) const STRANGERS_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// What a child has said so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The program is executed next.
    pub(super) ready: bool,
    /// Whether a sibling becomes the program.
    pub(super) by_sibling: bool,
    /// The sibling has been born.
    pub(super) born: bool,
    /// It cannot be executed.
    pub(super) failure: Option<Refusal>,
}

impl Progress {
    /// Takes a packet in. Gives the pid of the sibling that becomes the program, the one time it is told.
    pub(super) fn take(&mut self, packet: &[u8], program: &str) -> Option<i32> {
        match Word::read(packet) {
            Word::Ready => self.ready = true,
            // Once only: what else comes could be from someone who got hold of the sibling's end.
            Word::Born(pid) if self.ready && self.by_sibling && !self.born => {
                self.born = true;
                return Some(pid);
            }
            Word::Born(_) => {}
            Word::Failed(error) => self.failure = Some(not_executed(program, &error)),
            Word::Refused(refusal) => self.failure = Some(refusal),
        }
        None
    }

    /// Whether the program has been executed, once nothing more will be said.
    pub(super) fn executed(&self) -> bool {
        self.ready && self.failure.is_none() && self.born == self.by_sibling
    }
}

/// The next packet of a child: `Ok(None)` at the end, `Err` when there is none yet.
pub(super) fn packet(status: &OwnedFd) -> Result<Option<Vec<u8>>, ()> {
    let mut packet = vec![0; 16 * 1024];
    match recv(status.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
        Ok(length @ 1..) => {
            packet.truncate(length);
            Ok(Some(packet))
        }
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Err(()),
        Ok(_) | Err(_) => Ok(None),
    }
}

impl Monitor {
    /// A handle on a sibling that a child of ours has made: a child of ours, too, that we do not know yet.
    pub(super) fn sibling(&self, pid: i32) -> Result<Spawned, Refusal> {
        let strange = || refuse(RefusalKind::Internal, format!("process {pid} is no child that was just born"));
        if !sys::is_child(pid) || self.knows_process(pid) {
            return Err(strange());
        }
        let pidfd = sys::pidfd_open(pid).map_err(|_| strange())?;
        Ok(Spawned { pid, pidfd })
    }

    fn knows_process(&self, pid: i32) -> bool {
        self.containers.values().any(|c| c.is_alive() && c.pid == pid)
            || self.execs.values().any(|exec| exec.pid() == pid)
            || self.sandboxes.values().filter_map(|s| s.pause.as_ref()).any(|pause| pause.spawned.pid == pid)
            || self.leaving.values().chain(&self.unwatched).any(|spawned| spawned.pid == pid)
            || self.pool.has_helper(pid)
            || self.helpers.has(pid)
    }

    fn awaits_birth(&self) -> bool {
        let awaits = |progress: &Progress| progress.by_sibling && !progress.born;
        let starting = self.containers.values().filter_map(|container| container.progress());
        let execs = self.execs.values().filter(|exec| exec.pid() != 0).map(|exec| &exec.progress);
        starting.chain(execs).any(awaits)
    }

    /// Reaps children that nobody here has made: a program that is a child of ours may give us siblings of its own.
    pub(super) fn reap_strangers(&mut self) {
        if !std::mem::take(&mut self.children_ended) {
            return;
        }
        // A sibling that has not been told of yet is none of them.
        if self.awaits_birth() {
            return self.look_for_strangers_later();
        }
        while let Some(pid) = sys::exited_child() {
            if self.knows_process(pid) {
                // It is reaped in its turn, and only then the next one can be seen.
                return self.look_for_strangers_later();
            }
            sys::reap(pid);
        }
    }

    fn look_for_strangers_later(&mut self) {
        self.children_ended = true;
        self.events.wake_after(STRANGERS_WAIT);
    }

    /// Kills a child that cannot be used, and waits for its end elsewhere.
    pub(super) fn dismiss(&mut self, spawned: Spawned) {
        // It may have ended already.
        drop(sys::pidfd_signal(std::os::fd::AsFd::as_fd(&spawned.pidfd), libc::SIGKILL));
        self.reap_later(spawned);
    }

    /// Waits for the end of a child whose work is done.
    pub(super) fn reap_later(&mut self, spawned: Spawned) {
        match self.events.add(&spawned.pidfd, Source::Leaving) {
            Ok(token) => drop(self.leaving.insert(token, spawned)),
            // Without a place among the events it is reaped when the monitor looks around.
            Err(error) => {
                tracing::warn!(%error, pid = spawned.pid, "cannot watch a child that ends");
                self.unwatched.push(spawned);
                self.events.wake_after(std::time::Duration::from_secs(1));
            }
        }
    }

    /// A child whose work is done has ended.
    pub(super) fn left(&mut self, token: u64) {
        let Some(spawned) = self.leaving.remove(&token) else { return };
        if ended(&spawned) {
            self.events.remove(&spawned.pidfd, token);
        } else {
            self.leaving.insert(token, spawned);
        }
    }

    /// Gives the end of a child up that cannot be handled: it is reaped when the monitor looks around.
    pub(super) fn give_leaving_up(&mut self, token: u64) {
        self.unwatched.extend(self.leaving.remove(&token));
        self.events.wake_after(std::time::Duration::from_secs(1));
    }

    /// Reaps children that could not be watched.
    pub(super) fn reap_unwatched(&mut self) {
        self.unwatched.retain(|spawned| !ended(spawned));
        if !self.unwatched.is_empty() {
            self.events.wake_after(std::time::Duration::from_secs(1));
        }
    }
}

fn ended(spawned: &Spawned) -> bool {
    let pidfd: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(&spawned.pidfd);
    sys::exit_of(spawned.pid, pidfd).is_some()
}
