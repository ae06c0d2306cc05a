//! The truth: what an API server would hold, and everything that ever happened to it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use knoll_api::{Key, Kind, Object};
use knoll_plan::{Change, Propagation, Want};
use serde_json::{Value, json};

/// Why a write was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The object is not as the writer thought, exists already or no more.
    Conflict,
    /// No reason that the writer could help.
    Failed,
}

/// The truth.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    objects: BTreeMap<(Kind, Key), Object>,
    revision: u64,
    history: BTreeMap<Kind, Vec<(u64, Change)>>,
}

impl Cluster {
    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Everything that happened to a kind: revision and change.
    pub fn history(&self, kind: Kind) -> &[(u64, Change)] {
        self.history.get(&kind).map_or(&[], Vec::as_slice)
    }

    /// Every object of a kind, in order.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(move |((of, _), _)| *of == kind).map(|(_, object)| object)
    }

    /// An object.
    pub fn get(&self, kind: Kind, key: &Key) -> Option<&Object> {
        self.objects.get(&(kind, key.clone()))
    }

    /// As a user or a node would: creates or replaces an object. The generation moves with the spec.
    ///
    /// # Panics
    /// When it is not an object of that kind.
    pub fn put(&mut self, kind: Kind, mut value: Value, now: Timestamp) -> u64 {
        let text = |value: &Value, name: &str| value["metadata"][name].as_str().unwrap_or_default().to_owned();
        let key = Key::new(text(&value, "namespace"), text(&value, "name"));
        let before = self.get(kind, &key).map(Object::to_json);
        self.revision += 1;
        let moved = before.as_ref().is_some_and(|before| before["spec"] != value["spec"]);
        let metadata = &mut value["metadata"];
        match &before {
            Some(before) => {
                for field in ["uid", "creationTimestamp"] {
                    metadata[field] = before["metadata"][field].clone();
                }
                let generation = before["metadata"]["generation"].as_i64().unwrap_or(1);
                metadata["generation"] = (generation + i64::from(moved)).into();
            }
            None => {
                metadata["uid"] = format!("uid-{}", self.revision).into();
                metadata["creationTimestamp"] = whole(now).into();
                metadata["generation"] = 1.into();
            }
        }
        value["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let object = Object::from_json(kind, value).expect("a well-formed object");
        self.objects.insert((kind, key), object.clone());
        self.history.entry(kind).or_default().push((self.revision, Change::Put(object)));
        self.revision
    }

    /// As a user would: changes an object that exists.
    pub fn edit(&mut self, kind: Kind, key: &Key, now: Timestamp, edit: impl FnOnce(&mut Value)) {
        if let Some(object) = self.get(kind, key) {
            let mut value = object.to_json();
            edit(&mut value);
            self.put(kind, value, now);
        }
    }

    /// Takes an object away at once.
    pub fn remove(&mut self, kind: Kind, key: &Key) -> u64 {
        if self.objects.remove(&(kind, key.clone())).is_some() {
            self.revision += 1;
            self.history.entry(kind).or_default().push((self.revision, Change::Gone(kind, key.clone())));
        }
        self.revision
    }

    /// As a user would: deletes an object, which finalizers and nodes may hold.
    pub fn delete(&mut self, kind: Kind, key: &Key, propagation: Propagation, now: Timestamp) -> u64 {
        let Some(object) = self.get(kind, key) else { return self.revision };
        let mut value = object.to_json();
        let mut finalizers: Vec<Value> = value["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let own = match propagation {
            Propagation::Background => None,
            Propagation::Foreground => Some("foregroundDeletion"),
            Propagation::Orphan => Some("orphan"),
        };
        if let Some(own) = own
            && !finalizers.contains(&json!(own))
        {
            finalizers.push(own.into());
        }
        // A node lets a pod end; one that nobody started just goes.
        let held = kind == Kind::Pod && value["spec"]["nodeName"].is_string();
        if finalizers.is_empty() && !held {
            return self.remove(kind, key);
        }
        if value["metadata"]["deletionTimestamp"].is_string() {
            return self.revision;
        }
        value["metadata"]["finalizers"] = finalizers.into();
        value["metadata"]["deletionTimestamp"] = whole(now).into();
        self.put(kind, value, now)
    }

    /// Does what a controller wants. `versions` holds what this plan wrote before. The revision of the write, if it
    /// was one.
    pub(crate) fn carry_out(
        &mut self,
        want: &Want,
        versions: &mut BTreeMap<(Kind, Key), String>,
        now: Timestamp,
    ) -> Result<Option<(Kind, u64)>, Denied> {
        let wrote = match want {
            Want::Create(object) => {
                if self.get(object.kind(), &object.key()).is_some() {
                    return Err(Denied::Conflict);
                }
                (object.kind(), self.put(object.kind(), object.to_json(), now))
            }
            Want::Update(object) => self.replace(object, versions, now, |current, sent| {
                let status = current["status"].take();
                *current = sent;
                current["status"] = status;
            })?,
            Want::Status(object) => {
                self.replace(object, versions, now, |current, mut sent| current["status"] = sent["status"].take())?
            }
            Want::Finalize(object) => {
                self.replace(object, versions, now, |current, mut sent| current["spec"] = sent["spec"].take())?
            }
            Want::Scale { kind, key, replicas } => {
                if self.get(*kind, key).is_none() {
                    return Err(Denied::Conflict);
                }
                self.edit(*kind, key, now, |value| value["spec"]["replicas"] = (*replicas).into());
                (*kind, self.revision)
            }
            Want::Delete { kind, key, uid, propagation, .. } => {
                return self.delete_exactly(*kind, key, uid, *propagation, now);
            }
            Want::Collect { kind, key, uid, owners } => {
                let exists = |(kind, key, uid): &(Kind, Key, String)| {
                    self.get(*kind, key).is_some_and(|owner| owner.meta().uid.as_ref() == Some(uid))
                };
                if owners.iter().any(exists) {
                    return Ok(None);
                }
                return self.delete_exactly(*kind, key, uid, Propagation::Background, now);
            }
            Want::Bind { pod, uid, node } => {
                let fits = |object: &&Object| {
                    object.meta().uid.as_ref() == Some(uid) && object.to_json()["spec"]["nodeName"].is_null()
                };
                if self.get(Kind::Pod, pod).filter(fits).is_none() {
                    return Err(Denied::Conflict);
                }
                self.edit(Kind::Pod, pod, now, |value| value["spec"]["nodeName"] = node.clone().into());
                (Kind::Pod, self.revision)
            }
            Want::Sweep { .. } | Want::RecordEvent(_) | Want::ResolveDigest { .. } => return Ok(None),
        };
        Ok(Some(wrote))
    }

    fn delete_exactly(
        &mut self,
        kind: Kind,
        key: &Key,
        uid: &str,
        propagation: Propagation,
        now: Timestamp,
    ) -> Result<Option<(Kind, u64)>, Denied> {
        match self.get(kind, key) {
            None => Ok(None),
            Some(object) if object.meta().uid.as_deref() != Some(uid) => Err(Denied::Conflict),
            Some(_) => {
                let revision = self.delete(kind, key, propagation, now);
                Ok(Some((kind, revision)))
            }
        }
    }

    fn replace(
        &mut self,
        object: &Object,
        versions: &mut BTreeMap<(Kind, Key), String>,
        now: Timestamp,
        merge: impl FnOnce(&mut Value, Value),
    ) -> Result<(Kind, u64), Denied> {
        let id = (object.kind(), object.key());
        let Some(current) = self.objects.get(&id) else { return Err(Denied::Conflict) };
        let expected = versions.get(&id).or(object.meta().resource_version.as_ref());
        if current.meta().resource_version.as_ref() != expected {
            return Err(Denied::Conflict);
        }
        let mut value = current.to_json();
        merge(&mut value, object.to_json());
        let held = value["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
            || (id.0 == Kind::Namespace && value["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty()));
        let revision = if value["metadata"]["deletionTimestamp"].is_string() && !held {
            self.remove(id.0, &id.1)
        } else {
            self.put(id.0, value, now)
        };
        versions.insert(id.clone(), revision.to_string());
        Ok((id.0, revision))
    }
}

/// A time as the API writes it.
pub(crate) fn whole(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
