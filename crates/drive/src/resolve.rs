//! Finds out digests of images, a few at a time. When to try again is the plan's decision.

use std::{collections::BTreeSet, pin::Pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use knoll_api::Key;
use knoll_plan::{DigestRequest, Observation};
use tokio::{sync::mpsc, task::JoinSet};

use crate::mailbox::Mailbox;

/// Images asked for at the same time.
const AT_ONCE: usize = 8;
/// Longest time for one image.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The answer to come: `repository@digest`, empty where the registry is exempt, or what went wrong.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>>;

/// Asks a registry for the digest of an image.
pub trait ResolveDigest: Send + Sync {
    /// Begins to ask. May be dropped before it ends.
    fn resolve<'a>(&'a self, request: &'a DigestRequest) -> Resolving<'a>;
}

/// Resolves what is asked for until nobody wants to know.
pub(crate) async fn run(
    asked: Mailbox<(DigestRequest, Key), ()>,
    resolver: Arc<dyn ResolveDigest>,
    into: mpsc::Sender<Observation>,
) {
    let mut waiting: BTreeSet<(DigestRequest, Key)> = BTreeSet::new();
    let mut under_way: BTreeSet<(DigestRequest, Key)> = BTreeSet::new();
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < AT_ONCE {
            let Some((request, asker)) = waiting.pop_first() else { break };
            under_way.insert((request.clone(), asker.clone()));
            tasks.spawn(one(resolver.clone(), request, asker));
        }
        tokio::select! {
            new = asked.take() => {
                waiting.extend(new.into_keys().filter(|one| !under_way.contains(one)));
            }
            Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                let (request, asker, result) = match done {
                    Ok(done) => done,
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => continue,
                };
                under_way.remove(&(request.clone(), asker.clone()));
                let observation = Observation::Digest { request, asker, result, at: Timestamp::now() };
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
) -> (DigestRequest, Key, Result<String, String>) {
    let result = match tokio::time::timeout(TIMEOUT, resolver.resolve(&request)).await {
        Ok(result) => result,
        Err(_) => Err(format!("{} did not answer within {} s", request.image, TIMEOUT.as_secs())),
    };
    (request, asker, result)
}
