//! Finds out digests of images, a few at a time. When to try again is the plan's decision.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
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
const AT_ONCE: usize = 16;
/// Most of them that one namespace asks for: registries that do not answer cost those who name them.
const OF_ONE: usize = 2;

/// The answer to come: `repository@digest`, empty where the registry is exempt, or what went wrong.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>>;

/// Asks a registry for the digest of an image.
pub trait ResolveDigest: Send + Sync {
    /// Begins to ask. May be dropped before it ends.
    fn resolve<'a>(&'a self, request: &'a DigestRequest) -> Resolving<'a>;
}

/// What is asked for, by the namespaces that ask. They take turns.
#[derive(Default)]
struct Waiting {
    of: BTreeMap<String, Asked>,
    /// Who had the last turn.
    last: String,
}

#[derive(Default)]
struct Asked {
    waiting: BTreeMap<(DigestRequest, Key), Duration>,
    under_way: BTreeSet<(DigestRequest, Key)>,
}

impl Waiting {
    fn put(&mut self, request: DigestRequest, asker: Key, within: Duration) {
        let asked = self.of.entry(asker.namespace.clone()).or_default();
        let one = (request, asker);
        if !asked.under_way.contains(&one) {
            asked.waiting.insert(one, within);
        }
    }

    /// The next that may be asked for. Costs one look at each namespace that has something to ask.
    fn next(&mut self) -> Option<(DigestRequest, Key, Duration)> {
        let may = |asked: &Asked| !asked.waiting.is_empty() && asked.under_way.len() < OF_ONE;
        let after = self.of.range::<str, _>((Bound::Excluded(self.last.as_str()), Bound::Unbounded));
        let mut turns = after.chain(self.of.range::<str, _>((Bound::Unbounded, Bound::Included(self.last.as_str()))));
        let namespace = turns.find(|(_, asked)| may(asked))?.0.clone();
        let asked = self.of.get_mut(&namespace)?;
        let ((request, asker), within) = asked.waiting.pop_first()?;
        asked.under_way.insert((request.clone(), asker.clone()));
        self.last = namespace;
        Some((request, asker, within))
    }

    fn ended(&mut self, request: &DigestRequest, asker: &Key) {
        if let Some(asked) = self.of.get_mut(&asker.namespace) {
            asked.under_way.remove(&(request.clone(), asker.clone()));
            if asked.under_way.is_empty() && asked.waiting.is_empty() {
                self.of.remove(&asker.namespace);
            }
        }
    }
}

/// Resolves what is asked for, each within its time, until nobody wants to know.
pub(crate) async fn run(
    asked: CoalescingQueue<(DigestRequest, Key), Duration>,
    resolver: Arc<dyn ResolveDigest>,
    into: mpsc::Sender<Observation>,
    counters: Arc<Counters>,
    clock: Arc<SteadyClock>,
) {
    let mut waiting = Waiting::default();
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < AT_ONCE {
            let Some((request, asker, within)) = waiting.next() else { break };
            tasks.spawn(one(resolver.clone(), request, asker, within, counters.clone()));
        }
        tokio::select! {
            new = asked.take() => new.into_iter().for_each(|((request, asker), within)| waiting.put(request, asker, within)),
            Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                let (request, asker, result) = done.expect("a panic is caught inside and nobody aborts");
                waiting.ended(&request, &asker);
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

    /// Registries of which `silent.example` does not answer.
    struct Silent;

    impl ResolveDigest for Silent {
        fn resolve<'a>(&'a self, request: &'a DigestRequest) -> Resolving<'a> {
            Box::pin(async move {
                match request.image.starts_with("silent.example/") {
                    true => std::future::pending().await,
                    false => Ok("resolved".to_owned()),
                }
            })
        }
    }

    fn clock() -> Arc<SteadyClock> {
        Arc::new(SteadyClock::new(|| (std::time::Instant::now(), jiff::Timestamp::now())))
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_does_not_answer_holds_up_nobody_elses_namespace() {
        let asked = CoalescingQueue::new();
        let image = |image: String| DigestRequest { image, ..DigestRequest::default() };
        for number in 0..80 {
            let request = image(format!("silent.example/{number}"));
            asked.put((request, Key::new("mallory", format!("r{number}"))), Duration::from_secs(10));
        }
        let (into, mut observations) = mpsc::channel(1);
        let resolving = tokio::spawn(run(asked.clone(), Arc::new(Silent), into, Arc::default(), clock()));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let begun = tokio::time::Instant::now();
        asked.put((image("well.example/a".into()), Key::new("alice", "r")), Duration::from_secs(10));
        let first = observations.recv().await;
        let Some(Observation::Digest { asker, result, .. }) = first else { panic!("{first:?}") };
        assert_eq!((asker, result.is_ok()), (Key::new("alice", "r"), true));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        // The others are still asked for, two at a time.
        for _ in 0..80 {
            observations.recv().await.expect("each is answered");
        }
        assert_eq!(begun.elapsed().as_secs(), 399);
        resolving.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_does_not_answer_is_given_up_in_the_time_asked_for() {
        let asked = CoalescingQueue::new();
        let request = DigestRequest { image: "silent.example/a".into(), ..DigestRequest::default() };
        asked.put((request.clone(), Key::new("ns", "r")), Duration::from_secs(3));
        let (into, mut observations) = mpsc::channel(1);
        let begun = tokio::time::Instant::now();
        let observation = tokio::select! {
            () = run(asked, Arc::new(Silent), into, Arc::default(), clock()) => None,
            observation = observations.recv() => observation,
        };
        assert_eq!(begun.elapsed().as_secs(), 3);
        let Some(Observation::Digest { request: about, result, .. }) = observation else { panic!("{observation:?}") };
        assert_eq!((about, result), (request, Err("silent.example/a did not answer within 3s".into())));
    }
}
