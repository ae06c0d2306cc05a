//! One kind's watch, as the loop hears of it: decoded, without what no plan reads.
//!
//! What a gateway routes by is listed first, and everything else only then: after a restart requests wait for the table,
//! and it must not take longer the more else there is.

use std::{sync::Arc, time::Duration};

use knoll_api::{Key, Kind, Object, labels};
use knoll_client::{
    Client,
    watch::{self, Collection, revision_of},
};
use knoll_faults::caught;
use knoll_plan::Change;
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch as signal},
    time::timeout,
};

use crate::{
    api::revision,
    counters::{Counters, count},
    lives::Lives,
};

/// How long a watch waits for those that come first, and the configuration is listed for; where they fail, the others go
/// on without them.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a watch tells the loop.
#[derive(Debug)]
pub(crate) enum Seen {
    /// A listing begins.
    Begins,
    /// An object of a listing.
    Item(Object),
    /// The same, and what it says cannot be read.
    UnreadableItem(Key),
    /// The listing is complete: the items were everything there is.
    Listed,
    /// One object.
    Changed(Change),
    /// One object is there, and what it says cannot be read.
    Unreadable(Key),
    /// Nothing, up to here.
    Bookmark,
    /// The kind is not served.
    Absent,
    /// An object of the configuration, before its kind was listed.
    Ahead(Object),
    /// All of the configuration has been told, though its kind was not listed yet.
    Configured,
}

/// Watches that go first, for as long as one of these is left.
#[derive(Clone)]
pub(crate) struct First(signal::Sender<()>);

impl First {
    pub(crate) fn new() -> Self {
        Self(signal::Sender::new(()))
    }

    /// Ends when nothing is left to wait for.
    pub(crate) fn after(&self) -> signal::Receiver<()> {
        self.0.subscribe()
    }
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

/// The watch of one kind.
pub(crate) struct Watch {
    pub(crate) kind: Kind,
    /// What of it is followed.
    pub(crate) collection: Collection,
    /// What of it is the configuration, and told before the rest.
    pub(crate) configuration: Option<Collection>,
    /// Whether it goes first: until the kind, or its configuration, was listed.
    pub(crate) first: Option<First>,
    /// What it waits for before it lists everything, but for who goes first.
    pub(crate) after: signal::Receiver<()>,
    pub(crate) client: Client,
    pub(crate) into: mpsc::Sender<WatchReport>,
    pub(crate) counters: Arc<Counters>,
}

impl Watch {
    /// Lists and watches until nobody listens. After a panic it begins again with a listing.
    pub(crate) async fn run(mut self) {
        let mut lives = Lives::new(format!("watch {}.{}", self.kind.plural(), self.kind.group()));
        if let Err(panic) = caught(self.configure()).await {
            lives.ended(&panic, &self.counters).await;
        }
        let mut first = self.first.take();
        if first.is_none() {
            // An error says that none is left.
            drop(timeout(PATIENCE, self.after.changed()).await);
        }
        loop {
            let take = |seen| {
                if matches!(seen, watch::Seen::Listed(_) | watch::Seen::Absent) {
                    first = None;
                }
                self.take(seen)
            };
            match caught(watch::follow(&self.client, &self.collection, &self.into, take)).await {
                Ok(()) => return,
                Err(panic) => lives.ended(&panic, &self.counters).await,
            }
        }
    }

    /// Tells the configuration, if that is of this kind. What fails here, or takes long, is made good by the listing of
    /// everything.
    async fn configure(&mut self) {
        let Some(configuration) = self.configuration.take() else { return };
        let _first = self.first.take();
        let take = |seen| {
            let seen = match seen {
                watch::Seen::Item(value) => Seen::Ahead(self.read(value).ok()?),
                watch::Seen::Listed(_) => Seen::Configured,
                _ => return None,
            };
            Some(WatchReport { kind: self.kind, revision: 0, seen })
        };
        let path = &configuration.path;
        match timeout(PATIENCE, watch::list(&self.client, &configuration, &self.into, take)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(path, %error, "the configuration is not listed ahead"),
            Err(late) => tracing::debug!(path, %late, "the configuration is not listed ahead"),
        }
    }

    /// What the loop is told of what was seen.
    fn take(&self, seen: watch::Seen) -> Option<WatchReport> {
        let report = |at: &str, seen| Some(WatchReport { kind: self.kind, revision: revision(at), seen });
        match seen {
            watch::Seen::Begins => report("", Seen::Begins),
            // One at a time: the loop's line bounds how many objects wait decoded, however many there are.
            watch::Seen::Item(value) => report("", self.read(value).map_or_else(Seen::UnreadableItem, Seen::Item)),
            watch::Seen::Listed(at) => {
                count(&self.counters.listed);
                report(&at, Seen::Listed)
            }
            watch::Seen::Added(value) | watch::Seen::Modified(value) => {
                count(&self.counters.watched);
                let at = revision_of(&value).to_owned();
                let read = self.read(value);
                report(&at, read.map_or_else(Seen::Unreadable, |object| Seen::Changed(Change::Put(object))))
            }
            watch::Seen::Gone(value) => {
                count(&self.counters.watched);
                report(revision_of(&value), Seen::Changed(Change::Gone(self.kind, key_of(&value))))
            }
            watch::Seen::Bookmark(at) => report(&at, Seen::Bookmark),
            watch::Seen::Absent => {
                count(&self.counters.absent);
                report("", Seen::Absent)
            }
            watch::Seen::Again => {
                count(&self.counters.rewatched);
                None
            }
            // It is asked again; until then nothing is known.
            watch::Seen::Forbidden(_) => None,
        }
    }

    /// An object without what no plan reads: a second copy of itself that kubectl leaves in an annotation (of which only the
    /// name is kept, see [`crate::execute`]). Of one that cannot be read its key: it must not stop the others, and is not gone.
    fn read(&self, mut value: Value) -> Result<Object, Key> {
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut);
            if let Some(applied) = annotations.and_then(|annotations| annotations.get_mut(labels::LAST_APPLIED)) {
                *applied = Value::String(String::new());
            }
        }
        let key = key_of(&value);
        Object::from_json(self.kind, value).map_err(|error| {
            count(&self.counters.unreadable);
            tracing::error!(kind = self.kind.plural(), %key, %error, "cannot read an object; it counts as it was");
            key
        })
    }
}

fn key_of(value: &Value) -> Key {
    let text = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    Key::new(text("/metadata/namespace"), text("/metadata/name"))
}
