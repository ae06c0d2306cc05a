//! Assembly and supervision: starts every task, and ends when one of them does.

use std::{
    collections::BTreeSet,
    pin::{Pin, pin},
    sync::Arc,
};

use jiff::Timestamp;
use knoll_api::{
    Key,
    clock::{Reading, SteadyClock},
    stats::RevisionStat,
    table::RoutingTable,
};
use knoll_client::{Client, rush::Rush};
use knoll_faults::caught;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use crate::{
    api::Api,
    autoscaler::Autoscaler,
    coalescing::CoalescingQueue,
    control::{ControlLoop, End, Inputs},
    counters::Counters,
    ducks::DuckWatches,
    events::{EventLinks, EventPublisher, SourceLinks, SourcePublisher},
    execute::Executor,
    inspect::Inspect,
    lives::Lives,
    publish::Publisher,
    recorder,
    resolve::{self, ResolveDigest},
    role::Role,
    untyped::UntypedWatches,
    watch::{First, Watch},
};

/// Reports of all watches that may wait for the loop. A watch that finds no room waits.
const REPORTS: usize = 1024;
/// Digests, and what is seen of kinds that no controller knows, that may wait for the loop.
const OBSERVATIONS: usize = 64;
/// The same of what is seen of kinds that controllers do not know as types.
const SIGHTINGS: usize = 256;

/// What the machine's clocks say whenever it is called.
pub type Clocks = Arc<dyn Fn() -> Reading + Send + Sync>;

/// The clocks of this machine.
pub fn clocks() -> Clocks {
    Arc::new(|| (Instant::now().into_std(), Timestamp::now()))
}

/// What connects the loop with the other planes.
pub struct Links {
    /// The gateway's table; `None` until everything a table is made of was listed.
    pub table: watch::Sender<Option<Arc<RoutingTable>>>,
    /// The table the gateway routes by: an Ingress is ready once it is in that one.
    pub applied: watch::Receiver<Option<Arc<RoutingTable>>>,
    /// What the gateway measures, every second.
    pub stats: mpsc::Receiver<Vec<RevisionStat>>,
    /// Revisions with a waiting request and no instance.
    pub wakes: mpsc::Receiver<Key>,
    /// The data plane of events; nothing where it is not in this process.
    pub events: Option<EventLinks>,
    /// The sources; nothing where they are not in this process.
    pub sources: Option<SourceLinks>,
    /// What requests wait for: where node and gateway are in this process, the node ends what the autoscaler begins.
    pub rush: Rush,
    /// Who knows digests; nobody where no controller of the role asks.
    pub resolver: Option<Arc<dyn ResolveDigest>>,
    /// Where to count.
    pub counters: Arc<Counters>,
    /// Where to show how things stand.
    pub inspect: Inspect,
    /// What time it is.
    pub clocks: Clocks,
}

impl Default for Links {
    /// Of a process that is connected with none: there is no table, nothing is measured, and no digest found out.
    fn default() -> Links {
        let (table, applied) = watch::channel(None);
        let ((_, stats), (_, wakes)) = (mpsc::channel(1), mpsc::channel(1));
        Links {
            table,
            applied,
            stats,
            wakes,
            events: None,
            sources: None,
            rush: Rush::default(),
            resolver: None,
            counters: Arc::default(),
            inspect: Inspect::default(),
            clocks: clocks(),
        }
    }
}

/// Why [`run`] ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// A task ended that never should.
    #[error("the task {0} ended")]
    Ended(String),
}

/// Runs every controller over `client` until `shutdown` ends; then finishes the writes under way (5 s at most).
///
/// Must be called inside a runtime. A controller plans once every kind that it reads was listed; while the API server
/// does not answer, listing is tried again for ever. A panic costs the key, note, image or revision it happened at; one that
/// cannot be pinned on any costs the task, which begins again with its state rebuilt.
///
/// # Errors
/// When a task inside ends that never should.
pub async fn run(
    client: Client,
    role: Role,
    mut links: Links,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), DriveError> {
    let api = Api::new(client);
    let mut shutdown = pin!(shutdown);
    let mut lives = Lives::new("control loop");
    loop {
        // Everything that was known is dropped with the tasks, and listed again by the next.
        let life = Box::pin(lead(&api, &role, &mut links, shutdown.as_mut()));
        match caught(life).await {
            Ok(Some(ended)) => return ended,
            Ok(None) => {}
            Err(panic) => tokio::select! {
                () = lives.ended(&panic, &links.counters) => {}
                () = shutdown.as_mut() => return Ok(()),
            },
        }
    }
}

/// Lives once it may. Nothing when it may no longer.
async fn lead(
    api: &Api,
    role: &Role,
    links: &mut Links,
    mut shutdown: Pin<&mut (dyn Future<Output = ()> + Send)>,
) -> Option<Result<(), DriveError>> {
    let Some(lease) = &role.lease else { return Some(Box::pin(live(api, role, links, shutdown)).await) };
    let held = tokio::select! {
        () = shutdown.as_mut() => return Some(Ok(())),
        held = lease.acquire(api) => held,
    };
    // What is under way when the lease is lost is dropped at once: the next leader makes it good.
    let ended = tokio::select! {
        ended = live(api, role, links, shutdown) => Some(ended),
        () = lease.keep(api, held) => None,
    };
    if ended.is_some() {
        lease.release(api).await;
    }
    ended
}

async fn live(
    api: &Api,
    role: &Role,
    links: &mut Links,
    shutdown: Pin<&mut (dyn Future<Output = ()> + Send)>,
) -> Result<(), DriveError> {
    let Links { table, applied, stats, wakes, events, sources, rush, resolver, counters, inspect, clocks } = links;
    let counters = counters.clone();
    let mut tasks: JoinSet<&'static str> = JoinSet::new();
    let (reports_in, reports) = mpsc::channel(REPORTS);
    let first = First::new();
    for kind in role.kinds() {
        let watch = Watch {
            kind,
            collection: role.collection(kind),
            configuration: role.configuration(kind),
            first: role.routes_by(kind).then(|| first.clone()),
            after: first.after(),
            client: api.client().clone(),
            into: reports_in.clone(),
            counters: counters.clone(),
        };
        spawn(&mut tasks, "watch", watch.run());
    }
    let sightings = role.rows.collector().map(|_| {
        let (into, sightings) = mpsc::channel(SIGHTINGS);
        let (api, after, counters) = (api.clone(), first.after(), counters.clone());
        spawn(&mut tasks, "watches of other kinds", UntypedWatches { api, after, into, counters }.run());
        sightings
    });
    drop((first, reports_in));

    let (recorder, recording) = recorder::recorder(api.client().clone(), rush.clone(), counters.clone());
    spawn(&mut tasks, "event recorder", recorder::run(recording, counters.clone()));

    let asked = CoalescingQueue::new();
    let (observations_in, observations) = mpsc::channel(OBSERVATIONS);
    let (ducks, wanted) = watch::channel(BTreeSet::new());
    let duck_watches = DuckWatches::new(api.clone(), wanted, observations_in.clone());
    spawn(&mut tasks, "watches of kinds that are referred to", duck_watches.run(counters.clone()));
    let clocks = clocks.clone();
    let clock = Arc::new(SteadyClock::new(move || clocks()));
    if let Some(resolver) = resolver {
        let resolving = resolve::run(asked.clone(), resolver.clone(), observations_in, counters.clone(), clock.clone());
        spawn(&mut tasks, "digest resolver", resolving);
    }

    let (follow, decisions) = (CoalescingQueue::new(), CoalescingQueue::new());
    let mut autoscaler = Autoscaler::new(follow.clone(), decisions.clone(), rush.clone(), counters.clone());
    let autoscaling = autoscaler.run(stats, wakes);

    let api = api.clone();
    let executor = Executor { api, events: recorder, digests: asked, counters: counters.clone(), clock };
    let publisher = Publisher::new(table.clone(), counters.clone());
    let adopted = events.as_ref().map(|links| links.adopted.clone());
    let events = events.clone().map(|links| EventPublisher::new(links, counters.clone()));
    let running = sources.as_ref().map(SourceLinks::running);
    let sources = sources.clone().map(|links| SourcePublisher::new(links, counters.clone()));
    let publishers = (events, sources, ducks);
    let control = ControlLoop::new(role, executor, publisher, publishers, follow, rush.clone(), inspect.clone());
    let inputs = Inputs { reports, decisions, observations, sightings, applied, adopted, running, shutdown };
    tokio::select! {
        biased;
        ended = control.run(inputs) => match ended {
            End::Shutdown => Ok(()),
            End::Deaf => Err(DriveError::Ended("watch".into())),
        },
        Some(ended) = tasks.join_next() => match ended {
            Ok(name) => Err(DriveError::Ended(name.into())),
            // What cannot be caught inside goes the way of a panic in the loop itself.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        },
        never = autoscaling => match never {},
    }
}

fn spawn(tasks: &mut JoinSet<&'static str>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        task.await;
        name
    });
}
