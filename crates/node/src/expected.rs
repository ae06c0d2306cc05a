//! Word to the monitor of sandboxes that pods are about to need: while the objects of a wake are planned and written,
//! the sandbox can be made already.

use std::sync::Arc;

use crate::shared::Shared;

/// Passes each wake on, for ever.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        let more = shared.callbacks.rush.begun().await;
        if let Err(error) = shared.monitor.get().expect_sandboxes(more).await {
            // Whoever claims a sandbox waits for one that is made then.
            tracing::debug!(%error, "the monitor was not told of sandboxes to come");
        }
    }
}
