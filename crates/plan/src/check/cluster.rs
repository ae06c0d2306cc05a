//! An API server of a few rules, over a World: what it takes for plans to be carried out in tests.

use std::collections::{BTreeMap, BTreeSet};

use knoll_api::{Key, Kind, Object, Timestamp, kind::Scope};
use serde_json::{Value, json};

use super::NOW;
use crate::{
    AccessAnswer, AccessRequest, AnyKind, Change, Changed, Denial, Observation, Settings, Target, TokenSecret, Want,
    World,
};

/// An API server of a few rules, over a World.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) world: World,
    writes: u64,
    /// What became different since it was last asked for.
    pub(crate) changes: Vec<Changed>,
    /// Images that cannot be resolved, and why.
    pub(crate) broken_images: BTreeMap<String, String>,
    /// What ServiceAccounts may not do: a verb, and `namespace/plural`.
    pub(crate) forbidden: BTreeSet<(String, String)>,
    /// Kubernetes Events, `reason: message`.
    pub(crate) notes: Vec<String>,
}

impl Cluster {
    /// An empty cluster.
    pub(crate) fn new() -> Cluster {
        Cluster::with(Settings::default())
    }

    /// An empty cluster with these settings.
    pub(crate) fn with(settings: Settings) -> Cluster {
        Cluster {
            world: World::new(settings),
            writes: 0,
            changes: Vec::new(),
            broken_images: BTreeMap::new(),
            forbidden: BTreeSet::new(),
            notes: Vec::new(),
        }
    }

    /// A cluster with the objects of YAML documents. Namespace `default`, uid, generation and resourceVersion are
    /// filled in; an owner written as `owner: Kind/name` becomes the controller.
    pub(crate) fn of(fixture: &str) -> Cluster {
        let mut cluster = Cluster::new();
        cluster.add(fixture);
        cluster
    }

    /// Puts the objects of YAML documents.
    #[track_caller]
    pub(crate) fn add(&mut self, fixture: &str) {
        for document in fixture.split("\n---") {
            if document.trim().is_empty() {
                continue;
            }
            let value: Value = serde_saphyr::from_str(document).expect("a fixture is YAML");
            let (api_version, kind) = (text(&value, "apiVersion"), text(&value, "kind"));
            let kind = Kind::from_api(&api_version, &kind).unwrap_or_else(|| panic!("unknown kind {kind}"));
            self.put(kind, value);
        }
    }

    /// Puts an object as it is, but for what an API server fills in.
    pub(crate) fn put(&mut self, kind: Kind, mut value: Value) {
        let name = text(&value["metadata"], "name");
        let meta = value["metadata"].as_object_mut().expect("metadata");
        if kind.scope() == Scope::Namespaced {
            meta.entry("namespace").or_insert_with(|| "default".into());
        }
        meta.entry("uid").or_insert_with(|| uid(kind, &name).into());
        meta.entry("generation").or_insert(json!(1));
        meta.entry("creationTimestamp").or_insert_with(|| NOW.to_string().into());
        if let Some(owner) = meta.remove("owner") {
            let (owner_kind, owner) = owner.as_str().and_then(|owner| owner.split_once('/')).expect("Kind/name");
            let kind = *Kind::ALL.iter().find(|kind| kind.kind() == owner_kind).expect("a known owner");
            let reference = json!({
                "apiVersion": kind.api_version(), "kind": owner_kind, "name": owner,
                "uid": uid(kind, owner), "controller": true, "blockOwnerDeletion": true,
            });
            meta.insert("ownerReferences".into(), json!([reference]));
        }
        self.write(kind, value);
    }

    fn write(&mut self, kind: Kind, mut value: Value) {
        self.writes += 1;
        value["metadata"]["resourceVersion"] = self.writes.to_string().into();
        let object = Object::from_json(kind, value).expect("a fixture has the fields of its kind");
        self.changes.extend(self.world.apply(Change::Put(object)));
    }

    /// Does what a plan wants.
    pub(crate) fn carry_out(&mut self, want: &Want, now: Timestamp) {
        match want {
            Want::Create(object) => self.create(object, now),
            Want::Update(object) => self.update(object),
            Want::Status(object) => self.write_status(object),
            Want::Scale { kind, key, replicas } => self.edit(*kind, key, |value| {
                value["spec"]["replicas"] = json!(replicas);
            }),
            Want::Delete { kind, key, uid, .. } => {
                if self.world.holds(*kind, key, uid) {
                    self.delete(*kind, key);
                }
            }
            Want::Collect { object: Target { kind: AnyKind::Typed(kind), key, .. }, uid, absent, .. } => {
                let orphaned = !absent.iter().any(|(owner, uid)| self.world.has(owner.kind, &owner.key, uid));
                if orphaned && self.world.holds(*kind, key, uid) {
                    self.delete(*kind, key);
                }
            }
            Want::Shrink { object: Target { kind: AnyKind::Typed(kind), key, .. }, list, without, .. } => {
                let mut value = self.world.object(*kind, key).expect("it exists").to_json();
                if let Some(entries) = value["metadata"][list.field()].as_array_mut() {
                    entries.retain(|entry| !list.is_of(entry, without));
                }
                self.update(&Object::from_json(*kind, value).expect("an object"));
            }
            Want::Collect { .. } | Want::Shrink { .. } => {}
            Want::DeleteContent { .. } | Want::Patch { .. } => {}
            Want::Bind { pod, node, .. } => self.edit(Kind::Pod, pod, |value| {
                value["spec"]["nodeName"] = json!(node);
                value["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "True"}]);
            }),
            Want::Finalize(object) => self.update(object),
            Want::RecordEvent(note) => self.notes.push(format!("{}: {}", note.reason, note.message)),
            Want::ReviewAccess { request, asker, rules } => {
                let outcome = Ok(self.denials(request));
                let answer = AccessAnswer { request: request.clone(), rules: *rules, outcome, at: now };
                self.changes.extend(self.world.observe(Observation::Access { asker: asker.clone(), answer }));
            }
            Want::IssueToken(order) => {
                let ends = now + jiff::SignedDuration::from_secs(TokenSecret::SECONDS.into());
                let object = Object::from(order.clone().with("token".to_owned(), ends));
                let is_there = object.meta().resource_version.is_some();
                if is_there { self.update(&object) } else { self.create(&object, now) }
            }
            Want::ResolveDigest { request, asker, .. } => {
                let result = match self.broken_images.get(&request.image) {
                    Some(why) => Err(why.clone()),
                    None => Ok(format!("{}@sha256:{:064x}", request.image, request.image.len())),
                };
                let observation =
                    Observation::Digest { request: request.clone(), asker: asker.clone(), result, at: now };
                self.changes.extend(self.world.observe(observation));
            }
        }
    }

    fn denials(&self, request: &AccessRequest) -> Vec<Denial> {
        let places =
            request.resources.iter().flat_map(|resource| request.namespaces.iter().map(move |ns| (resource, ns)));
        let denials = places.map(|(resource, namespace)| {
            let place = format!("{namespace}/{}", resource.1);
            let is_forbidden = |verb: &&&str| self.forbidden.contains(&((**verb).to_owned(), place.clone()));
            let verbs = request.verbs.iter().filter(is_forbidden).copied().collect();
            Denial { verbs, resource: resource.clone(), namespace: namespace.clone() }
        });
        denials.filter(|denial| !denial.verbs.is_empty()).collect()
    }

    fn create(&mut self, object: &Object, now: Timestamp) {
        let (kind, mut value) = (object.kind(), object.to_json());
        if self.world.meta(kind, &object.key()).is_some() {
            return;
        }
        let name = object.key().name;
        value["metadata"]["uid"] = uid(kind, &name).into();
        value["metadata"]["generation"] = json!(1);
        value["metadata"]["creationTimestamp"] = now.to_string().into();
        if kind != Kind::Pod {
            value.as_object_mut().expect("an object").remove("status");
        }
        default(kind, &mut value);
        self.write(kind, value);
    }

    /// Replaces metadata and spec, if nobody else wrote since the plan read.
    fn update(&mut self, object: &Object) {
        let (kind, key, mut value) = (object.kind(), object.key(), object.to_json());
        let Some(current) = self.world.object(kind, &key) else { return };
        let current = current.to_json();
        if current["metadata"]["resourceVersion"] != value["metadata"]["resourceVersion"] {
            return;
        }
        default(kind, &mut value);
        if value["spec"] != current["spec"] {
            let generation = current["metadata"]["generation"].as_i64().unwrap_or_default();
            value["metadata"]["generation"] = json!(generation + 1);
        }
        if let Some(status) = current.get("status") {
            value["status"] = status.clone();
        }
        let finalizers = value["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        if value["metadata"].get("deletionTimestamp").is_some() && !finalizers {
            self.remove(kind, &key);
        } else if value != current {
            self.write(kind, value);
        }
    }

    fn write_status(&mut self, object: &Object) {
        let Some(current) = self.world.object(object.kind(), &object.key()) else { return };
        let (mut current, wanted) = (current.to_json(), object.to_json());
        if current["metadata"]["resourceVersion"] != wanted["metadata"]["resourceVersion"]
            || current["status"] == wanted["status"]
        {
            return;
        }
        current["status"] = wanted["status"].clone();
        self.write(object.kind(), current);
    }

    /// Changes an object in place, as a user or a node would.
    pub(crate) fn edit(&mut self, kind: Kind, key: &Key, change: impl FnOnce(&mut Value)) {
        let Some(object) = self.world.object(kind, key) else { panic!("no {kind:?} {key}") };
        let before = object.to_json();
        let mut value = before.clone();
        change(&mut value);
        if value["spec"] != before["spec"] {
            let generation = before["metadata"]["generation"].as_i64().unwrap_or_default();
            value["metadata"]["generation"] = json!(generation + 1);
        }
        if value != before {
            self.write(kind, value);
        }
    }

    /// Deletes an object; its dependents go with it, unless a finalizer holds it.
    pub(crate) fn delete(&mut self, kind: Kind, key: &Key) {
        let Some(meta) = self.world.meta(kind, key) else { return };
        let held = meta.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty());
        if held {
            self.edit(kind, key, |value| value["metadata"]["deletionTimestamp"] = NOW.to_string().into());
        } else {
            self.remove(kind, key);
        }
    }

    fn remove(&mut self, kind: Kind, key: &Key) {
        let uid = self.world.meta(kind, key).and_then(|meta| meta.uid.clone()).unwrap_or_default();
        self.changes.extend(self.world.apply(Change::Gone(kind, key.clone())));
        for (kind, key) in self.world.dependents(&uid) {
            self.delete(kind, &key);
        }
    }

    /// Kind and name of every object.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let all = Kind::ALL.iter().flat_map(|kind| self.world.keys(*kind).into_iter().map(move |key| (kind, key)));
        all.map(|(kind, key)| format!("{kind:?} {key}")).collect()
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn uid(kind: Kind, name: &str) -> String {
    format!("uid-{kind:?}-{name}")
}

/// What an API server adds to objects, for plans to leave alone.
fn default(kind: Kind, value: &mut Value) {
    let fill = |value: &mut Value, field: &str, default: Value| {
        value.as_object_mut().expect("an object").entry(field).or_insert(default);
    };
    match kind {
        Kind::CoreService => {
            let spec = &mut value["spec"];
            fill(spec, "type", "ClusterIP".into());
            fill(spec, "sessionAffinity", "None".into());
            if spec["type"] == "ClusterIP" {
                fill(spec, "clusterIP", "10.96.0.9".into());
            }
            for port in spec["ports"].as_array_mut().into_iter().flatten() {
                fill(port, "protocol", "TCP".into());
            }
        }
        Kind::Deployment => {
            let pod = &mut value["spec"]["template"]["spec"];
            fill(pod, "restartPolicy", "Always".into());
            fill(pod, "dnsPolicy", "ClusterFirst".into());
        }
        Kind::Ingress => {
            for path in value["spec"]["rules"].as_array_mut().into_iter().flatten() {
                fill(path, "visibility", "ExternalIP".into());
            }
        }
        _ => {}
    }
}
