//! ClusterRoles that gather others: what they gather stands in their `rules`, for people and tools that read it.
//!
//! Authorization resolves them itself, at once; this only shows it.

use std::{future::Future, sync::Arc};

use knoll_store::{Expect, WriteError};
use serde_json::Value;

use crate::{ApiServer, object, objects};

const PREFIX: &str = "/rbac.authorization.k8s.io/clusterroles/";

impl ApiServer {
    /// Keeps the rules of roles that gather others up to date, until `stop` ends.
    ///
    /// # Errors
    /// When the store takes no more writes.
    pub async fn aggregate_roles(self: Arc<Self>, stop: impl Future<Output = ()>) -> Result<(), WriteError> {
        let mut stop = std::pin::pin!(stop);
        loop {
            // What authorization follows knows at least this; a snapshot may be newer than that for a moment.
            let revision = self.store.revision();
            self.write_gathered_rules().await?;
            // From before the writes: what they changed is looked at once more, and is then as it should be.
            let Ok(mut watch) = self.store.watch(PREFIX, revision) else { continue };
            tokio::select! {
                () = &mut stop => return Ok(()),
                changed = watch.next() => {
                    // The store has ended; the process is about to.
                    if matches!(changed, Ok(None)) {
                        stop.await;
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn write_gathered_rules(&self) -> Result<(), WriteError> {
        let registry = self.registry();
        let Some(row) = registry.get("rbac.authorization.k8s.io", "v1", "clusterroles") else { return Ok(()) };
        let snapshot = self.store.snapshot();
        for entry in snapshot.range(PREFIX, None) {
            let Ok(role) = self.trees.of(&entry.value, entry.revision) else { continue };
            if object::is_empty(role.get("aggregationRule")) {
                continue;
            }
            let rules = self.config.authority.role("ClusterRole", "", object::name(&role)).unwrap_or_default();
            let rules = serde_json::to_value(&*rules).unwrap_or(Value::Null);
            if role.get("rules") == Some(&rules) {
                continue;
            }
            let mut new = (*role).clone();
            new["rules"] = rules;
            let stored = objects::encode(&new);
            match self.store.put(entry.key.to_string(), stored, Expect::Revision(entry.revision), row.durability).await
            {
                // Whoever changed it meanwhile made the watch tell.
                Ok(_) | Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
