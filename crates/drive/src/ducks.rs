//! Follows the kinds that objects of Eventing refer to and no controller knows, and tells the loop of their objects.
//!
//! They are looked up one after the other, and what is not served again and again: however many names somebody makes up,
//! there is one question at a time. What is followed is what custom resources the cluster has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use knoll_client::watch::{self, Collection, Seen};
use knoll_faults::caught;
use knoll_plan::{DuckKind, DuckObject, DuckSeen, Observation};
use tokio::{
    sync::{mpsc, watch as signal},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    api::Api,
    counters::Counters,
    discovery::{self, NotFound},
    lives::Lives,
    untyped::key_of,
};

/// Before what was not found is looked up again, and after each that was looked up.
const AGAIN: Duration = Duration::from_secs(10);
const APART: Duration = Duration::from_millis(10);
/// Most kinds that are followed.
const MOST_KINDS: usize = 100;

/// See the module.
pub(crate) struct DuckWatches {
    api: Api,
    wanted: signal::Receiver<BTreeSet<DuckKind>>,
    into: mpsc::Sender<Observation>,
    following: BTreeMap<DuckKind, AbortHandle>,
    tasks: JoinSet<()>,
    /// What was looked up and not found.
    unknown: BTreeSet<DuckKind>,
}

impl DuckWatches {
    pub(crate) fn new(api: Api, wanted: signal::Receiver<BTreeSet<DuckKind>>, into: mpsc::Sender<Observation>) -> Self {
        Self { api, wanted, into, following: BTreeMap::new(), tasks: JoinSet::new(), unknown: BTreeSet::new() }
    }

    /// Works until nobody says any more what is wanted. A panic costs what it happened in.
    pub(crate) async fn run(mut self, counters: Arc<Counters>) {
        let mut lives = Lives::new("watches of kinds that are referred to");
        while let Err(panic) = caught(self.live(&counters)).await {
            lives.ended(&panic, &counters).await;
        }
    }

    async fn live(&mut self, counters: &Arc<Counters>) {
        let mut again = Instant::now() + AGAIN;
        loop {
            let now = self.wanted.borrow_and_update().clone();
            self.end_all_but(&now).await;
            let is_time = Instant::now() >= again;
            if is_time {
                again = Instant::now() + AGAIN;
            }
            for kind in now {
                let is_unknown = self.unknown.contains(&kind);
                if self.following.contains_key(&kind) || (is_unknown && !is_time) {
                    continue;
                }
                // Those that are looked up again do not hold up a new one.
                if is_unknown && self.wanted.has_changed().unwrap_or(true) {
                    break;
                }
                self.begin(kind, counters).await;
            }
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { return },
                () = sleep_until(again), if !self.unknown.is_empty() => {}
            }
        }
    }

    async fn end_all_but(&mut self, wanted: &BTreeSet<DuckKind>) {
        let known = self.following.keys().chain(&self.unknown);
        let gone: Vec<DuckKind> = known.filter(|kind| !wanted.contains(kind)).cloned().collect();
        for kind in gone {
            if let Some(task) = self.following.remove(&kind) {
                task.abort();
            }
            self.unknown.remove(&kind);
            tell(&self.into, &kind, DuckSeen::Forgotten).await;
        }
        while self.tasks.try_join_next().is_some() {}
    }

    async fn begin(&mut self, kind: DuckKind, counters: &Arc<Counters>) {
        let found = if self.following.len() < MOST_KINDS {
            discovery::find(&self.api, &kind.api_version, &kind.kind).await
        } else {
            let why =
                format!("{MOST_KINDS} kinds that controllers do not know are referred to, and no more are followed");
            Err(NotFound::Unknown(why))
        };
        match found {
            Ok(path) => {
                let collection = Collection { path, ..Collection::default() };
                let watch = follow(self.api.clone(), collection, self.into.clone(), kind.clone(), counters.clone());
                let task = self.tasks.spawn(watch);
                self.unknown.remove(&kind);
                self.following.insert(kind, task);
            }
            Err(why) => {
                let seen = match why {
                    NotFound::Absent(why) => DuckSeen::Absent(why),
                    NotFound::Unknown(why) => DuckSeen::Unknown(why),
                };
                tell(&self.into, &kind, seen).await;
                self.unknown.insert(kind);
                sleep(APART).await;
            }
        }
    }
}

async fn tell(into: &mpsc::Sender<Observation>, kind: &DuckKind, seen: DuckSeen) {
    // Where the loop has ended, nobody needs to know.
    drop(into.send(Observation::Duck { kind: kind.clone(), seen }).await);
}

/// Lists and watches a kind until nobody listens. After a panic it begins again with a listing.
async fn follow(
    api: Api,
    collection: Collection,
    into: mpsc::Sender<Observation>,
    kind: DuckKind,
    counters: Arc<Counters>,
) {
    let mut lives = Lives::new(format!("watch {}", collection.path));
    let plural = collection.path.rsplit_once('/').map_or("", |(_, plural)| plural);
    let read = |seen: Seen| Some(Observation::Duck { kind: kind.clone(), seen: told(&kind, plural, seen)? });
    while let Err(panic) = caught(watch::follow(api.client(), &collection, &into, read)).await {
        lives.ended(&panic, &counters).await;
    }
}

/// What the loop is told of what was seen.
fn told(kind: &DuckKind, plural: &str, seen: Seen) -> Option<DuckSeen> {
    Some(match seen {
        Seen::Begins => DuckSeen::Begins(plural.to_owned()),
        Seen::Item(object) => DuckSeen::Item(key_of(&object), DuckObject::read(&object)),
        Seen::Listed(_) => DuckSeen::Listed,
        Seen::Added(object) | Seen::Modified(object) => DuckSeen::Put(key_of(&object), DuckObject::read(&object)),
        Seen::Gone(object) => DuckSeen::Gone(key_of(&object)),
        Seen::Absent => DuckSeen::Absent(format!("{} is not served any more", kind.api_version)),
        Seen::Forbidden(why) => DuckSeen::Unknown(why),
        Seen::Bookmark(_) | Seen::Again => return None,
    })
}
