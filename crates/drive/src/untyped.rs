//! Follows the kinds that controllers do not know as types, for the garbage collector: which are served is asked for when a
//! definition changes, and of their objects the metadata alone is watched.
//!
//! Each kind costs a watch in which nothing happens as long as nobody makes objects of it, and each object what
//! [`knoll_plan::Untyped`] keeps of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use knoll_api::Key;
use knoll_client::watch::{self, Collection, Seen};
use knoll_faults::{caught, chain};
use knoll_plan::{GroupKind, Lineage, ServedKind, Sighting, UntypedSeen};
use serde_json::Value;
use tokio::{
    sync::{Semaphore, mpsc, watch as signal},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{api::Api, counters::Counters, discovery::served, lives::Lives};

/// Where the definitions of kinds are.
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// Most kinds that are followed: a client has 1,024 watches, and the kinds that controllers know are among them.
const MOST_KINDS: usize = 800;
/// Definitions that change within this time are asked about together.
const TOGETHER: Duration = Duration::from_millis(100);
/// First and longest pause after the server did not say what it serves.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How long what goes first is waited for, and a turn to list.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a kind may take to be listed before owners go without it: nobody waits for ever for what cannot be read.
const LATE: Duration = Duration::from_secs(30);
/// Kinds that are listed at a time: whoever begins with hundreds leaves room to others.
const LISTINGS: usize = 8;

/// See the module.
pub(crate) struct UntypedWatches {
    pub(crate) api: Api,
    /// What these watches wait for before they begin.
    pub(crate) after: signal::Receiver<()>,
    pub(crate) into: mpsc::Sender<Sighting>,
    pub(crate) counters: Arc<Counters>,
}

/// The watch of a kind.
struct Following {
    served: ServedKind,
    task: AbortHandle,
}

/// What is followed.
struct Follower<'a> {
    watches: &'a UntypedWatches,
    following: BTreeMap<GroupKind, Following>,
    tasks: JoinSet<()>,
    turns: Arc<Semaphore>,
    /// Whether it was said that there are too many kinds.
    is_full: bool,
}

impl UntypedWatches {
    /// Works until nobody listens. After a panic everything begins again.
    pub(crate) async fn run(mut self) {
        // An error says that nothing is left to wait for.
        drop(timeout(PATIENCE, self.after.changed()).await);
        let mut lives = Lives::new("watches of other kinds");
        while let Err(panic) = caught(self.live()).await {
            lives.ended(&panic, &self.counters).await;
        }
    }

    async fn live(&self) {
        let (turns, tasks) = (Arc::new(Semaphore::new(LISTINGS)), JoinSet::new());
        let mut follower = Follower { watches: self, following: BTreeMap::new(), tasks, turns, is_full: false };
        let (changes_in, mut changes) = mpsc::channel(1);
        let definitions = Collection { path: DEFINITIONS.to_owned(), metadata_only: true, ..Collection::default() };
        let told = |seen| {
            let is_change = matches!(seen, Seen::Listed(_) | Seen::Added(_) | Seen::Modified(_) | Seen::Gone(_));
            is_change.then_some(())
        };
        let definitions = watch::follow(self.api.client(), &definitions, &changes_in, told);
        let reaction = async {
            while follower.look().await {
                // Both ends are in this function: there is always a next one.
                changes.recv().await;
                sleep(TOGETHER).await;
                while changes.try_recv().is_ok() {}
            }
        };
        tokio::select! {
            () = definitions => {}
            () = reaction => {}
        }
    }
}

impl Follower<'_> {
    /// Asks what is served until that is answered, and follows it. Whether anybody listens.
    async fn look(&mut self) -> bool {
        let (mut pause, mut told) = (PAUSE.0, String::new());
        loop {
            match served(&self.watches.api).await {
                Ok(kinds) => return self.follow(kinds).await,
                Err(error) => {
                    let why = chain(&error);
                    if why != told {
                        tracing::warn!(error = why, "cannot find out which kinds are served: what they own waits");
                        told = why;
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Follows these kinds and no others.
    async fn follow(&mut self, mut kinds: Vec<ServedKind>) -> bool {
        let is_full = kinds.len() > MOST_KINDS;
        if is_full && !self.is_full {
            let left = kinds.len() - MOST_KINDS;
            tracing::error!(left, most = MOST_KINDS, "too many kinds: what objects of some own is not collected");
        }
        self.is_full = is_full;
        kinds.truncate(MOST_KINDS);
        self.following.retain(|_, following| {
            let stays = kinds.contains(&following.served) && !following.task.is_finished();
            if !stays {
                following.task.abort();
            }
            stays
        });
        while self.tasks.try_join_next().is_some() {}
        if self.watches.into.send(Sighting::Served(kinds.clone())).await.is_err() {
            return false;
        }
        for served in kinds {
            if !self.following.contains_key(&served.name) {
                self.begin(served);
            }
        }
        true
    }

    fn begin(&mut self, served: ServedKind) {
        let watches = self.watches;
        let watch = KindWatch {
            api: watches.api.clone(),
            served: served.clone(),
            into: watches.into.clone(),
            counters: watches.counters.clone(),
            turns: self.turns.clone(),
        };
        let task = self.tasks.spawn(watch.run());
        self.following.insert(served.name.clone(), Following { served, task });
    }
}

/// The watch of one kind.
struct KindWatch {
    api: Api,
    served: ServedKind,
    into: mpsc::Sender<Sighting>,
    counters: Arc<Counters>,
    turns: Arc<Semaphore>,
}

impl KindWatch {
    /// Lists and watches until nobody listens. After a panic it begins again with a listing.
    async fn run(self) {
        let ServedKind { name, plural, .. } = &self.served;
        let mut lives = Lives::new(format!("watch {plural}.{}", name.group));
        let path = self.served.collection_path(None);
        let collection = Collection { path, metadata_only: true, ..Collection::default() };
        let is_told = AtomicBool::new(false);
        let follow = async {
            loop {
                let mut turn = timeout(PATIENCE, self.turns.clone().acquire_owned()).await.ok();
                let take = |seen| {
                    if matches!(seen, Seen::Listed(_) | Seen::Absent | Seen::Forbidden(_)) {
                        turn = None;
                        is_told.store(true, Relaxed);
                    }
                    Some(Sighting::Of(name.clone(), sighting(seen)?))
                };
                match caught(watch::follow(self.api.client(), &collection, &self.into, take)).await {
                    Ok(()) => return,
                    Err(panic) => lives.ended(&panic, &self.counters).await,
                }
            }
        };
        let late = async {
            sleep(LATE).await;
            if !is_told.load(Relaxed) {
                // Where nobody listens any more, nobody waits either.
                drop(self.into.send(Sighting::Of(name.clone(), UntypedSeen::Refused)).await);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = follow => {}
            () = late => {}
        }
    }
}

/// What the loop is told of what was seen.
fn sighting(seen: Seen) -> Option<UntypedSeen> {
    Some(match seen {
        Seen::Begins => UntypedSeen::Begins,
        Seen::Item(object) => UntypedSeen::Item(key_of(&object), Lineage::read(&object)),
        Seen::Listed(_) => UntypedSeen::Listed,
        Seen::Added(object) | Seen::Modified(object) => UntypedSeen::Put(key_of(&object), Lineage::read(&object)),
        Seen::Gone(object) => UntypedSeen::Gone(key_of(&object)),
        Seen::Absent => UntypedSeen::Absent,
        Seen::Forbidden(_) => UntypedSeen::Refused,
        Seen::Bookmark(_) | Seen::Again => return None,
    })
}

pub(crate) fn key_of(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    Key::new(text("namespace"), text("name"))
}
