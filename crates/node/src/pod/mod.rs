//! The life of one pod, decided without acting.
//!
//! [`ObservedPod`] is what this machine knows of a pod; [`decide`] says what to do next, [`status`] what to
//! report. Both are functions of their arguments: the agent carries acts out and brings outcomes back as
//! changes of the observation.
//!
//! ```text
//! container   Absent -> Creating -> Running -> Stopping -> Exited -> Creating ...
//!                          |   \       \-------------------^
//!                          v    \--------------------------^   (it could not be run)
//!                       Rejected -> Creating                   (its configuration cannot be resolved)
//! ```

mod backoff;
mod decide;
mod observed;
mod report;

pub use backoff::Backoff;
pub use decide::{Act, PodActions, StopCause, decide, has_finished};
pub use observed::{
    EndReason, Failure, IllegalMove, ImageInfo, Life, ObservedContainer, ObservedPod, RunFailure, SandboxInfo, Step,
    Terminated,
};
pub use report::{NodeFacts, is_ready, status};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use std::time::Duration;

/// How long a pod may take to stop when nothing says so.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// The longest that is waited for a pod to stop, ten years: beyond it clocks have no word for the end. A pod that
/// asks for longer has asked for "however long it takes".
pub const LONGEST_GRACE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Who restarts a container that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever its exit code.
    Always,
    /// When its exit code is not zero.
    OnFailure,
    /// Nobody.
    Never,
}

impl RestartPolicy {
    /// The policy of a pod's containers.
    pub fn of(spec: &PodSpec) -> RestartPolicy {
        match spec.restart_policy.as_deref() {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        }
    }

    /// Whether a container that ended so runs again.
    pub fn restarts(self, exit: &Terminated) -> bool {
        match self {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => exit.code != 0,
            RestartPolicy::Never => false,
        }
    }
}

/// Where a container stands in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerType {
    /// Runs to its end before the next begins.
    Init,
    /// Listed among the init containers, but keeps running.
    Sidecar,
    /// What the pod is for.
    Main,
}

/// Every container of a pod with its type: init containers and sidecars in order, then the others.
pub fn containers(spec: &PodSpec) -> impl Iterator<Item = (ContainerType, &Container)> {
    let init = spec
        .init_containers
        .iter()
        .flatten()
        .map(|c| (if crate::resources::is_sidecar(c) { ContainerType::Sidecar } else { ContainerType::Init }, c));
    init.chain(spec.containers.iter().map(|c| (ContainerType::Main, c)))
}

/// How long a pod that is being deleted may take to stop.
pub fn grace(pod: &Pod) -> Duration {
    let seconds = pod
        .metadata
        .deletion_grace_period_seconds
        .or_else(|| pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds));
    seconds.map_or(DEFAULT_GRACE, of_seconds)
}

/// A grace of so many seconds, as a user wrote it: nothing below zero, nothing above [`LONGEST_GRACE`].
pub fn of_seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(LONGEST_GRACE)
}

/// Whether a pod's status says that it is over.
pub fn has_ended(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// `name_namespace(uid)`, as messages name a pod.
pub fn describe(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!(
        "{}_{}({})",
        meta.name.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default(),
        meta.uid.as_deref().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests;
