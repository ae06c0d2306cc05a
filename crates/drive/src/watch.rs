//! One kind's watch, as the loop hears of it: decoded, without what no plan reads.

use std::sync::Arc;

use knoll_api::{Key, Kind, Object, labels};
use knoll_client::watch::{self, Collection, revision_of};
use knoll_faults::caught;
use knoll_plan::Change;
use kube::Client;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{
    api::revision,
    counters::{Counters, count},
    lives::Lives,
};

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
    pub(crate) client: Client,
    pub(crate) into: mpsc::Sender<WatchReport>,
    pub(crate) counters: Arc<Counters>,
}

impl Watch {
    /// Lists and watches until nobody listens. After a panic it begins again with a listing.
    pub(crate) async fn run(self) {
        let mut lives = Lives::new(format!("watch {}.{}", self.kind.plural(), self.kind.group()));
        loop {
            let take = |seen| self.take(seen);
            match caught(watch::follow(&self.client, &self.collection, &self.into, take)).await {
                Ok(()) => return,
                Err(panic) => lives.ended(&panic, &self.counters).await,
            }
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
            watch::Seen::Put(value) => {
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
