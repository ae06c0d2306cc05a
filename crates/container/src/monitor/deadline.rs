//! Starts that take too long are given up: whoever asked is answered, and nobody waits for a file system that does
//! not.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::Monitor;
use super::container::Stage;
use super::request::refuse;
use crate::protocol::{ContainerId, ExecId, Refusal, RefusalKind};
use crate::sys;

/// How long a container may take until its program is executed. Hundreds of layers on a busy disk take seconds.
pub(super) const CONTAINER: Duration = Duration::from_secs(120);
/// How long an exec may take, unless it says so.
pub(super) const EXEC: Duration = Duration::from_secs(30);

/// What has begun and must have started by a certain time.
#[derive(Debug)]
pub(super) enum Start {
    Container(ContainerId),
    Exec(ExecId),
}

/// By time, and a number that tells those of one time apart.
#[derive(Default)]
pub(super) struct Deadlines(BTreeMap<(Instant, u64), (Start, Duration)>);

impl Monitor {
    /// Gives a start so much time.
    pub(super) fn expect(&mut self, start: Start, within: Duration) {
        let at = Instant::now() + within;
        let serial = self.next_serial();
        self.deadlines.0.insert((at, serial), (start, within));
        self.events.wake_after(within);
    }

    /// Gives up what has not started in time.
    pub(super) fn give_up_late(&mut self) {
        let now = Instant::now();
        while let Some(first) = self.deadlines.0.first_entry() {
            let at = first.key().0;
            if at > now {
                return self.events.wake_after(at - now);
            }
            match first.remove() {
                (Start::Exec(id), within) => self.exec_is_late(id, within),
                (Start::Container(id), within) => self.container_is_late(&id, within),
            }
        }
    }

    fn exec_is_late(&mut self, id: ExecId, within: Duration) {
        let Some(exec) = self.execs.get_mut(&id).filter(|exec| !exec.answered) else { return };
        exec.answered = true;
        exec.orphan = true;
        exec.given_up = true;
        // It may be ending already.
        drop(sys::pidfd_signal(exec.spawned.pidfd.as_fd(), libc::SIGKILL));
        let ticket = exec.ticket;
        self.reply(ticket, Err(late("the exec", within)));
    }

    fn container_is_late(&mut self, id: &ContainerId, within: Duration) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Stage::Starting(starting) = &mut container.stage else { return };
        starting.progress.failure = Some(late("the container", within));
        let ticket = starting.ticket.take();
        self.kill_container(id);
        if let Some(ticket) = ticket {
            self.reply(ticket, Err(late("the container", within)));
        }
    }
}

fn late(what: &str, within: Duration) -> Refusal {
    refuse(RefusalKind::Start, format!("{what} did not start within {} ms", within.as_millis()))
}
