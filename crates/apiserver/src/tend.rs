//! What the server does without being asked.

use std::{future::Future, sync::Arc};

use knoll_store::WriteError;

use crate::ApiServer;

impl ApiServer {
    /// Lets Events and what was read go when their time has come, finishes the deletion of definitions and keeps quotas' statuses, until
    /// `stop` ends.
    ///
    /// # Errors
    /// When the store takes no more writes.
    pub async fn tend(self: Arc<Self>, stop: impl Future<Output = ()>) -> Result<(), WriteError> {
        tokio::select! {
            () = stop => Ok(()),
            result = self.expire_events() => result,
            result = self.finish_definitions() => result,
            result = self.keep_quotas() => result,
            never = self.trees.let_go() => match never {},
        }
    }
}
