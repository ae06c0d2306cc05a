//! How many instances every revision needs: statistics and wake-ups in, decisions out. Time is an argument, so that the
//! simulation runs this very code.
//!
//! Costs: a revision with something to decide is decided every two seconds; one at rest (no traffic in its windows, no
//! panic, nothing held back) is not looked at again until it is heard of. Hearing of one is logarithmic in the number
//! of revisions under way.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use knoll_api::{Key, stats::RevisionStat};
use knoll_faults::catch;
use knoll_plan::FollowedRevision;
use knoll_scale::{Decider, DeciderSpec, ScaleResult, Stat};

use crate::counters::{Counters, count};

/// How often a revision with something to decide is decided.
const TICK: Duration = Duration::from_secs(2);
/// Revisions due within this are decided together.
const TOGETHER: Duration = Duration::from_millis(50);
/// Wake-ups remembered for revisions that are not followed yet.
const EARLY_WAKES: usize = 1024;
/// Panics after which a revision is no longer followed, until what is asked of it changes.
const PATIENCE: u32 = 3;

struct Followed {
    decider: Decider,
    ready: u32,
    /// What was last said.
    said: Option<ScaleResult>,
    /// When it is decided next; nothing when it is at rest.
    due: Option<Duration>,
}

/// The deciders of all revisions. Their time begins at [`BEGINNING`], so that windows may look back.
pub struct Scaler {
    /// Decisions that changed and nobody has taken; `None` when a revision was forgotten.
    decisions: BTreeMap<Key, Option<ScaleResult>>,
    followed: HashMap<Key, Followed>,
    due: BTreeSet<(Duration, Key)>,
    early: BTreeSet<Key>,
    /// Revisions whose decider panicked, with what was asked of them and how often in a row.
    panicked: BTreeMap<Key, (DeciderSpec, u32)>,
    counters: Arc<Counters>,
}

/// Where the deciders' time begins: a day.
pub const BEGINNING: Duration = Duration::from_secs(86_400);

impl Scaler {
    /// One that follows nothing yet.
    pub fn new(counters: Arc<Counters>) -> Scaler {
        Scaler {
            decisions: BTreeMap::new(),
            followed: HashMap::new(),
            due: BTreeSet::new(),
            early: BTreeSet::new(),
            panicked: BTreeMap::new(),
            counters,
        }
    }

    /// Decisions that changed since they were last taken; `None` for a revision that is followed no more.
    pub fn take_decisions(&mut self) -> BTreeMap<Key, Option<ScaleResult>> {
        std::mem::take(&mut self.decisions)
    }

    /// When [`Scaler::tick`] has something to do.
    pub fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Follows a revision as it is said, or no more.
    pub fn follow(&mut self, revision: Key, followed: Option<FollowedRevision>, now: Duration) {
        let Some(FollowedRevision { spec, ready, .. }) = followed else {
            self.panicked.remove(&revision);
            self.forget(&revision);
            return;
        };
        let given_up = |(asked, panics): &(DeciderSpec, u32)| *panics >= PATIENCE && *asked == spec;
        if self.panicked.get(&revision).is_some_and(given_up) {
            return;
        }
        match self.followed.get_mut(&revision) {
            Some(known) if known.ready == ready && *known.decider.spec() == spec => return,
            Some(known) => {
                known.ready = ready;
                let updated =
                    if *known.decider.spec() == spec { Ok(Ok(())) } else { catch(|| known.decider.update_spec(spec)) };
                match updated {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(%revision, %error, "the autoscaler keeps the earlier settings");
                    }
                    Err(panic) => return self.panicked(&revision, spec, ready, &panic, now),
                }
            }
            None => {
                if !self.begin(&revision, spec, ready, now) {
                    return;
                }
            }
        }
        self.schedule(&revision, now + TICK);
        if self.early.remove(&revision) {
            self.wake(revision, now);
        }
    }

    /// Follows a revision from nothing. Whether that could be.
    fn begin(&mut self, revision: &Key, spec: DeciderSpec, ready: u32, now: Duration) -> bool {
        match catch(|| Decider::new(spec, now, ready)) {
            Ok(Ok(decider)) => {
                self.followed.insert(revision.clone(), Followed { decider, ready, said: None, due: None });
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(%revision, %error, "the autoscaler cannot follow a revision");
                false
            }
            Err(panic) => {
                self.panicked(revision, spec, ready, &panic, now);
                false
            }
        }
    }

    fn forget(&mut self, revision: &Key) {
        if let Some(known) = self.followed.remove(revision) {
            if let Some(due) = known.due {
                self.due.remove(&(due, revision.clone()));
            }
            self.decisions.insert(revision.clone(), None);
        }
    }

    /// A decider that panicked begins anew, with empty windows; after a few times the revision is left as it is until
    /// something else is asked of it.
    fn panicked(&mut self, revision: &Key, spec: DeciderSpec, ready: u32, panic: &str, now: Duration) {
        count(&self.counters.plan_panics);
        let (asked, panics) = self.panicked.entry(revision.clone()).or_insert((spec, 0));
        *panics = if *asked == spec { panics.saturating_add(1) } else { 1 };
        *asked = spec;
        let given_up = *panics >= PATIENCE;
        tracing::error!(%revision, panic, given_up, "deciding the scale of a revision panicked");
        if given_up {
            count(&self.counters.quarantined);
            self.forget(revision);
            return;
        }
        let said = self.followed.remove(revision).and_then(|known| {
            known.due.map(|due| self.due.remove(&(due, revision.clone())));
            known.said
        });
        if self.begin(revision, spec, ready, now) {
            if let Some(known) = self.followed.get_mut(revision) {
                known.said = said;
            }
            self.schedule(revision, now + TICK);
        }
    }

    /// Has a revision decided at `at`, or sooner if that was said already.
    fn schedule(&mut self, revision: &Key, at: Duration) {
        let Some(known) = self.followed.get_mut(revision) else { return };
        if known.due.is_none_or(|due| due > at) {
            if let Some(due) = known.due.replace(at) {
                self.due.remove(&(due, revision.clone()));
            }
            self.due.insert((at, revision.clone()));
        }
    }

    /// Whether a revision is known to have instances that take requests.
    pub fn has_instances(&self, revision: &Key) -> bool {
        self.followed.get(revision).is_some_and(|known| known.ready > 0)
    }

    /// A request waits: decides at once.
    pub fn wake(&mut self, revision: Key, now: Duration) {
        if !self.followed.contains_key(&revision) {
            if self.early.len() >= EARLY_WAKES {
                // Of revisions that never come, most likely; the gateway says again what still waits.
                self.counters.wakes_dropped.fetch_add(self.early.len() as u64, std::sync::atomic::Ordering::Relaxed);
                self.early.clear();
            }
            self.early.insert(revision);
            return;
        }
        if self.tell(&revision, now, |decider| decider.wake(now)) {
            self.decide(&revision, now);
        }
    }

    /// Takes a period's statistics in.
    pub fn record(&mut self, stats: &[RevisionStat], now: Duration) {
        for stat in stats {
            let period = if stat.period_seconds > 0.0 { stat.period_seconds } else { 1.0 };
            let requests_per_second = stat.request_count / period;
            let report = Stat { concurrency: stat.average_concurrency, requests_per_second };
            if !self.tell(&stat.revision, now, |decider| decider.record(now, report)) {
                continue;
            }
            // Load on a revision that was decided to need nothing does not wait for the tick.
            let idle = self.followed.get(&stat.revision).is_some_and(|known| known.decider.last().desired == 0);
            if stat.average_concurrency > 0.0 && idle {
                self.decide(&stat.revision, now);
            } else {
                self.schedule(&stat.revision, now + TICK);
            }
        }
    }

    /// Tells a decider something. Whether there is one and it took it well.
    fn tell(&mut self, revision: &Key, now: Duration, something: impl FnOnce(&mut Decider)) -> bool {
        let Some(known) = self.followed.get_mut(revision) else { return false };
        let (spec, ready) = (*known.decider.spec(), known.ready);
        match catch(|| something(&mut known.decider)) {
            Ok(()) => true,
            Err(panic) => {
                self.panicked(revision, spec, ready, &panic, now);
                false
            }
        }
    }

    /// Decides what is due.
    pub fn tick(&mut self, now: Duration) {
        while let Some((_, revision)) = self.due.first().filter(|(due, _)| *due <= now + TOGETHER).cloned() {
            self.decide(&revision, now);
        }
    }

    /// Decides, and says so when that differs in what plans look at: the number, and whether there is room to spare.
    fn decide(&mut self, revision: &Key, now: Duration) {
        let Some(known) = self.followed.get_mut(revision) else { return };
        if let Some(due) = known.due.take() {
            self.due.remove(&(due, revision.clone()));
        }
        let (spec, ready) = (*known.decider.spec(), known.ready);
        let decision = match catch(|| known.decider.decide(now, ready)) {
            Ok(decision) => decision,
            Err(panic) => return self.panicked(revision, spec, ready, &panic, now),
        };
        self.panicked.remove(revision);
        let at_rest = known.decider.is_at_rest(now);
        let spare = |burst: i64| burst >= 0;
        let same = known.said.is_some_and(|said| {
            said.desired == decision.desired
                && spare(said.excess_burst_capacity) == spare(decision.excess_burst_capacity)
        });
        if !same {
            known.said = Some(decision);
            count(&self.counters.decided);
            self.decisions.insert(revision.clone(), Some(decision));
        }
        if !at_rest {
            self.schedule(revision, now + TICK);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use knoll_plan::{Settings, World};
    use serde_json::json;

    use super::*;

    /// What a plain revision asks for.
    fn spec() -> DeciderSpec {
        let mut world = World::new(Settings::default());
        let put = |world: &mut World, kind, status: serde_json::Value| {
            let value = json!({"metadata": {"namespace": "a", "name": "r"}, "spec": {}, "status": status});
            let object = knoll_api::Object::from_json(kind, value).expect("an object");
            world.apply(knoll_plan::Change::Put(object));
        };
        put(&mut world, knoll_api::Kind::PodAutoscaler, json!({}));
        put(&mut world, knoll_api::Kind::ServerlessService, json!({"privateServiceName": "p"}));
        knoll_plan::decider(&world, &Key::new("a", "r")).expect("a decider").spec
    }

    fn scaler() -> Scaler {
        Scaler::new(Arc::default())
    }

    fn follow(scaler: &mut Scaler, name: &str, spec: DeciderSpec) -> Key {
        let revision = Key::new("a", name);
        let followed = FollowedRevision { revision: revision.clone(), spec, ready: 0 };
        scaler.follow(revision.clone(), Some(followed), BEGINNING);
        revision
    }

    #[test]
    fn revisions_at_rest_are_not_looked_at() {
        let mut scaler = scaler();
        for at in 0..10_000 {
            follow(&mut scaler, &format!("r{at}"), spec());
        }
        let mut now = BEGINNING + TICK;
        scaler.tick(now);
        assert!(scaler.due.is_empty(), "nothing is due for revisions without traffic");

        let woken = Key::new("a", "r7");
        scaler.wake(woken.clone(), now);
        assert_eq!(scaler.due.len(), 1, "one with traffic is");
        assert_eq!(scaler.followed[&woken].said.map(|said| said.desired), Some(1));
        for _ in 0..200 {
            now += TICK;
            scaler.tick(now);
        }
        assert!(scaler.due.is_empty(), "it came to rest");
        assert_eq!(scaler.followed[&woken].said.map(|said| said.desired), Some(0));
    }

    #[test]
    fn a_decider_that_panics_costs_its_revision_alone() {
        let mut scaler = scaler();
        // A window that no memory holds: the first report panics.
        let absurd = DeciderSpec { stable_window: Duration::MAX, ..spec() };
        let (bad, good) = (follow(&mut scaler, "bad", absurd), follow(&mut scaler, "good", spec()));
        for _ in 0..PATIENCE {
            scaler.wake(bad.clone(), BEGINNING);
        }
        scaler.wake(good.clone(), BEGINNING);
        assert_eq!(scaler.counters.plan_panics.load(Relaxed), u64::from(PATIENCE));
        assert_eq!(scaler.followed[&good].said.map(|said| said.desired), Some(1));
        assert!(!scaler.followed.contains_key(&bad));
        follow(&mut scaler, "bad", absurd);
        assert!(!scaler.followed.contains_key(&bad), "left alone while the same is asked of it");
        follow(&mut scaler, "bad", spec());
        scaler.wake(bad.clone(), BEGINNING);
        assert_eq!(scaler.followed[&bad].said.map(|said| said.desired), Some(1));
    }
}
