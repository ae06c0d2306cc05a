//! The truth: the real store, on a disk in memory that may lose its power, and what its watch told.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use knoll_api::{Key, Kind, Object};
use knoll_journal::MemoryDisk;
use knoll_plan::{AnyKind, Change, Propagation, Target, Want};
use knoll_store::{Durability, Expect, Options, Store, Watch};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Why a write was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The object is not as the writer thought, exists already or no more.
    Conflict,
    /// No reason that the writer could help.
    Failed,
}

/// The truth.
pub struct Cluster {
    runtime: Runtime,
    disk: MemoryDisk,
    store: Store,
    watch: Watch,
    /// What the store holds, as its watch told it.
    objects: BTreeMap<(Kind, Key), Object>,
    revision: u64,
    history: BTreeMap<Kind, Vec<(u64, Change)>>,
    /// The newest revision that no power cut may take back.
    durable: u64,
    /// Objects that were ever made: their uids differ, whatever is lost.
    made: u64,
    boots: u64,
}

/// A power cut is known by the name of the machine's run.
fn options(boots: u64) -> Options {
    let mut options = Options { boot_id: format!("boot-{boots}"), ..Options::default() };
    options.log.room_bytes = 4 << 10;
    options
}

/// The store's key of an object.
fn path(kind: Kind, key: &Key) -> String {
    let place = Kind::ALL.iter().position(|one| *one == kind).unwrap_or_default();
    format!("{place:03}/{}/{}", key.namespace, key.name)
}

/// The object that the store's key names.
fn named(path: &str) -> Option<(Kind, Key)> {
    let mut parts = path.splitn(3, '/');
    let kind = Kind::ALL.get(parts.next()?.parse::<usize>().ok()?)?;
    Some((*kind, Key::new(parts.next()?, parts.next()?)))
}

/// The object that the store holds, as of a revision.
fn object(kind: Kind, value: &[u8], revision: u64) -> Object {
    let mut value: Value = serde_json::from_slice(value).expect("what was written is JSON");
    value["metadata"]["resourceVersion"] = revision.to_string().into();
    Object::from_json(kind, value).expect("a well-formed object")
}

impl Default for Cluster {
    fn default() -> Cluster {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let disk = MemoryDisk::default();
        let store = Store::open_on(std::sync::Arc::new(disk.clone()), options(0)).expect("an empty disk opens");
        let watch = store.watch("", 0).expect("nothing was compacted");
        let (objects, history) = (BTreeMap::new(), BTreeMap::new());
        Cluster { runtime, disk, store, watch, objects, revision: 0, history, durable: 0, made: 0, boots: 0 }
    }
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

    /// Kinds to which anything happened, in order, and how much.
    pub(crate) fn histories(&self) -> impl Iterator<Item = (Kind, usize)> + '_ {
        self.history.iter().map(|(kind, history)| (*kind, history.len()))
    }

    /// Every object of a kind, in order.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        let from = (kind, Key::new("", ""));
        self.objects.range(from..).take_while(move |((of, _), _)| *of == kind).map(|(_, object)| object)
    }

    /// An object.
    pub fn get(&self, kind: Kind, key: &Key) -> Option<&Object> {
        self.objects.get(&(kind, key.clone()))
    }

    /// Cuts the power and starts again. What was acknowledged as durable is there; what was not may be gone.
    ///
    /// # Errors
    /// What was lost that must not be.
    pub fn power_cut(&mut self, seed: u64) -> Result<(), String> {
        self.boots += 1;
        self.disk = self.disk.after_power_cut_with(seed);
        let disk = std::sync::Arc::new(self.disk.clone());
        self.store =
            Store::open_on(disk, options(self.boots)).map_err(|error| format!("the store does not open: {error}"))?;
        let snapshot = self.store.snapshot();
        if snapshot.revision < self.revision {
            return Err(format!("revision {} comes again after {}", snapshot.revision, self.revision));
        }
        let mut found = BTreeMap::new();
        for entry in snapshot.range("", None) {
            let id = named(&entry.key).ok_or_else(|| format!("{} was never written", entry.key))?;
            found.insert(id.clone(), object(id.0, &entry.value, entry.revision));
        }
        for (id, known) in self.state_at(self.durable) {
            let kept = found.get(&id).is_some_and(|object| revision_of(object) >= known);
            if !kept && !self.was_gone_after(&id, self.durable) {
                let (kind, key) = id;
                return Err(format!("{kind:?} {key} of revision {known} was durable at {} and is lost", self.durable));
            }
        }
        self.watch = self.store.watch("", snapshot.revision).map_err(|error| error.to_string())?;
        (self.revision, self.durable) = (snapshot.revision, snapshot.revision);
        self.history.clear();
        for ((kind, _), object) in &found {
            self.history.entry(*kind).or_default().push((revision_of(object), Change::Put(object.clone())));
        }
        for history in self.history.values_mut() {
            history.sort_by_key(|(revision, _)| *revision);
        }
        self.objects = found;
        Ok(())
    }

    /// Revisions of the objects that were there at a revision, by what was heard.
    fn state_at(&self, revision: u64) -> BTreeMap<(Kind, Key), u64> {
        let mut state = BTreeMap::new();
        for (kind, history) in &self.history {
            for (at, change) in history.iter().filter(|(at, _)| *at <= revision) {
                match change {
                    Change::Put(object) => drop(state.insert((*kind, object.key()), *at)),
                    Change::Gone(_, key) => drop(state.remove(&(*kind, key.clone()))),
                }
            }
        }
        state
    }

    /// Whether an object was deleted after a revision, be it that it was made again.
    fn was_gone_after(&self, (kind, key): &(Kind, Key), revision: u64) -> bool {
        let gone = Change::Gone(*kind, key.clone());
        self.history.get(kind).into_iter().flatten().any(|(at, change)| *at > revision && *change == gone)
    }

    /// Writes one entry, or deletes it, and hears of that.
    fn write(&mut self, kind: Kind, key: &Key, value: Option<&Value>, expect: Expect, durability: Durability) -> u64 {
        let path = path(kind, key);
        let written = match value {
            Some(value) => {
                let bytes = Bytes::from(value.to_string());
                self.runtime.block_on(self.store.put(path, bytes, expect, durability))
            }
            None => self.runtime.block_on(self.store.delete(&path, expect, durability)).map(|change| change.revision),
        };
        let revision = written.expect("nobody else writes");
        if durability == Durability::Durable {
            self.durable = revision;
        }
        while self.revision < revision {
            let change = self.runtime.block_on(self.watch.next()).expect("it keeps up").expect("the store runs");
            let (kind, key) = named(&change.key).expect("only we write");
            self.revision = change.revision;
            let heard = match &change.value {
                Some(value) => Change::Put(object(kind, value, change.revision)),
                None => Change::Gone(kind, key.clone()),
            };
            match &heard {
                Change::Put(object) => drop(self.objects.insert((kind, key), object.clone())),
                Change::Gone(..) => drop(self.objects.remove(&(kind, key))),
            }
            self.history.entry(kind).or_default().push((change.revision, heard));
        }
        revision
    }

    /// As a user or a node would: creates or replaces an object. The generation moves with the spec.
    ///
    /// # Panics
    /// When it is not an object of that kind.
    pub fn put(&mut self, kind: Kind, mut value: Value, now: Timestamp) -> u64 {
        let text = |value: &Value, name: &str| value["metadata"][name].as_str().unwrap_or_default().to_owned();
        let key = Key::new(text(&value, "namespace"), text(&value, "name"));
        let before = self.get(kind, &key).map(Object::to_json);
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
                self.made += 1;
                metadata["uid"] = format!("uid-{}", self.made).into();
                metadata["creationTimestamp"] = whole(now).into();
                metadata["generation"] = 1.into();
            }
        }
        let expect = match before.as_ref().and_then(|before| before["metadata"]["resourceVersion"].as_str()) {
            Some(version) => Expect::Revision(version.parse().expect("revisions are numbers")),
            None => Expect::Absent,
        };
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        // As the API server does: what can be observed again need not survive a power cut.
        let observed = kind == Kind::Pod || (before.is_some() && !moved);
        let durability = if observed { Durability::Relaxed } else { Durability::Durable };
        self.write(kind, &key, Some(&value), expect, durability)
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
        if self.get(kind, key).is_some() {
            let durability = if kind == Kind::Pod { Durability::Relaxed } else { Durability::Durable };
            self.write(kind, key, None, Expect::Present, durability);
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
            Want::Collect {
                object: Target { kind: AnyKind::Typed(kind), key, .. }, uid, absent, propagation, ..
            } => {
                if self.is_any(absent) {
                    return Ok(None);
                }
                return self.delete_exactly(*kind, key, uid, *propagation, now);
            }
            Want::Shrink { object: Target { kind: AnyKind::Typed(kind), key, .. }, uid, list, without, absent } => {
                if self.is_any(absent) {
                    return Ok(None);
                }
                return self.shrink(*kind, key, uid, now, |metadata| {
                    if let Some(entries) = metadata[list.field()].as_array_mut() {
                        entries.retain(|entry| !list.is_of(entry, without));
                    }
                });
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
            // There is nothing here that controllers do not know.
            Want::Collect { .. }
            | Want::Shrink { .. }
            | Want::Patch { .. }
            | Want::DeleteContent { .. }
            | Want::RecordEvent(_)
            | Want::ReviewAccess { .. }
            | Want::IssueToken(_)
            | Want::ResolveDigest { .. } => return Ok(None),
        };
        Ok(Some(wrote))
    }

    /// Whether one of these exists.
    fn is_any(&self, owners: &[(Target, String)]) -> bool {
        owners.iter().any(|(owner, uid)| {
            let AnyKind::Typed(kind) = owner.kind else { return false };
            self.get(kind, &owner.key).is_some_and(|owner| owner.meta().uid.as_ref() == Some(uid))
        })
    }

    /// Changes the metadata of the object with this uid, which goes where nothing holds it any more.
    fn shrink(
        &mut self,
        kind: Kind,
        key: &Key,
        uid: &str,
        now: Timestamp,
        change: impl FnOnce(&mut Value),
    ) -> Result<Option<(Kind, u64)>, Denied> {
        let Some(object) = self.get(kind, key).filter(|object| object.meta().uid.as_deref() == Some(uid)) else {
            return Ok(None);
        };
        let mut value = object.to_json();
        change(&mut value["metadata"]);
        let is_held = value["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        let is_released = value["metadata"]["deletionTimestamp"].is_string() && !is_held;
        let revision = if is_released { self.remove(kind, key) } else { self.put(kind, value, now) };
        Ok(Some((kind, revision)))
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

/// The revision of an object.
fn revision_of(object: &Object) -> u64 {
    object.meta().resource_version.as_ref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// A time as the API writes it.
pub(crate) fn whole(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
