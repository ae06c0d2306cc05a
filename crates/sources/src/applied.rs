//! What is being carried out, for whoever says of sources whether they are ready.

use std::sync::Arc;

use imbl::OrdMap;
use tokio::sync::watch;

use crate::{Id, Source};

/// How it is with a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carrying {
    /// Its uid.
    pub uid: Arc<str>,
    /// The generation that this speaks of.
    pub generation: i64,
    /// Why it is not carried out; it is where there is nothing here.
    pub problem: Option<Arc<str>>,
}

/// How it is with each source: immutable, so that what changed since another costs what changed. One that is not in it is
/// about to be carried out, or is not known.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    states: OrdMap<Id, Carrying>,
}

impl Applied {
    /// How it is with one.
    pub fn get(&self, id: &Id) -> Option<&Carrying> {
        self.states.get(id)
    }

    /// The sources with which it is not as it was in `before`.
    pub fn since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a Id> {
        use imbl::ordmap::DiffItem;
        before.states.diff(&self.states).map(|difference| match difference {
            DiffItem::Add(id, _) | DiffItem::Remove(id, _) | DiffItem::Update { new: (id, _), .. } => id,
        })
    }

    /// How many there are, and how many of them are carried out. Costs a look at each.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let carried = self.states.values().filter(|carrying| carrying.problem.is_none()).count();
        (self.states.len() as u64, carried as u64)
    }
}

/// Says how it is.
#[derive(Clone)]
pub(crate) struct Board(watch::Sender<Applied>);

impl Board {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Applied::default()))
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Applied> {
        self.0.subscribe()
    }

    /// This is how it is with these sources: carried out where there is no problem.
    pub(crate) fn tell<'a>(&self, states: impl IntoIterator<Item = (&'a Source, Option<Arc<str>>)>) {
        self.0.send_if_modified(|applied| {
            let mut is_new = false;
            for (source, problem) in states {
                let state = Carrying { uid: source.uid.clone(), generation: source.generation, problem };
                if applied.states.get(&source.id) != Some(&state) {
                    applied.states.insert(source.id.clone(), state);
                    is_new = true;
                }
            }
            is_new
        });
    }

    /// These sources are carried out no more.
    pub(crate) fn forget<'a>(&self, ids: impl IntoIterator<Item = &'a Id>) {
        self.0.send_if_modified(|applied| {
            let mut is_new = false;
            for id in ids {
                is_new |= applied.states.remove(id).is_some();
            }
            is_new
        });
    }

    /// Only these are known.
    pub(crate) fn keep(&self, is_kept: impl Fn(&Id) -> bool) {
        let gone: Vec<Id> = self.0.borrow().states.keys().filter(|id| !is_kept(id)).cloned().collect();
        self.forget(&gone);
    }

    /// Nothing is carried out any more.
    pub(crate) fn clear(&self) {
        self.0.send_replace(Applied::default());
    }
}
