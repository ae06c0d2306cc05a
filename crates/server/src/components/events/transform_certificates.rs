//! The certificates that the pods of EventTransforms present over https: a Secret of each, in its namespace, which goes with
//! it. When one is made, and when anew, is as with those of Eventing's Services ([`super::certificates`]).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use knoll_api::{Key, Kind};
use knoll_apiserver::auth::Pki;
use knoll_broker::topology::Names;
use knoll_client::{
    Client,
    watch::{Collection, Seen, follow},
};
use knoll_plan::event_transform::{certificate_of, service_of};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::certificates::{AGAIN, EVERY, FEATURES, Issuer, Wanted, encrypts};
use crate::{
    components::typed::{create, find, replace},
    failure::chain,
    supervise::Tasks,
};

/// What is to be looked at.
enum Due {
    All,
    One(Key),
}

/// The uids of the transforms whose pods may present a certificate.
type Known = Arc<Mutex<HashMap<Key, String>>>;

/// Keeps them valid until the tasks are told to stop.
pub(super) fn keep(tasks: &mut Tasks, pki: Arc<Pki>, client: Client, names: &Names) {
    let (stop, names) = (tasks.stop(), names.clone());
    tasks.restartable("certificates of EventTransforms", move || {
        let issuer = Issuer { pki: pki.clone(), names: names.clone() };
        let (keeper, stop) = (Keeper { issuer, client: client.clone(), known: Known::default() }, stop.clone());
        async move {
            tokio::select! {
                () = stop.wait() => Ok(()),
                ended = keeper.run() => ended,
            }
        }
    });
}

struct Keeper {
    issuer: Issuer,
    client: Client,
    known: Known,
}

impl Keeper {
    /// Looks at each transform that is new or changed and, when the feature changes and now and then, at all of them.
    async fn run(self) -> Result<(), String> {
        let (into, mut due) = mpsc::channel(1);
        let looking = async {
            while let Some(due) = due.recv().await {
                while let Err(error) = self.look(&due, Timestamp::now()).await {
                    tracing::error!(error, "the certificates of EventTransforms cannot be seen to");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        let now_and_then = async {
            loop {
                tokio::time::sleep(EVERY).await;
                if into.send(Due::All).await.is_err() {
                    return;
                }
            }
        };
        let features = Collection {
            path: Kind::ConfigMap.collection_path(Some(&self.issuer.names.system_namespace)),
            field_selector: format!("metadata.name={FEATURES}"),
            ..Collection::default()
        };
        let transforms = Collection { path: Kind::EventTransform.collection_path(None), ..Collection::default() };
        let is_change = |seen| {
            matches!(seen, Seen::Listed(_) | Seen::Added(_) | Seen::Modified(_) | Seen::Gone(_)).then_some(Due::All)
        };
        tokio::select! {
            () = looking => {}
            () = now_and_then => {}
            () = follow(&self.client, &features, &into, is_change) => {}
            () = follow(&self.client, &transforms, &into, |seen| note(&self.known, seen)) => {}
        }
        Err("the feature and the EventTransforms are not followed any more".to_owned())
    }

    async fn look(&self, due: &Due, now: Timestamp) -> Result<(), String> {
        let features = find::<ConfigMap>(&self.client, &self.issuer.names.system_namespace, FEATURES).await;
        if !encrypts(features.map_err(|e| chain(&e))?.as_ref()) {
            return Ok(());
        }
        let keys: Vec<Key> = match due {
            Due::One(key) => vec![key.clone()],
            Due::All => self.known().keys().cloned().collect(),
        };
        for key in keys {
            let uid = self.known().get(&key).cloned();
            if let Some(uid) = uid {
                self.settle(&key, &uid, now).await?;
            }
        }
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Key, String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn settle(&self, transform: &Key, uid: &str, now: Timestamp) -> Result<(), String> {
        let (secret, service) = (certificate_of(transform), service_of(transform));
        let held: Option<Secret> = find(&self.client, &secret.namespace, &secret.name).await.map_err(|e| chain(&e))?;
        let owner = json!({
            "apiVersion": Kind::EventTransform.api_version(), "kind": Kind::EventTransform.kind(),
            "name": transform.name, "uid": uid, "controller": true, "blockOwnerDeletion": true,
        });
        let place =
            Wanted { namespace: &secret.namespace, name: &secret.name, service: &service.name, owner: Some(owner) };
        let wanted = match self.issuer.wanted(held.as_ref(), &place, now) {
            Ok(wanted) => wanted,
            // One that cannot be made holds up none of the others; it is looked at with all of them.
            Err(error) => {
                tracing::warn!(secret = %secret, error = chain(&error), "the certificate of an EventTransform cannot be made");
                None
            }
        };
        let Some(wanted) = wanted else { return Ok(()) };
        let written = match held {
            None => create(&self.client, &secret.namespace, &wanted).await,
            Some(_) => replace(&self.client, &secret.namespace, &wanted).await,
        };
        match written {
            Ok(_) => tracing::info!(secret = %secret, "an EventTransform has a new certificate"),
            // Its namespace goes, somebody else wrote, or a tenant made a Secret that takes no change: what is refused for
            // its own sake holds up none of the others. A change tells, or the next look at all of them.
            Err(knoll_client::Error::Api(refused)) if is_its_own(refused.code) => {
                tracing::warn!(secret = %secret, error = refused.message, "the certificate of an EventTransform is not written");
            }
            Err(error) => return Err(chain(&error)),
        }
        Ok(())
    }
}

/// Whether a refusal is about the one object, not the server or who asks too often.
fn is_its_own(code: u16) -> bool {
    (400..500).contains(&code) && !matches!(code, 401 | 408 | 429)
}

/// Remembers what is seen of transforms, and says what is due.
fn note(known: &Known, seen: Seen) -> Option<Due> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    match seen {
        Seen::Begins => known.clear(),
        Seen::Listed(_) => return Some(Due::All),
        Seen::Item(object) => drop(remember(&mut known, &object)),
        Seen::Added(object) | Seen::Modified(object) => return remember(&mut known, &object).map(Due::One),
        Seen::Gone(object) => drop(known.remove(&key_of(&object))),
        Seen::Bookmark(_) | Seen::Absent | Seen::Forbidden(_) | Seen::Again => {}
    }
    None
}

/// The key of a transform that has pods and was not known.
fn remember(known: &mut HashMap<Key, String>, object: &Value) -> Option<Key> {
    let (key, uid) = (key_of(object), text(object, "/metadata/uid"));
    if object.pointer("/spec/jsonata").is_none() || object.pointer("/metadata/deletionTimestamp").is_some() {
        known.remove(&key);
        return None;
    }
    let before = known.insert(key.clone(), uid.clone());
    (before != Some(uid)).then_some(key)
}

fn key_of(object: &Value) -> Key {
    Key::new(text(object, "/metadata/namespace"), text(object, "/metadata/name"))
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transform(uid: &str, spec: Value) -> Value {
        json!({"metadata": {"namespace": "ns", "name": "t", "uid": uid}, "spec": spec})
    }

    #[test]
    fn a_secret_that_takes_no_change_holds_up_no_other() {
        let own: Vec<u16> =
            [401, 403, 404, 408, 409, 422, 429, 500, 503].into_iter().filter(|&code| is_its_own(code)).collect();
        assert_eq!(own, [403, 404, 409, 422]);
    }

    #[test]
    fn a_transform_is_due_once_and_again_when_another_has_its_name() {
        let known = Known::default();
        let due = |seen| match note(&known, seen) {
            None => "nothing".to_owned(),
            Some(Due::All) => "all".to_owned(),
            Some(Due::One(key)) => key.to_string(),
        };
        let with = json!({"jsonata": {"expression": "a"}});
        assert_eq!(due(Seen::Begins), "nothing");
        assert_eq!(due(Seen::Item(transform("1", with.clone()))), "nothing");
        assert_eq!(due(Seen::Listed("1".to_owned())), "all");
        assert_eq!(due(Seen::Modified(transform("1", with.clone()))), "nothing");
        assert_eq!(due(Seen::Gone(transform("1", with.clone()))), "nothing");
        assert_eq!(due(Seen::Added(transform("2", json!({})))), "nothing", "it has no pods");
        assert_eq!(due(Seen::Modified(transform("2", with.clone()))), "ns/t");
        assert_eq!(due(Seen::Modified(transform("3", with))), "ns/t");
    }
}
