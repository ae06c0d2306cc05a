//! Which ConfigMaps and Secrets change. Their content is not kept here: pods that use one fetch it.

use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::mpsc;

use crate::feed::{self, Change, Subject};
use crate::shared::Shared;

/// Changes that may wait to be told.
pub(crate) const QUEUE: usize = 256;

/// What kind of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SourceKind {
    ConfigMap,
    Secret,
}

/// One source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SourceName {
    pub(crate) kind: SourceKind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// The part of a source that is read here.
#[derive(Clone, Debug, Deserialize)]
struct Known {
    metadata: Meta,
}

#[derive(Clone, Debug, Deserialize)]
struct Meta {
    #[serde(default)]
    namespace: String,
    name: String,
}

/// Tells every source that changes, for ever. After a gap in the watch all of them are told, and at the beginning: pods may
/// have read some of them before that.
pub(crate) async fn follow(shared: Arc<Shared>, kind: SourceKind, changed: mpsc::Sender<SourceName>) {
    let path = match kind {
        SourceKind::ConfigMap => "/api/v1/configmaps",
        SourceKind::Secret => "/api/v1/secrets",
    };
    let subject = Subject { path: path.into(), field_selector: None };
    let (sender, mut changes) = mpsc::channel(QUEUE);
    let follow = feed::follow(shared.api.0.clone(), subject, Arc::clone(&shared.counters), sender);
    let tell = async {
        while let Some(change) = changes.recv().await {
            let known: Vec<Known> = match change {
                Change::All { items, .. } => items,
                Change::Put(one) | Change::Gone(one) => vec![one],
            };
            for Known { metadata } in known {
                let name = SourceName { kind, namespace: metadata.namespace, name: metadata.name };
                if changed.send(name).await.is_err() {
                    return;
                }
            }
        }
    };
    tokio::join!(follow, tell);
}
