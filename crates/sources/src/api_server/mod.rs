//! ApiServerSources: a worker for each, which watches what it names and sends an event for each change.
//!
//! `worker` decides what is watched, `places` how much of it may be, `discovery` finds out where that is in the API, `follower`
//! watches one collection and sends, `event` says what, and `memory` knows what was watched before.

mod discovery;
mod event;
mod follower;
mod memory;
mod places;
mod worker;

use std::{collections::HashMap, sync::Arc, time::Duration};

use knoll_api::Kind;
use tokio::{
    sync::watch,
    task::{AbortHandle, Id as TaskId, JoinError, JoinSet},
    time::{sleep, timeout},
};

pub(crate) use self::memory::Memory;
use self::{places::Places, worker::Worker};
use crate::{Hooks, Id, Snapshots, Source, Sources, applied::Board, sending::Outlet, snapshot::Change};

/// After a worker failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What workers use.
pub(crate) struct Context {
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) hooks: Hooks,
    pub(crate) board: Board,
    /// For [`Config::most_watches`](crate::Config::most_watches).
    places: Places,
    memory: Memory,
}

struct Running {
    uid: Arc<str>,
    changes: watch::Sender<Arc<Source>>,
    task: AbortHandle,
}

/// The workers there are: begun, told of changes, ended, and begun again when one fails.
pub(crate) struct Watchers {
    context: Arc<Context>,
    seen: Sources,
    running: HashMap<Id, Running>,
    workers: JoinSet<()>,
    by_task: HashMap<TaskId, Id>,
    end: watch::Sender<bool>,
    is_first: bool,
}

impl Watchers {
    pub(crate) fn new(outlet: Arc<Outlet>, hooks: Hooks, board: Board, memory: Memory) -> Self {
        let places = Places::new(outlet.config.most_watches);
        Self {
            context: Arc::new(Context { outlet, hooks, board, places, memory }),
            seen: Sources::default(),
            running: HashMap::new(),
            workers: JoinSet::new(),
            by_task: HashMap::new(),
            end: watch::Sender::new(false),
            is_first: true,
        }
    }

    /// Works until `end`, then lets what is being sent end within the grace period. Dropped, it ends at once.
    pub(crate) async fn run(mut self, mut snapshots: Snapshots, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        let mut has_snapshots = true;
        loop {
            let newest = snapshots.borrow_and_update().clone();
            if let Some(newest) = newest {
                self.follow(newest);
            }
            tokio::select! {
                () = &mut end => break,
                changed = snapshots.changed(), if has_snapshots => has_snapshots = changed.is_ok(),
                Some(ended) = self.workers.join_next_with_id() => self.ended(ended),
            }
        }
        self.end.send_replace(true);
        let all = async { while self.workers.join_next().await.is_some() {} };
        if timeout(self.context.outlet.config.grace, all).await.is_err() {
            tracing::warn!("events of API server sources are cut off after the grace period");
        }
    }

    /// Brings workers up to a snapshot. Costs what changed.
    fn follow(&mut self, newest: Sources) {
        if std::mem::take(&mut self.is_first) {
            // What an earlier life told of, and is gone.
            self.context.board.keep(|id| id.kind != Kind::ApiServerSource || newest.get(id).is_some());
        }
        let changes: Vec<Change> = newest.since(&self.seen).collect();
        self.seen = newest;
        for change in changes {
            match change {
                Change::Gone(id) => self.remove(&id),
                Change::Is(source) if source.id.kind != Kind::ApiServerSource => {}
                Change::Is(source) => match self.running.get(&source.id) {
                    Some(running) if running.uid == source.uid => {
                        running.changes.send_replace(source);
                    }
                    Some(_) => {
                        self.remove(&source.id);
                        self.begin(source);
                    }
                    None => self.begin(source),
                },
            }
        }
    }

    fn begin(&mut self, source: Arc<Source>) {
        let (id, uid) = (source.id.clone(), source.uid.clone());
        let changes = watch::Sender::new(source);
        let task = self.spawn(&id, changes.subscribe(), Duration::ZERO);
        self.running.insert(id, Running { uid, changes, task });
    }

    fn spawn(&mut self, id: &Id, changed: watch::Receiver<Arc<Source>>, pause: Duration) -> AbortHandle {
        let (context, end) = (self.context.clone(), self.end.subscribe());
        let task = self.workers.spawn(async move {
            sleep(pause).await;
            Worker::new(context, changed).run(end).await;
        });
        self.by_task.insert(task.id(), id.clone());
        task
    }

    /// A worker that panicked begins again, from now.
    fn ended(&mut self, ended: Result<(TaskId, ()), JoinError>) {
        let task = ended.as_ref().map_or_else(JoinError::id, |(task, ())| *task);
        let Some(id) = self.by_task.remove(&task) else { return };
        let Some(running) = self.running.get(&id).filter(|running| running.task.id() == task) else { return };
        let Some(panic) = ended.err().and_then(|error| error.try_into_panic().ok()) else { return };
        self.context.outlet.metrics.panics.count(id.kind);
        let (namespace, name, panic) = (&*id.namespace, &*id.name, knoll_faults::said(&*panic));
        tracing::error!(namespace, name, panic, "the worker of an API server source panicked; it begins again");
        let changed = running.changes.subscribe();
        let task = self.spawn(&id, changed, PAUSE);
        if let Some(running) = self.running.get_mut(&id) {
            running.task = task;
        }
    }

    fn remove(&mut self, id: &Id) {
        if let Some(running) = self.running.remove(id) {
            running.task.abort();
            self.context.board.forget([id]);
        }
    }
}
