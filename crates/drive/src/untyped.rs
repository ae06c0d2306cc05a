//! Follows the kinds that controllers do not know as types, for the garbage collector: which are served is asked for when a
//! definition changes, and of their objects the metadata alone is watched.
//!
//! Each kind costs a watch in which nothing happens as long as nobody makes objects of it, and each object what
//! [`knoll_plan::Untyped`] keeps of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use knoll_api::{Key, Kind};
use knoll_client::watch::{self, Collection, Seen};
use knoll_faults::{caught, chain};
use knoll_plan::{GroupKind, Lineage, ServedKind, Sighting, UntypedSeen};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::{Semaphore, mpsc, watch as signal},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    api::{Api, ApiError},
    counters::Counters,
    lives::Lives,
};

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

fn key_of(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    Key::new(text("namespace"), text("name"))
}

/// Groups of a discovery document.
#[derive(Default, Deserialize)]
struct Groups {
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: GroupMeta,
    /// The preferred first.
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
struct GroupMeta {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<ServedResource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServedResource {
    resource: String,
    #[serde(default)]
    response_kind: ResponseKind,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Default, Deserialize)]
struct ResponseKind {
    #[serde(default)]
    kind: String,
}

/// Every kind that is served, that controllers do not know as a type and whose objects can be followed and deleted: those
/// that Kubernetes brings first. Events own nothing, as elsewhere.
async fn served(api: &Api) -> Result<Vec<ServedKind>, ApiError> {
    let mut kinds = Vec::new();
    for path in ["/api", "/apis"] {
        let document: Groups = api.discover(path).await?;
        document.items.into_iter().for_each(|group| kinds.extend(kinds_of(group)));
    }
    let is_custom = |kind: &ServedKind| kind.name.group.contains('.') && !kind.name.group.ends_with(".k8s.io");
    kinds.sort_by_cached_key(|kind| (is_custom(kind), kind.name.clone()));
    Ok(kinds)
}

/// The kinds of a group, each in the first version that has it.
fn kinds_of(group: Group) -> Vec<ServedKind> {
    let Group { metadata: GroupMeta { name: group }, versions } = group;
    let mut seen = BTreeSet::new();
    let mut kinds = Vec::new();
    for Version { version, resources } in versions {
        for resource in resources {
            let kind = resource.response_kind.kind;
            let can = |verb: &&str| resource.verbs.iter().any(|one| one == verb);
            let is_event = kind == "Event" && matches!(group.as_str(), "" | "events.k8s.io");
            let is_followed = ["list", "watch", "delete"].iter().all(can) && !is_event;
            if is_followed && Kind::in_any_version(&group, &kind).is_none() && seen.insert(kind.clone()) {
                kinds.push(ServedKind {
                    name: GroupKind { group: group.clone(), kind },
                    version: version.clone(),
                    plural: resource.resource,
                    is_namespaced: resource.scope == "Namespaced",
                });
            }
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_that_controllers_do_not_know_are_followed_in_their_first_version() {
        let resource = |plural: &str, kind: &str, verbs: &[&str]| {
            json!({"resource": plural, "scope": "Namespaced", "verbs": verbs,
                   "responseKind": {"group": "example.com", "version": "v1", "kind": kind}})
        };
        let all = ["list", "watch", "delete"];
        let group = json!({"metadata": {"name": "example.com"}, "versions": [
            {"version": "v2", "resources": [resource("things", "Thing", &all), resource("reviews", "Review", &["create"])]},
            {"version": "v1", "resources": [resource("things", "Thing", &all), resource("olds", "Old", &all)]}]});
        let kinds = kinds_of(serde_json::from_value(group).expect("a group"));
        let paths: Vec<String> = kinds.iter().map(|kind| kind.collection_path(None)).collect();
        assert_eq!(paths, ["/apis/example.com/v2/things", "/apis/example.com/v1/olds"]);
        let core = json!({"versions": [{"version": "v1", "resources": [
            resource("pods", "Pod", &all), resource("events", "Event", &all), resource("podtemplates", "PodTemplate", &all)]}]});
        let kinds = kinds_of(serde_json::from_value(core).expect("a group"));
        assert_eq!(
            kinds.iter().map(|kind| kind.collection_path(Some("a"))).collect::<Vec<_>>(),
            ["/api/v1/namespaces/a/podtemplates"]
        );
    }
}
