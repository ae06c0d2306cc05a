//! What the registry did, counted since the start.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{Method, StatusCode};

use super::Place;

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The numbers as they grow.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pushes: Count,
    pulls: Count,
    deletions: Count,
    denied: Count,
    failed: Count,
    pub(super) received: Count,
    pub(super) sent: Count,
}

/// What the registry did until some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryCounts {
    /// Manifests stored.
    pub pushes: u64,
    /// Manifests handed out.
    pub pulls: u64,
    /// Manifests whose names were taken away.
    pub deletions: u64,
    /// Requests refused because of who asked.
    pub denied: u64,
    /// Requests that failed for a reason of this machine.
    pub failed: u64,
    /// Bytes of blobs taken in.
    pub received_bytes: u64,
    /// Bytes of blobs handed out.
    pub sent_bytes: u64,
}

impl Counters {
    pub(super) fn read(&self) -> RegistryCounts {
        RegistryCounts {
            pushes: self.pushes.get(),
            pulls: self.pulls.get(),
            deletions: self.deletions.get(),
            denied: self.denied.get(),
            failed: self.failed.get(),
            received_bytes: self.received.get(),
            sent_bytes: self.sent.get(),
        }
    }

    /// Notes the answer to a request. `asked`: whether it showed who asks.
    pub(super) fn note(&self, method: &Method, place: Option<Place<'_>>, asked: bool, answer: StatusCode) {
        let count = match (answer, place, method.as_str()) {
            // Clients that show nothing at the root want to be told where to log in.
            (StatusCode::UNAUTHORIZED, Some(Place::Root), _) if !asked => return,
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, ..) => &self.denied,
            (status, ..) if status.is_server_error() => &self.failed,
            (status, Some(Place::Manifest { .. }), method) if status.is_success() => match method {
                "GET" => &self.pulls,
                "PUT" => &self.pushes,
                "DELETE" => &self.deletions,
                _ => return,
            },
            _ => return,
        };
        count.add(1);
    }
}
