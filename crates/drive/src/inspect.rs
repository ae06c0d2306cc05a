//! What the loop shows of itself: readable at any moment, from any thread, and at most a second old while the loop runs.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use knoll_api::metrics::{MetricFamily, MetricKind};
use knoll_plan::{World, graph, graph::Graph};
use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

/// Graphs that may be waited for at a time.
const GRAPHS: usize = 4;
/// How long the loop may take to draw one.
const PATIENCE: Duration = Duration::from_secs(5);

/// A controller, and why it rests.
#[derive(Clone, Debug)]
pub(crate) struct Controller {
    pub(crate) name: &'static str,
    pub(crate) of: String,
    pub(crate) rests: Option<String>,
}

/// A key that waits, and why.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) controller: &'static str,
    pub(crate) key: String,
    pub(crate) why: String,
}

/// One moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moment {
    /// Kind, objects, packed bytes, decoded objects.
    pub(crate) world: Vec<(String, u64, u64, u64)>,
    /// Keys in line by lane.
    pub(crate) queued: Vec<(&'static str, u64)>,
    pub(crate) in_flight: u64,
    pub(crate) failing: u64,
    /// Controllers whose keys are being looked at again, all of them.
    pub(crate) sweeps: u64,
    pub(crate) controllers: Vec<Controller>,
    /// The first few keys that wait.
    pub(crate) waiting: Vec<Waiting>,
}

/// What the loop shows of itself. Clones show the same loop.
#[derive(Clone, Debug)]
pub struct Inspect {
    latest: Arc<Mutex<Moment>>,
    wanted: mpsc::Sender<WantedGraph>,
    /// Those that a loop has not drawn yet: its successor's after a panic.
    waiting: Arc<AsyncMutex<mpsc::Receiver<WantedGraph>>>,
}

/// A graph that somebody waits for.
#[derive(Debug)]
pub(crate) struct WantedGraph {
    namespace: Option<String>,
    most: usize,
    answer: oneshot::Sender<Graph>,
}

impl WantedGraph {
    /// Draws it.
    pub(crate) fn draw(self, world: &World) {
        // Whoever does not wait any more needs none.
        if !self.answer.is_closed() {
            drop(self.answer.send(graph::of(world, self.namespace.as_deref(), self.most)));
        }
    }
}

impl Default for Inspect {
    fn default() -> Self {
        let (wanted, waiting) = mpsc::channel(GRAPHS);
        Self { latest: Arc::default(), wanted, waiting: Arc::new(AsyncMutex::new(waiting)) }
    }
}

impl Inspect {
    /// Who sends what to whom, in one namespace or all of them, of `most` objects at most; nothing when the loop does not
    /// answer within five seconds, or several wait already.
    pub async fn graph(&self, namespace: Option<String>, most: usize) -> Option<Graph> {
        let (answer, answered) = oneshot::channel();
        self.wanted.try_send(WantedGraph { namespace, most, answer }).ok()?;
        tokio::time::timeout(PATIENCE, answered).await.ok()?.ok()
    }

    /// The next graph that somebody waits for.
    pub(crate) async fn wanted(&self) -> Option<WantedGraph> {
        self.waiting.lock().await.recv().await
    }

    pub(crate) fn show(&self, moment: Moment) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = moment;
    }

    fn latest(&self) -> Moment {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sizes of the World and the queue.
    pub fn metrics(&self) -> Vec<MetricFamily> {
        let now = self.latest();
        let by_kind = |name, help, of: fn(&(String, u64, u64, u64)) -> u64| {
            let values: Vec<_> = now.world.iter().map(|kind| (kind.0.clone(), of(kind))).collect();
            MetricFamily::by(name, help, MetricKind::Gauge, "kind", values)
        };
        let lanes: Vec<_> = now.queued.iter().map(|(lane, keys)| ((*lane).to_owned(), *keys)).collect();
        let resting = now.controllers.iter().filter(|controller| controller.rests.is_some()).count();
        vec![
            by_kind("world_objects", "Objects that controllers know", |kind| kind.1),
            by_kind("world_packed_bytes", "Size of the objects that are kept packed", |kind| kind.2),
            by_kind("world_decoded_objects", "Objects that are kept decoded", |kind| kind.3),
            MetricFamily::by("queue_keys", "Keys in line to be planned", MetricKind::Gauge, "lane", lanes),
            MetricFamily::gauge("queue_in_flight", "Keys whose plans are being carried out", now.in_flight),
            MetricFamily::gauge("queue_failing", "Keys that could not be planned well last time", now.failing),
            MetricFamily::gauge("queue_sweeps", "Controllers whose keys are all being looked at again", now.sweeps),
            MetricFamily::gauge(
                "controllers_resting",
                "Controllers that rest until their kinds are served and listed",
                u64::try_from(resting).unwrap_or(u64::MAX),
            ),
        ]
    }

    /// All of it, for people.
    pub fn dump(&self) -> Value {
        let now = self.latest();
        let world = now.world.iter().map(|(kind, objects, packed, decoded)| {
            json!({"kind": kind, "objects": objects, "packedBytes": packed, "decoded": decoded})
        });
        let controllers = now
            .controllers
            .iter()
            .map(|controller| json!({"name": controller.name, "of": controller.of, "rests": controller.rests}));
        let waiting = now
            .waiting
            .iter()
            .map(|waiting| json!({"controller": waiting.controller, "key": waiting.key, "why": waiting.why}));
        json!({
            "world": world.collect::<Vec<_>>(),
            "queue": {
                "queued": now.queued.iter().map(|(lane, keys)| json!({"lane": lane, "keys": keys})).collect::<Vec<_>>(),
                "inFlight": now.in_flight, "failing": now.failing, "sweeps": now.sweeps,
            },
            "controllers": controllers.collect::<Vec<_>>(),
            "waiting": waiting.collect::<Vec<_>>(),
        })
    }
}
