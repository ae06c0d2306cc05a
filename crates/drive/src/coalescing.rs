//! Values by key between two tasks: a newer value for a key takes the place of one that was not read yet. So it holds
//! no more than there are keys, and whoever writes never waits.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

/// Both ends.
#[derive(Debug)]
pub(crate) struct CoalescingQueue<K, V> {
    inner: Arc<Inner<K, V>>,
}

#[derive(Debug)]
struct Inner<K, V> {
    unread: Mutex<BTreeMap<K, V>>,
    arrived: Notify,
}

impl<K, V> Clone for CoalescingQueue<K, V> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K: Ord, V> CoalescingQueue<K, V> {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { inner: Arc::new(Inner { unread: Mutex::new(BTreeMap::new()), arrived: Notify::new() }) }
    }

    /// Leaves a value.
    pub(crate) fn put(&self, key: K, value: V) {
        self.inner.unread.lock().unwrap_or_else(PoisonError::into_inner).insert(key, value);
        self.inner.arrived.notify_one();
    }

    /// Waits until something was left, and takes all of it. For one reader.
    pub(crate) async fn take(&self) -> BTreeMap<K, V> {
        loop {
            let unread = std::mem::take(&mut *self.inner.unread.lock().unwrap_or_else(PoisonError::into_inner));
            if !unread.is_empty() {
                return unread;
            }
            self.inner.arrived.notified().await;
        }
    }
}
