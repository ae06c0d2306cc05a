//! Delivering: a worker a broker or channel, which reads its stream once, matches each event once, and gives it to the
//! subscribers that it is for.
//!
//! How progress is kept. A stream has a cursor of its own (`matched`), below which everything is done with, and a child of it
//! for each subscriber, which says what that one is done with while others are not. What is delivered is said within two
//! milliseconds and what nobody gets within a tenth of a second, with all that comes meanwhile.
//! Attempts that failed are kept with the child, so that retries go on after a restart where they were, and the event is
//! its subscriber's whatever the filter says meanwhile. The log is told in batches, one at a time, and without a sync: what
//! a crash takes of that is delivered again: for each subscriber no more than it is sent at a time, and as much again, or 32.
//!
//! What the log refuses of progress, as a full disk does, is kept and told again; until it is taken, a crash brings that again
//! as well. What the system cannot read for a moment is passed over, so that others go on, and read again by and by; nobody
//! says that it is done with meanwhile, so a restart finds it, too. It comes after what was sent behind it then, also where
//! a key orders events. Where only the process is short of files or memory, events are waited for instead.
//!
//! A subscriber that does not keep up holds at most [`Config::window`] events of the stream. When that many are held and
//! another subscriber has nothing left to do for 100 milliseconds, the newer ones of the slow one are *put aside*: copied to
//! a stream of its own, from which it goes on. So it holds up nobody else, and pins nothing of the broker's stream. It reads
//! there until it has caught up.
//!
//! What things cost, n being the subscribers of one broker: an event costs one read of up to 256 together, out of the log's
//! tail in memory where it has just come, and then it is not decoded again; one walk through the index over filters; what it
//! is sent as, made once for all who are sent it in the form in which it came; and for each subscriber that gets it about 100
//! bytes of memory until it is done with. A completed delivery costs 20 bytes of the log or less, since neighbours are said
//! together. A subscriber that waits costs its entry. A change of one Trigger costs that Trigger. Filters are evaluated a few
//! milliseconds at a time, between which others get the thread; what one filter may do for one event is bounded, and who asks
//! for more is counted and told in the log.

mod adopted;
mod attempt;
mod fresh;
mod lane;
mod limit;
mod retries;
mod status;
mod subscriber;
mod supervisor;
mod unread;
mod untold;
mod worker;

use std::sync::{Arc, atomic::Ordering::Relaxed};

use futures_util::future::BoxFuture;
use http::HeaderValue;
use knoll_bounds::Turns;

pub use self::{adopted::Adopted, status::SubscriptionStatus};
pub(crate) use self::{
    fresh::Room,
    status::Views,
    supervisor::{Command, Supervisor},
};
use crate::{
    Config, Log,
    client::Client,
    dead_letters::Letters,
    intake::Intake,
    metrics::Metrics,
    request_reply::Waiting,
    sinks::Sinks,
    topology::{Addressable, Snapshots, Subscribed},
};

/// Makes the `Authorization` of a request: for this audience, of this namespace's ServiceAccount of this name; and another
/// than the last, which was refused, if one can be made.
pub type Tokens = Arc<
    dyn Fn(Arc<str>, Arc<str>, Arc<str>, Option<HeaderValue>) -> BoxFuture<'static, Result<HeaderValue, String>>
        + Send
        + Sync,
>;

/// What deliveries use.
pub(crate) struct Context {
    pub(crate) log: Log,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) client: Arc<Client>,
    pub(crate) intake: Intake,
    pub(crate) snapshots: Snapshots,
    pub(crate) config: Config,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) sinks: Sinks,
    pub(crate) letters: Letters,
    pub(crate) views: Arc<Views>,
    pub(crate) adopted: Adopted,
    pub(crate) room: Room,
    pub(crate) under_way: UnderWay,
    pub(crate) waiting: Waiting,
}

/// What attempts that are under way may have together, by namespace. What finds no room waits, and its event on disk.
pub(crate) struct UnderWay {
    /// For [`Config::max_attempts`].
    pub(crate) attempts: Turns,
    /// For [`Config::max_delivery_bytes`]: of events that are read for one attempt; those that were read for several have
    /// a bound of their own.
    pub(crate) events: Turns,
}

impl UnderWay {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            attempts: Turns::new(config.max_attempts, config.parts),
            events: Turns::of_bytes(config.max_delivery_bytes, config.parts),
        }
    }
}

impl Context {
    /// An event of the log cannot be read. It is named, and counted.
    pub(crate) fn lost(&self, of: &Addressable, offset: u64, why: &str) {
        self.metrics.lost.count();
        let name = of.name();
        let (kind, namespace, name) = (name.kind.as_str(), &*name.namespace, &*name.name);
        tracing::error!(kind, namespace, name, offset, why, "an event that was kept cannot be read: it is lost");
    }

    /// Counts a dead letter with its subscriber.
    pub(crate) fn dead_letter(&self, of: &Subscribed) {
        self.views.enter(&of.subscription.uid).dead_letters.fetch_add(1, Relaxed);
    }
}
