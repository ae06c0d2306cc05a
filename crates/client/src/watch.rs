//! One collection: list, then watch, then begin again when that breaks.
//!
//! [`follow`] promises that what was told is complete up to the revision that came with it: a listing replaces everything
//! (so what vanished while nobody watched goes), a watch goes on where the listing or the last event ended. [`changes`] is
//! for who wants to hear of changes alone: it tells none of what there is, and a listing costs one object.

use std::{marker::PhantomData, pin::pin, time::Duration};

use futures_util::TryStreamExt;
use http::Request;
use kube::{Client, core::WatchEvent};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{sync::mpsc, time::Instant};

use crate::{page, slim::Slim};

/// Objects in one page of a listing: whoever follows many collections has a page of each in memory at once.
const PAGE: usize = 200;
/// How long the server keeps a watch open; it is renewed without a listing.
const WATCH_SECONDS: u32 = 290;
/// A watch that ends sooner has not been watching.
const QUICK: Duration = Duration::from_secs(1);
/// First and longest pause after something broke.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How often a collection that is not served is asked for again.
const ABSENT_PAUSE: Duration = Duration::from_secs(10);

/// What to follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// Its path in the API.
    pub path: String,
    /// Which of its objects, by their fields; all, when empty.
    pub field_selector: String,
    /// Which of its objects, by their labels; all, when empty.
    pub label_selector: String,
}

/// What is seen of a collection. To [`follow`] objects come without the record of who manages which field.
#[derive(Debug)]
pub enum Seen {
    /// A listing begins: what an earlier one that did not end has named is void.
    Begins,
    /// An object of a listing.
    Item(Value),
    /// The listing is complete: the items were everything, at this revision.
    Listed(String),
    /// An object is new.
    Added(Value),
    /// An object is different.
    Modified(Value),
    /// An object is gone; its last state.
    Gone(Value),
    /// Nothing, up to this revision.
    Bookmark(String),
    /// The collection is not served.
    Absent,
    /// The server does not let it be listed or watched, and what it says; it is asked again.
    Forbidden(String),
    /// A watch ended and is begun again.
    Again,
}

/// The revision of an object.
pub fn revision_of(object: &Value) -> &str {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default()
}

/// Whoever follows a collection whose objects are read as `O`.
struct Follower<'a, T, F, O> {
    client: &'a Client,
    collection: &'a Collection,
    read: F,
    into: &'a mpsc::Sender<T>,
    /// Whether listings tell what there is; otherwise they only find out the revision to watch from.
    lists_objects: bool,
    objects: PhantomData<fn() -> O>,
    /// What broke last, since nothing was listed: it is logged once.
    failure: Option<String>,
}

impl<'a, T, F, O> Follower<'a, T, F, O> {
    fn new(
        client: &'a Client,
        collection: &'a Collection,
        into: &'a mpsc::Sender<T>,
        read: F,
        lists_objects: bool,
    ) -> Self {
        Follower { client, collection, read, into, lists_objects, objects: PhantomData, failure: None }
    }
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

/// Lists and watches a collection until nobody listens to `into`. `read` makes of what is seen what is sent, if anything;
/// it hears everything in order.
pub async fn follow<T: Send>(
    client: &Client,
    collection: &Collection,
    into: &mpsc::Sender<T>,
    read: impl FnMut(Seen) -> Option<T> + Send,
) {
    let follower = Follower::<_, _, Slim>::new(client, collection, into, read, true);
    follower.until_unheard().await;
}

/// Watches a collection from now on until nobody listens to `into`, and tells none of what there is already: `read` hears
/// [`Seen::Listed`] alone when a watch begins at a new place, so that each after the first stands for a gap in which
/// changes went by unseen. Objects come whole. While `into` is full nothing more is read.
pub async fn changes<T: Send>(
    client: &Client,
    collection: &Collection,
    into: &mpsc::Sender<T>,
    read: impl FnMut(Seen) -> Option<T> + Send,
) {
    let follower = Follower::<_, _, Value>::new(client, collection, into, read, false);
    follower.until_unheard().await;
}

/// Lists a collection once, as [`follow`] begins.
///
/// # Errors
/// What the server answered instead, or what broke.
pub async fn list<T: Send>(
    client: &Client,
    collection: &Collection,
    into: &mpsc::Sender<T>,
    read: impl FnMut(Seen) -> Option<T> + Send,
) -> kube::Result<()> {
    let mut follower = Follower::<_, _, Slim>::new(client, collection, into, read, true);
    follower.list().await.map(drop)
}

impl<T, F, O> Follower<'_, T, F, O>
where
    T: Send,
    F: FnMut(Seen) -> Option<T> + Send,
    O: DeserializeOwned + Clone + Into<Value>,
{
    async fn until_unheard(mut self) {
        let into = self.into;
        let closed = into.closed();
        tokio::select! {
            () = self.run() => {}
            // While nothing happens, too.
            () = closed => {}
        }
    }

    async fn run(&mut self) {
        let (mut pause, mut absent) = (PAUSE.0, false);
        let mut from: Option<String> = None;
        loop {
            let at = match from.take() {
                Some(at) => at,
                None => match self.list().await {
                    Ok(Some(at)) => at,
                    Ok(None) => return,
                    Err(error) if code(&error) == 404 => {
                        if !std::mem::replace(&mut absent, true) {
                            tracing::info!(path = self.collection.path, "a kind is not served");
                        }
                        if !self.tell(Seen::Absent).await {
                            return;
                        }
                        tokio::time::sleep(ABSENT_PAUSE).await;
                        continue;
                    }
                    Err(error) => {
                        if !self.failed("list", &error).await {
                            return;
                        }
                        wait(&mut pause).await;
                        continue;
                    }
                },
            };
            absent = false;
            self.failure = None;
            let (begun_at, begun) = (at.clone(), Instant::now());
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
                    if !self.failed("watch", &error).await {
                        return;
                    }
                    if !matches!(code(&error), 404 | 410) && !is_older(&error) {
                        from = Some(at);
                    }
                    wait(&mut pause).await;
                }
            }
            self.tell(Seen::Again).await;
        }
    }

    /// Logs what broke, once until it is something else, and tells where the server does not let it. Whether somebody
    /// listens.
    async fn failed(&mut self, doing: &str, error: &kube::Error) -> bool {
        let text = match error {
            kube::Error::Api(status) => format!("{}: {}", status.reason, status.message),
            other => knoll_faults::chain(other),
        };
        if self.failure.as_ref() != Some(&text) {
            tracing::warn!(path = self.collection.path, error = text, "cannot {doing}");
            self.failure = Some(text);
        }
        match error {
            kube::Error::Api(status) if status.code == 403 => self.tell(Seen::Forbidden(status.message.clone())).await,
            _ => true,
        }
    }

    /// Whether somebody listens.
    async fn tell(&mut self, seen: Seen) -> bool {
        match (self.read)(seen) {
            Some(message) => self.into.send(message).await.is_ok(),
            None => true,
        }
    }

    fn request(&self, query: &str) -> kube::Result<Request<Vec<u8>>> {
        let Collection { path, field_selector, label_selector } = self.collection;
        let mut uri = format!("{path}?{query}");
        for (name, selector) in [("fieldSelector", field_selector), ("labelSelector", label_selector)] {
            if !selector.is_empty() {
                uri.push_str(&format!("&{name}={}", encode(selector)));
            }
        }
        let request = Request::get(uri).header("accept", "application/json");
        request.body(Vec::new()).map_err(kube::Error::HttpError)
    }

    /// Where to watch from, without a look at what there is; `None` when nobody listens.
    async fn find_revision(&mut self) -> kube::Result<Option<String>> {
        let text = self.client.request_text(self.request("limit=1")?).await?;
        let page = page::read(&text, drop).map_err(kube::Error::SerdeError)?;
        let at = page.resource_version;
        Ok(self.tell(Seen::Listed(at.clone())).await.then_some(at))
    }

    /// Reports everything there is. Where to watch from; `None` when nobody listens.
    async fn list(&mut self) -> kube::Result<Option<String>> {
        if !self.lists_objects {
            return self.find_revision().await;
        }
        self.tell(Seen::Begins).await;
        let (mut token, mut at) = (String::new(), String::new());
        loop {
            let token_part = if token.is_empty() { String::new() } else { format!("&continue={}", encode(&token)) };
            let text = self.client.request_text(self.request(&format!("limit={PAGE}{token_part}"))?).await?;
            let mut messages = Vec::new();
            let page = page::read(&text, |item| messages.extend((self.read)(Seen::Item(item))));
            drop(text);
            let page = page.map_err(kube::Error::SerdeError)?;
            for message in messages {
                if self.into.send(message).await.is_err() {
                    return Ok(None);
                }
            }
            at = if page.resource_version.is_empty() { at } else { page.resource_version };
            if page.r#continue.is_empty() {
                return Ok(self.tell(Seen::Listed(at.clone())).await.then_some(at));
            }
            token = page.r#continue;
        }
    }

    /// Reports changes after `at` until the server ends the watch.
    async fn watch(&mut self, mut at: String) -> Result<End, (String, kube::Error)> {
        let query =
            format!("watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}", encode(&at));
        let request = self.request(&query).map_err(|error| (at.clone(), error))?;
        let stream = self.client.request_events::<O>(request).await;
        let mut stream = pin!(stream.map_err(|error| (at.clone(), error))?);
        loop {
            let event = stream.try_next().await.map_err(|error| (at.clone(), error))?;
            let seen = match event {
                None => return Ok(End::At(at)),
                Some(WatchEvent::Added(object)) => Seen::Added(moved(object, &mut at)),
                Some(WatchEvent::Modified(object)) => Seen::Modified(moved(object, &mut at)),
                Some(WatchEvent::Deleted(object)) => Seen::Gone(moved(object, &mut at)),
                Some(WatchEvent::Bookmark(bookmark)) => {
                    at = bookmark.metadata.resource_version;
                    Seen::Bookmark(at.clone())
                }
                Some(WatchEvent::Error(status)) if status.code == 410 => return Ok(End::Relist),
                Some(WatchEvent::Error(status)) => return Err((at, kube::Error::Api(status))),
            };
            if !self.tell(seen).await {
                return Ok(End::Unheard);
            }
        }
    }
}

/// An object of a watch, which is then at that object's revision.
fn moved(object: impl Into<Value>, at: &mut String) -> Value {
    let object = object.into();
    revision_of(&object).clone_into(at);
    object
}

/// The code of a refusal; 0 when there was no answer.
fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// Whether the server has not come to the revision asked for: where its store was set back, it never will, and what was seen
/// is of another history.
fn is_older(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "ResourceVersionTooLarge")
}

/// Pauses, and doubles the next pause.
async fn wait(pause: &mut Duration) {
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(PAUSE.1);
}

/// A text as it may stand in a query.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
