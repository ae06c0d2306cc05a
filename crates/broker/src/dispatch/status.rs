//! What there is to see of subscribers, for status, metrics and commands.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// What is seen of one subscriber.
#[derive(Debug, Default)]
pub(crate) struct View {
    in_flight: AtomicU64,
    held: AtomicU64,
    limit: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) failed_attempts: AtomicU64,
    pub(crate) dead_letters: AtomicU64,
}

impl View {
    pub(crate) fn show(&self, in_flight: usize, held: u64, limit: usize) {
        self.in_flight.store(in_flight as u64, Relaxed);
        self.held.store(held, Relaxed);
        self.limit.store(limit as u64, Relaxed);
    }
}

/// How a Trigger or Subscription is doing. That there is one says that it gets the events that are taken from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionStatus {
    /// Deliveries under way.
    pub in_flight: u64,
    /// Events that are its own and that it is not done with, those under way among them.
    pub lag: u64,
    /// How many events it is sent at a time at most.
    pub concurrency: u64,
    /// Deliveries that its subscriber took, since the start.
    pub delivered: u64,
    /// Attempts that failed, since the start.
    pub failed_attempts: u64,
    /// Events that became dead letters, since the start.
    pub dead_letters: u64,
}

/// Every subscriber, by the uid of its Trigger or Subscription.
#[derive(Debug, Default)]
pub(crate) struct Views(RwLock<HashMap<Arc<str>, Arc<View>>>);

impl Views {
    pub(crate) fn enter(&self, uid: &Arc<str>) -> Arc<View> {
        let mut views = self.0.write().unwrap_or_else(PoisonError::into_inner);
        views.entry(uid.clone()).or_default().clone()
    }

    pub(crate) fn leave(&self, uid: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// How many there are, and what all of them lag behind with.
    pub(crate) fn sums(&self) -> (u64, u64) {
        let views = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (views.len() as u64, views.values().map(|view| view.held.load(Relaxed)).sum())
    }

    pub(crate) fn of(&self, uid: &str) -> Option<SubscriptionStatus> {
        let views = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let view = views.get(uid)?;
        Some(SubscriptionStatus {
            in_flight: view.in_flight.load(Relaxed),
            lag: view.held.load(Relaxed),
            concurrency: view.limit.load(Relaxed),
            delivered: view.delivered.load(Relaxed),
            failed_attempts: view.failed_attempts.load(Relaxed),
            dead_letters: view.dead_letters.load(Relaxed),
        })
    }
}
