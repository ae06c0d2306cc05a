//! Definitions of resources that are being deleted: their objects go first, then the definition.
//!
//! A finalizer holds the definition for that time, so that a crash in between is taken up where it was left, and its
//! name is free for a new one only when nothing of the old is left.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use knoll_store::{Durability, Entry, Expect, WriteError};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    ApiServer,
    derived::DEFINITIONS,
    follow::{Follower, Seen},
    metadata, object, objects,
    panics::{self, Panicked},
    resources,
};

/// Holds a definition until its objects are gone.
const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// How soon it is looked again whether objects that others hold are gone.
const AGAIN: Duration = Duration::from_secs(1);

/// Marks a definition whose deletion begins.
pub(crate) fn hold(definition: &mut Value, now: Timestamp) {
    metadata::add_finalizer(definition, FINALIZER);
    let condition = json!({
        "type": "Terminating",
        "status": "True",
        "lastTransitionTime": object::seconds(now),
        "reason": "InstanceDeletionInProgress",
        "message": "CustomResource deletion is in progress",
    });
    let status = object::map_at(definition, "status");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|other| other["type"] != "Terminating");
        conditions.push(condition);
    }
}

fn is_held(definition: &Value) -> bool {
    object::is_deleting(definition) && object::finalizers(definition).any(|finalizer| finalizer == FINALIZER)
}

impl ApiServer {
    /// Finishes the deletion of definitions, for as long as the store takes writes.
    ///
    /// # Errors
    /// When it takes none any more.
    pub(crate) async fn finish_definitions(self: &Arc<Self>) -> Result<(), WriteError> {
        let mut follower = Follower::new(self.store.clone(), DEFINITIONS);
        let mut going: BTreeSet<String> = BTreeSet::new();
        let mut panicked = Panicked::default();
        loop {
            let seen = if going.is_empty() {
                follower.next().await
            } else {
                tokio::time::timeout(AGAIN, follower.next()).await.unwrap_or_else(|_| follower.try_next())
            };
            match seen {
                None if going.is_empty() => return Err(WriteError::Stopped("it was closed".into())),
                None => {}
                Some(Seen::All(snapshot)) => {
                    going.extend(snapshot.range(DEFINITIONS, None).filter_map(|entry| self.held_definition(&entry)));
                    panicked.retain(|key| going.contains(key));
                }
                Some(Seen::Change(change)) => match self.held_definition_at(&change.key) {
                    Some(key) => drop(going.insert(key)),
                    None => panicked.forget(&change.key),
                },
            }
            let now = Instant::now();
            for key in going.clone() {
                // Any definition that changes brings it here.
                if panicked.rests(&key, now) {
                    continue;
                }
                let cleared = panics::contain(&self.counters, "finish a definition", self.clear(&key)).await;
                let again = panicked.again(&key, cleared.is_none(), Instant::now());
                match cleared {
                    None if !again => drop(going.remove(&key)),
                    Some(Ok(true)) => drop(going.remove(&key)),
                    Some(Err(error @ WriteError::Stopped(_))) => return Err(error),
                    Some(Err(error)) => tracing::warn!(%error, key, "finish a definition; tried again"),
                    Some(Ok(false)) | None => {}
                }
            }
        }
    }

    fn held_definition(&self, entry: &Entry) -> Option<String> {
        let definition = self.trees.of(&entry.value, entry.revision).ok()?;
        is_held(&definition).then(|| entry.key.to_string())
    }

    fn held_definition_at(&self, key: &str) -> Option<String> {
        self.held_definition(&self.store.get(key)?)
    }

    /// Deletes what is left of a definition that is going, and lets it go once nothing is. Whether it is done.
    async fn clear(&self, key: &str) -> Result<bool, WriteError> {
        let Some(entry) = self.store.get(key) else { return Ok(true) };
        let Ok(definition) = self.trees.of(&entry.value, entry.revision) else { return Ok(true) };
        if !is_held(&definition) {
            return Ok(true);
        }
        // Whoever makes an object looks again afterwards, and knows by now that the definition goes.
        let (group, plural) = resources::names(&definition);
        let prefix = format!("/{group}/{plural}/");
        if !self.registry().is_compiled_in(&definition) && !self.clear_objects(&prefix).await? {
            return Ok(false);
        }
        let mut released = (*definition).clone();
        if let Some(finalizers) = object::meta_mut(&mut released).get_mut("finalizers").and_then(Value::as_array_mut) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let expect = Expect::Revision(entry.revision);
        let done = if object::is_released(&released) {
            self.store.delete(key, expect, Durability::Durable).await.map(drop)
        } else {
            self.store.put(key, objects::encode(&released), expect, Durability::Durable).await.map(drop)
        };
        settled(done)
    }

    /// Asks every object below to go. Whether all are gone.
    async fn clear_objects(&self, prefix: &str) -> Result<bool, WriteError> {
        let snapshot = self.store.snapshot();
        let mut all_gone = true;
        for entry in snapshot.range(prefix, None) {
            let Ok(tree) = self.trees.of(&entry.value, entry.revision) else { continue };
            let expect = Expect::Revision(entry.revision);
            let done = if object::finalizers(&tree).next().is_none() {
                self.store.delete(&entry.key, expect, Durability::Durable).await.map(drop)
            } else {
                all_gone = false;
                if object::is_deleting(&tree) {
                    continue;
                }
                let mut marked = (*tree).clone();
                let meta = object::meta_mut(&mut marked);
                meta.insert("deletionTimestamp".into(), object::seconds(Timestamp::now()).into());
                meta.insert("deletionGracePeriodSeconds".into(), 0.into());
                metadata::bump_generation(&mut marked);
                self.store.put(&*entry.key, objects::encode(&marked), expect, Durability::Durable).await.map(drop)
            };
            all_gone &= settled(done)?;
        }
        Ok(all_gone)
    }
}

/// Whether a write was made; one that lost a race is made the next time.
fn settled(written: Result<(), WriteError>) -> Result<bool, WriteError> {
    match written {
        Ok(()) => Ok(true),
        Err(WriteError::Conflict { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
