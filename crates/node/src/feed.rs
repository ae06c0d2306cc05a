//! Lists and watches one kind, for ever.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::TryStreamExt;
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

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
    All(Vec<K>),
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
#[serde(bound = "K: DeserializeOwned")]
struct List<K> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default = "Vec::new")]
    items: Vec<K>,
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
    fn version(&self) -> Option<String> {
        Some(self.0.get("metadata")?.get("resourceVersion")?.as_str()?.to_owned())
    }
}

/// Follows a kind until nobody listens any more. Changes come in order; the first is [`Change::All`].
pub(crate) async fn follow<K>(client: Client, subject: Subject, tell: mpsc::Sender<Change<K>>)
where
    K: DeserializeOwned + Clone + Debug + Send,
{
    let mut pause = PAUSE.0;
    let mut version: Option<String> = None;
    while !tell.is_closed() {
        let outcome = match version.take() {
            None => list(&client, &subject).await.map(|(all, at)| (Some(all), Some(at))),
            Some(at) => watch(&client, &subject, at, &tell).await.map(|at| (None, at)),
        };
        match outcome {
            Ok((all, at)) => {
                if let Some(all) = all
                    && tell.send(Change::All(all)).await.is_err()
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

async fn list<K: DeserializeOwned>(client: &Client, subject: &Subject) -> kube::Result<(Vec<K>, String)> {
    let mut all = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let mut params = ListParams::default().limit(PAGE);
        params.field_selector.clone_from(&subject.field_selector);
        params.continue_token = token;
        let request = Request::new(subject.path.as_str()).list(&params).map_err(kube::Error::BuildRequest)?;
        let page: List<K> = client.request(request).await?;
        all.extend(page.items);
        token = page.metadata.next.filter(|t| !t.is_empty());
        if token.is_none() {
            return Ok((all, page.metadata.resource_version.unwrap_or_default()));
        }
    }
}

/// Watches once. Returns the version to go on from; `None` when everything must be listed again.
async fn watch<K>(
    client: &Client,
    subject: &Subject,
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
        if let Some(at) = raw.version() {
            version = at;
        }
        match serde_json::from_value(raw.0) {
            Ok(object) => {
                let change = if gone { Change::Gone(object) } else { Change::Put(object) };
                if tell.send(change).await.is_err() {
                    return Ok(Some(version));
                }
            }
            Err(error) => tracing::warn!(path = subject.path, %error, "an object cannot be read"),
        }
    }
}
