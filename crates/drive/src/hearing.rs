//! What the loop waits for beside its watches. Each may be waited for anew: what is told is taken once.

use std::{pin::Pin, sync::Arc};

use knoll_broker::{Adopted, topology::Addressable};
use knoll_plan::Sighting;
use knoll_sources::Applied;
use tokio::sync::{mpsc, watch};

/// Sightings taken in together.
const BATCH: usize = 256;

/// Which sources run, once that is not as it was; never where none are in this process, or their part has ended.
pub(crate) async fn newly_applied(running: Option<&mut watch::Receiver<Applied>>) -> Applied {
    if let Some(running) = running
        && running.changed().await.is_ok()
    {
        return running.borrow_and_update().clone();
    }
    std::future::pending().await
}

/// What is seen of kinds that controllers do not know as types; never where nobody looks.
pub(crate) async fn next_sightings(sightings: Option<&mut mpsc::Receiver<Sighting>>, into: &mut Vec<Sighting>) {
    if let Some(sightings) = sightings
        && sightings.recv_many(into, BATCH).await > 0
    {
        return;
    }
    std::future::pending().await
}

/// Brokers and channels that the data plane acts on from now on; never without one.
pub(crate) async fn newly(adopted: Option<&Adopted>) -> Vec<Arc<Addressable>> {
    match adopted {
        Some(adopted) => adopted.next().await,
        None => std::future::pending().await,
    }
}

/// Ends at once, or never.
pub(crate) fn ready(now: bool) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    if now { Box::pin(tokio::task::yield_now()) } else { Box::pin(std::future::pending()) }
}
