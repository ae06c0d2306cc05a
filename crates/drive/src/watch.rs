//! One kind: list, then watch, then begin again when that breaks.
//!
//! Promises the loop that what it was told is complete up to the revision that came with it: a listing replaces
//! everything of the kind (so what vanished while nobody watched goes), a watch continues where the listing ended.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use http::{Method, Request};
use knoll_api::{Key, Kind, Object, labels};
use knoll_plan::Change;
use kube::core::WatchEvent;
use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    api::{Api, ApiError, revision},
    counters::{Counters, count},
    panics::{Lives, caught},
};

/// Objects in one page of a listing.
const PAGE: usize = 500;
/// How long the server keeps a watch open; it is renewed without a listing.
const WATCH_SECONDS: u32 = 290;
/// A watch that ends sooner has not been watching.
const QUICK: Duration = Duration::from_secs(1);
/// First and longest pause after something broke.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// How often a kind that is not served is asked for again.
const ABSENT_PAUSE: Duration = Duration::from_secs(10);

/// What a watch tells the loop.
#[derive(Debug)]
pub(crate) enum Seen {
    /// Everything there is of a kind.
    Listed(Vec<Object>),
    /// One object.
    Changed(Change),
    /// Nothing, up to here.
    Bookmark,
    /// The kind is not served.
    Absent,
}

/// A report of one kind's watch.
#[derive(Debug)]
pub(crate) struct WatchReport {
    /// The kind.
    pub(crate) kind: Kind,
    /// Everything of the kind up to this revision has been reported with this.
    pub(crate) revision: u64,
    /// What was seen.
    pub(crate) seen: Seen,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(default)]
    items: Vec<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: String,
    r#continue: String,
}

/// The watch of one kind.
pub(crate) struct Watch {
    pub(crate) kind: Kind,
    pub(crate) api: Api,
    pub(crate) into: mpsc::Sender<WatchReport>,
    pub(crate) counters: Arc<Counters>,
}

/// How a watch ended.
enum End {
    /// Continue from this revision.
    At(String),
    /// Begin with a listing.
    Relist,
    /// Nobody listens any more.
    Unheard,
}

impl Watch {
    /// Lists and watches until nobody listens. After a panic it begins again with a listing.
    pub(crate) async fn run(self) {
        let mut lives = Lives::new(format!("watch {}.{}", self.kind.plural(), self.kind.group()));
        while let Err(panic) = caught(self.live()).await {
            lives.ended(&panic, &self.counters).await;
        }
    }

    async fn live(&self) {
        let (mut pause, mut absent) = (PAUSE.0, false);
        let mut from: Option<String> = None;
        loop {
            let at = match from.take() {
                Some(at) => at,
                None => match self.list().await {
                    Ok(Some(at)) => at,
                    Ok(None) => return,
                    Err(error) if error.is_not_found() => {
                        if !absent {
                            tracing::info!(
                                kind = self.kind.plural(),
                                group = self.kind.group(),
                                "a kind is not served"
                            );
                        }
                        absent = true;
                        count(&self.counters.absent);
                        if !self.tell(0, Seen::Absent).await {
                            return;
                        }
                        tokio::time::sleep(ABSENT_PAUSE).await;
                        continue;
                    }
                    Err(error) => {
                        self.log("list", &error);
                        wait(&mut pause).await;
                        continue;
                    }
                },
            };
            absent = false;
            let begun_at = at.clone();
            let begun = Instant::now();
            match self.watch(at).await {
                Ok(End::At(at)) => {
                    // A watch that ended at once may do so again; one in which nothing happened was merely quiet.
                    if at == begun_at && begun.elapsed() < QUICK {
                        wait(&mut pause).await;
                    } else {
                        pause = PAUSE.0;
                    }
                    from = Some(at);
                }
                Ok(End::Relist) => wait(&mut pause).await,
                Ok(End::Unheard) => return,
                Err((at, error)) => {
                    self.log("watch", &error);
                    if !error.is_gone() && !error.is_not_found() {
                        from = Some(at);
                    }
                    wait(&mut pause).await;
                }
            }
            count(&self.counters.rewatched);
        }
    }

    fn log(&self, doing: &str, error: &ApiError) {
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        tracing::warn!(kind = self.kind.plural(), %error, cause, "cannot {doing}");
    }

    /// Reports everything there is. Where to watch from; `None` when nobody listens.
    async fn list(&self) -> Result<Option<String>, ApiError> {
        let path = self.kind.collection_path(None);
        let (mut objects, mut token, mut at) = (Vec::new(), String::new(), String::new());
        loop {
            let token_part = if token.is_empty() { String::new() } else { format!("&continue={}", encode(&token)) };
            let page: Page = self.api.send(Method::GET, &format!("{path}?limit={PAGE}{token_part}"), None).await?;
            objects.extend(page.items.into_iter().filter_map(|value| self.read(value)));
            at = if page.metadata.resource_version.is_empty() { at } else { page.metadata.resource_version };
            if page.metadata.r#continue.is_empty() {
                break;
            }
            token = page.metadata.r#continue;
        }
        count(&self.counters.listed);
        Ok(self.tell(revision(&at), Seen::Listed(objects)).await.then_some(at))
    }

    async fn tell(&self, revision: u64, seen: Seen) -> bool {
        self.into.send(WatchReport { kind: self.kind, revision, seen }).await.is_ok()
    }

    /// Reports changes after `at` until the server ends the watch.
    async fn watch(&self, mut at: String) -> Result<End, (String, ApiError)> {
        let uri = format!(
            "{}?watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={at}",
            self.kind.collection_path(None)
        );
        let request = Request::get(uri).header("accept", "application/json").body(Vec::new());
        let request =
            request.map_err(|error| (at.clone(), ApiError::Broken(Box::new(kube::Error::HttpError(error)))))?;
        let stream = self.api.client().request_events::<Value>(request).await;
        let mut stream = pin!(stream.map_err(|error| (at.clone(), error.into()))?);
        loop {
            let event = stream.try_next().await.map_err(|error| (at.clone(), error.into()))?;
            let (value, gone) = match event {
                None => return Ok(End::At(at)),
                Some(WatchEvent::Added(value) | WatchEvent::Modified(value)) => (value, false),
                Some(WatchEvent::Deleted(value)) => (value, true),
                Some(WatchEvent::Bookmark(bookmark)) => {
                    at = bookmark.metadata.resource_version;
                    if !self.tell(revision(&at), Seen::Bookmark).await {
                        return Ok(End::Unheard);
                    }
                    continue;
                }
                Some(WatchEvent::Error(status)) if status.code == 410 => return Ok(End::Relist),
                Some(WatchEvent::Error(status)) => return Err((at, kube::Error::Api(status).into())),
            };
            count(&self.counters.watched);
            let text = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
            at = text("/metadata/resourceVersion");
            let key = Key::new(text("/metadata/namespace"), text("/metadata/name"));
            let seen = if gone {
                Seen::Changed(Change::Gone(self.kind, key))
            } else {
                self.read(value).map_or(Seen::Bookmark, |object| Seen::Changed(Change::Put(object)))
            };
            if !self.tell(revision(&at), seen).await {
                return Ok(End::Unheard);
            }
        }
    }

    /// An object without what no plan reads: who manages which field, and a second copy of itself that kubectl leaves in
    /// an annotation (of which only the name is kept, see [`crate::execute`]). One that cannot be read is left out: it must not stop the others.
    fn read(&self, mut value: Value) -> Option<Object> {
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
            let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut);
            if let Some(applied) = annotations.and_then(|annotations| annotations.get_mut(labels::LAST_APPLIED)) {
                *applied = Value::String(String::new());
            }
        }
        let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        match Object::from_json(self.kind, value) {
            Ok(object) => Some(object),
            Err(error) => {
                count(&self.counters.unreadable);
                tracing::error!(kind = self.kind.plural(), name, %error, "cannot read an object; it is left out");
                None
            }
        }
    }
}

/// Pauses, and doubles the next pause.
async fn wait(pause: &mut Duration) {
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(PAUSE.1);
}

/// A continue token as it may stand in a query.
fn encode(token: &str) -> String {
    let mut encoded = String::with_capacity(token.len());
    for byte in token.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
