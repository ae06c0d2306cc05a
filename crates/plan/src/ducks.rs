//! Objects of kinds that no controller here knows, as far as objects of Eventing refer to them: custom resources of users'
//! own, by the shapes they have ("duck types"): where they take events, whether they are ready, their template of pods, and who is subscribed to them.
//!
//! Which kinds are referred to is counted as objects come and go. Whoever follows them tells by
//! [`Observation::Duck`](crate::Observation::Duck) what there is; until a kind was listed nothing is known of its objects,
//! and that is neither that they are there nor that they are not.

use std::collections::{BTreeMap, BTreeSet};

use knoll_api::{
    Key, Kind, Object,
    conditions::{READY, find},
    duck::{AddressStatus, ChannelableStatus, DeliverySpec},
    k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference,
    labels::eventing::SUBSCRIBABLE,
    status::{Condition, DuckStatus},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Changed, Term, World};

/// The name of objects that are chosen by their labels, of which each of a namespace may be one. No object has it.
pub(crate) const CHOSEN: &str = "*";

/// A kind as references name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DuckKind {
    /// `group/version`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
}

impl DuckKind {
    /// A kind that may be somebody's own: what Kubernetes brings itself takes no events.
    pub(crate) fn of(api_version: &str, kind: &str) -> Option<Self> {
        let (group, version) = api_version.split_once('/')?;
        let is_custom = group.contains('.') && !group.ends_with(".k8s.io") && !version.is_empty() && !kind.is_empty();
        let of = Self { api_version: api_version.to_owned(), kind: kind.to_owned() };
        (is_custom && Kind::from_api(api_version, kind).is_none()).then_some(of)
    }

    /// Its API group.
    pub(crate) fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }
}

/// What is known of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DuckObject {
    /// Where it takes events.
    pub(crate) address: AddressStatus,
    /// Its generation, and the one that its status speaks of.
    pub(crate) generations: (i64, i64),
    /// Whether it is ready, as it says.
    pub(crate) ready: Option<Condition>,
    /// What is known beside of one that has a template of pods.
    pub(crate) pods: Option<Box<PodSpecable>>,
    /// What is known beside of one that can be subscribed to.
    pub(crate) channel: Option<Box<Subscribable>>,
}

/// A channel, which says so by an annotation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Subscribable {
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) delivery: Option<DeliverySpec>,
    pub(crate) status: ChannelableStatus,
    /// Its subscribers, as JSON.
    subscribers: Box<str>,
}

impl Subscribable {
    fn read(object: &Value) -> Option<Box<Subscribable>> {
        let meta = &object["metadata"];
        meta["annotations"][SUBSCRIBABLE].as_str()?;
        let text = |field: &str| meta[field].as_str().unwrap_or_default().to_owned();
        let subscribers = object.pointer("/spec/subscribers").filter(|subscribers| subscribers.is_array());
        Some(Box::new(Subscribable {
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            delivery: part(&object["spec"]["delivery"]),
            status: part(&object["status"]),
            subscribers: subscribers.map_or_else(|| "[]".to_owned(), Value::to_string).into(),
        }))
    }

    /// Its subscribers, which may have fields that nobody here knows.
    pub(crate) fn subscribers(&self) -> Vec<Value> {
        serde_json::from_str(&self.subscribers).expect("what was kept is JSON")
    }
}

/// A part of an object; the default where it has another shape.
fn part<T: DeserializeOwned + Default>(value: &Value) -> T {
    T::deserialize(value).unwrap_or_default()
}

/// An object with a template of pods in `spec.template`, as most have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodSpecable {
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) is_deleting: bool,
    pub(crate) labels: BTreeMap<String, String>,
    /// What makes it, where something does.
    pub(crate) controller: Option<OwnerReference>,
    /// The pod in it, as JSON.
    pod: Box<str>,
}

impl PodSpecable {
    fn read(object: &Value) -> Option<Box<PodSpecable>> {
        let pod = object.pointer("/spec/template/spec").filter(|pod| pod["containers"].is_array())?;
        let meta = &object["metadata"];
        let text = |field: &str| meta[field].as_str().unwrap_or_default().to_owned();
        let labels = meta["labels"].as_object().into_iter().flatten();
        let owners: Vec<OwnerReference> = part(&meta["ownerReferences"]);
        Some(Box::new(PodSpecable {
            controller: owners.into_iter().find(|owner| owner.controller == Some(true)),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            is_deleting: meta["deletionTimestamp"].is_string(),
            labels: labels.filter_map(|(label, value)| Some((label.clone(), value.as_str()?.to_owned()))).collect(),
            pod: pod.to_string().into(),
        }))
    }

    /// The pod in its template.
    pub(crate) fn pod(&self) -> Value {
        serde_json::from_str(&self.pod).expect("what was kept is JSON")
    }
}

impl DuckObject {
    /// What of an object is kept. Where its status is something else, it has no address or says nothing of being ready.
    pub fn read(object: &Value) -> DuckObject {
        let status: DuckStatus = part(&object["status"]);
        DuckObject {
            address: part(&object["status"]),
            generations: (
                object["metadata"]["generation"].as_i64().unwrap_or_default(),
                status.observed_generation.unwrap_or_default(),
            ),
            ready: find(&status.conditions, READY).cloned(),
            pods: PodSpecable::read(object),
            channel: Subscribable::read(object),
        }
    }
}

/// What is seen of a kind.
#[derive(Clone, Debug, PartialEq)]
pub enum DuckSeen {
    /// A listing begins, and this is what stands for the kind in paths.
    Begins(String),
    /// An object of a listing.
    Item(Key, DuckObject),
    /// The listing is complete.
    Listed,
    /// An object is like this now.
    Put(Key, DuckObject),
    /// An object is gone.
    Gone(Key),
    /// The kind is not served, or nothing of it can be followed, and why.
    Absent(String),
    /// It cannot be followed for now, and why.
    Unknown(String),
    /// It is followed no more.
    Forgotten,
}

/// Why nothing is known of a kind.
#[derive(Clone, Debug, PartialEq)]
struct Hindrance {
    /// Whether there is no such kind.
    is_absent: bool,
    why: String,
}

/// A kind that is followed, or was.
#[derive(Clone, Debug, Default)]
struct Followed {
    /// Whether it was listed, or why it cannot be.
    state: Option<Result<(), Hindrance>>,
    plural: String,
    objects: BTreeMap<Key, DuckObject>,
    /// What a listing that is under way has not named yet.
    unnamed: Option<BTreeSet<Key>>,
}

/// Every kind that is referred to.
#[derive(Clone, Debug, Default)]
pub struct Ducks {
    /// Whether somebody finds out what there is.
    is_followed: bool,
    /// How many references there are to it.
    references: BTreeMap<DuckKind, usize>,
    followed: BTreeMap<DuckKind, Followed>,
    is_changed: bool,
}

/// What is known of an object that is referred to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Lookup<'a> {
    /// It is there.
    Found(&'a DuckObject),
    /// It is not.
    Missing,
    /// Nothing is known, and why.
    Unknown(&'a str),
}

impl Ducks {
    /// What there is of kinds that are referred to will be told.
    pub fn await_kinds(&mut self) {
        self.is_followed = true;
    }

    /// The kinds that are to be followed, where they are not as they were the last time.
    pub fn news(&mut self) -> Option<BTreeSet<DuckKind>> {
        std::mem::take(&mut self.is_changed).then(|| self.references.keys().cloned().collect())
    }

    /// What is known of an object.
    pub(crate) fn look_up(&self, kind: &DuckKind, key: &Key) -> Lookup<'_> {
        let followed = self.followed.get(kind);
        match followed.and_then(|followed| Some((followed, followed.state.as_ref()?))) {
            None => Lookup::Unknown("it was not listed yet"),
            Some((_, Err(hindrance))) => Lookup::Unknown(&hindrance.why),
            Some((followed, Ok(()))) => followed.objects.get(key).map_or(Lookup::Missing, Lookup::Found),
        }
    }

    /// Every object of a namespace with a template of pods, in order; nothing where that is not known, and why.
    pub(crate) fn podspecables(
        &self,
        kind: &DuckKind,
        namespace: &str,
    ) -> Result<impl Iterator<Item = (&Key, &PodSpecable)>, &str> {
        let from = Key::new(namespace, "");
        if let Lookup::Unknown(why) = self.look_up(kind, &from) {
            return Err(why);
        }
        let within = self.followed.get(kind).map(|followed| followed.objects.range(from..)).into_iter().flatten();
        let within = within.take_while(move |(key, _)| key.namespace == namespace);
        Ok(within.filter_map(|(key, object)| Some((key, object.pods.as_deref()?))))
    }

    /// Whether a kind is known not to be served.
    pub(crate) fn is_absent(&self, kind: &DuckKind) -> bool {
        let state = self.followed.get(kind).and_then(|followed| followed.state.as_ref());
        state.is_some_and(|state| matches!(state, Err(Hindrance { is_absent: true, .. })))
    }

    /// Path of an object in the API.
    pub(crate) fn object_path(&self, kind: &DuckKind, key: &Key) -> String {
        let plural = self.followed.get(kind).map_or("", |followed| &followed.plural);
        format!("/apis/{}/namespaces/{}/{plural}/{}", kind.api_version, key.namespace, key.name)
    }

    /// Whether the objects of a kind are known; nothing while it is about to be found out whether they can be.
    pub(crate) fn is_known(&self, kind: &DuckKind) -> Option<bool> {
        match self.followed.get(kind).and_then(|followed| followed.state.as_ref()) {
            Some(state) => Some(state.is_ok()),
            None => (!self.is_followed).then_some(false),
        }
    }

    /// Counts what an object refers to that was like this and is like that.
    pub(crate) fn count(&mut self, before: Option<&Object>, after: Option<&Object>) {
        // In this order a kind that stays is not forgotten in between.
        for kind in after.into_iter().flat_map(referred) {
            let count = self.references.entry(kind).or_default();
            *count += 1;
            self.is_changed |= *count == 1;
        }
        for kind in before.into_iter().flat_map(referred) {
            if let Some(count) = self.references.get_mut(&kind) {
                *count -= 1;
                if *count == 0 {
                    self.references.remove(&kind);
                    self.is_changed = true;
                }
            }
        }
    }

    /// Takes in what is seen of a kind. The keys that are not as they were; nothing where none may be.
    fn see(&mut self, kind: &DuckKind, seen: DuckSeen) -> Option<Vec<Key>> {
        if seen == DuckSeen::Forgotten {
            self.followed.remove(kind);
            return Some(Vec::new());
        }
        let followed = self.followed.entry(kind.clone()).or_default();
        match seen {
            DuckSeen::Begins(plural) => {
                followed.plural = plural;
                followed.unnamed = Some(followed.objects.keys().cloned().collect());
            }
            DuckSeen::Item(key, object) => {
                if let Some(unnamed) = &mut followed.unnamed {
                    unnamed.remove(&key);
                }
                return Some(followed.put(key, object));
            }
            DuckSeen::Put(key, object) => return Some(followed.put(key, object)),
            DuckSeen::Gone(key) => return Some(followed.objects.remove(&key).map(|_| key).into_iter().collect()),
            DuckSeen::Listed => {
                let gone = followed.unnamed.take().unwrap_or_default();
                gone.iter().for_each(|key| drop(followed.objects.remove(key)));
                let is_news = followed.state.replace(Ok(())) != Some(Ok(()));
                return if is_news { None } else { Some(gone.into_iter().collect()) };
            }
            DuckSeen::Absent(why) => return followed.hindered(Hindrance { is_absent: true, why }),
            DuckSeen::Unknown(why) => return followed.hindered(Hindrance { is_absent: false, why }),
            DuckSeen::Forgotten => {}
        }
        Some(Vec::new())
    }
}

impl Followed {
    /// Notes why it cannot be followed: no key where that was known, all where it is news.
    fn hindered(&mut self, hindrance: Hindrance) -> Option<Vec<Key>> {
        let state = Some(Err(hindrance));
        let is_news = self.state != state;
        self.state = state;
        (!is_news).then(Vec::new)
    }

    fn put(&mut self, key: Key, object: DuckObject) -> Vec<Key> {
        let before = self.objects.insert(key.clone(), object);
        if before.as_ref() == self.objects.get(&key) { Vec::new() } else { vec![key] }
    }
}

impl World {
    /// Takes in what is seen of a kind that no controller knows.
    pub(crate) fn see_duck(&mut self, kind: DuckKind, seen: DuckSeen) -> Vec<Changed> {
        match self.ducks.see(&kind, seen) {
            None => vec![Changed::Duck(kind, None)],
            Some(keys) => keys.into_iter().map(|key| Changed::Duck(kind.clone(), Some(key))).collect(),
        }
    }

    /// Keys of the objects of kind `of` that may refer to this object of a kind that no controller knows, or to any of it, in
    /// order. Reads none.
    pub(crate) fn leading_to_duck(&self, of: Kind, kind: &DuckKind, key: Option<&Key>) -> Vec<Key> {
        let term = |namespace, name| Term::Duck { api_version: &kind.api_version, kind: &kind.kind, namespace, name };
        match key {
            None => self.find_keys(of, term("", "")),
            Some(Key { namespace, name, .. }) => {
                let mut keys = self.find_keys(of, term(namespace, name));
                keys.extend(self.find_keys(of, term(namespace, CHOSEN)));
                keys
            }
        }
    }
}

/// The kinds that an object refers to and no controller knows, once for each reference.
fn referred(object: &Object) -> Vec<DuckKind> {
    let mut kinds = Vec::new();
    if object.kind().group().ends_with("knative.dev") {
        World::terms_of(object, &mut |term| {
            if let Term::Duck { api_version, kind, name: "", .. } = term {
                kinds.push(DuckKind { api_version: api_version.to_owned(), kind: kind.to_owned() });
            }
        });
    }
    kinds
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kind() -> DuckKind {
        DuckKind::of("example.com/v1", "Thing").expect("somebody's own")
    }

    fn object(url: &str) -> DuckObject {
        DuckObject::read(&json!({"metadata": {"generation": 2}, "status": {"address": {"url": url}}}))
    }

    #[test]
    fn kinds_that_may_be_somebodys_own_are_followed() {
        assert_eq!(kind().group(), "example.com");
        for (api_version, kind) in [
            ("v1", "Pod"),
            ("apps/v1", "X"),
            ("storage.k8s.io/v1", "X"),
            ("eventing.knative.dev/v1", "Broker"),
            ("a.b/", "X"),
        ] {
            assert_eq!(DuckKind::of(api_version, kind), None, "{api_version} {kind}");
        }
    }

    #[test]
    fn a_status_of_another_shape_says_nothing() {
        for status in [json!(null), json!(7), json!({"address": "x", "conditions": 3})] {
            assert_eq!(DuckObject::read(&json!({"status": status})), DuckObject::default());
        }
    }

    #[test]
    fn what_a_listing_does_not_name_is_gone_and_what_is_as_it_was_concerns_nobody() {
        let mut ducks = Ducks::default();
        ducks.await_kinds();
        let key = |name: &str| Key::new("a", name);
        let look = |ducks: &Ducks, name: &str| match ducks.look_up(&kind(), &key(name)) {
            Lookup::Found(object) => object.address.address.clone().and_then(|address| address.url).unwrap_or_default(),
            Lookup::Missing => "missing".to_owned(),
            Lookup::Unknown(why) => why.to_owned(),
        };
        assert_eq!(look(&ducks, "x"), "it was not listed yet");
        assert_eq!(ducks.see(&kind(), DuckSeen::Unknown("no".into())), None);
        assert_eq!(ducks.see(&kind(), DuckSeen::Unknown("no".into())), Some(Vec::new()));
        assert_eq!((look(&ducks, "x").as_str(), ducks.is_known(&kind())), ("no", Some(false)));
        for name in ["x", "y"] {
            assert_eq!(ducks.see(&kind(), DuckSeen::Put(key(name), object("http://a"))), Some(vec![key(name)]));
        }
        ducks.see(&kind(), DuckSeen::Begins("things".into()));
        assert_eq!(ducks.see(&kind(), DuckSeen::Item(key("x"), object("http://a"))), Some(Vec::new()));
        assert_eq!(ducks.see(&kind(), DuckSeen::Listed), None, "all of it is news");
        assert_eq!((look(&ducks, "x").as_str(), look(&ducks, "y").as_str()), ("http://a", "missing"));
        ducks.see(&kind(), DuckSeen::Begins("things".into()));
        assert_eq!(ducks.see(&kind(), DuckSeen::Listed), Some(vec![key("x")]));
        ducks.see(&kind(), DuckSeen::Forgotten);
        assert_eq!(ducks.is_known(&kind()), None);
    }
}
