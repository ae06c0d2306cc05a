//! Watching one collection, and sending an event for each change: one after the other, so that they keep their order, and
//! nothing more is read from the server meanwhile.

use std::{pin::pin, sync::Arc};

use knoll_client::{
    Client,
    watch::{self, Collection, Seen},
};
use serde_json::Value;
use tokio::sync::{mpsc, watch as signal};

use super::{
    Context,
    event::{self, Happened},
};
use crate::{
    Source, Work,
    sending::{Health, complete},
};

/// Changes that were read and wait for the one that is being sent.
const WAITING: usize = 1;

/// Why a follower ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The collection is not served.
    Absent,
    /// It was told to.
    Told,
}

/// What it hears of the watch.
enum Heard {
    Listed,
    Absent,
    Forbidden(String),
    Happened(Happened, Value),
}

/// Watches one collection.
pub(super) struct Follower {
    pub(super) context: Arc<Context>,
    /// The source as it is now.
    pub(super) source: signal::Receiver<Arc<Source>>,
    pub(super) client: Client,
    pub(super) collection: Collection,
    /// Notes that it is watched from now on: whether it was before, by this one or another.
    pub(super) was_watched: Box<dyn Fn() -> bool + Send + Sync>,
    /// Has turned true when nothing more is to be read.
    pub(super) end: signal::Receiver<bool>,
}

impl Follower {
    /// Works until the collection is not served any more, or `end`. `tell` is called when no change goes by any more, or why
    /// the server lets nobody watch.
    pub(super) async fn run(mut self, tell: impl Fn(Result<(), String>)) -> Ended {
        let context = self.context.clone();
        let _watching = context.outlet.metrics.watches.enter();
        let (into, mut heard) = mpsc::channel(WAITING);
        let (client, collection) = (self.client.clone(), self.collection.clone());
        let follow = watch::changes(&client, &collection, &into, read);
        let send = async {
            let mut health = Health::default();
            loop {
                let next = tokio::select! {
                    // An error says that whoever could end it is gone.
                    _ = self.end.wait_for(|is_ended| *is_ended) => return Ended::Told,
                    next = heard.recv() => next,
                };
                match next {
                    None => return Ended::Told,
                    Some(Heard::Absent) => return Ended::Absent,
                    Some(Heard::Listed) => {
                        if (self.was_watched)() {
                            self.gap();
                        }
                        tell(Ok(()));
                    }
                    Some(Heard::Forbidden(why)) => tell(Err(why)),
                    Some(Heard::Happened(happened, object)) => self.send(happened, &object, &mut health).await,
                }
            }
        };
        tokio::select! {
            // It goes on for as long as it is listened to.
            () = pin!(follow) => Ended::Told,
            ended = send => ended,
        }
    }

    fn gap(&self) {
        let source = self.source.borrow().clone();
        self.context.outlet.metrics.gaps.count(source.id.kind);
        let (namespace, name, path) = (&*source.id.namespace, &*source.id.name, &*self.collection.path);
        tracing::warn!(namespace, name, path, "a watch began anew: no events are sent for what happened in between");
    }

    async fn send(&self, happened: Happened, object: &Value, health: &mut Health) {
        let source = self.source.borrow().clone();
        let Ok(Work::ApiServer(work)) = &source.work else { return };
        if !event::is_meant(work, object) {
            return;
        }
        let made = event::event(work, happened, object);
        let is_wanted =
            |event: &knoll_event::Event| work.filter.as_ref().is_none_or(|filter| filter.verdict(event).delivers());
        let completed = match made {
            Ok(event) if !is_wanted(&event) => return,
            Ok(mut event) => complete(&mut event, &source, (self.context.hooks.clock)()).map(|()| event),
            Err(error) => Err(error),
        };
        match completed {
            Ok(event) => health.hear(&source, self.context.outlet.send(&source, &event).await),
            Err(error) => {
                self.context.outlet.metrics.failed.count(source.id.kind);
                let (namespace, name, path) = (&*source.id.namespace, &*source.id.name, &*self.collection.path);
                tracing::error!(namespace, name, path, %error, "a change makes no event: it is lost");
            }
        }
    }
}

/// What of what is seen is heard.
fn read(seen: Seen) -> Option<Heard> {
    match seen {
        Seen::Listed(_) => Some(Heard::Listed),
        Seen::Absent => Some(Heard::Absent),
        Seen::Forbidden(why) => Some(Heard::Forbidden(why)),
        Seen::Added(object) => Some(Heard::Happened(Happened::Add, object)),
        Seen::Modified(object) => Some(Heard::Happened(Happened::Update, object)),
        Seen::Gone(object) => Some(Heard::Happened(Happened::Delete, object)),
        Seen::Begins | Seen::Item(_) | Seen::Bookmark(_) | Seen::Again => None,
    }
}
