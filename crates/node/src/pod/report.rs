//! The status that the API shows for a pod.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use knoll_oci::Progress;

use super::{
    Backoff, ContainerType, Failure, Life, ObservedContainer, ObservedPod, RestartPolicy, Step, Terminated, containers,
    describe, has_finished,
};
use crate::resources;

/// How long a failed pull is shown as it failed, before it is shown as waiting for its next try.
const PULL_FAILURE_SHOWN: Duration = Duration::from_secs(1);

/// What the status says about the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// The machine's address.
    pub host_ip: String,
}

/// The status of `pod`. Conditions that others set are kept from `previous` (what the API has now), and so are
/// transition times of conditions whose status stays.
pub fn status(
    pod: &Pod,
    seen: &ObservedPod,
    facts: &NodeFacts,
    previous: Option<&PodStatus>,
    now: Timestamp,
) -> PodStatus {
    // A pod that ended before this node knew it stays as it was reported.
    if seen.containers.is_empty()
        && let Some(ended) = pod.status.as_ref().filter(|s| is_ended(s))
    {
        return ended.clone();
    }
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let view = View { pod, spec, seen, now };
    let phase = view.phase();
    let address =
        seen.sandbox.done().map(|s| if s.host_network { facts.host_ip.clone() } else { s.address.to_string() });
    // A torn-down sandbox keeps its address in the report, as long as the pod is known.
    let address = address.or_else(|| previous.and_then(|p| p.pod_ip.clone()));
    let statuses = |wanted: fn(ContainerType) -> bool| {
        let list: Vec<_> = containers(spec).filter(|(r, _)| wanted(*r)).map(|(r, c)| view.container(r, c)).collect();
        (!list.is_empty()).then_some(list)
    };
    let (reason, message) = view.verdict();
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(view.conditions(phase, previous)),
        container_statuses: statuses(|r| r == ContainerType::Main),
        init_container_statuses: statuses(|r| r != ContainerType::Main),
        host_ip: Some(facts.host_ip.clone()),
        host_ips: Some(vec![HostIP { ip: facts.host_ip.clone() }]),
        pod_ips: address.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: address,
        qos_class: Some(resources::qos_class(pod).as_str().to_owned()),
        start_time: seen.accepted.map(seconds),
        observed_generation: pod.metadata.generation,
        reason,
        message,
        nominated_node_name: previous.and_then(|p| p.nominated_node_name.clone()),
        ..PodStatus::default()
    }
}

/// Whether the pod takes requests: every container is ready, every readiness gate open, nothing being deleted.
pub fn is_ready(pod: &Pod, seen: &ObservedPod) -> bool {
    let Some(spec) = pod.spec.as_ref() else { return false };
    let deleting = seen.gone || pod.metadata.deletion_timestamp.is_some() || seen.verdict.is_some();
    !deleting
        && View { pod, spec, seen, now: Timestamp::UNIX_EPOCH }.unready().is_empty()
        && closed_gate(pod, spec).is_none()
}

/// Whether a status says that the pod has run to its end.
fn is_ended(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// When the report of a failed pull changes by time alone.
pub(super) fn pull_report_changes(seen: &ObservedContainer, now: Timestamp) -> Option<Timestamp> {
    let failure = seen.image.failure().filter(|f| f.reason == "ErrImagePull")?;
    failure.at.checked_add(PULL_FAILURE_SHOWN).ok().filter(|at| *at > now)
}

/// The API's form of a time, whole seconds.
fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

struct View<'a> {
    pod: &'a Pod,
    spec: &'a PodSpec,
    seen: &'a ObservedPod,
    now: Timestamp,
}

impl View<'_> {
    fn seen(&self, container: &Container) -> Option<&ObservedContainer> {
        self.seen.containers.get(&container.name)
    }

    fn is_deleting(&self) -> bool {
        self.seen.gone || self.pod.metadata.deletion_timestamp.is_some()
    }

    fn verdict(&self) -> (Option<String>, Option<String>) {
        self.seen.verdict.as_ref().map_or((None, None), |v| (text(&v.reason), text(&v.message)))
    }

    fn phase(&self) -> &'static str {
        // An end that was reported is final.
        match self.pod.status.as_ref().and_then(|s| s.phase.as_deref()) {
            Some("Succeeded") => return "Succeeded",
            Some("Failed") => return "Failed",
            _ => {}
        }
        if self.seen.verdict.is_some() {
            return "Failed";
        }
        let main: Vec<_> = self.spec.containers.iter().map(|c| self.seen(c)).collect();
        let over = has_finished(self.spec, self.seen) || (self.is_deleting() && !self.seen.has_life());
        let any_ended = self.seen.containers.values().any(|c| c.exit().is_some());
        if over && any_ended {
            let clean = main.iter().all(|c| c.and_then(ObservedContainer::exit).is_some_and(|e| e.code == 0));
            return if clean { "Succeeded" } else { "Failed" };
        }
        let was_up = |c: &ObservedContainer| {
            matches!(c.life, Life::Running { .. } | Life::Stopping { .. } | Life::Exited(_)) || c.last.is_some()
        };
        // Running once every container has been up; a pod in back-off still counts as running.
        if !main.is_empty() && main.iter().all(|c| c.is_some_and(was_up)) { "Running" } else { "Pending" }
    }

    // ---- conditions ----

    fn conditions(&self, phase: &str, previous: Option<&PodStatus>) -> Vec<PodCondition> {
        const OURS: [&str; 5] =
            ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
        let before = previous.and_then(|p| p.conditions.as_deref()).unwrap_or_default();
        let containers_ready = self.containers_ready(phase);
        let ready = self.ready(&containers_ready);
        let sandbox = self.seen.sandbox.done().is_some() && !matches!(self.seen.teardown, Step::Done(()));
        let ours = [
            Verdicts::new(OURS[0], sandbox, None),
            self.initialized(phase),
            ready,
            containers_ready,
            Verdicts::new(OURS[4], true, None),
        ];
        let mut list: Vec<_> = ours.into_iter().map(|c| c.into_condition(before, self)).collect();
        list.extend(before.iter().filter(|c| !OURS.contains(&c.type_.as_str())).cloned());
        list
    }

    fn initialized(&self, phase: &str) -> Verdicts {
        let incomplete: Vec<_> = containers(self.spec)
            .filter(|(kind, c)| match kind {
                ContainerType::Init => self.seen(c).and_then(ObservedContainer::exit).is_none_or(|e| e.code != 0),
                ContainerType::Sidecar => {
                    !self.seen(c).is_some_and(|s| s.started || s.restarts > 0 || s.exit().is_some())
                }
                ContainerType::Main => false,
            })
            .map(|(_, c)| c.name.as_str())
            .collect();
        if phase == "Succeeded" {
            return Verdicts::new("Initialized", true, Some(("PodCompleted", String::new())));
        }
        let why = format!("containers with incomplete status: [{}]", incomplete.join(" "));
        Verdicts::new(
            "Initialized",
            incomplete.is_empty(),
            (!incomplete.is_empty()).then_some(("ContainersNotInitialized", why)),
        )
    }

    fn containers_ready(&self, phase: &str) -> Verdicts {
        match phase {
            "Succeeded" => return Verdicts::new("ContainersReady", false, Some(("PodCompleted", String::new()))),
            "Failed" => return Verdicts::new("ContainersReady", false, Some(("PodFailed", String::new()))),
            _ => {}
        }
        let unready = self.unready();
        let names: Vec<&str> = unready.iter().map(|(name, _)| *name).collect();
        let mut why = format!("containers with unready status: [{}]", names.join(" "));
        for (name, complaint) in unready.iter().filter_map(|(name, complaint)| Some((name, complaint.as_ref()?))) {
            why.push_str(&format!("; {name}: {complaint}"));
        }
        Verdicts::new(
            "ContainersReady",
            unready.is_empty(),
            (!unready.is_empty()).then_some(("ContainersNotReady", why)),
        )
    }

    fn ready(&self, containers_ready: &Verdicts) -> Verdicts {
        if !containers_ready.good {
            return Verdicts { name: "Ready", ..containers_ready.clone() };
        }
        let why = closed_gate(self.pod, self.spec);
        Verdicts::new("Ready", why.is_none(), why.map(|why| ("ReadinessGatesNotReady", why)))
    }

    /// Names of the containers that should be ready and are not.
    /// The containers that keep the pod from being ready, each with what its probe said, if it was asked.
    fn unready(&self) -> Vec<(&str, Option<&String>)> {
        containers(self.spec)
            .filter(|(kind, _)| *kind != ContainerType::Init)
            .filter(|(_, c)| !self.seen(c).is_some_and(|s| s.ready && matches!(s.life, Life::Running { .. })))
            .map(|(_, c)| (c.name.as_str(), self.seen(c).and_then(|s| s.complaint.as_ref())))
            .collect()
    }

    // ---- containers ----

    fn container(&self, kind: ContainerType, container: &Container) -> ContainerStatus {
        let fresh = ObservedContainer::default();
        let seen = self.seen(container).unwrap_or(&fresh);
        let (state, last_state) = self.states(kind, container, seen);
        let completed = kind == ContainerType::Init && seen.exit().is_some_and(|e| e.code == 0);
        let running = matches!(seen.life, Life::Running { .. });
        let id = match &seen.life {
            Life::Exited(exit) => Some(exit.id.as_str()),
            _ => seen.running_id().or(seen.last.as_ref().map(|e| e.id.as_str())),
        };
        let spec_image = container.image.clone().unwrap_or_default();
        ContainerStatus {
            name: container.name.clone(),
            state: Some(state),
            last_state: Some(last_state),
            ready: completed || (running && seen.ready),
            started: Some(running && seen.started),
            restart_count: i32::try_from(seen.restarts).unwrap_or(i32::MAX),
            image: seen.image.done().map_or(spec_image, |i| i.name.clone()),
            image_id: seen.image.done().map(|i| i.id.clone()).unwrap_or_default(),
            container_id: id.filter(|id| !id.is_empty()).map(runtime_id),
            ..ContainerStatus::default()
        }
    }

    /// What the container does, and how it ended before that.
    fn states(
        &self,
        kind: ContainerType,
        container: &Container,
        seen: &ObservedContainer,
    ) -> (ContainerState, ContainerState) {
        let last = seen.last.as_ref().map(terminated).unwrap_or_default();
        match &seen.life {
            Life::Running { since, .. } | Life::Stopping { since, .. } => {
                let running = ContainerStateRunning { started_at: Some(seconds(*since)) };
                (ContainerState { running: Some(running), ..ContainerState::default() }, last)
            }
            Life::Exited(exit) if self.runs_again(kind, exit) => {
                match (self.held_back(container, seen, exit), seen.image.failure()) {
                    (Some(message), _) => (waiting("CrashLoopBackOff", Some(message)), terminated(exit)),
                    (None, Some(failure)) => (self.pull_state(container, failure), terminated(exit)),
                    (None, None) => (terminated(exit), last),
                }
            }
            Life::Exited(exit) => (terminated(exit), last),
            Life::Rejected(failure) => (waiting(&failure.reason, text(&failure.message)), last),
            Life::Absent | Life::Creating => (self.not_yet(container, seen), last),
        }
    }

    /// Whether a container that ended is to be started again.
    fn runs_again(&self, kind: ContainerType, exit: &Terminated) -> bool {
        let again = match kind {
            ContainerType::Sidecar => true,
            ContainerType::Init => exit.code != 0 && RestartPolicy::of(self.spec) != RestartPolicy::Never,
            ContainerType::Main => RestartPolicy::of(self.spec).restarts(exit),
        };
        again && !(self.is_deleting() || self.seen.verdict.is_some() || has_finished(self.spec, self.seen))
    }

    /// Why a container that ended is not started again yet.
    fn held_back(&self, container: &Container, seen: &ObservedContainer, exit: &Terminated) -> Option<String> {
        Backoff::until(seen.backoff, exit.finished).filter(|at| *at > self.now)?;
        let pause = seen.backoff.map(|b| go_duration(b.delay)).unwrap_or_default();
        Some(format!("back-off {pause} restarting failed container={} pod={}", container.name, describe(self.pod)))
    }

    /// The waiting state of a container that has no process.
    fn not_yet(&self, container: &Container, seen: &ObservedContainer) -> ContainerState {
        if let Some(failure) = seen.image.failure().or(seen.pull_failure.as_ref()) {
            return self.pull_state(container, failure);
        }
        let has_init = self.spec.init_containers.as_ref().is_some_and(|list| !list.is_empty());
        let creating = matches!(seen.life, Life::Creating) || !has_init;
        waiting(if creating { "ContainerCreating" } else { "PodInitializing" }, seen.pulling.map(coming))
    }

    fn pull_state(&self, container: &Container, failure: &Failure) -> ContainerState {
        let fresh = failure.at.checked_add(PULL_FAILURE_SHOWN).is_ok_and(|until| until > self.now);
        if failure.reason != "ErrImagePull" || fresh {
            return waiting(&failure.reason, text(&failure.message));
        }
        let image = container.image.as_deref().unwrap_or_default();
        let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {}", failure.message);
        waiting("ImagePullBackOff", Some(message))
    }
}

/// A condition before it meets its past.
#[derive(Clone)]
struct Verdicts {
    name: &'static str,
    good: bool,
    why: Option<(&'static str, String)>,
}

impl Verdicts {
    fn new(name: &'static str, good: bool, why: Option<(&'static str, String)>) -> Verdicts {
        Verdicts { name, good, why }
    }

    fn into_condition(self, before: &[PodCondition], view: &View<'_>) -> PodCondition {
        let status = if self.good { "True" } else { "False" };
        let kept = before.iter().find(|c| c.type_ == self.name && c.status == status);
        let (reason, message) = self.why.map_or((None, None), |(r, m)| (Some(r.to_owned()), text(&m)));
        PodCondition {
            type_: self.name.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: kept.and_then(|c| c.last_transition_time.clone()).or_else(|| Some(seconds(view.now))),
            last_probe_time: None,
            observed_generation: view.pod.metadata.generation,
        }
    }
}

/// Which readiness gate is closed, and how.
fn closed_gate(pod: &Pod, spec: &PodSpec) -> Option<String> {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    spec.readiness_gates.iter().flatten().find_map(|gate| {
        let kind = &gate.condition_type;
        match conditions.iter().find(|c| c.type_ == *kind) {
            None => Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
            Some(c) if c.status != "True" => {
                Some(format!("the status of pod readiness gate \"{kind}\" is not \"True\", but {}", c.status))
            }
            Some(_) => None,
        }
    })
}

/// How far a pull has come, for people.
fn coming(progress: Progress) -> String {
    let megabytes = |bytes: u64| format!("{}.{}", bytes / 1_000_000, bytes / 100_000 % 10);
    format!("pulling the image: {} of {} MB", megabytes(progress.done), megabytes(progress.total))
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn terminated(exit: &Terminated) -> ContainerState {
    let terminated = ContainerStateTerminated {
        container_id: (!exit.id.is_empty()).then(|| runtime_id(&exit.id)),
        exit_code: exit.code,
        signal: None,
        reason: text(&exit.reason),
        message: text(&exit.message),
        started_at: Some(seconds(exit.started)),
        finished_at: Some(seconds(exit.finished)),
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

/// A container's identity as the API shows it.
fn runtime_id(id: &str) -> String {
    format!("knoll://{id}")
}

/// A duration of whole seconds as Go prints it: `10s`, `1m20s`, `5m0s`.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
