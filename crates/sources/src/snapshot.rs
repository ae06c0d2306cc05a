//! What is to be carried out: sources that run in this process, as one immutable snapshot.
//!
//! Controllers make it and hand a whole [`Sources`] over. A snapshot shares everything that did not change with the one
//! before, so that a change costs its own source and a walk down a tree. What is not in a snapshot is stopped: nothing of it
//! is sent any more.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use imbl::OrdMap;
use jiff::tz::TimeZone;
use knoll_api::{Kind, cron::Schedule};
use knoll_broker::delivery::Destination;
use knoll_event::filter::Filter;
use tokio::sync::watch;

/// The newest snapshot; nothing before the first one.
pub type Snapshots = watch::Receiver<Option<Sources>>;

/// Which object it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl Id {
    /// An id from its parts.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

/// A source.
#[derive(Debug)]
pub struct Source {
    /// Which object it is.
    pub id: Id,
    /// Its uid: another uid is another source.
    pub uid: Arc<str>,
    /// Its generation, by which is told what is being carried out.
    pub generation: i64,
    /// Who gets its events.
    pub sink: Destination,
    /// The ServiceAccount of its namespace under whose name it sends, where the sink asks for tokens.
    pub service_account: Option<Arc<str>>,
    /// Extensions that are set on each of its events, in place of what the event has (`ceOverrides`).
    pub extensions: Box<[(Box<str>, Box<str>)]>,
    /// What it does, or why it cannot be carried out.
    pub work: Result<Work, Arc<str>>,
}

/// What a source does.
#[derive(Debug)]
pub enum Work {
    /// A PingSource's.
    Ping(Ping),
    /// The timer of an IntegrationSource.
    Timer(Timer),
    /// An ApiServerSource's.
    ApiServer(ApiServer),
}

/// An event at the times of a schedule.
#[derive(Debug)]
pub struct Ping {
    /// When.
    pub schedule: Schedule,
    /// Where that is the time of day, if the schedule does not say so itself.
    pub zone: TimeZone,
    /// Media type of the data; empty for none.
    pub content_type: Box<str>,
    /// The data.
    pub data: Option<Bytes>,
}

/// An event at fixed intervals, the first of them after a second.
#[derive(Debug, PartialEq, Eq)]
pub struct Timer {
    /// The interval.
    pub period: Duration,
    /// The data.
    pub message: Bytes,
    /// Its media type.
    pub content_type: Box<str>,
    /// How many events since the source, or this process, began; without end where nothing is said.
    pub repeat: Option<u64>,
}

/// Events for changes of objects in the API.
#[derive(Debug)]
pub struct ApiServer {
    /// What is watched.
    pub resources: Vec<Resource>,
    /// Where.
    pub namespaces: Namespaces,
    /// Of which kind objects' controllers are: `apiVersion` and `kind`, empty for any.
    pub owner: Option<(Box<str>, Box<str>)>,
    /// What events hold.
    pub mode: Mode,
    /// Which events.
    pub filter: Option<Filter>,
    /// The ServiceAccount of the source's namespace that watches.
    pub watches_as: Arc<str>,
    /// `source` of its events: the address of the API server.
    pub event_source: Arc<str>,
}

/// Objects of a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// `group/version`, or `v1`.
    pub api_version: Box<str>,
    /// The kind.
    pub kind: Box<str>,
    /// Which labels, as a request says it; empty for all.
    pub label_selector: Box<str>,
}

/// Where objects are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// Everywhere.
    All,
    /// In these.
    Named(Vec<Arc<str>>),
}

/// What the event for a change holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A reference to the object.
    Reference,
    /// The object.
    Resource,
}

/// The snapshot.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    sources: OrdMap<Id, Arc<Source>>,
}

/// What became of a source from one snapshot to the next.
pub(crate) enum Change {
    /// It is there, new or not as it was.
    Is(Arc<Source>),
    /// It is gone.
    Gone(Id),
}

impl Sources {
    /// The same with this one, in place of the one of its id.
    #[must_use]
    pub fn with(mut self, source: Source) -> Self {
        self.sources.insert(source.id.clone(), Arc::new(source));
        self
    }

    /// The same without the one of this id.
    #[must_use]
    pub fn without(mut self, id: &Id) -> Self {
        self.sources.remove(id);
        self
    }

    /// The source of this id.
    pub fn get(&self, id: &Id) -> Option<&Arc<Source>> {
        self.sources.get(id)
    }

    /// What is not in `self` as it was in `before`. What both share costs nothing.
    pub(crate) fn since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = Change> + 'a {
        use imbl::ordmap::DiffItem;
        before.sources.diff(&self.sources).filter_map(|difference| match difference {
            DiffItem::Add(_, now) => Some(Change::Is(now.clone())),
            DiffItem::Update { old: (_, old), new: (_, new) } => {
                (!Arc::ptr_eq(old, new)).then(|| Change::Is(new.clone()))
            }
            DiffItem::Remove(id, _) => Some(Change::Gone(id.clone())),
        })
    }
}

impl PartialEq for Source {
    /// One is itself: two that were put together apart are not compared.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}
