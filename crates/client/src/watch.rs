//! One collection: list, then watch, then begin again when that breaks.
//!
//! [`follow`] promises that what was told is complete up to the revision that came with it: a listing replaces everything
//! (so what vanished while nobody watched goes), a watch goes on where the listing or the last event ended. [`changes`] is
//! for who wants to hear of changes alone: it tells none of what there is, and a listing costs one object.

use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Method;
use serde_json::Value;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    api::{Client, JSON},
    error::{Error, Result},
    events::{Event, Events},
    page,
};

/// Objects in one page of a listing: whoever follows many collections has a page of each in memory at once.
const PAGE: usize = 200;
/// How long the server keeps a watch open; it is renewed without a listing.
const WATCH_SECONDS: u32 = 290;
/// A watch that ends sooner has not been watching.
const QUICK: Duration = Duration::from_secs(1);
/// A watch that was open for so long was a good one, however it ended.
const LASTING: Duration = Duration::from_secs(30);
/// First and longest pause after something broke.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How often a collection that is not served is asked for again.
const ABSENT_PAUSE: Duration = Duration::from_secs(10);

/// Objects without all but their metadata, and lists of them, where the server knows how.
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,\
                        application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json";

/// What to follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// Its path in the API.
    pub path: String,
    /// Which of its objects, by their fields; all, when empty.
    pub field_selector: String,
    /// Which of its objects, by their labels; all, when empty.
    pub label_selector: String,
    /// Whether no more of its objects is wanted than their metadata.
    pub metadata_only: bool,
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

/// Who hears of a collection. What follows one is compiled once, for whatever is made of what is seen.
trait Listener: Send {
    /// Makes of what is seen what is told.
    fn see(&mut self, seen: Seen);

    /// Tells what was made, in order; nothing where nothing is to be told. Whether somebody listens.
    fn tell(&mut self) -> Option<BoxFuture<'_, bool>>;

    /// Tells none of what was made and not told yet.
    fn forget(&mut self);
}

/// Makes messages and sends them.
struct Teller<'a, T, F> {
    read: F,
    into: &'a mpsc::Sender<T>,
    made: Vec<T>,
}

impl<T: Send, F: FnMut(Seen) -> Option<T> + Send> Listener for Teller<'_, T, F> {
    fn see(&mut self, seen: Seen) {
        self.made.extend((self.read)(seen));
    }

    fn tell(&mut self) -> Option<BoxFuture<'_, bool>> {
        if self.made.is_empty() {
            return None;
        }
        let (made, into) = (std::mem::take(&mut self.made), self.into);
        Some(Box::pin(async move {
            for message in made {
                if into.send(message).await.is_err() {
                    return false;
                }
            }
            true
        }))
    }

    fn forget(&mut self) {
        self.made = Vec::new();
    }
}

/// Follows a collection.
struct Follower<'a> {
    client: &'a Client,
    collection: &'a Collection,
    listener: &'a mut dyn Listener,
    /// Whether listings tell what there is, and objects come without the record of who manages which field; otherwise
    /// listings only find out the revision to watch from.
    lists_objects: bool,
    /// What broke last, since nothing was listed: it is logged once.
    failure: Option<String>,
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
    until_unheard(client, collection, into, read, true).await;
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
    until_unheard(client, collection, into, read, false).await;
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
) -> Result<()> {
    let mut teller = Teller { read, into, made: Vec::new() };
    let mut follower = Follower { client, collection, listener: &mut teller, lists_objects: true, failure: None };
    follower.list_once().await.map(drop)
}

async fn until_unheard<T: Send>(
    client: &Client,
    collection: &Collection,
    into: &mpsc::Sender<T>,
    read: impl FnMut(Seen) -> Option<T> + Send,
    lists_objects: bool,
) {
    let mut teller = Teller { read, into, made: Vec::new() };
    let mut follower = Follower { client, collection, listener: &mut teller, lists_objects, failure: None };
    tokio::select! {
        () = follower.run() => {}
        // While nothing happens, too.
        () = into.closed() => {}
    }
}

impl Follower<'_> {
    /// Follows it for ever. Boxed, it is compiled here, once for everybody.
    fn run(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.follow())
    }

    async fn follow(&mut self) {
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
            let ended = self.watch(at).await;
            // However it ended: what comes now is not one of those that end at once.
            if begun.elapsed() >= LASTING {
                pause = PAUSE.0;
            }
            match ended {
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
    async fn failed(&mut self, doing: &str, error: &Error) -> bool {
        let text = knoll_faults::chain(error);
        if self.failure.as_ref() != Some(&text) {
            tracing::warn!(path = self.collection.path, error = text, "cannot {doing}");
            self.failure = Some(text);
        }
        match error {
            Error::Api(status) if status.code == 403 => self.tell(Seen::Forbidden(status.message.clone())).await,
            _ => true,
        }
    }

    /// Whether somebody listens.
    async fn tell(&mut self, seen: Seen) -> bool {
        self.listener.see(seen);
        self.told().await
    }

    async fn told(&mut self) -> bool {
        match self.listener.tell() {
            Some(telling) => telling.await,
            None => true,
        }
    }

    fn path(&self, query: &str) -> String {
        let Collection { path, field_selector, label_selector, metadata_only: _ } = self.collection;
        let mut uri = format!("{path}?{query}");
        for (name, selector) in [("fieldSelector", field_selector), ("labelSelector", label_selector)] {
            if !selector.is_empty() {
                uri.push_str(&format!("&{name}={}", encode(selector)));
            }
        }
        uri
    }

    /// In which form objects are asked for.
    fn accept(&self) -> &'static str {
        if self.collection.metadata_only { METADATA } else { JSON }
    }

    /// Where to watch from, without a look at what there is; `None` when nobody listens.
    async fn find_revision(&mut self) -> Result<Option<String>> {
        let text = self.client.call(Method::GET, &self.path("limit=1"), self.accept(), None).await?;
        let at = page::read(&text, &mut drop).map_err(Error::Answer)?.resource_version;
        Ok(self.tell(Seen::Listed(at.clone())).await.then_some(at))
    }

    /// As [`Follower::run`], for one listing.
    fn list_once(&mut self) -> BoxFuture<'_, Result<Option<String>>> {
        Box::pin(self.list())
    }

    /// Reports everything there is. Where to watch from; `None` when nobody listens.
    async fn list(&mut self) -> Result<Option<String>> {
        if !self.lists_objects {
            return self.find_revision().await;
        }
        self.tell(Seen::Begins).await;
        let (mut token, mut at) = (String::new(), String::new());
        loop {
            let token_part = if token.is_empty() { String::new() } else { format!("&continue={}", encode(&token)) };
            let path = self.path(&format!("limit={PAGE}{token_part}"));
            let text = self.client.call(Method::GET, &path, self.accept(), None).await?;
            let page = page::read(&text, &mut |item| self.listener.see(Seen::Item(item)));
            drop(text);
            let page = page.map_err(|error| {
                self.listener.forget();
                Error::Answer(error)
            })?;
            if !self.told().await {
                return Ok(None);
            }
            at = if page.resource_version.is_empty() { at } else { page.resource_version };
            if page.r#continue.is_empty() {
                return Ok(self.tell(Seen::Listed(at.clone())).await.then_some(at));
            }
            token = page.r#continue;
        }
    }

    /// Reports changes after `at` until the server ends the watch.
    async fn watch(&mut self, mut at: String) -> std::result::Result<End, (String, Error)> {
        let query =
            format!("watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}", encode(&at));
        let body = self.client.stream(&self.path(&query), self.accept()).await.map_err(|error| (at.clone(), error))?;
        let mut events = Events::new(body, self.lists_objects);
        loop {
            let seen = match events.next().await {
                Err(error) => return Err((at, error)),
                Ok(None) => return Ok(End::At(at)),
                Ok(Some(Event::Added(object))) => Seen::Added(moved(object, &mut at)),
                Ok(Some(Event::Modified(object))) => Seen::Modified(moved(object, &mut at)),
                Ok(Some(Event::Deleted(object))) => Seen::Gone(moved(object, &mut at)),
                Ok(Some(Event::Bookmark(revision))) => {
                    at = revision;
                    Seen::Bookmark(at.clone())
                }
                Ok(Some(Event::Error(status))) if status.code == 410 => return Ok(End::Relist),
                Ok(Some(Event::Error(status))) => return Err((at, Error::Api(Box::new(status)))),
            };
            if !self.tell(seen).await {
                return Ok(End::Unheard);
            }
        }
    }
}

/// An object of a watch, which is then at that object's revision.
fn moved(object: Value, at: &mut String) -> Value {
    revision_of(&object).clone_into(at);
    object
}

/// The code of a refusal; 0 when there was no answer.
fn code(error: &Error) -> u16 {
    match error {
        Error::Api(status) => status.code,
        _ => 0,
    }
}

/// Whether the server has not come to the revision asked for: where its store was set back, it never will, and what was seen
/// is of another history.
fn is_older(error: &Error) -> bool {
    let Error::Api(status) = error else { return false };
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

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use bytes::Bytes;
    use futures_util::{TryStreamExt as _, stream};
    use http::{Request, Response};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;
    use crate::api::{Body, whole};

    /// A server whose watches break after a while, and when each was begun.
    fn breaking(after: Duration) -> (Client, Arc<Mutex<Vec<Instant>>>) {
        let begun: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let kept = begun.clone();
        let client = Client::new(move |request: Request<Body>| {
            let kept = kept.clone();
            async move {
                if !request.uri().to_string().contains("watch=1") {
                    return Ok::<_, Infallible>(Response::new(whole(
                        r#"{"metadata":{"resourceVersion":"5"},"items":[]}"#,
                    )));
                }
                kept.lock().unwrap().push(Instant::now());
                let broken = stream::once(async move {
                    tokio::time::sleep(after).await;
                    Err::<Bytes, _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
                });
                let body = StreamBody::new(broken.map_ok(http_body::Frame::data).map_err(Into::into));
                Ok(Response::new(body.boxed_unsync()))
            }
        });
        (client, begun)
    }

    /// How long nobody watched between the tenth watch and the next.
    async fn blind(after: Duration) -> Duration {
        let (client, begun) = breaking(after);
        let (into, _heard) = mpsc::channel(100);
        let collection = Collection { path: "/api/v1/pods".into(), ..Collection::default() };
        let follow = changes(&client, &collection, &into, |_| None::<()>);
        let enough = async {
            while begun.lock().unwrap().len() < 11 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = follow => panic!("it goes on while it is heard"),
            () = enough => {}
        }
        let begun = begun.lock().unwrap();
        begun[10] - begun[9] - after
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_break_now_and_then_are_replaced_at_once_and_those_that_break_at_once_are_not() {
        let quiet = blind(Duration::from_secs(240)).await;
        assert!(quiet < Duration::from_millis(100), "{quiet:?}");
        assert!(blind(Duration::from_millis(5)).await >= PAUSE.1);
    }
}
