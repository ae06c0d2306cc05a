//! The parts, put together and begun again when one fails.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use knoll_api::{Kind, metrics::MetricFamily};
use knoll_broker::Sender;
use knoll_faults::{Pauses, caught};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    Applied, Config, ConfigError, Snapshots,
    api_server::{Memory, Watchers},
    applied::Board,
    schedules::Schedules,
    sending::Outlet,
};

/// What the wall clock says.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Makes a client of the API that is this namespace's ServiceAccount of this name.
pub type Clients =
    Arc<dyn Fn(Arc<str>, Arc<str>) -> BoxFuture<'static, Result<knoll_client::Client, String>> + Send + Sync>;

/// What others do for sources.
#[derive(Clone)]
pub struct Hooks {
    /// The wall clock, by which schedules are kept. It may jump.
    pub clock: Clock,
    /// Makes clients of the API; without it no ApiServerSource is carried out.
    pub clients: Option<Clients>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { clock: Arc::new(Timestamp::now), clients: None }
    }
}

/// The sources of a process. Cheap to clone.
#[derive(Clone)]
pub struct Adapters {
    outlet: Arc<Outlet>,
    snapshots: Snapshots,
    hooks: Hooks,
    board: Board,
    memory: Memory,
}

impl Adapters {
    /// Puts them together. They act on the newest of `snapshots`.
    ///
    /// # Errors
    /// When a setting is out of its range.
    pub fn new(snapshots: Snapshots, sender: Sender, config: Config, hooks: Hooks) -> Result<Self, ConfigError> {
        let outlet = Outlet::new(sender, config.checked()?);
        Ok(Self { outlet: Arc::new(outlet), snapshots, hooks, board: Board::new(), memory: Memory::default() })
    }

    /// Carries sources out until `end`, then finishes what is being sent within [`Config::grace`]. Dropped, it ends at once.
    /// It is called once at a time.
    pub async fn run(&self, end: impl Future<Output = ()>) {
        let ending = watch::Sender::new(false);
        let ended = || {
            let mut ended = ending.subscribe();
            // The other end is above.
            async move { drop(ended.wait_for(|is_ended| *is_ended).await) }
        };
        let schedules = self.begin_again_and_again("schedules", Kind::PingSource, || {
            let (outlet, clock) = (self.outlet.clone(), self.hooks.clock.clone());
            Schedules::new(outlet, clock, self.board.clone()).run(self.snapshots.clone(), ended())
        });
        let watchers = self.begin_again_and_again("watches", Kind::ApiServerSource, || {
            let (outlet, hooks) = (self.outlet.clone(), self.hooks.clone());
            Watchers::new(outlet, hooks, self.board.clone(), self.memory.clone()).run(self.snapshots.clone(), ended())
        });
        let told = async {
            end.await;
            ending.send_replace(true);
        };
        tokio::join!(schedules, watchers, told);
        self.board.clear();
    }

    /// Lives a life after the other until one ends by itself; after a panic the next takes everything from the snapshot.
    async fn begin_again_and_again<L: Future<Output = ()>>(&self, part: &str, of: Kind, mut life: impl FnMut() -> L) {
        let mut pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(5), Duration::from_secs(60));
        loop {
            let begun = Instant::now();
            // Called inside, too: the call itself may panic, not only what it returns.
            let Err(panic) = caught(async { life().await }).await else { return };
            self.outlet.metrics.panics.count(of);
            tracing::error!(part, panic, "a part of the sources panicked; it begins again");
            sleep(pauses.after(begun.elapsed())).await;
        }
    }

    /// What is being carried out, as it changes.
    pub fn applied(&self) -> watch::Receiver<Applied> {
        self.board.subscribe()
    }

    /// What they count.
    pub fn metrics(&self) -> Vec<MetricFamily> {
        let mut families = self.outlet.metrics.read();
        let (known, carried) = self.board.subscribe().borrow().counts();
        families.push(MetricFamily::gauge("sources_known", "Sources that run in this process", known));
        families.push(MetricFamily::gauge("sources_carried", "Sources that are being carried out", carried));
        families
    }
}
