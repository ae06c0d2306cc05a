//! Which brokers and channels the workers act on, for who waits for that.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::topology::{Addressable, Name};

/// Tells of each broker and channel once its worker acts on it: from then on senders are let in, and every event that is
/// taken reaches each subscription that it has. Keeps the newest of each until it is asked for. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Adopted(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    newest: Mutex<BTreeMap<Name, Arc<Addressable>>>,
    noted: Notify,
}

impl Adopted {
    /// Notes that this one is acted on.
    pub fn note(&self, addressable: &Arc<Addressable>) {
        let mut newest = self.0.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.insert(addressable.name().clone(), addressable.clone());
        drop(newest);
        self.0.noted.notify_one();
    }

    /// Those that were acted on since this was last asked; waits until there is one. One may ask at a time. What was noted
    /// is kept when the wait is given up.
    pub async fn next(&self) -> Vec<Arc<Addressable>> {
        loop {
            let newest = std::mem::take(&mut *self.0.newest.lock().unwrap_or_else(PoisonError::into_inner));
            if !newest.is_empty() {
                return newest.into_values().collect();
            }
            self.0.noted.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Kind;

    fn addressable(name: &str) -> Arc<Addressable> {
        Arc::new(Addressable::new(Name::new(Kind::Broker, "ns", name), "uid", None, Vec::new()))
    }

    #[tokio::test]
    async fn the_newest_of_each_is_told_once() {
        let adopted = Adopted::default();
        let (old, new, other) = (addressable("a"), addressable("a"), addressable("b"));
        for addressable in [&old, &other, &new] {
            adopted.note(addressable);
        }
        let told = adopted.next().await;
        assert_eq!(told.len(), 2);
        assert!(Arc::ptr_eq(&told[0], &new) && Arc::ptr_eq(&told[1], &other));
        let next = adopted.next();
        let mut next = std::pin::pin!(next);
        assert!(futures_util::poll!(&mut next).is_pending());
        adopted.note(&old);
        assert!(Arc::ptr_eq(&next.await[0], &old));
    }
}
