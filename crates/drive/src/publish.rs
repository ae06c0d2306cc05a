//! Hands the gateway its table: at once when nothing was handed over lately, else together with what follows shortly.

use std::{sync::Arc, time::Duration};

use knoll_api::table::Table;
use knoll_plan::{Changed, Observation, World, table::Routing};
use tokio::{sync::watch, time::Instant};

use crate::counters::{Counters, count};

/// Shortest time between two tables; changes in between come together.
const APART: Duration = Duration::from_millis(2);
/// That time again, as a multiple of what the last table cost: however many hosts, tables take a fifth of the loop.
const APART_BY_COST: u32 = 4;
/// Changes kept for the next table; more are taken in at once.
const PENDING: usize = 4096;

/// Keeps the table and hands it over.
pub(crate) struct Publisher {
    routing: Option<Routing>,
    pending: Vec<Changed>,
    last: Option<Instant>,
    apart: Duration,
    into: watch::Sender<Arc<Table>>,
    counters: Arc<Counters>,
}

impl Publisher {
    pub(crate) fn new(into: watch::Sender<Arc<Table>>, counters: Arc<Counters>) -> Self {
        Self { routing: None, pending: Vec::new(), last: None, apart: APART, into, counters }
    }

    /// Notes a change that the World holds already.
    pub(crate) fn changed(&mut self, change: &Changed) {
        if self.routing.is_some() {
            self.pending.push(change.clone());
        }
    }

    /// When [`Publisher::publish`] has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.pending.is_empty() {
            return None;
        }
        Some(self.last.map_or_else(Instant::now, |last| last + self.apart))
    }

    /// Hands over what changed, if it is time. What the gateway holds then is told to the World.
    pub(crate) fn publish(&mut self, world: &World, now: Instant) -> Option<Observation> {
        let due = self.due().is_some_and(|due| due <= now) || self.pending.len() >= PENDING;
        let begun = Instant::now();
        let update = match &mut self.routing {
            None => {
                let (routing, update) = Routing::new(world);
                self.routing = Some(routing);
                Some(update)
            }
            Some(routing) if due => {
                let changes = std::mem::take(&mut self.pending);
                routing.update(world, &changes)
            }
            Some(_) => None,
        }?;
        self.apart = APART.max(begun.elapsed() * APART_BY_COST);
        self.last = Some(now);
        count(&self.counters.published);
        self.into.send_replace(update.table);
        Some(Observation::Published(update.published))
    }
}
