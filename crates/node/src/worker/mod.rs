//! One pod's actor: asks [`crate::pod`] what to do, starts it, takes the outcome in.
//!
//! Everything slow runs in tasks of its own that end with the worker; the worker itself only decides.

mod adopt;
mod ending;
mod etc;
mod hooks;
mod probing;
mod remains;
mod scribe;
mod supervise;
mod tasks;
mod telling;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use knoll_oci::{Image, Progress};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::env::Sources;
use crate::pod::{
    self, Act, ContainerType, EndReason, Failure, ImageInfo, Life, ObservedPod, SandboxInfo, Step, StopCause,
    Terminated, decide,
};
use crate::probes::ContainerReport;
use crate::shared::{Attempt, Shared};
use crate::{disk, panics, volumes};

pub(crate) use adopt::{adopt, load_record};
pub(crate) use scribe::PodRecord;
use scribe::{Scribe, Snapshot};
pub(crate) use supervise::{Start, live};
pub(crate) use tasks::references;
use tasks::{Prepared, PullFailure, StartFailure, Started};

/// Probe reports that wait.
const REPORTS: usize = 64;
/// Pauses between tries of what the machine refused.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(20));
/// Between two looks at how much disk a pod with limits uses.
const DISK_CHECK: Duration = Duration::from_secs(30);
/// Between two looks at how far a pull has come.
const PULL_CHECK: Duration = Duration::from_secs(1);

/// What the agent tells a worker: the newest version, or that the API has none any more.
#[derive(Clone)]
pub(crate) struct PodVersion {
    pub(crate) pod: Arc<Pod>,
    pub(crate) gone: bool,
}

/// What comes back from a task.
enum Outcome {
    Volumes(Result<Prepared, (String, String)>),
    Refreshed(Result<Prepared, (String, String)>),
    Sandbox(Result<SandboxInfo, String>),
    Pulled {
        container: String,
        result: Result<Image, PullFailure>,
    },
    /// How a container that already runs wants to be stopped.
    Found {
        container: String,
        stop_signal: Option<String>,
    },
    Started {
        container: String,
        result: Result<Started, StartFailure>,
    },
    /// What a container does right after its start has ended.
    Hooked {
        container: String,
        id: String,
        well: bool,
    },
    Exited {
        container: String,
        exit: Terminated,
    },
    Stopped,
    DiskChecked(Option<String>),
    TornDown(Result<(), String>),
    Forgotten(Result<(), String>),
}

impl Outcome {
    /// What was done, for the log.
    fn name(&self) -> &'static str {
        match self {
            Outcome::Volumes(_) => "fill volumes",
            Outcome::Refreshed(_) => "refresh volumes",
            Outcome::Sandbox(_) => "prepare the sandbox",
            Outcome::Pulled { .. } => "pull",
            Outcome::Found { .. } => "find the stop signal",
            Outcome::Started { .. } => "start",
            Outcome::Hooked { .. } => "run the hook after the start",
            Outcome::Exited { .. } => "exit",
            Outcome::Stopped => "stop",
            Outcome::DiskChecked(_) => "measure the disk",
            Outcome::TornDown(_) => "tear down",
            Outcome::Forgotten(_) => "forget",
        }
    }
}

/// How a worker ends.
enum End {
    /// The API has forgotten the pod, and nothing of it is left on this machine.
    Over,
    /// The server stops; containers go on.
    Left,
    /// A part of it panicked, with this message.
    Panicked(String),
}

struct Worker {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    seen: ObservedPod,
    sources: Arc<Sources>,
    images: HashMap<String, Image>,
    /// How containers that ran before the worker did want to be stopped. Nothing starts from what was found for this:
    /// the pod may name another image by now, and nobody has asked whether it may run it.
    stop_signals: HashMap<String, String>,
    /// What is being pulled, by container.
    pulls: HashMap<String, watch::Receiver<Option<Progress>>>,
    tasks: JoinSet<Outcome>,
    probes: HashMap<String, AbortHandle>,
    /// What containers do right after their start, as long as they do.
    hooks: HashMap<String, AbortHandle>,
    /// The probes as they run.
    asking: JoinSet<()>,
    reports: (mpsc::Sender<ContainerReport>, mpsc::Receiver<ContainerReport>),
    scribe: Scribe,
    /// How the last try of something failed, for the pause after the next.
    failures: HashMap<String, Failure>,
    up: bool,
    /// The address that names lead to.
    named: Option<Ipv4Addr>,
    /// What streams from outside are told.
    attempts: BTreeMap<String, Attempt>,
    /// How often time alone woke the worker.
    turn: u64,
    refresh_at: Option<Instant>,
    refreshing: bool,
    /// Whether what the volumes are being filled from has changed since that began.
    is_stale: bool,
    check_disk_at: Option<Instant>,
}

/// Lives a pod's life until it is over, the server stops, or something panics.
async fn run(
    shared: Arc<Shared>,
    seen: ObservedPod,
    mut versions: watch::Receiver<PodVersion>,
    sources_changed: Arc<Notify>,
) -> End {
    let first = versions.borrow_and_update().clone();
    let (mut evictions, mut clock_set) = (shared.evictions.subscribe(), shared.clock_set.subscribe());
    let mut worker = Worker::new(shared, first, seen);
    worker.resume();
    loop {
        let deadline = worker.act();
        if worker.is_over() {
            worker.leave().await;
            return End::Over;
        }
        let sleep = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(report) = worker.reports.1.recv() => worker.take_report(report),
            Some(outcome) = worker.tasks.join_next(), if !worker.tasks.is_empty() => match outcome {
                Ok(outcome) => worker.take(outcome),
                Err(error) => if let Some(message) = panics::of_task(error) { return End::Panicked(message) },
            },
            Some(Err(error)) = worker.asking.join_next(), if !worker.asking.is_empty() => {
                if let Some(message) = panics::of_task(error) {
                    return End::Panicked(message);
                }
            }
            message = worker.scribe.panicked() => return End::Panicked(message),
            changed = versions.changed() => match changed {
                Ok(()) => { let version = versions.borrow_and_update().clone(); worker.take_version(version) }
                // The agent is gone: the server stops, containers go on.
                Err(_) => { worker.scribe.flush(worker.snapshot()).await; return End::Left }
            },
            () = sources_changed.notified() => worker.refresh(),
            // Tokens may have ended that were to live on.
            Ok(()) = clock_set.changed() => worker.refresh(),
            Ok(()) = evictions.changed() => {
                let verdict = evictions.borrow_and_update().get(uid(&worker.pod)).cloned();
                if let Some(verdict) = verdict {
                    worker.evict(verdict);
                }
            }
            // Time alone may change what is reported.
            () = sleep => worker.turn += 1,
        }
    }
}

/// When it will be `at`, it being `now`.
fn instant(at: Timestamp, now: Timestamp) -> Instant {
    let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
    Instant::now() + left.min(pod::LONGEST_GRACE)
}

impl Worker {
    fn new(shared: Arc<Shared>, version: PodVersion, mut seen: ObservedPod) -> Worker {
        let now = shared.clock.now();
        seen.accepted = seen.accepted.or(Some(now));
        seen.gone |= version.gone;
        let limited = disk::is_limited(&version.pod, &shared.config);
        Worker {
            scribe: Scribe::new(Arc::clone(&shared), &version.pod),
            pod: version.pod,
            sources: Arc::default(),
            images: HashMap::new(),
            stop_signals: HashMap::new(),
            pulls: HashMap::new(),
            tasks: JoinSet::new(),
            probes: HashMap::new(),
            hooks: HashMap::new(),
            asking: JoinSet::new(),
            reports: mpsc::channel(REPORTS),
            failures: HashMap::new(),
            up: false,
            named: None,
            attempts: BTreeMap::new(),
            turn: 0,
            refresh_at: None,
            refreshing: false,
            is_stale: false,
            check_disk_at: limited.then(|| Instant::now() + DISK_CHECK),
            seen,
            shared,
        }
    }

    /// Takes up what already runs.
    fn resume(&mut self) {
        let running: Vec<_> = self
            .seen
            .containers
            .iter()
            .filter_map(|(name, c)| Some((name.clone(), c.running_id()?.to_owned(), c.ready, is_stopping(&c.life))))
            .collect();
        for (name, id, ready, stopping) in running {
            self.await_exit(&name, &id);
            self.find_stop_signal(&name);
            if stopping {
                // Whoever stopped it is gone; the grace begins anew.
                if let Some(seen) = self.seen.containers.get_mut(&name)
                    && let Life::Stopping { id, since, .. } = seen.life.clone()
                {
                    seen.life = Life::Running { id, since };
                }
            } else {
                self.begin_probes(&name, &id, ready);
            }
        }
        if matches!(self.seen.volumes, Step::Done(())) {
            // Tokens may have aged and files may have changed meanwhile.
            self.refresh();
        }
    }

    /// Starts everything that is due. Returns when to look again.
    fn act(&mut self) -> Option<Instant> {
        let now = self.shared.clock.now();
        let mut recheck = loop {
            let actions = decide(&self.pod, &self.seen, now);
            let again = actions.acts.iter().any(|act| matches!(act, Act::Fail { .. }));
            for act in actions.acts {
                self.begin(act, now);
            }
            if !again {
                break actions.recheck.map(|at| instant(at, now));
            }
        };
        let now = Instant::now();
        let mut sooner = |at: Option<Instant>| recheck = [recheck, at].into_iter().flatten().min();
        if self.refresh_at.is_some_and(|at| at <= now) {
            self.refresh();
        }
        sooner(self.refresh_at);
        if self.check_disk_at.is_some_and(|at| at <= now) {
            self.check_disk_at = None;
            let (shared, pod) = (Arc::clone(&self.shared), Arc::clone(&self.pod));
            self.tasks.spawn(async move {
                let used = disk::measure(&shared, &pod).await;
                Outcome::DiskChecked(used.and_then(|used| disk::overuse(&pod, &shared.config, &used)))
            });
        }
        sooner(self.check_disk_at);
        sooner(self.look_at_pulls(now));
        if self.is_done() {
            // Before anybody hears of it, and gives the room to another.
            self.shared.room.release(uid(&self.pod));
        }
        self.name_address();
        self.tell_attempts();
        self.announce();
        self.scribe.write(self.snapshot());
        recheck
    }

    /// Notes how far pulls have come. Returns when to look again.
    fn look_at_pulls(&mut self, now: Instant) -> Option<Instant> {
        for (name, told) in &self.pulls {
            self.seen.container_mut(name).pulling = *told.borrow();
        }
        (!self.pulls.is_empty()).then(|| now + PULL_CHECK)
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { pod: Arc::clone(&self.pod), seen: self.seen.clone(), turn: self.turn }
    }

    fn is_over(&self) -> bool {
        self.seen.gone && matches!(self.seen.teardown, Step::Done(()))
    }

    /// Whether nothing of the pod runs again.
    fn is_done(&self) -> bool {
        self.seen.gone
            || self.seen.verdict.is_some()
            || !matches!(self.seen.forgotten, Step::Todo)
            || pod::has_finished(self.pod.spec.as_ref().unwrap_or(&PodSpec::default()), &self.seen)
    }

    // ---- acts ----

    fn begin(&mut self, act: Act, now: Timestamp) {
        let (shared, pod) = (Arc::clone(&self.shared), Arc::clone(&self.pod));
        match act {
            Act::PrepareVolumes => {
                self.seen.volumes = Step::Doing;
                self.tasks.spawn(async move { Outcome::Volumes(tasks::fill_volumes(&shared, &pod).await) });
            }
            Act::PrepareSandbox => {
                self.seen.sandbox = Step::Doing;
                self.tasks.spawn(async move { Outcome::Sandbox(tasks::prepare_sandbox(&shared, &pod).await) });
            }
            Act::Pull(name) => {
                let Some(container) = self.container(&name) else { return };
                self.seen.container_mut(&name).image = Step::Doing;
                let (tell, told) = watch::channel(None);
                self.pulls.insert(name, told);
                self.tasks.spawn(async move {
                    let result = tasks::pull(&shared, &pod, &container, tell).await;
                    Outcome::Pulled { container: container.name.clone(), result }
                });
            }
            Act::Start(name) => self.start(&name, now),
            Act::Stop { container, grace, cause } => self.stop(&container, grace, cause),
            Act::Kill(name) => {
                let Some(seen) = self.seen.containers.get_mut(&name) else { return };
                let id = seen.running_id().map(str::to_owned);
                if let (Some(id), Ok(())) = (id, seen.stop(true)) {
                    self.tasks.spawn(async move {
                        ending::kill(&shared, &id).await;
                        Outcome::Stopped
                    });
                }
            }
            Act::Fail { reason, message } => {
                self.shared.recorder.normal(&self.pod, None, reason, message);
                self.seen.verdict = Some(EndReason { reason: reason.into(), message: message.into() });
            }
            // What is filled at the moment would be left behind; when that has ended, this is said again.
            Act::TearDown if self.refreshing => {}
            Act::TearDown => {
                self.seen.teardown = Step::Doing;
                self.tasks.spawn(async move { Outcome::TornDown(tasks::tear_down(&shared, &pod).await) });
            }
            Act::Forget => {
                self.seen.forgotten = Step::Doing;
                let last = self.scribe.render(&self.snapshot());
                let writer = self.scribe.writer();
                self.tasks.spawn(async move {
                    writer.write_status(&last).await;
                    let result = shared.api.forget(&pod).await.map_err(|e| e.to_string());
                    Outcome::Forgotten(result)
                });
            }
        }
    }

    fn start(&mut self, name: &str, now: Timestamp) {
        let (Some(container), Some(image)) = (self.container(name), self.images.get(name).cloned()) else {
            // Known from a record only: the image is looked up again.
            self.seen.container_mut(name).image = Step::Todo;
            return self.begin(Act::Pull(name.to_owned()), now);
        };
        let seen = self.seen.container_mut(name);
        let before = seen.exit().map(|e| e.id.clone());
        let rejected = matches!(seen.life, Life::Rejected(_));
        if let Err(error) = seen.begin(now) {
            tracing::error!(%error, container = name, "a container was to be started twice");
            return;
        }
        let attempt = seen.restarts;
        let start = tasks::Start {
            pod: Arc::clone(&self.pod),
            container,
            image,
            attempt,
            address: self.seen.sandbox.done().cloned(),
            // A first start may use what the volumes were just filled from.
            sources: (attempt == 0 && !rejected).then(|| Arc::clone(&self.sources)),
            before,
        };
        let shared = Arc::clone(&self.shared);
        let name = name.to_owned();
        self.tasks
            .spawn(async move { Outcome::Started { container: name, result: tasks::start(&shared, start).await } });
    }

    fn stop(&mut self, name: &str, grace: Duration, cause: StopCause) {
        let Some(container) = self.container(name) else { return };
        let stop_signal = match self.images.get(name) {
            Some(image) => image.config.stop_signal.clone(),
            None => self.stop_signals.get(name).cloned(),
        };
        let Some(seen) = self.seen.containers.get_mut(name) else { return };
        let Some(id) = seen.running_id().map(str::to_owned) else { return };
        let pid = seen.pid;
        seen.asked_to_stop = Some(self.shared.clock.now());
        if let Err(error) = seen.stop(false) {
            tracing::error!(%error, container = name, "a container was to be stopped twice");
            return;
        }
        if cause != StopCause::Condemned {
            self.shared.recorder.normal(&self.pod, Some(name), "Killing", format!("Stopping container {name}"));
        }
        // A stopping pod is asked for its readiness no more: it takes no new requests from now on.
        self.end_probes(name);
        self.drop_hook(name);
        let stop = ending::Stop {
            pod: Arc::clone(&self.pod),
            container,
            id,
            grace,
            stop_signal,
            pid,
            address: self.seen.sandbox.done().cloned(),
            instance: (cause == StopCause::Deleted).then(|| self.event(false)).flatten(),
        };
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            ending::stop(&shared, stop).await;
            Outcome::Stopped
        });
    }

    // ---- outcomes ----

    fn take(&mut self, outcome: Outcome) {
        let now = self.shared.clock.now();
        tracing::debug!(pod = pod::describe(&self.pod), outcome = outcome.name(), "done");
        match outcome {
            Outcome::Volumes(result) => {
                self.seen.volumes = match result {
                    Ok(prepared) => {
                        self.adopt_prepared(prepared);
                        self.failures.remove("volumes");
                        Step::Done(())
                    }
                    Err((volume, message)) => {
                        let text = format!("MountVolume.SetUp failed for volume \"{volume}\" : {message}");
                        self.shared.recorder.warning(&self.pod, None, "FailedMount", &text);
                        Step::Failed(self.failed("volumes", "FailedMount", text, now))
                    }
                };
                self.refresh_stale();
            }
            Outcome::Refreshed(result) => {
                self.refreshing = false;
                match result {
                    Ok(prepared) => self.adopt_prepared(prepared),
                    Err((volume, message)) => {
                        tracing::warn!(
                            pod = pod::describe(&self.pod),
                            volume,
                            message,
                            "a volume keeps its old content"
                        );
                        self.refresh_at = Some(Instant::now() + RETRY.1);
                    }
                }
                self.refresh_stale();
            }
            Outcome::Sandbox(result) => {
                self.seen.sandbox = match result {
                    Ok(info) => {
                        self.failures.remove("sandbox");
                        Step::Done(info)
                    }
                    Err(message) => {
                        let text = format!("Failed to create pod sandbox: {message}");
                        self.shared.recorder.warning(&self.pod, None, "FailedCreatePodSandBox", &text);
                        Step::Failed(self.failed("sandbox", "FailedCreatePodSandBox", text, now))
                    }
                };
                self.begin_missing_probes();
            }
            Outcome::Pulled { container, result } => self.take_pull(container, result, now),
            Outcome::Found { container, stop_signal } => {
                self.stop_signals.extend(stop_signal.map(|signal| (container, signal)));
            }
            Outcome::Started { container, result } => self.take_start(&container, result, now),
            Outcome::Hooked { container, id, well } => self.take_hook(&container, &id, well),
            Outcome::Exited { container, exit } => {
                self.end_probes(&container);
                self.drop_hook(&container);
                let seen = self.seen.container_mut(&container);
                if seen.running_id() == Some(&exit.id) {
                    seen.end(exit);
                    self.tell_backoff(&container);
                }
            }
            Outcome::DiskChecked(overuse) => {
                self.check_disk_at = Some(Instant::now() + DISK_CHECK);
                if let Some(message) = overuse {
                    self.evict(EndReason { reason: "Evicted".into(), message });
                }
            }
            Outcome::Stopped => {}
            Outcome::TornDown(result) => {
                self.seen.teardown = match result {
                    Ok(()) => {
                        self.refresh_at = None;
                        self.check_disk_at = None;
                        Step::Done(())
                    }
                    Err(message) => {
                        tracing::warn!(pod = pod::describe(&self.pod), message, "a pod cannot be taken down");
                        Step::Failed(self.failed("teardown", "TearDown", message, now))
                    }
                };
            }
            Outcome::Forgotten(result) => {
                self.seen.forgotten = match result {
                    Ok(()) => Step::Done(()),
                    Err(message) => Step::Failed(self.failed("forget", "Forget", message, now)),
                };
            }
        }
    }

    /// Ends the pod for what it uses.
    fn evict(&mut self, verdict: EndReason) {
        if !self.is_done() {
            self.shared.counters.evicted.add();
            self.shared.recorder.warning(&self.pod, None, "Evicted", &verdict.message);
            self.seen.verdict = Some(verdict);
        }
    }

    fn take_pull(&mut self, name: String, result: Result<Image, PullFailure>, now: Timestamp) {
        let reference = self.container(&name).and_then(|c| c.image.clone()).unwrap_or_default();
        self.pulls.remove(&name);
        let seen = self.seen.container_mut(&name);
        match result {
            Ok(image) => {
                seen.pulled(ImageInfo { id: image.name.clone(), name: reference });
                self.images.insert(name, image);
            }
            Err(failure) => seen.pull_failed(failure.reason, failure.message, now),
        }
    }

    fn take_start(&mut self, name: &str, result: Result<Started, StartFailure>, now: Timestamp) {
        let seen = self.seen.container_mut(name);
        match result {
            Ok(Started { id, since, pid }) => {
                seen.pid = Some(pid);
                if seen.run(id.clone(), since).is_ok() {
                    self.failures.remove(name);
                    self.await_exit(name, &id);
                    self.after_start(name, &id);
                }
            }
            Err(StartFailure::Config { reason, message }) => {
                self.shared.recorder.warning(&self.pod, Some(name), "Failed", format!("Error: {message}"));
                if seen.reject(reason, message, self.failures.get(name), now).is_ok()
                    && let Life::Rejected(failure) = &seen.life
                {
                    self.failures.insert(name.to_owned(), failure.clone());
                }
            }
            Err(StartFailure::Run { message, code, id }) => {
                self.shared.recorder.warning(&self.pod, Some(name), "Failed", format!("Error: {message}"));
                let (reason, signal) = ("StartError".to_owned(), None);
                seen.end(Terminated { id, code, signal, reason, message, started: now, finished: now });
                self.tell_backoff(name);
            }
        }
    }

    fn tell_backoff(&self, name: &str) {
        let Some(seen) = self.seen.containers.get(name) else { return };
        if seen.backoff.is_some() && seen.exit().is_some() {
            let text = format!("Back-off restarting failed container {name} in pod {}", pod::describe(&self.pod));
            self.shared.recorder.warning(&self.pod, Some(name), "BackOff", text);
        }
    }

    fn adopt_prepared(&mut self, prepared: Prepared) {
        self.sources = prepared.sources;
        self.refresh_at = prepared.refresh_at;
        // What could not be resolved before may be resolvable now.
        for seen in self.seen.containers.values_mut() {
            if let Life::Rejected(failure) = &mut seen.life {
                failure.delay = failure.delay.min(RETRY.0);
            }
        }
    }

    fn take_version(&mut self, version: PodVersion) {
        let told_before = |p: &Pod| (p.metadata.labels.clone(), p.metadata.annotations.clone());
        let changed = told_before(&version.pod) != told_before(&self.pod);
        self.pod = version.pod;
        self.seen.gone |= version.gone;
        if changed && matches!(self.seen.volumes, Step::Done(())) {
            self.refresh();
        }
    }

    /// Fills the volumes again from what the API holds now; retries at once what waits for it.
    fn refresh(&mut self) {
        self.refresh_at = None;
        for seen in self.seen.containers.values_mut() {
            if let Life::Rejected(failure) = &mut seen.life {
                failure.delay = Duration::ZERO;
            }
        }
        match self.seen.volumes {
            Step::Failed(_) => self.seen.volumes = Step::Todo,
            // They may be filled from what was there before.
            Step::Doing => self.is_stale = true,
            Step::Done(()) if self.refreshing => self.is_stale = true,
            Step::Done(()) if matches!(self.seen.teardown, Step::Todo) => {
                self.refreshing = true;
                let (shared, pod) = (Arc::clone(&self.shared), Arc::clone(&self.pod));
                self.tasks.spawn(async move { Outcome::Refreshed(tasks::fill_volumes(&shared, &pod).await) });
            }
            Step::Todo | Step::Done(()) => {}
        }
    }

    /// Fills the volumes once more if what they were filled from has changed meanwhile.
    fn refresh_stale(&mut self) {
        if std::mem::take(&mut self.is_stale) {
            self.refresh();
        }
    }

    // ---- helpers ----

    fn find_stop_signal(&mut self, name: &str) {
        let Some(container) = self.container(name) else { return };
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let stop_signal = tasks::find_stop_signal(&shared, container.image.as_deref().unwrap_or_default()).await;
            Outcome::Found { container: container.name.clone(), stop_signal }
        });
    }

    fn failed(&mut self, what: &str, reason: &str, text: String, now: Timestamp) -> Failure {
        let failure = Failure::after(self.failures.get(what), reason, text, now, RETRY);
        self.failures.insert(what.to_owned(), failure.clone());
        failure
    }

    fn await_exit(&mut self, name: &str, id: &str) {
        let Some(container) = self.container(name) else { return };
        let since = match self.seen.containers.get(name).map(|c| &c.life) {
            Some(Life::Running { since, .. } | Life::Stopping { since, .. }) => *since,
            _ => self.shared.clock.now(),
        };
        let (shared, pod, id) = (Arc::clone(&self.shared), Arc::clone(&self.pod), id.to_owned());
        self.tasks.spawn(async move {
            let exit = ending::exit(&shared, &pod, &container, id, since).await;
            Outcome::Exited { container: container.name.clone(), exit }
        });
    }

    fn container(&self, name: &str) -> Option<Arc<Container>> {
        let spec = self.pod.spec.as_ref()?;
        pod::containers(spec).find(|(_, c)| c.name == name).map(|(_, c)| Arc::new(c.clone()))
    }

    fn container_type(&self, name: &str) -> ContainerType {
        let spec = self.pod.spec.iter();
        spec.flat_map(pod::containers).find(|(_, c)| c.name == name).map_or(ContainerType::Main, |(kind, _)| kind)
    }

    /// Removes what the pod left on disk.
    async fn leave(mut self) {
        self.tasks.abort_all();
        self.asking.abort_all();
        self.scribe.stop().await;
        if let Err(error) = remove_files(&self.shared, uid(&self.pod)).await {
            tracing::warn!(pod = pod::describe(&self.pod), error, "what a pod left cannot be removed");
        }
    }
}

/// Removes everything that is kept of a pod on disk.
async fn remove_files(shared: &Shared, uid: &str) -> Result<(), String> {
    let dirs = [shared.config.pod_dir(uid), shared.config.runtime_dir.join("pods").join(uid)];
    let removed = tokio::task::spawn_blocking(move || {
        dirs.iter().try_for_each(|dir| {
            volumes::release_mounts(&dir.join("volumes"))
                .and_then(|()| knoll_tree::remove(dir))
                .map_err(|error| format!("cannot remove {}: {error}", dir.display()))
        })
    });
    removed.await.map_err(|error| error.to_string())?
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(address) = self.named {
            self.shared.pod_addresses.remove(address, uid(&self.pod));
        }
        self.shared.attempts.remove(uid(&self.pod));
    }
}

/// The pods of which something lies on disk, by uid.
pub(crate) async fn on_disk(shared: &Shared) -> BTreeSet<String> {
    let tops = [&shared.config.data_dir, &shared.config.runtime_dir].map(|dir| dir.join("pods"));
    let list = move || -> BTreeSet<String> {
        let entries = tops.iter().flat_map(|top| std::fs::read_dir(top).into_iter().flatten().flatten());
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    tokio::task::spawn_blocking(list).await.unwrap_or_default()
}

/// Removes what such pods left on disk: their removal was interrupted, or failed.
pub(crate) async fn remove_leftovers(shared: Arc<Shared>, uids: Vec<String>) {
    for uid in uids {
        match remove_files(&shared, &uid).await {
            Ok(()) => tracing::info!(uid, "what a pod left on disk is removed"),
            Err(error) => tracing::warn!(uid, error, "what a pod left cannot be removed"),
        }
    }
}

fn is_stopping(life: &Life) -> bool {
    matches!(life, Life::Stopping { .. })
}

/// A pod's uid; empty when it has none, which the API never lets happen.
pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}
