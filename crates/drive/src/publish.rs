//! Hands the gateway its table: at once when nothing was handed over lately, else together with what follows shortly.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use knoll_api::{Key, table::RoutingTable};
use knoll_plan::{
    Changed, Observation, World,
    table::{Panics, Routing, Update},
};
use tokio::{sync::watch, time::Instant};

use crate::{
    counters::{Counters, count},
    pace::Pace,
};

/// Changes kept for the next table; more are taken in at once.
const PENDING: usize = 4096;

/// Tables the gateway may be behind before the oldest are joined.
const HANDED: usize = 64;

/// Generations of Ingresses that a table holds.
type Published = BTreeMap<Key, Option<i64>>;

/// Keeps the table and hands it over.
pub(crate) struct Publisher {
    routing: Option<Routing>,
    pending: Vec<Changed>,
    pace: Pace,
    into: watch::Sender<Option<Arc<RoutingTable>>>,
    /// Tables that the gateway was handed and has not taken yet, with what the World is told once it has.
    handed: VecDeque<(Arc<RoutingTable>, Published)>,
    counters: Arc<Counters>,
}

impl Publisher {
    pub(crate) fn new(into: watch::Sender<Option<Arc<RoutingTable>>>, counters: Arc<Counters>) -> Self {
        Self { routing: None, pending: Vec::new(), pace: Pace::new(), into, handed: VecDeque::new(), counters }
    }

    /// Notes a change that the World holds already.
    pub(crate) fn changed(&mut self, change: &Changed) {
        if self.routing.is_some() {
            self.pending.push(change.clone());
        }
    }

    /// When [`Publisher::publish`] has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.pending.is_empty() && !self.routing.as_ref().is_some_and(Routing::is_behind) {
            return None;
        }
        Some(self.pace.next())
    }

    /// Hands over what changed, if it is time.
    pub(crate) fn publish(&mut self, world: &World, now: Instant) {
        if let Some(Update { table, published }) = self.update(world, now) {
            count(&self.counters.published);
            self.handed.push_back((table.clone(), published));
            if self.handed.len() > HANDED {
                self.join_oldest();
            }
            self.into.send_replace(Some(table));
        }
    }

    /// What the gateway holds from here on, now that it routes by `applied`.
    pub(crate) fn applied(&mut self, applied: &Arc<RoutingTable>) -> Vec<Observation> {
        let taken = self.handed.iter().position(|(table, _)| Arc::ptr_eq(table, applied)).map_or(0, |at| at + 1);
        self.handed.drain(..taken).map(|(_, published)| Observation::Published(published)).collect()
    }

    /// A gateway that is behind is told of the oldest table when it takes the next.
    fn join_oldest(&mut self) {
        if let (Some((_, mut oldest)), Some((_, next))) = (self.handed.pop_front(), self.handed.front_mut()) {
            oldest.append(next);
            *next = oldest;
        }
    }

    /// A panic costs the Ingress or backend it happened at: the table keeps what it had of it.
    fn tell_panics(&mut self) {
        let Some(Panics { count, first }) = self.routing.as_mut().map(Routing::take_panics) else { return };
        self.counters.plan_panics.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        let untold = count.saturating_sub(first.len() as u64);
        for (key, panic) in first {
            tracing::error!(%key, panic, "building the routing table panicked; it keeps what it had of this");
        }
        if untold > 0 {
            tracing::error!(untold, "building the routing table panicked elsewhere, too");
        }
    }

    fn update(&mut self, world: &World, now: Instant) -> Option<Update> {
        let due = (self.due().is_some() && self.pace.is_due(now)) || self.pending.len() >= PENDING;
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
        };
        self.tell_panics();
        let update = update?;
        self.pace.handed_over(now, begun.elapsed());
        Some(update)
    }
}
