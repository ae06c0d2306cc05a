//! Finds out digests of images, a few at a time. When to try again is the plan's decision.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use knoll_api::{Key, clock::SteadyClock};
use knoll_faults::caught;
use knoll_plan::{DigestRequest, Observation};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    coalescing::CoalescingQueue,
    counters::{Counters, count},
};

/// Images asked for at the same time.
const AT_ONCE: usize = 8;

/// The answer to come: `repository@digest`, empty where the registry is exempt, or what went wrong.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>>;

/// Asks a registry for the digest of an image.
pub trait ResolveDigest: Send + Sync {
    /// Begins to ask. May be dropped before it ends.
    fn resolve<'a>(&'a self, request: &'a DigestRequest) -> Resolving<'a>;
}

/// Resolves what is asked for, each within its time, until nobody wants to know.
pub(crate) async fn run(
    asked: CoalescingQueue<(DigestRequest, Key), Duration>,
    resolver: Arc<dyn ResolveDigest>,
    into: mpsc::Sender<Observation>,
    counters: Arc<Counters>,
    clock: Arc<SteadyClock>,
) {
    let mut waiting: BTreeMap<(DigestRequest, Key), Duration> = BTreeMap::new();
    let mut under_way: BTreeSet<(DigestRequest, Key)> = BTreeSet::new();
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < AT_ONCE {
            let Some(((request, asker), within)) = waiting.pop_first() else { break };
            under_way.insert((request.clone(), asker.clone()));
            tasks.spawn(one(resolver.clone(), request, asker, within, counters.clone()));
        }
        tokio::select! {
            new = asked.take() => {
                waiting.extend(new.into_iter().filter(|(one, _)| !under_way.contains(one)));
            }
            Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                let (request, asker, result) = done.expect("a panic is caught inside and nobody aborts");
                under_way.remove(&(request.clone(), asker.clone()));
                let observation = Observation::Digest { request, asker, result, at: clock.now() };
                if into.send(observation).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn one(
    resolver: Arc<dyn ResolveDigest>,
    request: DigestRequest,
    asker: Key,
    within: Duration,
    counters: Arc<Counters>,
) -> (DigestRequest, Key, Result<String, String>) {
    // Called inside, too: the call itself may panic, not only what it returns.
    let asking = caught(async { resolver.resolve(&request).await });
    let result = match tokio::time::timeout(within, asking).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            count(&counters.task_panics);
            tracing::error!(image = request.image, panic, "asking for a digest panicked");
            Err(format!("asking for the digest of {} failed: {panic}", request.image))
        }
        Err(_) => Err(format!("{} did not answer within {within:?}", request.image)),
    };
    (request, asker, result)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Silent;

    impl ResolveDigest for Silent {
        fn resolve<'a>(&'a self, _request: &'a DigestRequest) -> Resolving<'a> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_does_not_answer_is_given_up_in_the_time_asked_for() {
        let asked = CoalescingQueue::new();
        let request = DigestRequest { image: "silent.example/a".into(), ..DigestRequest::default() };
        asked.put((request.clone(), Key::new("ns", "r")), Duration::from_secs(3));
        let (into, mut observations) = mpsc::channel(1);
        let begun = tokio::time::Instant::now();
        let clock = SteadyClock::new(|| (std::time::Instant::now(), jiff::Timestamp::now()));
        let observation = tokio::select! {
            () = run(asked, Arc::new(Silent), into, Arc::default(), Arc::new(clock)) => None,
            observation = observations.recv() => observation,
        };
        assert_eq!(begun.elapsed().as_secs(), 3);
        let Some(Observation::Digest { request: about, result, .. }) = observation else { panic!("{observation:?}") };
        assert_eq!((about, result), (request, Err("silent.example/a did not answer within 3s".into())));
    }
}
