//! How what goes between the roles is written.

use std::net::SocketAddr;

use knoll_api::{Key, stats::RevisionStat, table::Instance};
use serde::{Deserialize, Serialize};

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named(String, String);

impl From<&Key> for Named {
    fn from(key: &Key) -> Self {
        Self(key.namespace.clone(), key.name.clone())
    }
}

impl From<Named> for Key {
    fn from(Named(namespace, name): Named) -> Self {
        Key::new(namespace, name)
    }
}

/// See [`RevisionStat`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Stat {
    revision: Named,
    average_concurrency: f64,
    request_count: f64,
    period_seconds: f64,
}

impl From<&RevisionStat> for Stat {
    fn from(stat: &RevisionStat) -> Self {
        let RevisionStat { revision, average_concurrency, request_count, period_seconds } = stat;
        Self {
            revision: revision.into(),
            average_concurrency: *average_concurrency,
            request_count: *request_count,
            period_seconds: *period_seconds,
        }
    }
}

impl From<Stat> for RevisionStat {
    fn from(stat: Stat) -> Self {
        let Stat { revision, average_concurrency, request_count, period_seconds } = stat;
        Self { revision: revision.into(), average_concurrency, request_count, period_seconds }
    }
}

/// An instance of a revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    revision: Named,
    address: SocketAddr,
    pod: String,
}

impl Place {
    pub(super) fn new(revision: &Key, instance: &Instance) -> Self {
        Self { revision: revision.into(), address: instance.address, pod: instance.pod.clone() }
    }

    pub(super) fn into_parts(self) -> (Key, Instance) {
        (self.revision.into(), Instance { address: self.address, pod: self.pod })
    }
}
