//! One ApiServerSource: which collections it needs are looked up, watched while it needs them, and told of once all are.
//!
//! Whatever happens, [`Worker::settle`] compares what the source wants with what is done, and does the rest: so a change of
//! the sink, the mode or the filter interrupts no watch, and a namespace that is added begins one more.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use knoll_api::Kind;
use knoll_client::{Client, watch::Collection};
use knoll_faults::caught;
use tokio::{
    sync::{Notify, watch},
    task::{AbortHandle, Id as TaskId, JoinError, JoinSet},
    time::sleep,
};

use super::{
    Context,
    discovery::{self, Place},
    follower::{Ended, Follower},
    memory::Listed,
    places::Held,
};
use crate::{ApiServer, Namespaces, Resource, Source, Work};

/// Before what could not be found is looked for again: a kind, a client, room for watches, or a watch that panicked.
const AGAIN: Duration = Duration::from_secs(5);

/// A kind: `apiVersion` and `kind`.
type KindName = (Box<str>, Box<str>);

/// A collection: which objects, and of which namespace.
type Watched = (Resource, Option<Arc<str>>);

/// What is known of something that is looked for.
enum Sought<T> {
    /// It is being looked for.
    Yet,
    /// It was not found, and is looked for again.
    Not(Arc<str>),
    /// Here it is.
    Found(T),
}

/// What looking for something came to.
enum Chore {
    Client(Arc<str>, Result<Client, String>),
    Place(KindName, Result<Place, String>),
    /// There may be room for watches by now.
    Room,
}

struct Following {
    task: AbortHandle,
    state: State,
}

/// Whether a follower watches, or why it may not; nothing as long as that is not known.
type Progress = Option<Result<(), Arc<str>>>;

/// How it is with a follower, as it says itself.
#[derive(Clone, Default)]
struct State(Arc<Mutex<Progress>>);

impl State {
    fn set(&self, progress: Result<(), String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress.map_err(Into::into));
    }

    fn get(&self) -> Progress {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// See the module.
pub(super) struct Worker {
    context: Arc<Context>,
    changed: watch::Receiver<Arc<Source>>,
    source: Arc<Source>,
    /// As whom everything is done.
    account: Arc<str>,
    client: Sought<Client>,
    places: BTreeMap<KindName, Sought<Place>>,
    /// The watches that it may have.
    held: Held,
    /// Whether it is to be asked again for more.
    waits_for_room: bool,
    /// Which collections were watched before, and still would be.
    listed: Listed,
    following: BTreeMap<Watched, Following>,
    followers: JoinSet<Ended>,
    by_task: HashMap<TaskId, Watched>,
    chores: JoinSet<Chore>,
    /// With a follower it is not as it was.
    progress: Arc<Notify>,
}

impl Worker {
    pub(super) fn new(context: Arc<Context>, mut changed: watch::Receiver<Arc<Source>>) -> Self {
        let source = changed.borrow_and_update().clone();
        let held = context.places.none(source.id.namespace.clone());
        let listed = context.memory.of(&source.id, &source.uid);
        Self {
            context,
            changed,
            source,
            account: "".into(),
            client: Sought::Yet,
            places: BTreeMap::new(),
            held,
            waits_for_room: false,
            listed,
            following: BTreeMap::new(),
            followers: JoinSet::new(),
            by_task: HashMap::new(),
            chores: JoinSet::new(),
            progress: Arc::default(),
        }
    }

    /// Works until `end` is true, then lets what is being sent end.
    pub(super) async fn run(mut self, mut end: watch::Receiver<bool>) {
        let progress = self.progress.clone();
        let ends = end.clone();
        loop {
            self.settle(&ends);
            tokio::select! {
                // An error says that whoever could end it is gone.
                _ = end.wait_for(|is_ended| *is_ended) => break,
                changed = self.changed.changed() => match changed {
                    Ok(()) => self.source = self.changed.borrow_and_update().clone(),
                    // The source is gone.
                    Err(_) => return,
                },
                () = progress.notified() => {}
                Some(done) = self.chores.join_next() => self.done(done),
                Some(ended) = self.followers.join_next_with_id() => self.ended(ended, &ends),
            }
        }
        while self.followers.join_next().await.is_some() {}
    }

    /// Does what the source wants and is not done, ends what it does not want, and tells how it is.
    fn settle(&mut self, end: &watch::Receiver<bool>) {
        let source = self.source.clone();
        let problem = match &source.work {
            Ok(Work::ApiServer(work)) => self.settle_work(work, end),
            Ok(Work::Ping(_) | Work::Timer(_)) => Some(Err("an ApiServerSource watches the API".into())),
            Err(why) => Some(Err(why.clone())),
        };
        match problem {
            Some(Ok(())) => self.context.board.tell([(&*source, None)]),
            Some(Err(why)) => self.context.board.tell([(&*source, Some(why))]),
            None => {}
        }
    }

    /// Whether everything is watched, or why not; nothing as long as that is not known.
    fn settle_work(&mut self, work: &ApiServer, end: &watch::Receiver<bool>) -> Progress {
        if *self.account != *work.watches_as {
            self.account = work.watches_as.clone();
            self.client = Sought::Yet;
            self.places.clear();
            self.end_all_but(&BTreeSet::new());
            self.make_client(Duration::ZERO);
        }
        let client = match &self.client {
            Sought::Yet => return None,
            Sought::Not(why) => return Some(Err(why.clone())),
            Sought::Found(client) => client.clone(),
        };
        if let Err(why) = self.hold(work) {
            return Some(Err(why));
        }
        let kinds: BTreeSet<KindName> = work.resources.iter().map(kind_of).collect();
        self.places.retain(|kind, _| kinds.contains(kind));
        for resource in &work.resources {
            if let Entry::Vacant(place) = self.places.entry(kind_of(resource)) {
                place.insert(Sought::Yet);
                self.look_up(resource.clone(), client.clone(), Duration::ZERO);
            }
        }
        let wanted = self.wanted(work);
        // What is meant and not there at the moment is missed as long.
        let gone = self.following.keys().filter(|watched| !wanted.contains(watched) && !is_meant(work, watched));
        gone.for_each(|watched| self.listed.forget(watched));
        self.end_all_but(&wanted);
        for watched in wanted {
            if !self.following.contains_key(&watched) {
                self.begin(watched, &client, end, Duration::ZERO);
            }
        }
        self.progress_of_all()
    }

    fn progress_of_all(&self) -> Progress {
        let missing = self.places.values().find_map(|place| match place {
            Sought::Not(why) => Some(why.clone()),
            Sought::Yet | Sought::Found(_) => None,
        });
        if let Some(why) = missing {
            return Some(Err(why));
        }
        let mut is_known = self.places.values().all(|place| matches!(place, Sought::Found(_)));
        for following in self.following.values() {
            match following.state.get() {
                Some(Ok(())) => {}
                Some(Err(why)) => return Some(Err(why)),
                None => is_known = false,
            }
        }
        is_known.then_some(Ok(()))
    }

    /// Holds as many watches as there are to be, as far as that is known: a kind that is looked for is one at least. Where there
    /// are not so many, none is held and nothing is looked for, until it is asked again: why.
    fn hold(&mut self, work: &ApiServer) -> Result<(), Arc<str>> {
        let watches = |resource: &Resource| match (&work.namespaces, self.places.get(&kind_of(resource))) {
            (Namespaces::Named(names), Some(Sought::Found(place))) if place.is_namespaced => names.len(),
            _ => 1,
        };
        let needed = work.resources.iter().map(watches).sum();
        let Err(most) = self.held.hold(needed) else { return Ok(()) };
        self.end_all_but(&BTreeSet::new());
        self.places.clear();
        self.held.give_back();
        if !std::mem::replace(&mut self.waits_for_room, true) {
            self.chores.spawn(async {
                sleep(AGAIN).await;
                Chore::Room
            });
        }
        let namespace = &self.source.id.namespace;
        let why = format!(
            "{needed} watches would be needed, of resources times namespaces; namespace {namespace} may have {most} more"
        );
        Err(why.into())
    }

    /// The collections of what was found.
    fn wanted(&self, work: &ApiServer) -> BTreeSet<Watched> {
        let mut wanted = BTreeSet::new();
        for resource in &work.resources {
            let Some(Sought::Found(place)) = self.places.get(&kind_of(resource)) else { continue };
            match &work.namespaces {
                Namespaces::Named(names) if place.is_namespaced => {
                    wanted.extend(names.iter().map(|name| (resource.clone(), Some(name.clone()))));
                }
                Namespaces::Named(_) | Namespaces::All => {
                    wanted.insert((resource.clone(), None));
                }
            }
        }
        wanted
    }

    fn end_all_but(&mut self, wanted: &BTreeSet<Watched>) {
        self.following.retain(|watched, following| {
            let is_wanted = wanted.contains(watched);
            if !is_wanted {
                following.task.abort();
            }
            is_wanted
        });
    }

    fn begin(&mut self, watched: Watched, client: &Client, end: &watch::Receiver<bool>, pause: Duration) {
        let Some(Sought::Found(place)) = self.places.get(&kind_of(&watched.0)) else { return };
        let collection = Collection {
            path: place.path(watched.1.as_deref()),
            label_selector: watched.0.label_selector.to_string(),
            ..Collection::default()
        };
        let (listed, which) = (self.listed.clone(), watched.clone());
        let follower = Follower {
            context: self.context.clone(),
            source: self.changed.clone(),
            client: client.clone(),
            collection,
            was_watched: Box::new(move || listed.note(&which)),
            end: end.clone(),
        };
        let state = State::default();
        let (told, progress) = (state.clone(), self.progress.clone());
        let task = self.followers.spawn(async move {
            sleep(pause).await;
            let tell = |state| {
                told.set(state);
                progress.notify_one();
            };
            follower.run(tell).await
        });
        self.by_task.insert(task.id(), watched.clone());
        self.following.insert(watched, Following { task, state });
    }

    fn ended(&mut self, ended: Result<(TaskId, Ended), JoinError>, end: &watch::Receiver<bool>) {
        let task = ended.as_ref().map_or_else(JoinError::id, |(task, _)| *task);
        let Some(watched) = self.by_task.remove(&task) else { return };
        if self.following.get(&watched).is_none_or(|following| following.task.id() != task) {
            return;
        }
        self.following.remove(&watched);
        let Sought::Found(client) = &self.client else { return };
        let client = client.clone();
        match ended {
            Ok((_, Ended::Absent)) => {
                let (resource, _) = watched;
                let why = format!("{} of {} is not served any more", resource.kind, resource.api_version);
                // Several collections of one kind go together.
                let before = self.places.insert(kind_of(&resource), Sought::Not(why.into()));
                if matches!(before, Some(Sought::Found(_))) {
                    self.look_up(resource, client, AGAIN);
                }
            }
            Ok((_, Ended::Told)) => {}
            Err(error) => {
                let Ok(panic) = error.try_into_panic() else { return };
                self.panicked("a watch", &knoll_faults::said(&*panic));
                self.begin(watched, &client, end, AGAIN);
            }
        }
    }

    fn panicked(&self, what: &str, panic: &str) {
        let id = &self.source.id;
        self.context.outlet.metrics.panics.count(id.kind);
        let (namespace, name) = (&*id.namespace, &*id.name);
        tracing::error!(namespace, name, what, panic, "part of an API server source panicked; it begins again");
    }

    fn make_client(&mut self, pause: Duration) {
        let (account, namespace) = (self.account.clone(), self.source.id.namespace.clone());
        let (context, clients) = (self.context.clone(), self.context.hooks.clients.clone());
        self.chores.spawn(async move {
            sleep(pause).await;
            let make = async {
                let clients = clients.ok_or("nothing here makes clients of the API")?;
                clients(namespace, account.clone()).await
            };
            let made = guarded(&context, make).await;
            Chore::Client(account, made)
        });
    }

    fn look_up(&mut self, resource: Resource, client: Client, pause: Duration) {
        let context = self.context.clone();
        self.chores.spawn(async move {
            sleep(pause).await;
            let found = guarded(&context, discovery::find(&client, &resource)).await;
            Chore::Place(kind_of(&resource), found)
        });
    }

    /// Takes in what looking for something came to. What was looked for and is not wanted any more is passed over.
    fn done(&mut self, done: Result<Chore, JoinError>) {
        match done {
            Ok(Chore::Client(account, made)) if *account == *self.account => match made {
                Ok(client) => self.client = Sought::Found(client),
                Err(why) => {
                    self.client = Sought::Not(format!("no client for the ServiceAccount {account}: {why}").into());
                    self.make_client(AGAIN);
                }
            },
            Ok(Chore::Place(kind, found)) if self.places.contains_key(&kind) => self.found(kind, found),
            Ok(Chore::Room) => self.waits_for_room = false,
            Ok(Chore::Client(..) | Chore::Place(..)) => {}
            Err(error) => tracing::error!(%error, "looking for something ended badly"),
        }
    }

    fn found(&mut self, kind: KindName, found: Result<Place, String>) {
        let Sought::Found(client) = &self.client else { return };
        let client = client.clone();
        let sought = match found {
            Ok(place) => Sought::Found(place),
            Err(why) => {
                let (api_version, name) = kind.clone();
                let resource = Resource { api_version, kind: name, label_selector: "".into() };
                self.look_up(resource, client, AGAIN);
                Sought::Not(why.into())
            }
        };
        self.places.insert(kind, sought);
    }
}

/// A panic is counted, and a failure like another.
async fn guarded<T>(context: &Context, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    caught(work).await.unwrap_or_else(|panic| {
        context.outlet.metrics.panics.count(Kind::ApiServerSource);
        Err(format!("it panicked: {panic}"))
    })
}

/// Whether a source still means a collection, whatever is served.
fn is_meant(work: &ApiServer, (resource, namespace): &Watched) -> bool {
    let is_there = match (&work.namespaces, namespace) {
        (Namespaces::Named(names), Some(namespace)) => names.contains(namespace),
        (Namespaces::All, Some(_)) => false,
        (Namespaces::Named(_) | Namespaces::All, None) => true,
    };
    is_there && work.resources.contains(resource)
}

fn kind_of(resource: &Resource) -> KindName {
    (resource.api_version.clone(), resource.kind.clone())
}
