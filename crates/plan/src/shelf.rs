//! All objects of one kind, ordered by key, with the indexes that plans look things up by.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use knoll_api::{Key, Resource, k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, labels};

/// Labels whose values are looked up often; a lookup by any other label walks its namespace.
const INDEXED: &[&str] = &[
    labels::serving::SERVICE,
    labels::serving::CONFIGURATION,
    labels::serving::REVISION,
    labels::serving::REVISION_UID,
    labels::serving::ROUTE,
    labels::networking::SERVERLESS_SERVICE,
    "kubernetes.io/service-name",
];

/// Stands in the label index for having no controller.
const UNCONTROLLED: &str = "";

/// All objects of one kind.
///
/// The indexes are flat sets, a row a fact: most owners and labels have one object, and a set of its own for each would
/// weigh more than the objects.
#[derive(Clone, Debug)]
pub struct Shelf<R> {
    objects: BTreeMap<Arc<Key>, Arc<R>>,
    by_owner: BTreeSet<(Box<str>, Arc<Key>)>,
    by_label: BTreeSet<(&'static str, Box<str>, Arc<Key>)>,
}

impl<R> Default for Shelf<R> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), by_owner: BTreeSet::new(), by_label: BTreeSet::new() }
    }
}

impl<R: Resource> Shelf<R> {
    /// The object with this key.
    pub fn get(&self, key: &Key) -> Option<&Arc<R>> {
        self.objects.get(key)
    }

    /// Every object, ordered by namespace and name.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<R>> {
        self.objects.values()
    }

    /// Every key, in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &Key> {
        self.objects.keys().map(AsRef::as_ref)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The objects of one namespace, ordered by name. `""` gives those of a cluster-scoped kind.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<R>> {
        self.objects
            .range(first_of(namespace)..)
            .take_while(move |(key, _)| key.namespace == namespace)
            .map(|(_, object)| object)
    }

    /// The objects that the object with this uid controls, in order.
    pub fn owned_by(&self, uid: &str) -> impl Iterator<Item = &Arc<R>> {
        self.dependents(uid).filter(move |object| object.controller().is_some_and(|owner| owner.uid == uid))
    }

    /// The objects with any owner reference to this uid, in order.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Arc<R>> {
        let owned = self.by_owner.range((Box::from(uid), first_of(""))..).take_while(move |(owner, _)| **owner == *uid);
        owned.filter_map(|(_, key)| self.objects.get(key))
    }

    /// The objects of a namespace that carry `label: value`, in order.
    pub fn labelled(&self, namespace: &str, label: &str, value: &str) -> Vec<&Arc<R>> {
        match INDEXED.iter().find(|indexed| **indexed == label) {
            Some(indexed) => self.indexed(indexed, namespace, value).collect(),
            None => self.in_namespace(namespace).filter(|object| object.label(label) == Some(value)).collect(),
        }
    }

    /// The objects of a namespace that nothing controls, in order.
    pub fn uncontrolled(&self, namespace: &str) -> impl Iterator<Item = &Arc<R>> {
        self.indexed(UNCONTROLLED, namespace, "")
    }

    fn indexed(&self, label: &'static str, namespace: &str, value: &str) -> impl Iterator<Item = &Arc<R>> {
        let rows = self.by_label.range((label, Box::from(value), first_of(namespace))..);
        let rows = rows.take_while(move |(l, v, key)| *l == label && **v == *value && key.namespace == namespace);
        rows.filter_map(|(_, _, key)| self.objects.get(key))
    }

    /// Puts `object` in place of the one with its key and returns that one.
    pub(crate) fn insert(&mut self, object: Arc<R>) -> Option<Arc<R>> {
        let key = Arc::new(object.key());
        let before = self.remove(&key);
        self.by_owner.extend(owners(object.meta()).map(|owner| (owner, key.clone())));
        self.by_label.extend(index_entries(object.meta()).map(|(label, value)| (label, value, key.clone())));
        self.objects.insert(key, object);
        before
    }

    /// Takes the object with this key out.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<R>> {
        let (key, before) = self.objects.remove_entry(key)?;
        for owner in owners(before.meta()) {
            self.by_owner.remove(&(owner, key.clone()));
        }
        for (label, value) in index_entries(before.meta()) {
            self.by_label.remove(&(label, value, key.clone()));
        }
        Some(before)
    }
}

/// A key before all others of its namespace.
fn first_of(namespace: &str) -> Arc<Key> {
    Arc::new(Key::new(namespace, ""))
}

fn owners(meta: &ObjectMeta) -> impl Iterator<Item = Box<str>> {
    meta.owner_references.iter().flatten().map(|owner| owner.uid.as_str().into())
}

fn index_entries(meta: &ObjectMeta) -> impl Iterator<Item = (&'static str, Box<str>)> {
    let controlled = meta.owner_references.iter().flatten().any(|owner| owner.controller == Some(true));
    let uncontrolled = (!controlled).then(|| (UNCONTROLLED, Box::default()));
    let labelled =
        INDEXED.iter().filter_map(|label| Some((*label, meta.labels.as_ref()?.get(*label)?.as_str().into())));
    labelled.chain(uncontrolled)
}

#[cfg(test)]
mod tests {
    use knoll_api::serving::Revision;

    use super::*;

    fn revision(namespace: &str, name: &str, configuration: &str, owner: &str) -> Arc<Revision> {
        let mut revision = Revision::default();
        revision.metadata.namespace = Some(namespace.into());
        revision.metadata.name = Some(name.into());
        revision.metadata.labels = Some([(labels::serving::CONFIGURATION.to_owned(), configuration.to_owned())].into());
        revision.metadata.owner_references = Some(vec![
            serde_json::from_value(serde_json::json!({
                "apiVersion": "v1", "kind": "X", "name": "x", "uid": owner, "controller": true
            }))
            .unwrap(),
        ]);
        Arc::new(revision)
    }

    #[test]
    fn indexes_follow_an_object_that_changes_owner_and_label() {
        let mut shelf = Shelf::default();
        shelf.insert(revision("a", "r1", "c1", "u1"));
        shelf.insert(revision("b", "r1", "c1", "u1"));
        assert_eq!(shelf.owned_by("u1").count(), 2);
        assert_eq!(shelf.labelled("a", labels::serving::CONFIGURATION, "c1").len(), 1);

        shelf.insert(revision("a", "r1", "c2", "u2"));
        assert_eq!(shelf.owned_by("u1").count(), 1);
        assert_eq!(shelf.owned_by("u2").count(), 1);
        assert!(shelf.labelled("a", labels::serving::CONFIGURATION, "c1").is_empty());

        shelf.remove(&Key::new("a", "r1"));
        shelf.remove(&Key::new("b", "r1"));
        assert!(shelf.by_owner.is_empty() && shelf.by_label.is_empty());
    }

    #[test]
    fn a_namespace_ends_where_a_longer_name_begins() {
        let mut shelf = Shelf::default();
        for namespace in ["a", "ab", "b"] {
            shelf.insert(revision(namespace, "r", "c", "u"));
        }
        assert_eq!(shelf.in_namespace("a").count(), 1);
    }
}
