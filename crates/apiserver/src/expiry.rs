//! Events do not stay: each goes an hour after it was last seen, as kube-apiserver's `--event-ttl` has it by default.

use std::time::Duration;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use knoll_store::{Durability, Entry, Expect, Snapshot, Write, WriteError};
use serde::Deserialize;

use crate::{ApiServer, panics};

/// How long after it was last seen an Event stays.
const AGE: SignedDuration = SignedDuration::from_hours(1);
/// Most Events; beyond, the longest unseen go before their time.
const MOST: usize = 20_000;
/// How often is looked.
const EVERY: Duration = Duration::from_secs(60);
/// Events that go in one transaction.
const BATCH: usize = 256;
/// Where Events are kept.
const PREFIX: &str = "/core/events/";

/// What says when an Event was seen.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sightings {
    metadata: Metadata,
    #[serde(default)]
    event_time: Option<Timestamp>,
    #[serde(default)]
    last_timestamp: Option<Timestamp>,
    #[serde(default)]
    series: Option<Series>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    creation_timestamp: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Series {
    #[serde(default)]
    last_observed_time: Option<Timestamp>,
}

/// When an Event was last seen; the earliest time for one that does not say.
fn last_seen(entry: &Entry) -> Timestamp {
    let Ok(event) = serde_json::from_slice::<Sightings>(&entry.value) else { return Timestamp::MIN };
    let series = event.series.and_then(|series| series.last_observed_time);
    let times = [event.metadata.creation_timestamp, event.event_time, event.last_timestamp, series];
    times.into_iter().flatten().max().unwrap_or(Timestamp::MIN)
}

/// The Events that go now: those past their age, and the oldest of the others until `most` are left.
fn expired(snapshot: &Snapshot, now: Timestamp, most: usize) -> Vec<Write> {
    let seen = snapshot.range(PREFIX, None).map(|entry| (last_seen(&entry), entry.revision, entry.key));
    let mut seen: Vec<(Timestamp, u64, Arc<str>)> = seen.collect();
    seen.sort_unstable();
    let surplus = seen.len().saturating_sub(most);
    let old = seen.iter().take_while(|(at, _, _)| now.duration_since(*at) >= AGE).count();
    let gone = seen.into_iter().take(surplus.max(old));
    gone.map(|(_, revision, key)| Write { key: key.to_string(), value: None, expect: Expect::Revision(revision) })
        .collect()
}

impl ApiServer {
    /// Lets Events go when their time has come.
    ///
    /// # Errors
    /// When the store takes no more writes.
    pub(crate) async fn expire_events(&self) -> Result<(), WriteError> {
        loop {
            tokio::time::sleep(EVERY).await;
            panics::contain(&self.counters, "let Events go", self.expire_once()).await.transpose()?;
        }
    }

    async fn expire_once(&self) -> Result<(), WriteError> {
        // Thousands of Events are read: not on a thread that answers.
        let snapshot = self.store.snapshot();
        let gone = tokio::task::spawn_blocking(move || expired(&snapshot, Timestamp::now(), MOST)).await;
        let gone = gone.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        for batch in gone.chunks(BATCH) {
            match self.store.commit(batch.to_vec(), Durability::Relaxed).await {
                // One was seen again meanwhile: the others wait for the next time.
                Ok(_) | Err(WriteError::Conflict { .. }) => {}
                // So do all while there is no room.
                Err(error @ WriteError::Full) => {
                    tracing::warn!(%error, "let Events go");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use knoll_store::{Options, Store};
    use serde_json::{Value, json};

    use super::*;
    use crate::objects;

    const NOW: &str = "2026-03-01T12:00:00Z";

    fn event(name: &str, fields: &Value) -> Write {
        let mut event = json!({"apiVersion": "v1", "kind": "Event",
            "metadata": {"namespace": "ns", "name": name, "creationTimestamp": "2026-03-01T08:00:00Z"}});
        for (key, value) in fields.as_object().into_iter().flatten() {
            event[key] = value.clone();
        }
        let value = Some(objects::encode(&event));
        Write { key: format!("{PREFIX}ns/{name}"), value, expect: Expect::Absent }
    }

    async fn names(events: Vec<Write>, most: usize) -> Vec<String> {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path(), Options::default()).expect("a store");
        store.commit(events, Durability::Relaxed).await.expect("events");
        let gone = expired(&store.snapshot(), NOW.parse().expect("a time"), most);
        store.close().await;
        gone.into_iter().map(|write| write.key.rsplit('/').next().unwrap_or_default().to_owned()).collect()
    }

    #[tokio::test]
    async fn an_event_goes_an_hour_after_it_was_last_seen() {
        let events = vec![
            event("silent", &json!({})),
            event("old", &json!({"lastTimestamp": "2026-03-01T11:00:00Z"})),
            event("fresh", &json!({"lastTimestamp": "2026-03-01T11:00:01Z"})),
            event("modern", &json!({"eventTime": "2026-03-01T08:00:00.000000Z"})),
            event("series", &json!({"series": {"count": 2, "lastObservedTime": "2026-03-01T11:30:00.000000Z"}})),
        ];
        assert_eq!(names(events, MOST).await, ["silent", "modern", "old"]);
    }

    #[tokio::test]
    async fn too_many_events_lose_their_oldest() {
        let at = |minute: u32| json!({"lastTimestamp": format!("2026-03-01T11:{minute}:00Z")});
        let events = vec![event("b", &at(40)), event("a", &at(50)), event("c", &at(30))];
        assert_eq!(names(events, 1).await, ["c", "b"]);
    }
}
