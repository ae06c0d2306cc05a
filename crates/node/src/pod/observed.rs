//! What this machine knows of a pod. Kept beside the sandbox, so that it survives the server.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use jiff::Timestamp;
use knoll_oci::Progress;
use serde::{Deserialize, Serialize};

use super::backoff::{self, Backoff};

/// Everything known of one pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ObservedPod {
    /// When the node first saw it.
    pub accepted: Option<Timestamp>,
    /// Its network namespace, address and control group.
    pub sandbox: Step<SandboxInfo>,
    /// Its volumes, environment sources aside.
    pub volumes: Step<()>,
    /// Its containers by name; one that is missing was never touched.
    pub containers: BTreeMap<String, ObservedContainer>,
    /// Why the node itself ended it.
    pub verdict: Option<EndReason>,
    /// Whether the API no longer has it.
    pub gone: bool,
    /// Taking down what was prepared, once nothing runs.
    pub teardown: Step<()>,
    /// Whether the API was asked to forget it.
    pub forgotten: Step<()>,
}

/// Something to be done once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Step<T> {
    /// Not begun.
    #[default]
    Todo,
    /// Under way.
    Doing,
    /// Done, with what came of it.
    Done(T),
    /// Failed; may be tried again later.
    Failed(Failure),
}

/// A try that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// One word for machines, such as `ErrImagePull`.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// Pause before the next try.
    pub delay: Duration,
}

impl Failure {
    /// A failure after `before` (how the try before it failed), pausing `first` and then twice as long each time,
    /// at most `longest`.
    pub fn after(
        before: Option<&Failure>,
        reason: impl Into<String>,
        message: impl Into<String>,
        at: Timestamp,
        (first, longest): (Duration, Duration),
    ) -> Failure {
        let delay = before.map_or(first, |b| b.delay.saturating_mul(2).min(longest));
        Failure { reason: reason.into(), message: message.into(), at, delay }
    }

    /// When to try again.
    pub fn retry_at(&self) -> Timestamp {
        self.at.checked_add(self.delay).unwrap_or(Timestamp::MAX)
    }
}

impl<T> Step<T> {
    /// What came of it.
    pub fn done(&self) -> Option<&T> {
        match self {
            Step::Done(value) => Some(value),
            _ => None,
        }
    }

    /// How it failed.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Step::Failed(failure) => Some(failure),
            _ => None,
        }
    }

    fn settle(&mut self, now: Timestamp) {
        match self {
            Step::Doing => *self = Step::Todo,
            Step::Failed(failure) => failure.at = failure.at.min(now),
            Step::Todo | Step::Done(_) => {}
        }
    }

    /// Whether to begin it now.
    pub fn is_due(&self, now: Timestamp) -> bool {
        match self {
            Step::Todo => true,
            Step::Failed(failure) => failure.retry_at() <= now,
            Step::Doing | Step::Done(_) => false,
        }
    }
}

/// A sandbox that stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxInfo {
    /// The pod's address.
    pub address: Ipv4Addr,
    /// Whether the pod uses the machine's own network.
    pub host_network: bool,
}

/// An image that is unpacked on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Its identity as the API shows it: `repository@sha256:...`.
    pub id: String,
    /// Its name as the API shows it.
    pub name: String,
}

/// Why the node itself ended a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndReason {
    /// One word for machines, such as `DeadlineExceeded`.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// Everything known of one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ObservedContainer {
    /// Its image.
    pub image: Step<ImageInfo>,
    /// How the pull before the one under way failed; lengthens the pause.
    pub pull_failure: Option<Failure>,
    /// How far the pull under way has come.
    #[serde(skip)]
    pub pulling: Option<Progress>,
    /// What it does now.
    pub life: Life,
    /// Its first process, as long as it runs.
    #[serde(skip)]
    pub pid: Option<u32>,
    /// When it was asked to stop.
    #[serde(default)]
    pub asked_to_stop: Option<Timestamp>,
    /// How it ended before its present life.
    pub last: Option<Terminated>,
    /// How often it was started again.
    pub restarts: u32,
    /// The pause after its next end.
    pub backoff: Option<Backoff>,
    /// Whether its readiness probe is content; without a probe, whether it started.
    pub ready: bool,
    /// Whether its startup probe is content; without a probe, whether it runs.
    pub started: bool,
    /// What the probe it is not ready for said last.
    #[serde(default)]
    pub complaint: Option<String>,
    /// Why it must be restarted although it runs.
    pub condemned: Option<EndReason>,
    /// How long the condemned container may take to stop, when its probe says so.
    pub condemned_grace: Option<Duration>,
}

/// What a container does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Life {
    /// Not yet tried.
    #[default]
    Absent,
    /// Being made and started.
    Creating,
    /// Could not be made from its configuration; no process ever ran.
    Rejected(Failure),
    /// Runs.
    Running {
        /// Identity in the runtime.
        id: String,
        /// Since when.
        since: Timestamp,
    },
    /// Was asked to stop.
    Stopping {
        /// Identity in the runtime.
        id: String,
        /// Since when it ran.
        since: Timestamp,
        /// Whether it was killed for good.
        killed: bool,
    },
    /// Ended.
    Exited(Terminated),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terminated {
    /// Identity in the runtime; empty when none was made.
    pub id: String,
    /// Exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, ...
    pub reason: String,
    /// What it left as its last words.
    pub message: String,
    /// When it started.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
}

/// A container that was made but could not be run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunFailure {
    /// A sentence for people.
    pub message: String,
    /// Exit code to report: 127 not found, 126 not executable, else 128.
    pub code: i32,
}

/// A move that a container's life does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a container that is {from} cannot become {to}")]
pub struct IllegalMove {
    from: &'static str,
    to: &'static str,
}

impl Life {
    fn name(&self) -> &'static str {
        match self {
            Life::Absent => "absent",
            Life::Creating => "creating",
            Life::Rejected(_) => "rejected",
            Life::Running { .. } => "running",
            Life::Stopping { .. } => "stopping",
            Life::Exited(_) => "exited",
        }
    }

    /// Whether a process of it may exist.
    pub fn is_alive(&self) -> bool {
        matches!(self, Life::Creating | Life::Running { .. } | Life::Stopping { .. })
    }
}

impl ObservedContainer {
    /// Absent, Rejected or Exited -> Creating. Counts the restart and lengthens the pause.
    ///
    /// # Errors
    /// From any other life.
    pub fn begin(&mut self, now: Timestamp) -> Result<(), IllegalMove> {
        match std::mem::replace(&mut self.life, Life::Creating) {
            Life::Absent | Life::Rejected(_) => {}
            Life::Exited(exit) => {
                self.restarts = self.restarts.saturating_add(1);
                self.backoff = Some(Backoff::next(self.backoff, exit.finished, now));
                self.last = Some(exit);
            }
            other => return Err(self.refuse(other, "creating")),
        }
        self.ready = false;
        self.started = false;
        self.complaint = None;
        self.condemned = None;
        self.condemned_grace = None;
        self.asked_to_stop = None;
        Ok(())
    }

    /// Creating -> Running.
    ///
    /// # Errors
    /// From any other life.
    pub fn run(&mut self, id: String, now: Timestamp) -> Result<(), IllegalMove> {
        match self.life {
            Life::Creating => self.life = Life::Running { id, since: now },
            _ => return Err(self.refuse(self.life.clone(), "running")),
        }
        Ok(())
    }

    /// Creating -> Rejected: its configuration cannot be resolved now. The pause is 1 s to 10 s.
    ///
    /// # Errors
    /// From any other life.
    pub fn reject(
        &mut self,
        reason: &str,
        message: String,
        before: Option<&Failure>,
        now: Timestamp,
    ) -> Result<(), IllegalMove> {
        const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
        match self.life {
            Life::Creating => self.life = Life::Rejected(Failure::after(before, reason, message, now, PAUSE)),
            _ => return Err(self.refuse(self.life.clone(), "rejected")),
        }
        Ok(())
    }

    /// Running -> Stopping, or a stop made harder.
    ///
    /// # Errors
    /// From any other life.
    pub fn stop(&mut self, kill: bool) -> Result<(), IllegalMove> {
        match &mut self.life {
            Life::Running { id, since } => {
                self.life = Life::Stopping { id: std::mem::take(id), since: *since, killed: kill };
            }
            Life::Stopping { killed, .. } => *killed |= kill,
            _ => return Err(self.refuse(self.life.clone(), "stopping")),
        }
        self.ready = false;
        Ok(())
    }

    /// Creating, Running or Stopping -> Exited. The other lives stay as they are: an end is told only once.
    pub fn end(&mut self, exit: Terminated) {
        if self.life.is_alive() {
            self.life = Life::Exited(exit);
            self.ready = false;
            self.started = false;
        }
    }

    /// How it ended, unless it lives on.
    pub fn exit(&self) -> Option<&Terminated> {
        match &self.life {
            Life::Exited(exit) => Some(exit),
            _ => None,
        }
    }

    /// Identity in the runtime of the process that lives.
    pub fn running_id(&self) -> Option<&str> {
        match &self.life {
            Life::Running { id, .. } | Life::Stopping { id, .. } => Some(id),
            _ => None,
        }
    }

    /// Records a failed pull; the pause is 10 s to 5 minutes.
    pub fn pull_failed(&mut self, reason: &str, message: String, now: Timestamp) {
        let failure =
            Failure::after(self.pull_failure.as_ref(), reason, message, now, (backoff::FIRST, backoff::LONGEST));
        self.pull_failure = Some(failure.clone());
        self.pulling = None;
        self.image = Step::Failed(failure);
    }

    /// Records an image that is there.
    pub fn pulled(&mut self, image: ImageInfo) {
        self.pull_failure = None;
        self.pulling = None;
        self.image = Step::Done(image);
    }

    fn settle(&mut self, now: Timestamp) {
        let past = |at: &mut Timestamp| *at = (*at).min(now);
        self.image.settle(now);
        let stamps = [
            self.pull_failure.as_mut().map(|failure| &mut failure.at),
            self.asked_to_stop.as_mut(),
            self.backoff.as_mut().map(|backoff| &mut backoff.since),
            self.last.as_mut().map(|exit| &mut exit.finished),
        ];
        stamps.into_iter().flatten().for_each(past);
        match &mut self.life {
            Life::Creating => self.life = self.last.take().map_or(Life::Absent, Life::Exited),
            Life::Rejected(failure) => past(&mut failure.at),
            Life::Running { since, .. } | Life::Stopping { since, .. } => past(since),
            Life::Exited(exit) => past(&mut exit.finished),
            Life::Absent => {}
        }
    }

    fn refuse(&mut self, from: Life, to: &'static str) -> IllegalMove {
        let name = from.name();
        self.life = from;
        IllegalMove { from: name, to }
    }
}

impl ObservedPod {
    /// Whether nothing has been begun for it.
    pub fn is_untouched(&self) -> bool {
        self.containers.is_empty() && matches!((&self.sandbox, &self.volumes), (Step::Todo, Step::Todo))
    }

    /// A container's record, made when it is missing.
    pub fn container_mut(&mut self, name: &str) -> &mut ObservedContainer {
        if !self.containers.contains_key(name) {
            self.containers.insert(name.to_owned(), ObservedContainer::default());
        }
        self.containers.get_mut(name).expect("it was just inserted")
    }

    /// Whether any process may exist.
    pub fn has_life(&self) -> bool {
        self.containers.values().any(|c| c.life.is_alive())
    }

    /// The address, once the sandbox stands.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.sandbox.done().map(|s| s.address)
    }

    /// What is left of it after the server was away: nothing is under way any more.
    ///
    /// Containers that were being made count as never made; the caller then applies what the runtime still has. What is
    /// said to be still to come, for the clock was set back meanwhile, counts as of now: pauses and graces are as long
    /// as they are, and not a day longer.
    pub fn settle(&mut self, now: Timestamp) {
        self.accepted = self.accepted.map(|at| at.min(now));
        self.sandbox.settle(now);
        self.volumes.settle(now);
        self.teardown.settle(now);
        self.forgotten.settle(now);
        self.containers.values_mut().for_each(|container| container.settle(now));
    }
}
