//! What writes on their way will use of their namespaces' quotas.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use knoll_api::quantity::Quantity;
use knoll_store::Snapshot;

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

/// The claims while one is decided on: nobody else takes the same room meanwhile.
pub(crate) struct Deciding<'a> {
    of: &'a Claims,
    book: MutexGuard<'a, Book>,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the others waiting until it is known whether there is room.
    pub(crate) fn decide(&self) -> Deciding<'_> {
        Deciding { of: self, book: self.lock() }
    }
}

impl Deciding<'_> {
    /// What objects below `prefix` will use that `snapshot` does not show.
    pub(crate) fn under_way<'a>(
        &'a self,
        prefix: &'a str,
        snapshot: &'a Snapshot,
    ) -> impl Iterator<Item = &'a Amounts> + 'a {
        let below = self.book.reserved.range((prefix.to_owned(), 0)..);
        below
            .take_while(move |((key, _), _)| key.starts_with(prefix))
            .filter(|((key, _), reserved)| snapshot.get(key).map(|entry| entry.revision) == reserved.over)
            .map(|(_, reserved)| &reserved.amounts)
    }

    /// Claims `amounts` for the object of `key`, which replaces the one of revision `over`.
    pub(crate) fn claim(mut self, key: String, over: Option<u64>, amounts: Amounts) -> Claim {
        self.book.claims += 1;
        let key = (key, self.book.claims);
        self.book.reserved.insert(key.clone(), Reserved { over, amounts });
        Claim { of: self.of.clone(), key }
    }
}
