//! Lists and watches one kind, for ever.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::counters::Counters;

/// Most objects asked for at once.
const PAGE: u32 = 500;
/// How long a watch lasts before it is renewed, in seconds.
const WATCH_SECONDS: u32 = 290;
/// Pauses after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// What a feed says.
#[derive(Clone, Debug)]
pub(crate) enum Change<K> {
    /// Everything there is; what was known before and is not among it is gone.
    All {
        /// The objects.
        items: Vec<K>,
        /// The uids of those that cannot be read.
        unreadable: Vec<String>,
    },
    /// An object is new or different.
    Put(K),
    /// An object is gone; its last state.
    Gone(K),
}

/// What to follow.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// Path of the collection.
    pub(crate) path: String,
    /// Which of its objects.
    pub(crate) field_selector: Option<String>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Raw>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Clone, Deserialize, Debug)]
struct Raw(serde_json::Value);

impl Raw {
    fn meta(&self, field: &str) -> Option<String> {
        Some(self.0.get("metadata")?.get(field)?.as_str()?.to_owned())
    }

    /// The object; one whose status cannot be read is taken without it. What others wrote into a status must not hide
    /// what was asked for.
    fn read<K: DeserializeOwned>(&mut self) -> Result<K, serde_json::Error> {
        let whole = K::deserialize(&self.0);
        let bare = whole.is_err() && self.0.as_object_mut().is_some_and(|fields| fields.remove("status").is_some());
        if bare { K::deserialize(&self.0) } else { whole }
    }
}

/// Follows a kind until nobody listens any more. Changes come in order; the first is [`Change::All`].
pub(crate) async fn follow<K>(client: Client, subject: Subject, counters: Arc<Counters>, tell: mpsc::Sender<Change<K>>)
where
    K: DeserializeOwned + Clone + Debug + Send,
{
    let mut pause = PAUSE.0;
    let mut version: Option<String> = None;
    while !tell.is_closed() {
        let outcome = match version.take() {
            None => list(&client, &subject, &counters).await.map(|(all, at)| (Some(all), Some(at))),
            Some(at) => watch(&client, &subject, &counters, at, &tell).await.map(|at| (None, at)),
        };
        match outcome {
            Ok((all, at)) => {
                if let Some(all) = all
                    && tell.send(all).await.is_err()
                {
                    return;
                }
                pause = PAUSE.0;
                version = at;
            }
            Err(error) => {
                if tell.is_closed() {
                    return;
                }
                tracing::debug!(path = subject.path, %error, "a watch failed");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

async fn list<K: DeserializeOwned>(
    client: &Client,
    subject: &Subject,
    counters: &Counters,
) -> kube::Result<(Change<K>, String)> {
    let (mut items, mut unreadable) = (Vec::new(), Vec::new());
    let mut token: Option<String> = None;
    loop {
        let mut params = ListParams::default().limit(PAGE);
        params.field_selector.clone_from(&subject.field_selector);
        params.continue_token = token;
        let request = Request::new(subject.path.as_str()).list(&params).map_err(kube::Error::BuildRequest)?;
        let page: List = client.request(request).await?;
        for raw in page.items {
            match read(raw, subject, counters) {
                Ok(object) => items.push(object),
                Err(uid) => unreadable.extend(uid),
            }
        }
        token = page.metadata.next.filter(|t| !t.is_empty());
        if token.is_none() {
            return Ok((Change::All { items, unreadable }, page.metadata.resource_version.unwrap_or_default()));
        }
    }
}

/// Reads an object, or counts and tells that it cannot be read; its uid then.
fn read<K: DeserializeOwned>(mut raw: Raw, subject: &Subject, counters: &Counters) -> Result<K, Option<String>> {
    raw.read().map_err(|error| {
        counters.unreadable.add();
        let (namespace, name) = (raw.meta("namespace"), raw.meta("name"));
        tracing::warn!(path = subject.path, namespace, name, %error, "an object cannot be read: it stays as it is");
        raw.meta("uid")
    })
}

/// Watches once. Returns the version to go on from; `None` when everything must be listed again.
async fn watch<K>(
    client: &Client,
    subject: &Subject,
    counters: &Counters,
    mut version: String,
    tell: &mpsc::Sender<Change<K>>,
) -> kube::Result<Option<String>>
where
    K: DeserializeOwned + Clone + Debug + Send,
{
    let mut params = WatchParams::default().timeout(WATCH_SECONDS);
    params.field_selector.clone_from(&subject.field_selector);
    let request = Request::new(subject.path.as_str()).watch(&params, &version).map_err(kube::Error::BuildRequest)?;
    let events = match client.request_events::<Raw>(request).await {
        Err(kube::Error::Api(status)) if status.code == 410 => return Ok(None),
        events => events?,
    };
    let mut events = std::pin::pin!(events);
    loop {
        let event = match events.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(Some(version)),
            Err(kube::Error::Api(status)) if status.code == 410 => return Ok(None),
            // What was seen so far stays true; the watch goes on behind it.
            Err(error) => {
                tracing::debug!(path = subject.path, %error, "a watch broke");
                return Ok(Some(version));
            }
        };
        let (raw, gone) = match event {
            WatchEvent::Added(raw) | WatchEvent::Modified(raw) => (raw, false),
            WatchEvent::Deleted(raw) => (raw, true),
            WatchEvent::Bookmark(mark) => {
                version = mark.metadata.resource_version;
                continue;
            }
            WatchEvent::Error(_) => return Ok(None),
        };
        if let Some(at) = raw.meta("resourceVersion") {
            version = at;
        }
        if let Ok(object) = read(raw, subject, counters) {
            let change = if gone { Change::Gone(object) } else { Change::Put(object) };
            if tell.send(change).await.is_err() {
                return Ok(Some(version));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn junk_in_a_status_hides_no_pod() {
        let counters = Counters::default();
        let subject = Subject { path: "/api/v1/pods".into(), field_selector: None };
        let meta = || json!({"name": "p", "uid": "u"});
        let junk = Raw(json!({"metadata": meta(), "spec": {"containers": []}, "status": {"conditions": 5}}));
        let pod: Pod = read(junk, &subject, &counters).expect("readable without its status");
        assert!(pod.status.is_none() && pod.spec.is_some());
        let worse = Raw(json!({"metadata": meta(), "spec": {"containers": "none"}}));
        assert_eq!(read::<Pod>(worse, &subject, &counters), Err(Some("u".into())));
        assert_eq!(counters.read().unreadable, 1);
    }
}
