//! Decides how many instances every revision needs: statistics and wake-ups in, decisions out. Its windows never
//! enter the World.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use knoll_api::{Key, stats::RevisionStat};
use knoll_plan::{FollowedRevision, ScaleDecision};
use knoll_scale::{Decider, Stat};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};

use crate::{
    counters::{Counters, count},
    mailbox::Mailbox,
};

/// How often every revision is decided.
const TICK: Duration = Duration::from_secs(2);
/// Wake-ups remembered for revisions that are not followed yet.
const EARLY_WAKES: usize = 1024;

/// What the autoscaler hears and says.
pub(crate) struct Ends {
    /// Statistics from the gateway.
    pub(crate) stats: mpsc::Receiver<Vec<RevisionStat>>,
    /// Revisions with a waiting request and no instance.
    pub(crate) wakes: mpsc::Receiver<Key>,
    /// What to follow; `None` forgets.
    pub(crate) follow: Mailbox<Key, Option<FollowedRevision>>,
    /// Decisions that changed; `None` when a revision was forgotten.
    pub(crate) decisions: Mailbox<Key, Option<ScaleDecision>>,
}

struct Followed {
    decider: Decider,
    ready: u32,
    /// What was last said.
    said: Option<ScaleDecision>,
}

/// The autoscaler.
pub(crate) struct Autoscaler {
    followed: BTreeMap<Key, Followed>,
    early: BTreeSet<Key>,
    decisions: Mailbox<Key, Option<ScaleDecision>>,
    counters: Arc<Counters>,
    /// Beginning of the deciders' time.
    origin: Instant,
}

/// Runs for ever: without a gateway it still ticks.
pub(crate) async fn run(mut ends: Ends, counters: Arc<Counters>) -> std::convert::Infallible {
    let mut autoscaler = Autoscaler {
        followed: BTreeMap::new(),
        early: BTreeSet::new(),
        decisions: ends.decisions.clone(),
        counters,
        origin: Instant::now(),
    };
    let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut stats_open, mut wakes_open) = (true, true);
    loop {
        tokio::select! {
            biased;
            wake = ends.wakes.recv(), if wakes_open => match wake {
                Some(revision) => autoscaler.wake(revision),
                None => wakes_open = false,
            },
            changes = ends.follow.take() => {
                for (revision, followed) in changes {
                    autoscaler.follow(revision, followed);
                }
            }
            stats = ends.stats.recv(), if stats_open => match stats {
                Some(stats) => autoscaler.record(&stats),
                None => stats_open = false,
            },
            _ = tick.tick() => autoscaler.tick(),
        }
    }
}

impl Autoscaler {
    /// Time as the deciders count it. Starts at a day, so that windows may look back.
    fn now(&self) -> Duration {
        Duration::from_secs(86_400) + self.origin.elapsed()
    }

    fn follow(&mut self, revision: Key, followed: Option<FollowedRevision>) {
        let now = self.now();
        let Some(FollowedRevision { spec, ready, .. }) = followed else {
            if self.followed.remove(&revision).is_some() {
                self.decisions.put(revision, None);
            }
            return;
        };
        match self.followed.get_mut(&revision) {
            Some(known) => {
                known.ready = ready;
                if *known.decider.spec() != spec
                    && let Err(error) = known.decider.update_spec(spec)
                {
                    tracing::warn!(%revision, %error, "the autoscaler keeps the earlier settings");
                }
            }
            None => match Decider::new(spec, now, ready) {
                Ok(decider) => {
                    self.followed.insert(revision.clone(), Followed { decider, ready, said: None });
                }
                Err(error) => {
                    tracing::warn!(%revision, %error, "the autoscaler cannot follow a revision");
                    return;
                }
            },
        }
        if self.early.remove(&revision) {
            self.wake(revision);
        }
    }

    /// A request waits: decides at once.
    fn wake(&mut self, revision: Key) {
        let now = self.now();
        let Some(followed) = self.followed.get_mut(&revision) else {
            if self.early.len() < EARLY_WAKES {
                self.early.insert(revision);
            } else {
                count(&self.counters.wakes_dropped);
            }
            return;
        };
        followed.decider.wake(now);
        self.decide(&revision, now);
    }

    fn record(&mut self, stats: &[RevisionStat]) {
        let now = self.now();
        for stat in stats {
            let Some(followed) = self.followed.get_mut(&stat.revision) else { continue };
            let period = if stat.period_seconds > 0.0 { stat.period_seconds } else { 1.0 };
            let stat_now =
                Stat { concurrency: stat.average_concurrency, requests_per_second: stat.request_count / period };
            followed.decider.record(now, stat_now);
            // Load on a revision that was decided to need nothing does not wait for the tick.
            if stat.average_concurrency > 0.0 && followed.decider.last().desired == 0 {
                self.decide(&stat.revision, now);
            }
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        let revisions: Vec<Key> = self.followed.keys().cloned().collect();
        for revision in revisions {
            self.decide(&revision, now);
        }
    }

    /// Decides, and says so when that differs in what plans look at: the number, and whether there is room to spare.
    fn decide(&mut self, revision: &Key, now: Duration) {
        let Some(followed) = self.followed.get_mut(revision) else { return };
        let decision = followed.decider.decide(now, followed.ready);
        let spare = |burst: i64| burst >= 0;
        let same = followed.said.is_some_and(|said| {
            said.desired == decision.desired
                && spare(said.excess_burst_capacity) == spare(decision.excess_burst_capacity)
        });
        if same {
            return;
        }
        let said = ScaleDecision {
            desired: decision.desired,
            excess_burst_capacity: decision.excess_burst_capacity,
            at: Timestamp::now(),
        };
        followed.said = Some(said);
        count(&self.counters.decided);
        self.decisions.put(revision.clone(), Some(said));
    }
}
