//! All objects of one kind, ordered by key, with the indexes that plans look things up by.
//!
//! What nobody reads is kept as compact bytes; an object is decoded when somebody reads it and stays so for a while.
//! Indexes hold hashes: whatever is looked up is compared once decoded. So reading costs what is found and nothing for
//! what is not, and an object at rest costs its bytes and a few words.

use std::{any::Any, collections::BTreeSet, marker::PhantomData, sync::Arc};

use knoll_api::Key;

use crate::{
    lineage::Marks,
    shelf::{At, Coming, Shelf, hash, hashes},
    terms::{INDEXED, Indexed, Term},
};

/// All objects of one kind. See the module.
#[derive(Clone, Debug)]
pub struct Indexer<R> {
    shelf: Shelf,
    of: PhantomData<fn() -> R>,
}

impl<R: Indexed> Default for Indexer<R> {
    fn default() -> Self {
        Self { shelf: Shelf::new(|object: &dyn Any| ours(object.downcast_ref::<R>()).to_bytes()), of: PhantomData }
    }
}

impl<R: Indexed> Indexer<R> {
    /// The object with this key.
    pub fn get(&self, key: &Key) -> Option<Arc<R>> {
        let at = self.shelf.place(key);
        if at.is_none() {
            self.shelf.visited(());
        }
        at.map(|at| self.read(at))
    }

    /// Whether there is an object with this key.
    pub fn contains(&self, key: &Key) -> bool {
        self.shelf.visited(self.shelf.place(key).is_some())
    }

    /// Every object, ordered by namespace and name.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Arc<R>> {
        self.shelf.places().map(|at| self.read(at))
    }

    /// Every key, in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = Key> {
        self.shelf.keys()
    }

    /// The first `most` keys after `after`, in order; from the first when that is nothing.
    pub fn keys_after(&self, after: Option<&Key>, most: usize) -> Vec<Key> {
        self.shelf.keys_after(after, most)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shelf.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects of one namespace, ordered by name. `""` gives those of a cluster-scoped kind.
    pub fn in_namespace<'a>(&'a self, namespace: &str) -> impl Iterator<Item = Arc<R>> + use<'a, R> {
        self.shelf.within(namespace).map(|at| self.read(at))
    }

    /// Keys of the objects of one namespace, ordered by name.
    pub fn keys_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = Key> + use<'a, R> {
        self.shelf.keys_within(namespace)
    }

    /// The objects that the object with this uid controls, in order.
    pub fn owned_by(&self, uid: &str) -> impl Iterator<Item = Arc<R>> + use<R> {
        let mut owned = self.dependents(uid);
        owned.retain(|object| object.controller().is_some_and(|owner| owner.uid == uid));
        owned.into_iter()
    }

    /// The objects with any owner reference to this uid, in order.
    pub fn dependents(&self, uid: &str) -> Vec<Arc<R>> {
        let mut found = self.find(Term::Owner(uid));
        found.retain(|object| object.meta().owner_references.iter().flatten().any(|owner| owner.uid == uid));
        found
    }

    /// Keys of objects of a namespace, all of those with this value of a label among them. Reads none.
    pub(crate) fn keys_labelled(&self, namespace: &str, label: &str, value: &str) -> Vec<Key> {
        match R::ALL_LABELS || INDEXED.contains(&label) {
            true => self.find_keys(Term::Label { namespace, label, value }),
            false => self.keys_in(namespace).collect(),
        }
    }

    /// The objects of a namespace that carry `label: value`, in order. Labels that are not indexed walk the namespace.
    pub fn labelled(&self, namespace: &str, label: &str, value: &str) -> Vec<Arc<R>> {
        let carries = |object: &Arc<R>| object.namespace() == namespace && object.label(label) == Some(value);
        if R::ALL_LABELS || INDEXED.contains(&label) {
            let mut found = self.find(Term::Label { namespace, label, value });
            found.retain(carries);
            found
        } else {
            self.in_namespace(namespace).filter(carries).collect()
        }
    }

    /// The objects of a namespace that nothing controls, in order.
    pub fn uncontrolled(&self, namespace: &str) -> impl Iterator<Item = Arc<R>> + use<R> {
        let mut found = self.find(Term::Uncontrolled { namespace });
        found.retain(|object| object.namespace() == namespace && object.controller().is_none());
        found.into_iter()
    }

    /// The objects that a term may speak of, in order. The hash of another term may be the same: the caller compares.
    pub fn find(&self, term: Term<'_>) -> Vec<Arc<R>> {
        self.shelf.found(term).into_iter().map(|at| self.read(at)).collect()
    }

    /// Keys of the objects that a term may speak of, in order. Reads none.
    pub(crate) fn find_keys(&self, term: Term<'_>) -> Vec<Key> {
        self.find_keys_of(hash(term))
    }

    /// The same for a term of which only the hash is known.
    pub(crate) fn find_keys_of(&self, hash: u64) -> Vec<Key> {
        self.shelf.found_keys(hash)
    }

    /// Who the object with this key is, and whether it goes. Reads none.
    pub(crate) fn marks(&self, key: &Key) -> Option<Marks> {
        self.shelf.marks(key)
    }

    /// The resourceVersion of an object as a number; nothing when there is no such object.
    pub(crate) fn version(&self, key: &Key) -> Option<u64> {
        self.shelf.version(key)
    }

    /// How many objects were read so far: what plans cost.
    pub fn visits(&self) -> u64 {
        self.shelf.visits()
    }

    /// Bytes of what is packed, and how many objects are decoded.
    pub fn sizes(&self) -> (usize, usize) {
        self.shelf.sizes()
    }

    /// Puts `object` in place of the one with its key and returns that one.
    pub(crate) fn insert(&mut self, object: Arc<R>) -> Option<Arc<R>> {
        let key = object.key();
        let version = object.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default();
        let before = self.shelf.place(&key).map(|at| self.read(at));
        let was = before.as_ref().map_or_else(BTreeSet::new, |before| hashes(before.as_ref()));
        let (marks, terms) = (Marks::of(object.meta()), hashes(object.as_ref()));
        self.shelf.insert(Coming { key, version, marks, terms, object }, &was);
        before
    }

    /// Takes the object with this key out.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<R>> {
        let before = self.read(self.shelf.place(key)?);
        self.shelf.remove(key, &hashes(before.as_ref()));
        Some(before)
    }

    /// A listing begins: what is there now may turn out to be gone.
    pub(crate) fn begin_listing(&mut self) {
        self.shelf.begin_listing();
    }

    /// The listing names this key.
    pub(crate) fn name_listed(&mut self, key: &Key) {
        self.shelf.name_listed(key);
    }

    /// The listing is complete: the keys that it has not named, in order.
    pub(crate) fn end_listing(&mut self) -> Vec<Key> {
        self.shelf.end_listing()
    }

    /// Begins a generation: what was not read during the last one is packed.
    pub(crate) fn age(&mut self) {
        self.shelf.age();
    }

    fn read(&self, at: At) -> Arc<R> {
        match self.shelf.read(at) {
            Ok(object) => ours(object.downcast().ok()),
            Err(bytes) => {
                let object = R::from_bytes(&bytes).expect("what was written from a typed object reads as one");
                let object = Arc::new(object);
                self.shelf.keep(at, object.clone());
                object
            }
        }
    }
}

/// A shelf holds what its own indexer put there.
fn ours<T>(object: Option<T>) -> T {
    object.expect("an object of the indexer's kind")
}

#[cfg(test)]
mod tests {
    use knoll_api::{labels, serving::Revision};

    use super::*;
    use crate::shelf::DECODED;

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
        let mut indexer = Indexer::default();
        indexer.insert(revision("a", "r1", "c1", "u1"));
        indexer.insert(revision("b", "r1", "c1", "u1"));
        assert_eq!(indexer.owned_by("u1").count(), 2);
        assert_eq!(indexer.labelled("a", labels::serving::CONFIGURATION, "c1").len(), 1);

        indexer.insert(revision("a", "r1", "c2", "u2"));
        assert_eq!(indexer.owned_by("u1").count(), 1);
        assert_eq!(indexer.owned_by("u2").count(), 1);
        assert!(indexer.labelled("a", labels::serving::CONFIGURATION, "c1").is_empty());

        indexer.remove(&Key::new("a", "r1"));
        indexer.remove(&Key::new("b", "r1"));
        assert!(indexer.shelf.is_bare());
    }

    #[test]
    fn a_namespace_ends_where_a_longer_name_begins() {
        let mut indexer = Indexer::default();
        for namespace in ["a", "ab", "b"] {
            indexer.insert(revision(namespace, "r", "c", "u"));
        }
        assert_eq!(indexer.in_namespace("a").count(), 1);
        assert_eq!(indexer.keys_after(Some(&Key::new("a", "r")), 1), [Key::new("ab", "r")]);
    }

    #[test]
    fn a_listing_says_which_it_has_not_named_and_one_that_did_not_end_is_void() {
        let mut indexer = Indexer::default();
        for name in ["r1", "r2", "r3"] {
            indexer.insert(revision("a", name, "c", "u"));
        }
        indexer.begin_listing();
        indexer.name_listed(&Key::new("a", "r1"));
        indexer.begin_listing();
        indexer.name_listed(&Key::new("a", "r2"));
        // What comes and goes while it is under way is not its business.
        indexer.insert(revision("a", "r4", "c", "u"));
        indexer.remove(&Key::new("a", "r1"));
        indexer.insert(revision("a", "r5", "c", "u"));
        assert_eq!(indexer.end_listing(), [Key::new("a", "r3")]);
        assert!(indexer.end_listing().is_empty());
    }

    #[test]
    fn what_nobody_reads_is_packed_and_reads_as_it_was() {
        let mut indexer = Indexer::default();
        let name = |at: usize| format!("r{at:05}");
        for at in 0..5_000 {
            indexer.insert(revision("a", &name(at), &format!("c{}", at / 5), "u"));
        }
        let (packed, decoded) = indexer.sizes();
        assert!(decoded <= 2 * (DECODED + 1), "{decoded} are decoded");
        assert!(packed < 5_000 * 100, "{packed} bytes");
        for at in [0, 77, 4_999] {
            assert_eq!(
                indexer.get(&Key::new("a", name(at))),
                Some(revision("a", &name(at), &format!("c{}", at / 5), "u"))
            );
        }
        assert_eq!(indexer.labelled("a", labels::serving::CONFIGURATION, "c7").len(), 5);
        assert_eq!(indexer.iter().count(), 5_000);
        assert!(indexer.sizes().1 <= 3 * DECODED + 1, "a walk through everything does not keep it decoded");
        indexer.age();
        indexer.age();
        assert_eq!(indexer.sizes().1, 0, "what is at rest is packed");
        let before = indexer.remove(&Key::new("a", name(3)));
        assert_eq!(before, Some(revision("a", &name(3), "c0", "u")));
    }
}
