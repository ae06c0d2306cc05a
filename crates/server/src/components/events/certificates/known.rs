//! Which Secrets are to hold a certificate: those of Eventing's Services, and one of each EventTransform that has pods.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use knoll_api::{Key, Kind, eventing::services::CERTIFICATES};
use knoll_client::watch::Seen;
use knoll_plan::event_transform::{certificate_of, service_of};
use serde_json::{Value, json};

use super::issuer::Wanted;

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    All,
    /// One Secret.
    One(Key),
}

/// See the module.
pub(super) struct Known {
    services: Vec<Wanted>,
    /// By their Secrets.
    transforms: Mutex<HashMap<Key, Transform>>,
}

struct Transform {
    key: Key,
    uid: String,
}

impl Known {
    /// The Services', which are in this namespace, and no transforms yet.
    pub(super) fn new(namespace: &str) -> Self {
        let services = CERTIFICATES.map(|(service, secret)| Wanted {
            secret: Key::new(namespace, secret),
            service: service.to_owned(),
            owner: None,
        });
        Self { services: services.into(), transforms: Mutex::default() }
    }

    /// What a Secret is to hold, if it is one of these. Where a transform's has the name of a Service's, it is the Service's.
    pub(super) fn wanted(&self, secret: &Key) -> Option<Wanted> {
        if let Some(service) = self.services.iter().find(|wanted| wanted.secret == *secret) {
            return Some(service.clone());
        }
        let transforms = self.transforms();
        let Transform { key, uid } = transforms.get(secret)?;
        let owner = json!({
            "apiVersion": Kind::EventTransform.api_version(), "kind": Kind::EventTransform.kind(),
            "name": key.name, "uid": uid, "controller": true, "blockOwnerDeletion": true,
        });
        Some(Wanted { secret: secret.clone(), service: service_of(key).name, owner: Some(owner) })
    }

    /// The Secrets of what is due.
    pub(super) fn secrets(&self, due: Due) -> Vec<Key> {
        match due {
            Due::One(secret) => vec![secret],
            Due::All => {
                let services = self.services.iter().map(|wanted| wanted.secret.clone());
                services.chain(self.transforms().keys().cloned()).collect()
            }
        }
    }

    /// What is due by what is seen of Secrets.
    pub(super) fn saw_secret(&self, seen: Seen) -> Option<Due> {
        match seen {
            Seen::Listed(_) => Some(Due::All),
            Seen::Added(object) | Seen::Modified(object) | Seen::Gone(object) => {
                let secret = key_of(&object);
                let is_known = self.services.iter().any(|wanted| wanted.secret == secret)
                    || self.transforms().contains_key(&secret);
                is_known.then_some(Due::One(secret))
            }
            Seen::Begins | Seen::Item(_) | Seen::Bookmark(_) | Seen::Absent | Seen::Forbidden(_) | Seen::Again => None,
        }
    }

    /// Remembers what is seen of transforms, and says what is due by it.
    pub(super) fn saw_transform(&self, seen: Seen) -> Option<Due> {
        let mut transforms = self.transforms();
        match seen {
            Seen::Begins => transforms.clear(),
            Seen::Listed(_) => return Some(Due::All),
            Seen::Item(object) => drop(remember(&mut transforms, &object)),
            Seen::Added(object) | Seen::Modified(object) => return remember(&mut transforms, &object).map(Due::One),
            Seen::Gone(object) => drop(transforms.remove(&certificate_of(&key_of(&object)))),
            Seen::Bookmark(_) | Seen::Absent | Seen::Forbidden(_) | Seen::Again => {}
        }
        None
    }

    fn transforms(&self) -> MutexGuard<'_, HashMap<Key, Transform>> {
        self.transforms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The Secret of a transform that has pods and was not known.
fn remember(transforms: &mut HashMap<Key, Transform>, object: &Value) -> Option<Key> {
    let (key, uid) = (key_of(object), text(object, "/metadata/uid"));
    let secret = certificate_of(&key);
    if object.pointer("/spec/jsonata").is_none() || object.pointer("/metadata/deletionTimestamp").is_some() {
        transforms.remove(&secret);
        return None;
    }
    let before = transforms.insert(secret.clone(), Transform { key, uid: uid.clone() });
    before.is_none_or(|before| before.uid != uid).then_some(secret)
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

    fn object(namespace: &str, name: &str, uid: &str, spec: Value) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name, "uid": uid}, "spec": spec})
    }

    fn transform(uid: &str, spec: Value) -> Value {
        object("ns", "t", uid, spec)
    }

    fn shown(due: Option<Due>) -> String {
        match due {
            None => "nothing".to_owned(),
            Some(Due::All) => "all".to_owned(),
            Some(Due::One(key)) => key.to_string(),
        }
    }

    #[test]
    fn a_transform_is_due_once_and_again_when_another_has_its_name() {
        let known = Known::new("knative-eventing");
        let due = |seen| shown(known.saw_transform(seen));
        let with = json!({"jsonata": {"expression": "a"}});
        let secret = certificate_of(&Key::new("ns", "t")).to_string();
        assert_eq!(due(Seen::Begins), "nothing");
        assert_eq!(due(Seen::Item(transform("1", with.clone()))), "nothing");
        assert_eq!(due(Seen::Listed("1".to_owned())), "all");
        assert_eq!(due(Seen::Modified(transform("1", with.clone()))), "nothing");
        assert_eq!(due(Seen::Gone(transform("1", with.clone()))), "nothing");
        assert_eq!(due(Seen::Added(transform("2", json!({})))), "nothing", "it has no pods");
        assert_eq!(due(Seen::Modified(transform("2", with.clone()))), secret);
        assert_eq!(due(Seen::Modified(transform("3", with))), secret);
    }

    #[test]
    fn a_secret_is_due_while_somebody_wants_it_whatever_becomes_of_it() {
        let known = Known::new("knative-eventing");
        let due = |seen| shown(known.saw_secret(seen));
        let secret = certificate_of(&Key::new("ns", "t"));
        let of_transform = || object("ns", &secret.name, "s", Value::Null);
        assert_eq!(due(Seen::Gone(of_transform())), "nothing", "nobody wants it");
        known.saw_transform(Seen::Item(transform("1", json!({"jsonata": {}}))));
        assert_eq!(due(Seen::Gone(of_transform())), secret.to_string());
        assert_eq!(due(Seen::Modified(of_transform())), secret.to_string());
        let (_, name) = CERTIFICATES[0];
        assert_eq!(
            due(Seen::Gone(object("knative-eventing", name, "s", Value::Null))),
            format!("knative-eventing/{name}")
        );
        assert_eq!(due(Seen::Gone(object("ns", name, "s", Value::Null))), "nothing", "another namespace's");
    }

    #[test]
    fn a_transform_takes_no_secret_of_a_service() {
        let known = Known::new("knative-eventing");
        let (service, name) = CERTIFICATES[0];
        let transform = name.strip_suffix("-server-tls").expect("the end that transforms' have as well");
        let object = object("knative-eventing", transform, "1", json!({"jsonata": {}}));
        assert_eq!(shown(known.saw_transform(Seen::Added(object))), format!("knative-eventing/{name}"));
        let wanted = known.wanted(&Key::new("knative-eventing", name)).expect("it is wanted");
        assert_eq!((&*wanted.service, wanted.owner), (service, None));
    }
}
