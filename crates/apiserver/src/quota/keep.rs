//! What namespaces use, kept in the status of their quotas: counted again after each change in a namespace that has
//! one, whoever made it, and all of them at the start.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use knoll_api::quantity::Quantity;
use knoll_store::{Durability, Expect, Write, WriteError};
use serde_json::json;
use tokio::time::Instant;

use super::{charge, hard, quotas_in, used_by};
use crate::{
    ApiServer,
    claims::Amounts,
    follow::{Follower, Seen},
    object, objects,
    panics::{self, Panicked},
};

/// Where quotas are kept.
const QUOTAS: &str = "/core/resourcequotas/";
/// Changes that are taken in before namespaces are counted.
const BATCH: usize = 1024;
/// Least time between two counts: a busy namespace is counted for all its changes of that time together.
const PACE: Duration = Duration::from_millis(50);
/// How much longer it rests than it counts: a count looks at everything in a namespace, and takes a tenth of a core.
const SHARE: u32 = 9;
/// How soon a count that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is to be counted.
#[derive(Default)]
struct Open {
    /// Namespaces with a quota.
    limited: BTreeSet<String>,
    /// Those of them in which something changed.
    stale: BTreeSet<String>,
    panicked: Panicked,
}

impl ApiServer {
    /// Keeps the status of quotas, for as long as the store takes writes.
    ///
    /// # Errors
    /// When it takes none any more.
    pub(crate) async fn keep_quotas(self: &Arc<Self>) -> Result<(), WriteError> {
        let mut follower = Follower::new(self.store.clone(), "");
        let mut open = Open::default();
        loop {
            let mut next = if open.stale.is_empty() {
                let seen = follower.next().await;
                Some(seen.ok_or_else(|| WriteError::Stopped("it was closed".into()))?)
            } else {
                tokio::time::sleep(AGAIN).await;
                follower.try_next()
            };
            for _ in 0..BATCH {
                let Some(seen) = next else { break };
                self.note(&mut open, seen);
                next = follower.try_next();
            }
            if let Some(seen) = next {
                self.note(&mut open, seen);
            }
            let begun = Instant::now();
            if self.count_all(&mut open).await? {
                tokio::time::sleep(PACE.max(begun.elapsed() * SHARE)).await;
            }
        }
    }

    fn note(&self, open: &mut Open, seen: Seen) {
        match seen {
            Seen::All(snapshot) => {
                open.limited = snapshot.range(QUOTAS, None).map(|entry| namespace_of(&entry.key).to_owned()).collect();
                open.stale = open.limited.clone();
                open.panicked.retain(|namespace| open.limited.contains(namespace));
            }
            Seen::Change(change) => {
                let namespace = namespace_of(&change.key);
                if change.key.starts_with(QUOTAS) {
                    let prefix = format!("{QUOTAS}{namespace}/");
                    if self.store.snapshot().range(&prefix, None).next().is_some() {
                        open.limited.insert(namespace.to_owned());
                    } else {
                        open.limited.remove(namespace);
                        open.panicked.forget(namespace);
                    }
                }
                if open.limited.contains(namespace) {
                    open.stale.insert(namespace.to_owned());
                }
            }
        }
    }

    /// Counts what is stale. Whether anything was; what could not be written stays stale.
    async fn count_all(&self, open: &mut Open) -> Result<bool, WriteError> {
        let stale = std::mem::take(&mut open.stale);
        for namespace in &stale {
            let counted = panics::contain(&self.counters, "count for a quota", self.count(namespace)).await;
            if open.panicked.again(namespace, counted.is_none(), tokio::time::Instant::now()) {
                open.stale.insert(namespace.clone());
            }
            match counted {
                Some(Err(error @ WriteError::Stopped(_))) => return Err(error),
                // Who was faster may have counted earlier.
                Some(Err(WriteError::Conflict { .. })) => drop(open.stale.insert(namespace.clone())),
                Some(Err(error)) => {
                    tracing::warn!(%error, namespace, "keep what a quota's namespace uses; tried again");
                    open.stale.insert(namespace.clone());
                }
                Some(Ok(())) | None => {}
            }
        }
        Ok(!stale.is_empty())
    }

    async fn count(&self, namespace: &str) -> Result<(), WriteError> {
        let registry = self.registry();
        let Some(row) = registry.get("", "v1", "resourcequotas") else { return Ok(()) };
        let snapshot = self.store.snapshot();
        for (quota, revision) in quotas_in(&self.trees, &snapshot, namespace) {
            let hard = hard(&quota);
            let mut used: Amounts = hard.keys().map(|name| (name.clone(), Quantity::ZERO)).collect();
            for resource in registry.rows().filter(|row| row.namespaced && charge::concerns(row, &hard)) {
                for (name, amount) in used_by(&self.trees, &snapshot, resource, namespace, (&quota, &hard)).await {
                    used.entry(name).and_modify(|sum| *sum = sum.plus(amount));
                }
            }
            let shown: BTreeMap<&String, String> =
                used.iter().map(|(name, amount)| (name, amount.to_string())).collect();
            let status = json!({"hard": quota.pointer("/spec/hard"), "used": shown});
            if quota.get("status") == Some(&status) {
                continue;
            }
            let mut new = (*quota).clone();
            new["status"] = status;
            let write = Write {
                key: row.key(namespace, object::name(&quota)),
                value: Some(objects::encode(&new)),
                expect: Expect::Revision(revision),
            };
            self.store.commit(vec![write], Durability::Relaxed).await?;
        }
        Ok(())
    }
}

/// The namespace in a key; empty for what is in none.
fn namespace_of(key: &str) -> &str {
    key.split('/').nth(3).unwrap_or_default()
}
