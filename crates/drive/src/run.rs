//! Assembly and supervision: starts every task, and ends when one of them does.

use std::sync::Arc;

use knoll_api::{Key, Kind, stats::RevisionStat, table::Table};
use knoll_plan::{Settings, World};
use kube::Client;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    api::Api,
    autoscaler,
    control::{Control, Inputs},
    counters::Counters,
    execute::Executor,
    mailbox::Mailbox,
    notes::{self, Recorder},
    publish::Publisher,
    resolve::{self, ResolveDigest},
    watch::Watch,
};

/// Reports of all watches that may wait for the loop. A watch that finds no room waits.
const SIGHTINGS: usize = 1024;
/// Digests that may wait for the loop.
const DIGESTS: usize = 64;

/// What connects the loop with the other planes.
pub struct Links {
    /// The gateway's table.
    pub table: watch::Sender<Arc<Table>>,
    /// The table the gateway routes by: an Ingress is ready once it is in that one.
    pub applied: watch::Receiver<Arc<Table>>,
    /// What the gateway measures, every second.
    pub stats: mpsc::Receiver<Vec<RevisionStat>>,
    /// Revisions with a waiting request and no instance.
    pub wakes: mpsc::Receiver<Key>,
    /// Who knows digests.
    pub resolver: Arc<dyn ResolveDigest>,
    /// Where to count.
    pub counters: Arc<Counters>,
}

/// Why [`run`] ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// A task ended that never should.
    #[error("the task {0} ended")]
    Ended(String),
    /// A task panicked.
    #[error("the task {task} panicked: {message}")]
    Panicked {
        /// Which.
        task: String,
        /// What it said.
        message: String,
    },
}

/// Runs every controller over `client` until `shutdown` ends; then finishes the writes under way (5 s at most).
///
/// Must be called inside a runtime. Before every kind was listed nothing is planned; while the API server does not
/// answer, listing is tried again for ever.
///
/// # Errors
/// When any task inside ends or panics.
pub async fn run(
    client: Client,
    links: Links,
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), DriveError> {
    let counters = links.counters;
    let api = Api::new(client);
    let mut tasks: JoinSet<String> = JoinSet::new();
    let mut names = std::collections::HashMap::new();
    let mut spawn = |name: String, task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        let ended = name.clone();
        let handle = tasks.spawn(async move {
            task.await;
            ended
        });
        names.insert(handle.id(), name);
    };

    let (sightings_in, sightings) = mpsc::channel(SIGHTINGS);
    for kind in Kind::ALL {
        let watch = Watch { kind: *kind, api: api.clone(), into: sightings_in.clone(), counters: counters.clone() };
        spawn(format!("watch {}.{}", kind.plural(), kind.group()), Box::pin(watch.run()));
    }
    drop(sightings_in);

    let (notes_in, notes) = mpsc::channel(notes::WAITING);
    spawn("event recorder".into(), Box::pin(Recorder::new(api.clone(), counters.clone()).run(notes)));

    let asked = Mailbox::new();
    let (digests_in, digests) = mpsc::channel(DIGESTS);
    spawn("digest resolver".into(), Box::pin(resolve::run(asked.clone(), links.resolver, digests_in)));

    let (follow, decisions) = (Mailbox::new(), Mailbox::new());
    let ends = autoscaler::Ends {
        stats: links.stats,
        wakes: links.wakes,
        follow: follow.clone(),
        decisions: decisions.clone(),
    };
    let autoscaler_counters = counters.clone();
    spawn("autoscaler".into(), Box::pin(async move { match autoscaler::run(ends, autoscaler_counters).await {} }));

    let executor = Executor { api, notes: notes_in, digests: asked, counters: counters.clone() };
    let publisher = Publisher::new(links.table, counters.clone());
    let rows = knoll_plan::rows(&settings);
    let control = Control::new(World::new(settings), rows, executor, publisher, follow, counters);
    let inputs = Inputs { sightings, decisions, digests, applied: links.applied };
    tokio::select! {
        biased;
        ended = control.run(inputs, shutdown) => match ended {
            Ok(()) => Ok(()),
            Err(None) => Err(DriveError::Ended("control loop".into())),
            Err(Some(error)) => Err(panicked("write".into(), error)),
        },
        Some(ended) = tasks.join_next_with_id() => Err(match ended {
            Ok((_, name)) => DriveError::Ended(name),
            Err(error) => panicked(names.remove(&error.id()).unwrap_or_default(), error),
        }),
    }
}

fn panicked(task: String, error: tokio::task::JoinError) -> DriveError {
    let message = match error.try_into_panic() {
        Ok(payload) => match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => payload.downcast::<&str>().map_or_else(|_| String::new(), |text| (*text).to_owned()),
        },
        Err(_) => return DriveError::Ended(task),
    };
    DriveError::Panicked { task, message }
}
