//! What requests wait for at this moment. Whoever does what no request waits for (Events, status, what only follows)
//! lets it pass first, within bounds: on a machine with few processors everything else makes those requests wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// How long something alone counts as waited for: what takes longer (an image that has to be fetched, a program that does
/// not come up) is not made faster by others' waiting.
const LONGEST: Duration = Duration::from_secs(3);
/// How much longer for each other thing that is waited for already, and what that comes to at most.
const LONGER: (Duration, Duration) = (Duration::from_millis(30), Duration::from_secs(30));
/// How long something that took longer is not let pass again, however often it is asked for: others are not to pay for a
/// program that never comes up.
const SPENT: Duration = Duration::from_secs(600);
/// Things remembered at a time; more are not let pass.
const MOST: usize = 4096;

/// What requests wait for. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Rush(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waited_for: Mutex<WaitedFor>,
    begun: Notify,
    over: Notify,
}

/// Until when each is waited for at most, and the same in the order of time.
#[derive(Debug, Default)]
struct WaitedFor {
    until: BTreeMap<String, Instant>,
    order: BTreeSet<(Instant, String)>,
    /// How many began since somebody asked.
    begun: u32,
}

impl WaitedFor {
    /// When the last of them has been waited for long enough; nothing when there is none.
    fn last(&self, now: Instant) -> Option<Instant> {
        self.order.last().map(|(until, _)| *until).filter(|until| *until > now)
    }

    /// Forgets what took too long, long ago; or, where there is no room, at any time.
    fn tidy(&mut self, now: Instant) {
        let keep = if self.until.len() < MOST { SPENT } else { Duration::ZERO };
        while self.order.first().is_some_and(|(until, _)| *until + keep <= now) {
            let Some((_, what)) = self.order.pop_first() else { return };
            self.until.remove(&what);
        }
    }
}

impl Rush {
    /// Requests wait for this from now on.
    pub fn begin(&self, what: impl Into<String>) {
        let (what, now) = (what.into(), Instant::now());
        let mut waited_for = self.lock();
        waited_for.tidy(now);
        if waited_for.until.len() >= MOST || waited_for.until.contains_key(&what) {
            return;
        }
        let others = waited_for.order.range((now, String::new())..).count();
        let others = u32::try_from(others).unwrap_or(u32::MAX);
        let until = now + LONGEST + LONGER.0.saturating_mul(others).min(LONGER.1);
        waited_for.until.insert(what.clone(), until);
        waited_for.order.insert((until, what));
        waited_for.begun = waited_for.begun.saturating_add(1);
        self.0.begun.notify_one();
    }

    /// How many things requests began to wait for since the last call, as soon as there is one. For one caller.
    pub async fn begun(&self) -> u32 {
        loop {
            let begun = std::mem::take(&mut self.lock().begun);
            if begun > 0 {
                return begun;
            }
            self.0.begun.notified().await;
        }
    }

    /// It is there.
    pub fn end(&self, what: &str) {
        let mut waited_for = self.lock();
        let Some((what, until)) = waited_for.until.remove_entry(what) else { return };
        waited_for.order.remove(&(until, what));
        if waited_for.last(Instant::now()).is_none() {
            self.0.over.notify_waiters();
        }
    }

    /// Whether requests wait for something.
    pub fn is_on(&self) -> bool {
        self.lock().last(Instant::now()).is_some()
    }

    /// Ends when requests wait for nothing, and after `patience` in any case.
    pub async fn pass(&self, patience: Duration) {
        let limit = Instant::now() + patience;
        loop {
            let over = self.0.over.notified();
            let now = Instant::now();
            let Some(until) = self.lock().last(now).filter(|_| now < limit) else { return };
            tokio::select! {
                () = over => {}
                () = tokio::time::sleep_until(until.min(limit)) => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, WaitedFor> {
        // What is half done when it panics costs one thing its turn.
        self.0.waited_for.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn others_wait_until_the_last_is_there() {
        let rush = Rush::default();
        rush.pass(LONGEST).await;
        rush.begin("a/r");
        rush.begin("a/s");
        let passing = tokio::spawn({
            let rush = rush.clone();
            async move { rush.pass(LONGEST * 2).await }
        });
        tokio::task::yield_now().await;
        rush.end("a/r");
        tokio::task::yield_now().await;
        assert!(rush.is_on() && !passing.is_finished());
        let before = Instant::now();
        rush.end("a/s");
        passing.await.expect("it ends");
        assert!(!rush.is_on());
        assert_eq!(Instant::now(), before, "no time was to pass");
    }

    #[tokio::test]
    async fn each_beginning_is_told_once() {
        let rush = Rush::default();
        let (first, later) = tokio::join!(rush.begun(), async {
            rush.begin("a/r");
            rush.begin("a/r");
        });
        assert_eq!((first, later), (1, ()));
        rush.begin("a/s");
        rush.begin("a/t");
        assert_eq!(rush.begun().await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_said() {
        let rush = Rush::default();
        let begun = Instant::now();
        rush.begin("a/r");
        rush.pass(LONGEST / 3).await;
        assert_eq!(begun.elapsed(), LONGEST / 3);
        rush.begin("a/r");
        rush.pass(LONGEST * 9).await;
        assert_eq!(begun.elapsed(), LONGEST);
        rush.begin("a/r");
        assert!(!rush.is_on(), "asked for again and again, it is not let pass again");
        tokio::time::advance(SPENT).await;
        rush.begin("a/r");
        assert!(rush.is_on());
    }
}
