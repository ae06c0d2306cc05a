//! What writes on their way will use of their namespaces' quotas.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use knoll_api::quantity::Quantity;
use knoll_store::Snapshot;
use tokio::sync::OwnedMutexGuard;

/// Amounts by name, as in a quota's `spec.hard`.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

/// The claims of all writes on their way.
#[derive(Clone, Default)]
pub(crate) struct Claims(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    /// By the keys of their objects, and a number each: several may write one object at a time.
    reserved: BTreeMap<(String, u64), Reserved>,
    claims: u64,
    /// By namespace: held while something is decided on there.
    deciding: HashMap<String, Weak<tokio::sync::Mutex<()>>>,
}

/// What one write will use.
struct Reserved {
    /// Revision of what it replaces; `None` for a new object. Once another is stored, the store says what is used.
    over: Option<u64>,
    amounts: Amounts,
}

/// What a write on its way will use. Dropped once it is stored, or will not be.
pub(crate) struct Claim {
    of: Claims,
    key: (String, u64),
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.of.lock().reserved.remove(&self.key);
    }
}

/// The claims of a namespace while one is decided on: nobody else takes the same room meanwhile. What is counted for that may
/// be all of a tenant's objects, so others of its namespace wait without holding a thread, and those of others not at all.
pub(crate) struct Deciding<'a> {
    of: &'a Claims,
    _alone: OwnedMutexGuard<()>,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the others of a namespace waiting until it is known whether there is room.
    pub(crate) async fn decide(&self, namespace: &str) -> Deciding<'_> {
        let turn = self.turn(namespace);
        Deciding { of: self, _alone: turn.lock_owned().await }
    }

    fn turn(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let deciding = &mut self.lock().deciding;
        if let Some(turn) = deciding.get(namespace).and_then(Weak::upgrade) {
            return turn;
        }
        deciding.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        deciding.insert(namespace.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

impl Deciding<'_> {
    /// What objects below `prefix` will use that `snapshot` does not show.
    pub(crate) fn under_way(&self, prefix: &str, snapshot: &Snapshot) -> Vec<Amounts> {
        let book = self.of.lock();
        let below = book.reserved.range((prefix.to_owned(), 0)..);
        below
            .take_while(|((key, _), _)| key.starts_with(prefix))
            .filter(|((key, _), reserved)| snapshot.get(key).map(|entry| entry.revision) == reserved.over)
            .map(|(_, reserved)| reserved.amounts.clone())
            .collect()
    }

    /// Claims `amounts` for the object of `key`, which replaces the one of revision `over`.
    pub(crate) fn claim(self, key: String, over: Option<u64>, amounts: Amounts) -> Claim {
        let mut book = self.of.lock();
        book.claims += 1;
        let key = (key, book.claims);
        book.reserved.insert(key.clone(), Reserved { over, amounts });
        Claim { of: self.of.clone(), key }
    }
}
