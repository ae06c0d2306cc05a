//! One kind's watch, as the loop hears of it: decoded, without what no plan reads.
//!
//! What a gateway routes by is listed first, and everything else only then: after a restart requests wait for the table,
//! and it must not take longer the more else there is.

use std::{sync::Arc, time::Duration};

use knoll_api::{Key, Kind, Object, labels};
use knoll_client::watch::{self, Collection, revision_of};
use knoll_faults::caught;
use knoll_plan::Change;
use kube::Client;
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
    /// The listing is complete: the items were everything there is.
    Listed,
    /// One object.
    Changed(Change),
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
                watch::Seen::Item(value) => Seen::Ahead(self.read(value)?),
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
            watch::Seen::Item(value) => self.read(value).and_then(|object| report("", Seen::Item(object))),
            watch::Seen::Listed(at) => {
                count(&self.counters.listed);
                report(&at, Seen::Listed)
            }
            watch::Seen::Added(value) | watch::Seen::Modified(value) => {
                count(&self.counters.watched);
                let at = revision_of(&value).to_owned();
                let changed = self.read(value).map(|object| Seen::Changed(Change::Put(object)));
                report(&at, changed.unwrap_or(Seen::Bookmark))
            }
            watch::Seen::Gone(value) => {
                count(&self.counters.watched);
                let text = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
                let key = Key::new(text("/metadata/namespace"), text("/metadata/name"));
                report(revision_of(&value), Seen::Changed(Change::Gone(self.kind, key)))
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
            watch::Seen::Refused(_) => None,
        }
    }

    /// An object without what no plan reads: a second copy of itself that kubectl leaves in an annotation (of which only the
    /// name is kept, see [`crate::execute`]). One that cannot be read is left out: it must not stop the others.
    fn read(&self, mut value: Value) -> Option<Object> {
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
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
