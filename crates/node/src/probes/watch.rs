//! Asking, for as long as a container runs.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Container;
use tokio::sync::mpsc;

use super::schedule::{Course, ProbeKind, Schedule};
use super::{ProbeTarget, Question};

/// What the probes of a container found. Told only when it changes, failures excepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The startup probe is content, or there is none.
    Started,
    /// The readiness probe is content, or there is none.
    Ready,
    /// The readiness probe is not content any more.
    NotReady,
    /// One answer was no.
    Unhealthy {
        /// Which probe.
        kind: ProbeKind,
        /// The answer.
        message: String,
    },
    /// The container must be restarted.
    Condemned {
        /// Which probe.
        kind: ProbeKind,
        /// The last answer.
        message: String,
        /// How long it may take to stop, when the probe says so.
        grace: Option<Duration>,
    },
}

/// The probes of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    startup: Option<Probe>,
    readiness: Option<Probe>,
    liveness: Option<Probe>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Probe {
    question: Question,
    schedule: Schedule,
    grace: Option<Duration>,
}

impl Probes {
    /// What to ask a container.
    pub fn of(container: &Container) -> Probes {
        let probe = |probe: Option<&k8s_openapi::api::core::v1::Probe>| {
            let probe = probe?;
            Some(Probe {
                question: Question::of(probe, container)?,
                schedule: Schedule::of(probe),
                grace: probe.termination_grace_period_seconds.map(crate::pod::of_seconds),
            })
        };
        Probes {
            startup: probe(container.startup_probe.as_ref()),
            readiness: probe(container.readiness_probe.as_ref()),
            liveness: probe(container.liveness_probe.as_ref()),
        }
    }

    /// Whether the container has started as soon as it runs.
    pub fn starts_at_once(&self) -> bool {
        self.startup.is_none()
    }

    /// Whether the container is ready as soon as it has started.
    pub fn ready_at_once(&self) -> bool {
        self.readiness.is_none()
    }

    /// Whether there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        self.startup.is_none() && self.readiness.is_none() && self.liveness.is_none()
    }
}

/// Who a report is about, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerReport {
    /// The container.
    pub container: String,
    /// Identity of the attempt that was asked.
    pub id: String,
    /// What was found.
    pub report: Report,
}

/// Where the reports about one container go.
#[derive(Clone, Debug)]
pub struct Reporter {
    /// The container.
    pub container: String,
    /// Identity of the attempt that is asked.
    pub id: String,
    /// Whether another attempt ran in the same sandbox before.
    pub is_another_attempt: bool,
    /// Who hears of it; a slow one slows the asking down.
    pub to: mpsc::Sender<ContainerReport>,
}

impl Reporter {
    /// Asks once.
    async fn ask(&self, kind: ProbeKind, probe: &Probe, target: &ProbeTarget) -> Result<(), String> {
        let answer = probe.question.ask(target, kind, probe.schedule.timeout).await;
        tracing::trace!(container = self.container.as_str(), kind = kind.title(), ?answer, "a container was asked");
        answer
    }

    /// Tells; `false` when nobody listens any more.
    async fn tell(&self, report: Report) -> bool {
        let report = ContainerReport { container: self.container.clone(), id: self.id.clone(), report };
        self.to.send(report).await.is_ok()
    }
}

/// Asks until the future is dropped, the container is condemned, nothing is left to ask, or nobody listens. A container
/// that `was_ready` (it was adopted) is taken to be so until a probe denies it.
pub async fn watch(probes: Probes, target: ProbeTarget, was_ready: bool, report: Reporter) {
    if let Some(loopback) = target.loopback.as_ref().filter(|_| report.is_another_attempt && !was_ready) {
        loopback.reset().await;
    }
    if let Some(startup) = &probes.startup
        && !was_ready
        && !ask_until_settled(startup, &target, &report).await
    {
        return;
    }
    if !was_ready {
        if probes.startup.is_some() && !report.tell(Report::Started).await {
            return;
        }
        if probes.readiness.is_none() && probes.startup.is_some() && !report.tell(Report::Ready).await {
            return;
        }
    }
    let readiness = async {
        if let Some(probe) = &probes.readiness {
            go_on(ProbeKind::Readiness, probe, &target, &report).await;
        }
    };
    let liveness = async {
        if let Some(probe) = &probes.liveness {
            go_on(ProbeKind::Liveness, probe, &target, &report).await;
        }
    };
    tokio::join!(readiness, liveness);
}

/// Asks the startup probe until it is content (`true`) or has condemned the container.
async fn ask_until_settled(probe: &Probe, target: &ProbeTarget, report: &Reporter) -> bool {
    tokio::time::sleep(probe.schedule.initial_delay).await;
    let begun = Instant::now();
    let _waited_for = target.crowd.join();
    let mut course = Course::new(ProbeKind::Startup, probe.schedule, probe.question.is_costly());
    let mut told = Told::default();
    loop {
        let answer = report.ask(ProbeKind::Startup, probe, target).await;
        let verdict = course.answer(answer.is_ok(), begun.elapsed());
        match (verdict, answer) {
            (Some(true), _) => return true,
            (Some(false), Err(message)) => {
                told.unhealthy(ProbeKind::Startup, &message, probe, begun.elapsed(), report).await;
                report.tell(Report::Condemned { kind: ProbeKind::Startup, message, grace: probe.grace }).await;
                return false;
            }
            (_, Err(message))
                if !told.unhealthy(ProbeKind::Startup, &message, probe, begun.elapsed(), report).await =>
            {
                return false;
            }
            _ => {}
        }
        tokio::time::sleep(course.pause(begun.elapsed(), target.crowd.share())).await;
    }
}

/// Asks a readiness or liveness probe for good.
async fn go_on(kind: ProbeKind, probe: &Probe, target: &ProbeTarget, report: &Reporter) {
    tokio::time::sleep(probe.schedule.initial_delay).await;
    let begun = Instant::now();
    let mut waited_for = (kind == ProbeKind::Readiness).then(|| target.crowd.join());
    let mut course = Course::new(kind, probe.schedule, probe.question.is_costly());
    let mut told = Told::default();
    loop {
        let answer = report.ask(kind, probe, target).await;
        let verdict = course.answer(answer.is_ok(), begun.elapsed());
        let listened = match (kind, verdict, answer) {
            (ProbeKind::Readiness, Some(true), _) => {
                waited_for = None;
                report.tell(Report::Ready).await
            }
            (ProbeKind::Readiness, Some(false), Err(message)) => {
                told.unhealthy(kind, &message, probe, begun.elapsed(), report).await
                    && report.tell(Report::NotReady).await
            }
            (ProbeKind::Liveness, Some(false), Err(message)) => {
                told.unhealthy(kind, &message, probe, begun.elapsed(), report).await;
                report.tell(Report::Condemned { kind, message, grace: probe.grace }).await;
                return;
            }
            (_, _, Err(message)) => told.unhealthy(kind, &message, probe, begun.elapsed(), report).await,
            _ => true,
        };
        if !listened {
            return;
        }
        let sharing = waited_for.as_ref().map_or(1, |_| target.crowd.share());
        tokio::time::sleep(course.pause(begun.elapsed(), sharing)).await;
    }
}

/// When a bad answer was last told: eager asking must not flood anybody with events.
#[derive(Default)]
struct Told(Option<Duration>);

impl Told {
    async fn unhealthy(
        &mut self,
        kind: ProbeKind,
        message: &str,
        probe: &Probe,
        age: Duration,
        report: &Reporter,
    ) -> bool {
        // While a container starts, a refusal within its first period is no news.
        let since = self.0.unwrap_or(Duration::ZERO);
        if age.saturating_sub(since) < probe.schedule.period {
            return true;
        }
        self.0 = Some(age);
        report.tell(Report::Unhealthy { kind, message: message.to_owned() }).await
    }
}
