//! The autoscaler's task: carries what is followed, statistics and wake-ups to the deciders, and their decisions back.
//! Their windows never enter the World.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use jiff::Timestamp;
use knoll_api::{Key, Object, labels, stats::RevisionStat};
use knoll_client::rush::Rush;
use knoll_plan::{Changed, FollowedRevision, ScaleDecision};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    coalescing::CoalescingQueue,
    counters::Counters,
    scaler::{BEGINNING, Scaler},
};

/// The autoscaler.
pub(crate) struct Autoscaler {
    /// What to follow; `None` forgets.
    follow: CoalescingQueue<Key, Option<FollowedRevision>>,
    /// Decisions that changed; `None` when a revision was forgotten.
    decisions: CoalescingQueue<Key, Option<ScaleDecision>>,
    scaler: Scaler,
    rush: Rush,
    /// When the deciders' time began.
    origin: Instant,
}

impl Autoscaler {
    pub(crate) fn new(
        follow: CoalescingQueue<Key, Option<FollowedRevision>>,
        decisions: CoalescingQueue<Key, Option<ScaleDecision>>,
        rush: Rush,
        counters: Arc<Counters>,
    ) -> Self {
        Self { follow, decisions, scaler: Scaler::new(counters), rush, origin: Instant::now() }
    }

    /// Runs for ever: without a gateway it still decides.
    pub(crate) async fn run(
        &mut self,
        stats: &mut mpsc::Receiver<Vec<RevisionStat>>,
        wakes: &mut mpsc::Receiver<Key>,
    ) -> Infallible {
        let follow = self.follow.clone();
        let (mut stats_open, mut wakes_open) = (true, true);
        loop {
            let due = self.scaler.next_due().map(|due| self.origin + (due - BEGINNING));
            tokio::select! {
                biased;
                wake = wakes.recv(), if wakes_open => match wake {
                    Some(revision) => {
                        // Word that comes late is of a request that has its answer by now.
                        if !self.scaler.has_instances(&revision) {
                            self.rush.begin(revision.to_string());
                        }
                        self.scaler.wake(revision, self.now());
                    }
                    None => wakes_open = false,
                },
                changes = follow.take() => {
                    let now = self.now();
                    for (revision, followed) in changes {
                        self.scaler.follow(revision, followed, now);
                    }
                }
                stats = stats.recv(), if stats_open => match stats {
                    Some(stats) => self.scaler.record(&stats, self.now()),
                    None => stats_open = false,
                },
                () = until(due) => self.scaler.tick(self.now()),
            }
            self.pass_on();
        }
    }

    fn now(&self) -> Duration {
        BEGINNING + self.origin.elapsed()
    }

    fn pass_on(&mut self) {
        for (revision, decision) in self.scaler.take_decisions() {
            let decision = decision.map(|decision| ScaleDecision {
                desired: decision.desired,
                excess_burst_capacity: decision.excess_burst_capacity,
                at: Timestamp::now(),
            });
            self.decisions.put(revision, decision);
        }
    }
}

/// Waits until then; for ever when nothing is due.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Revisions whose decider may differ after a change of an object.
pub(crate) fn measured(changed: &Changed) -> BTreeSet<Key> {
    let mut revisions = BTreeSet::new();
    let Changed::Object { before, after } = changed else { return revisions };
    for object in before.iter().chain(after) {
        match object {
            Object::PodAutoscaler(_) | Object::ServerlessService(_) => {
                revisions.insert(object.key());
            }
            Object::Pod(pod) => {
                let labels = pod.metadata.labels.as_ref();
                let name = labels.and_then(|labels| labels.get(labels::serving::REVISION));
                revisions.extend(name.map(|name| object.key().sibling(name.clone())));
            }
            _ => {}
        }
    }
    revisions
}
