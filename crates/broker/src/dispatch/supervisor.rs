//! Workers for the brokers and channels there are: begun, told of changes, ended, and begun again when one fails.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use knoll_journal::events::{Durability, Write, WriteError};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, Id, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Context,
    worker::{End, Newest, Worker, WorkerError},
};
use crate::{
    AskError, Log,
    dead_letters::{OperationError, Redriven, Undeliverable},
    streams,
    topology::{Addressable, Change, Name, Topology},
};

/// After a worker failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How often what nobody needs is looked for in the log.
const TIDY: Duration = Duration::from_secs(60);
/// Commands that wait for one worker.
const COMMANDS: usize = 16;

/// What a worker is asked.
pub(crate) enum Command {
    /// To deliver a batch of dead letters again.
    Redrive {
        /// Which.
        offsets: Vec<u64>,
        /// What becomes of those that cannot be.
        undeliverable: Undeliverable,
        /// With how many of them, from the first on, it is through, one at least, and what became of these.
        answer: oneshot::Sender<Result<(usize, Redriven), OperationError>>,
    },
    /// To deliver a batch of events that it keeps again.
    Replay {
        /// To whom, by uid.
        subscription: Arc<str>,
        /// The first.
        from: u64,
        /// Without this one.
        to: u64,
        /// How many they are, and where to go on.
        answer: oneshot::Sender<Result<(u64, u64), OperationError>>,
    },
}

/// A request to a worker, by the name of its broker or channel.
pub(crate) type Asked = (Name, Command);

struct Running {
    uid: Arc<str>,
    changes: watch::Sender<Newest>,
    commands: mpsc::Sender<Command>,
    task: AbortHandle,
}

/// How many chores delete something of one broker or channel.
#[derive(Clone, Default)]
struct Deleting(watch::Sender<usize>);

/// One of them.
struct Chore(Deleting);

impl Deleting {
    fn begin(&self) -> Chore {
        self.0.send_modify(|chores| *chores += 1);
        Chore(self.clone())
    }

    fn is_going_on(&self) -> bool {
        *self.0.borrow() > 0
    }

    async fn end(&self) {
        // It has a sender, so it is never closed.
        self.0.subscribe().wait_for(|chores| *chores == 0).await.ok();
    }
}

impl Drop for Chore {
    fn drop(&mut self) {
        self.0.0.send_modify(|chores| *chores -= 1);
    }
}

/// See the module.
pub(crate) struct Supervisor {
    context: Arc<Context>,
    running: HashMap<Name, Running>,
    workers: JoinSet<Result<End, WorkerError>>,
    by_task: HashMap<Id, Name>,
    /// What deletes, and of which broker or channel, by uid.
    chores: JoinSet<()>,
    deleting: HashMap<Arc<str>, Deleting>,
    end: watch::Sender<bool>,
    seen: Topology,
    /// Whether nothing is in the log that the newest snapshot does not have.
    is_swept: bool,
}

impl Supervisor {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            running: HashMap::new(),
            workers: JoinSet::new(),
            by_task: HashMap::new(),
            chores: JoinSet::new(),
            deleting: HashMap::new(),
            end: watch::Sender::new(false),
            seen: Topology::default(),
            is_swept: false,
        }
    }

    /// Works until `end`, then lets every worker finish within the grace period. Dropped, it ends everything at once, and
    /// loses nothing. It fails when the log has stopped.
    pub(crate) async fn run(
        mut self,
        asked: &mut mpsc::Receiver<Asked>,
        mut end: BoxFuture<'static, ()>,
    ) -> Result<(), AskError> {
        let mut snapshots = self.context.snapshots.clone();
        let mut tidy = interval(TIDY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut has_snapshots, mut is_asked) = (true, true);
        loop {
            let now = snapshots.borrow_and_update().clone();
            if let Some(now) = now {
                if now.is_complete() && !std::mem::replace(&mut self.is_swept, true) {
                    self.sweep(&now);
                }
                self.follow(now);
            }
            tokio::select! {
                changed = snapshots.changed(), if has_snapshots => has_snapshots = changed.is_ok(),
                Some(ended) = self.workers.join_next_with_id() => {
                    match ended {
                        Ok((_, Err(WorkerError::Ask(error)))) if error.is_final() => return Err(error),
                        Ok((id, Ok(End::Anew))) => self.begin_again(id, None),
                        Ok((id, Ok(End::Over))) => self.begin_again(id, Some("it ended".to_owned())),
                        Ok((id, Err(error))) => self.begin_again(id, Some(knoll_faults::chain(&error))),
                        Err(error) => self.begin_again(error.id(), Some(panicked(&self.context, error))),
                    }
                }
                Some(_) = self.chores.join_next() => self.deleting.retain(|_, deleting| deleting.is_going_on()),
                asked = asked.recv(), if is_asked => match asked {
                    Some((name, command)) => self.ask(&name, command),
                    None => is_asked = false,
                },
                _ = tidy.tick() => {
                    self.context.log.tidy(u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0));
                }
                () = &mut end => break,
            }
        }
        self.end.send_replace(true);
        // Workers keep the time themselves; what they do at last are writes, which need some as well.
        let most = self.context.config.grace + PAUSE;
        let finish = async { while self.workers.join_next().await.is_some() {} };
        if tokio::time::timeout(most, finish).await.is_err() {
            tracing::warn!(workers = self.workers.len(), "deliveries are cut off after the grace period");
        }
        Ok(())
    }

    /// Brings workers up to a snapshot. Costs what changed.
    fn follow(&mut self, now: Topology) {
        let (changes, is_complete): (Vec<Change>, bool) = (now.since(&self.seen).collect(), now.is_complete());
        self.is_swept &= is_complete;
        let is_as_complete = self.seen.is_complete() == is_complete;
        self.seen = now;
        for change in changes {
            match change {
                Change::Gone(name) => self.remove(&name),
                Change::Is(addressable) => match self.running.get(addressable.name()) {
                    Some(running) if running.uid == *addressable.uid() => {
                        running.changes.send_replace(Newest { addressable, is_complete });
                    }
                    Some(_) => {
                        self.remove(addressable.name());
                        self.begin(addressable);
                    }
                    None => self.begin(addressable),
                },
            }
        }
        if !is_as_complete {
            let all = self.running.values();
            all.for_each(|running| running.changes.send_modify(|newest| newest.is_complete = is_complete));
        }
    }

    fn begin(&mut self, addressable: Arc<Addressable>) {
        let (name, uid) = (addressable.name().clone(), addressable.uid().clone());
        let (changes, changed) = watch::channel(Newest { addressable, is_complete: self.seen.is_complete() });
        let (commands, commanded) = mpsc::channel(COMMANDS);
        let task = self.spawn(&name, changed, commanded, Duration::ZERO);
        self.running.insert(name, Running { uid, changes, commands, task });
    }

    fn spawn(
        &mut self,
        name: &Name,
        mut changed: watch::Receiver<Newest>,
        commanded: mpsc::Receiver<Command>,
        pause: Duration,
    ) -> AbortHandle {
        let (context, end) = (self.context.clone(), self.end.subscribe());
        let deleting = self.deleting.get(changed.borrow().addressable.uid()).cloned();
        let task = self.workers.spawn(async move {
            let (newest, mut over) = (changed.borrow_and_update().clone(), end.clone());
            let open = async {
                sleep(pause).await;
                // What is left of it from before it was gone for a moment is not its own any more.
                if let Some(deleting) = deleting {
                    deleting.end().await;
                }
                Worker::open(context, newest).await
            };
            let worker = tokio::select! {
                // It may wait for room for long.
                worker = open => worker?,
                () = is_over(&mut over) => return Ok(End::Over),
            };
            worker.run(changed, commanded, end).await
        });
        self.by_task.insert(task.id(), name.clone());
        task
    }

    /// A worker that ended and was not told to begins again, after a pause where it failed: everything it needs is in the
    /// log.
    fn begin_again(&mut self, id: Id, failure: Option<String>) {
        let Some(name) = self.by_task.remove(&id) else { return };
        let Some(running) = self.running.get(&name).filter(|running| running.task.id() == id) else { return };
        if let Some(error) = &failure {
            let (kind, namespace, of) = (name.kind.as_str(), &*name.namespace, &*name.name);
            tracing::error!(error, kind, namespace, name = of, "a worker failed; it begins again");
        }
        let changed = running.changes.subscribe();
        let (commands, commanded) = mpsc::channel(COMMANDS);
        let pause = failure.map_or(Duration::ZERO, |_| PAUSE);
        let task = self.spawn(&name, changed, commanded, pause);
        if let Some(running) = self.running.get_mut(&name) {
            (running.task, running.commands) = (task, commands);
        }
    }

    /// Ends a worker and removes everything of its broker or channel: events, progress, and dead letters. Where the snapshot
    /// misses something that is there, the log keeps them until one comes that does not.
    fn remove(&mut self, name: &Name) {
        let Some(Running { uid, changes, task, .. }) = self.running.remove(name) else { return };
        task.abort();
        let context = self.context.clone();
        context.log.unregister(&uid);
        let was = changes.borrow().addressable.clone();
        let (kind, namespace, of) = (name.kind.as_str(), &*name.namespace, &*name.name);
        if !self.seen.is_complete() {
            was.subscribed().for_each(|subscribed| context.views.leave(&subscribed.subscription.uid));
            tracing::info!(kind, namespace, name = of, "it is not known any more; what is its own is kept");
            return;
        }
        let behind = was.subscribed().map(|subscribed| {
            context.views.leave(&subscribed.subscription.uid);
            streams::backlog(&uid, &subscribed.subscription.uid)
        });
        let names: Vec<String> = behind.chain([streams::events(&was), streams::dead_letters(&uid)]).collect();
        let letters = context.letters.count(&uid);
        tracing::info!(kind, namespace, name = of, letters, "it is gone, and with it its events and dead letters");
        let chore = self.deleting.entry(uid).or_default().begin();
        self.delete(names, Some(chore));
    }

    fn delete(&mut self, names: Vec<String>, chore: Option<Chore>) {
        let log = self.context.log.clone();
        self.chores.spawn(async move {
            if let Err(error) = deleted(&log, &names).await {
                tracing::warn!(%error, "delete the events of a broker or channel; it is tried again at the next start");
            }
            drop(chore);
        });
    }

    /// Removes what the log has of brokers, channels and subscriptions that went while nobody looked.
    fn sweep(&mut self, now: &Topology) {
        let mut needed: HashSet<String> = HashSet::new();
        for addressable in now.addressables() {
            needed.insert(streams::events(addressable));
            needed.insert(streams::dead_letters(addressable.uid()));
            let behind = |subscription: &str| streams::backlog(addressable.uid(), subscription);
            needed.extend(addressable.subscribed().map(|subscribed| behind(&subscribed.subscription.uid)));
        }
        let streams = self.context.log.reader().streams().into_iter();
        let names = streams.filter_map(|(_, name)| String::from_utf8(name).ok());
        let gone: Vec<String> = names.filter(|name| !needed.contains(name)).collect();
        if !gone.is_empty() {
            tracing::info!(streams = gone.len(), "events of brokers, channels and triggers that are gone are removed");
            self.delete(gone, None);
        }
    }

    fn ask(&self, name: &Name, command: Command) {
        // Who asked sees the answer's end go away.
        if let Some(running) = self.running.get(name)
            && let Err(refused) = running.commands.try_send(command)
        {
            tracing::debug!(error = %refused, "a worker has as many requests as it may");
        }
    }
}

/// Waits for the end, or until nobody is there who could say it.
async fn is_over(end: &mut watch::Receiver<bool>) {
    end.wait_for(|end| *end).await.ok();
}

/// Deletes streams; tries until the log has no room to refuse it for. It fails when nothing is written any more.
async fn deleted(log: &Log, names: &[String]) -> Result<(), AskError> {
    let mut is_told = false;
    loop {
        let streams: Vec<_> = names.iter().filter_map(|name| log.reader().stream(name.as_bytes())).collect();
        streams.iter().for_each(|stream| log.forget(*stream));
        let writes: Vec<Write> = streams.into_iter().map(Write::DeleteStream).collect();
        if writes.is_empty() {
            return Ok(());
        }
        let mut refusals = log.write(writes, Durability::Synced).await?.into_iter().filter_map(Result::err);
        // Somebody else may have deleted some.
        let Some(error) = refusals.find(|error| *error != WriteError::NoStream) else { return Ok(()) };
        let error = AskError::from(error);
        if error.is_final() {
            return Err(error);
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(%error, "the event log does not take what is deleted; it is told again");
        }
        sleep(PAUSE).await;
    }
}

/// What a panic said; of a task that was told to end, that it ended.
fn panicked(context: &Context, error: tokio::task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "it ended".to_owned() };
    context.metrics.panics.count();
    format!("it panicked: {}", knoll_faults::said(&*panic))
}
