//! Lists and watches one kind, for ever.

use std::fmt::Debug;
use std::sync::Arc;

use knoll_api::json;
use knoll_client::{
    Client,
    watch::{self, Collection, Seen},
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::counters::Counters;

/// What a feed says.
#[derive(Clone, Debug)]
pub(crate) enum Change<K> {
    /// Everything there is; what was known before and is not among it is gone.
    All {
        /// The objects.
        items: Vec<K>,
        /// The uids of those that cannot be read.
        unreadable: Vec<String>,
    },
    /// An object is new or different.
    Put(K),
    /// An object is gone; its last state.
    Gone(K),
}

/// What to follow.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// Path of the collection.
    pub(crate) path: String,
    /// Which of its objects.
    pub(crate) field_selector: Option<String>,
}

#[derive(Clone, Debug)]
struct Raw(serde_json::Value);

impl Raw {
    fn meta(&self, field: &str) -> Option<String> {
        Some(self.0.get("metadata")?.get(field)?.as_str()?.to_owned())
    }

    /// The object; one whose status cannot be read is taken without it. What others wrote into a status must not hide
    /// what was asked for.
    fn read<K: DeserializeOwned>(&mut self) -> Result<K, serde_json::Error> {
        let whole = json::typed(&self.0);
        let bare = whole.is_err() && self.0.as_object_mut().is_some_and(|fields| fields.remove("status").is_some());
        if bare { json::typed(&self.0) } else { whole }
    }
}

/// Follows a kind until nobody listens any more. Changes come in order; the first is [`Change::All`].
pub(crate) async fn follow<K>(client: Client, subject: Subject, counters: Arc<Counters>, tell: mpsc::Sender<Change<K>>)
where
    K: DeserializeOwned + Clone + Debug + Send,
{
    let field_selector = subject.field_selector.clone().unwrap_or_default();
    let collection = Collection { path: subject.path.clone(), field_selector, ..Collection::default() };
    let (mut items, mut unreadable) = (Vec::new(), Vec::new());
    let take = |seen| match seen {
        Seen::Begins => {
            items.clear();
            unreadable.clear();
            None
        }
        Seen::Item(raw) => {
            match read(Raw(raw), &subject, &counters) {
                Ok(object) => items.push(object),
                Err(uid) => unreadable.extend(uid),
            }
            None
        }
        Seen::Listed(_) => {
            Some(Change::All { items: std::mem::take(&mut items), unreadable: std::mem::take(&mut unreadable) })
        }
        Seen::Added(raw) | Seen::Modified(raw) => read(Raw(raw), &subject, &counters).ok().map(Change::Put),
        Seen::Gone(raw) => read(Raw(raw), &subject, &counters).ok().map(Change::Gone),
        Seen::Bookmark(_) | Seen::Absent | Seen::Forbidden(_) | Seen::Again => None,
    };
    watch::follow(&client, &collection, &tell, take).await;
}

/// Reads an object, or counts and tells that it cannot be read; its uid then.
fn read<K: DeserializeOwned>(mut raw: Raw, subject: &Subject, counters: &Counters) -> Result<K, Option<String>> {
    raw.read().map_err(|error| {
        counters.unreadable.add();
        let (namespace, name) = (raw.meta("namespace"), raw.meta("name"));
        tracing::warn!(path = subject.path, namespace, name, %error, "an object cannot be read: it stays as it is");
        raw.meta("uid")
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn junk_in_a_status_hides_no_pod() {
        let counters = Counters::default();
        let subject = Subject { path: "/api/v1/pods".into(), field_selector: None };
        let meta = || json!({"name": "p", "uid": "u"});
        let junk = Raw(json!({"metadata": meta(), "spec": {"containers": []}, "status": {"conditions": 5}}));
        let pod: Pod = read(junk, &subject, &counters).expect("readable without its status");
        assert!(pod.status.is_none() && pod.spec.is_some());
        let worse = Raw(json!({"metadata": meta(), "spec": {"containers": "none"}}));
        assert_eq!(read::<Pod>(worse, &subject, &counters), Err(Some("u".into())));
        assert_eq!(counters.read().unreadable, 1);
    }
}
