//! What to do next for a pod.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::{Backoff, ContainerType, Life, ObservedContainer, ObservedPod, RestartPolicy, Step, containers, grace};

/// How long containers may take to stop when the API has already forgotten their pod.
const GRACE_WHEN_GONE: Duration = Duration::from_secs(1);

/// What whoever stops a container may take beyond its grace, for the signal after a hook that used the grace up.
const OVERTIME: Duration = Duration::from_secs(5);

/// One thing to do. Acts on one container name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Fill the pod's volumes.
    PrepareVolumes,
    /// Make network namespace, address and control group.
    PrepareSandbox,
    /// Get a container's image onto disk.
    Pull(String),
    /// Make and start a container.
    Start(String),
    /// Ask a container to stop, and kill it when the grace is over.
    Stop {
        /// Which.
        container: String,
        /// How long it may take.
        grace: Duration,
        /// Why.
        cause: StopCause,
    },
    /// Kill a container that is already stopping.
    Kill(String),
    /// The node ends the pod: the deadline passed.
    Fail {
        /// One word for machines.
        reason: &'static str,
        /// A sentence for people.
        message: &'static str,
    },
    /// Give back sandbox and volumes; logs and records stay until the pod is gone.
    TearDown,
    /// Tell the API that the pod has stopped and can go.
    Forget,
}

/// Why a container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// Its pod is being deleted.
    Deleted,
    /// Its pod is over.
    Finished,
    /// A probe condemned it.
    Condemned,
}

/// What to do now, and when to ask again if nothing happens before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodActions {
    /// In no particular order; independent of each other.
    pub acts: Vec<Act>,
    /// When time alone changes the answer.
    pub recheck: Option<Timestamp>,
}

impl PodActions {
    fn act(&mut self, act: Act) {
        self.acts.push(act);
    }

    fn recheck(&mut self, at: Timestamp) {
        self.recheck = Some(self.recheck.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Says what to do next for `pod`. Acts that are under way (`Doing`, `Creating`, `Stopping`) are not said again.
pub fn decide(pod: &Pod, seen: &ObservedPod, now: Timestamp) -> PodActions {
    let mut actions = PodActions::default();
    let Some(spec) = pod.spec.as_ref() else { return actions };
    let deleting = seen.gone || pod.metadata.deletion_timestamp.is_some();
    if deleting {
        let grace = if seen.gone { GRACE_WHEN_GONE } else { grace(pod) };
        wind_down(&mut actions, spec, seen, grace, StopCause::Deleted, now);
    } else if seen.verdict.is_some() || has_finished(spec, seen) {
        wind_down(&mut actions, spec, seen, grace(pod), StopCause::Finished, now);
    } else if let Some(late) = deadline(spec, seen).filter(|at| *at <= now) {
        actions.recheck(late.max(now));
        actions.act(Act::Fail {
            reason: "DeadlineExceeded",
            message: "Pod was active on the node longer than the specified deadline",
        });
    } else {
        if let Some(at) = deadline(spec, seen) {
            actions.recheck(at);
        }
        bring_up(&mut actions, spec, seen, now, grace(pod));
    }
    actions
}

fn deadline(spec: &PodSpec, seen: &ObservedPod) -> Option<Timestamp> {
    let seconds = u64::try_from(spec.active_deadline_seconds?).ok()?;
    seen.accepted?.checked_add(Duration::from_secs(seconds)).ok()
}

/// Whether the pod has run to its end: no container runs again, or an init container failed for good.
pub fn has_finished(spec: &PodSpec, seen: &ObservedPod) -> bool {
    let policy = RestartPolicy::of(spec);
    let over = |c: &Container| {
        seen.containers.get(&c.name).and_then(ObservedContainer::exit).is_some_and(|exit| !policy.restarts(exit))
    };
    let failed_init = containers(spec).filter(|(kind, _)| *kind == ContainerType::Init).any(|(_, c)| {
        policy == RestartPolicy::Never
            && seen.containers.get(&c.name).and_then(ObservedContainer::exit).is_some_and(|exit| exit.code != 0)
    });
    failed_init || (!spec.containers.is_empty() && spec.containers.iter().all(over))
}

/// Stops what runs (sidecars after the others), then takes everything down.
fn wind_down(
    d: &mut PodActions,
    spec: &PodSpec,
    seen: &ObservedPod,
    grace: Duration,
    cause: StopCause,
    now: Timestamp,
) {
    // Things under way are waited for, so that nothing is left behind.
    let busy = matches!(seen.sandbox, Step::Doing) || matches!(seen.volumes, Step::Doing);
    let alive = |kind: ContainerType| containers(spec).any(|(r, c)| r == kind && life(seen, c).is_alive());
    let others_alive = alive(ContainerType::Main) || alive(ContainerType::Init);
    for (kind, container) in containers(spec) {
        if kind == ContainerType::Sidecar && others_alive {
            continue;
        }
        match life(seen, container) {
            Life::Running { .. } => d.act(Act::Stop { container: container.name.clone(), grace, cause }),
            Life::Stopping { killed: false, .. } if seen.gone => d.act(Act::Kill(container.name.clone())),
            // A grace that was shortened after the stop began holds, too.
            Life::Stopping { killed: false, .. } if cause == StopCause::Deleted => {
                let asked = seen.containers.get(&container.name).and_then(|c| c.asked_to_stop);
                match asked.and_then(|at| at.checked_add(grace + OVERTIME).ok()) {
                    Some(end) if end <= now => d.act(Act::Kill(container.name.clone())),
                    Some(end) => d.recheck(end),
                    None => {}
                }
            }
            _ => {}
        }
    }
    if seen.has_life() || busy {
        return;
    }
    match &seen.teardown {
        Step::Failed(failure) if failure.retry_at() > now => d.recheck(failure.retry_at()),
        step if step.is_due(now) => d.act(Act::TearDown),
        Step::Done(()) if cause == StopCause::Deleted && !seen.gone => match &seen.forgotten {
            Step::Failed(failure) if failure.retry_at() > now => d.recheck(failure.retry_at()),
            step if step.is_due(now) => d.act(Act::Forget),
            _ => {}
        },
        _ => {}
    }
}

/// Prepares what is missing and starts what can start.
fn bring_up(d: &mut PodActions, spec: &PodSpec, seen: &ObservedPod, now: Timestamp, grace: Duration) {
    due(d, &seen.volumes, now, Act::PrepareVolumes);
    due(d, &seen.sandbox, now, Act::PrepareSandbox);
    let prepared = seen.volumes.done().is_some() && seen.sandbox.done().is_some();
    let mut may_start = true;
    for (kind, container) in containers(spec) {
        let seen = seen.containers.get(&container.name);
        if let Some(changes) = seen.and_then(|s| super::report::pull_report_changes(s, now)) {
            d.recheck(changes);
        }
        due(d, seen.map_or(&Step::Todo, |s| &s.image), now, Act::Pull(container.name.clone()));
        if may_start && prepared {
            advance(d, spec, kind, container, seen, now, grace);
        }
        may_start &= lets_next_start(kind, seen);
    }
}

/// Whether a container lets those after it start.
fn lets_next_start(kind: ContainerType, seen: Option<&ObservedContainer>) -> bool {
    match kind {
        ContainerType::Init => seen.and_then(ObservedContainer::exit).is_some_and(|exit| exit.code == 0),
        ContainerType::Sidecar => seen.is_some_and(|s| s.started || s.restarts > 0 || s.exit().is_some()),
        ContainerType::Main => true,
    }
}

/// The next act for one container whose turn it is.
fn advance(
    d: &mut PodActions,
    spec: &PodSpec,
    kind: ContainerType,
    container: &Container,
    seen: Option<&ObservedContainer>,
    now: Timestamp,
    grace: Duration,
) {
    let fresh = ObservedContainer::default();
    let seen = seen.unwrap_or(&fresh);
    if seen.image.done().is_none() {
        return;
    }
    let name = || container.name.clone();
    match &seen.life {
        Life::Absent => d.act(Act::Start(name())),
        Life::Rejected(failure) if failure.retry_at() <= now => d.act(Act::Start(name())),
        Life::Rejected(failure) => d.recheck(failure.retry_at()),
        Life::Running { .. } if seen.condemned.is_some() => {
            let grace = seen.condemned_grace.unwrap_or(grace);
            d.act(Act::Stop { container: name(), grace, cause: StopCause::Condemned });
        }
        Life::Exited(exit) => {
            let again = match kind {
                ContainerType::Sidecar => true,
                ContainerType::Init => exit.code != 0,
                ContainerType::Main => RestartPolicy::of(spec).restarts(exit),
            };
            match Backoff::until(seen.backoff, exit.finished).filter(|at| *at > now) {
                _ if !again => {}
                Some(at) => d.recheck(at),
                None => d.act(Act::Start(name())),
            }
        }
        Life::Creating | Life::Running { .. } | Life::Stopping { .. } => {}
    }
}

fn due<T>(d: &mut PodActions, step: &Step<T>, now: Timestamp, act: Act) {
    match step {
        Step::Failed(failure) if failure.retry_at() > now => d.recheck(failure.retry_at()),
        step if step.is_due(now) => d.act(act),
        _ => {}
    }
}

fn life<'a>(seen: &'a ObservedPod, container: &Container) -> &'a Life {
    seen.containers.get(&container.name).map_or(&Life::Absent, |c| &c.life)
}
