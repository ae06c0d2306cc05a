//! All objects of one kind, ordered by key, with the indexes that plans look things up by.
//!
//! What nobody reads is kept as compact bytes; an object is decoded when somebody reads it and stays so for a while.
//! Indexes hold hashes: whatever is looked up is compared once decoded. So reading costs what is found and nothing for
//! what is not, and an object at rest costs its bytes and a few words.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    ops::Bound,
    sync::Arc,
};

use knoll_api::Key;

use crate::{
    packed::{Packed, Packer},
    terms::{INDEXED, Indexed, Term},
};

/// Decoded objects of a kind in one generation; when there are more, those not read since the last generation began
/// are packed. Readers beyond twice as many decode without keeping.
const DECODED: usize = 96;

/// Which slot an object is in.
type At = u32;

#[derive(Clone, Debug)]
struct Slot {
    name: Arc<str>,
    /// The resourceVersion, as a number where it is one.
    version: u64,
    /// Nothing while only the decoded object exists.
    packed: Option<Packed>,
}

impl Slot {
    fn packed_bytes(&self) -> usize {
        self.packed.as_ref().map_or(0, Packed::len)
    }
}

/// Decoded objects, in two generations: what was not read during a whole one goes.
#[derive(Clone, Debug)]
struct Decoded<R> {
    young: BTreeMap<At, Arc<R>>,
    old: BTreeMap<At, Arc<R>>,
}

impl<R> Decoded<R> {
    fn get(&mut self, at: At) -> Option<Arc<R>> {
        if let Some(object) = self.young.get(&at) {
            return Some(object.clone());
        }
        let object = self.old.remove(&at)?;
        self.young.insert(at, object.clone());
        Some(object)
    }
}

/// All objects of one kind. See the module.
#[derive(Clone, Debug)]
pub struct Indexer<R> {
    slots: Vec<Option<Slot>>,
    free: Vec<At>,
    by_name: BTreeMap<Arc<str>, At>,
    /// Hashes of the terms that an object is found by.
    by_term: BTreeSet<(u64, At)>,
    decoded: RefCell<Decoded<R>>,
    packer: Packer,
    packed_bytes: usize,
    visits: Cell<u64>,
    /// While a listing is under way: those it may turn out not to name, by slot.
    unnamed: Option<Vec<bool>>,
}

impl<R> Default for Indexer<R> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_name: BTreeMap::new(),
            by_term: BTreeSet::new(),
            decoded: RefCell::new(Decoded { young: BTreeMap::new(), old: BTreeMap::new() }),
            packer: Packer::default(),
            packed_bytes: 0,
            visits: Cell::new(0),
            unnamed: None,
        }
    }
}

impl<R: Indexed> Indexer<R> {
    /// The object with this key.
    pub fn get(&self, key: &Key) -> Option<Arc<R>> {
        let at = self.by_name.get(&*name_of(key)).copied();
        if at.is_none() {
            self.visited(());
        }
        at.map(|at| self.read(at))
    }

    /// Whether there is an object with this key.
    pub fn contains(&self, key: &Key) -> bool {
        self.visited(self.by_name.contains_key(&*name_of(key)))
    }

    /// Every object, ordered by namespace and name.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Arc<R>> {
        self.by_name.values().map(|at| self.read(*at))
    }

    /// Every key, in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = Key> {
        self.by_name.keys().map(|name| self.visited(key_of(name)))
    }

    /// The first `most` keys after `after`, in order; from the first when that is nothing.
    pub fn keys_after(&self, after: Option<&Key>, most: usize) -> Vec<Key> {
        let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(name_of(key)));
        let names = self.by_name.range::<str, _>((from.as_ref().map(|name| &**name), Bound::Unbounded));
        names.take(most).map(|(name, _)| self.visited(key_of(name))).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The objects of one namespace, ordered by name. `""` gives those of a cluster-scoped kind.
    pub fn in_namespace<'a>(&'a self, namespace: &str) -> impl Iterator<Item = Arc<R>> + use<'a, R> {
        self.within(namespace).map(|(_, at)| self.read(*at))
    }

    /// Keys of the objects of one namespace, ordered by name.
    pub fn keys_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = Key> + use<'a, R> {
        self.within(namespace).map(|(name, _)| self.visited(key_of(name)))
    }

    fn within<'a>(&'a self, namespace: &str) -> impl Iterator<Item = (&'a Arc<str>, &'a At)> + use<'a, R> {
        let prefix = format!("{namespace}\0");
        self.by_name
            .range::<str, _>((Bound::Included(&*prefix), Bound::Unbounded))
            .take_while(move |(name, _)| name.starts_with(&prefix))
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
        let hash = hash(term);
        let found = self.by_term.range((hash, At::MIN)..=(hash, At::MAX));
        let mut found: Vec<(&Arc<str>, At)> =
            found.filter_map(|(_, at)| Some((&self.slots[*at as usize].as_ref()?.name, *at))).collect();
        found.sort();
        found.into_iter().map(|(_, at)| self.read(at)).collect()
    }

    /// Keys of the objects that a term may speak of, in order. Reads none.
    pub(crate) fn find_keys(&self, term: Term<'_>) -> Vec<Key> {
        let hash = hash(term);
        let found = self.by_term.range((hash, At::MIN)..=(hash, At::MAX));
        let mut names: Vec<&Arc<str>> =
            found.filter_map(|(_, at)| Some(&self.slots[*at as usize].as_ref()?.name)).collect();
        names.sort();
        names.into_iter().map(|name| self.visited(key_of(name))).collect()
    }

    /// The resourceVersion of an object as a number; nothing when there is no such object.
    pub(crate) fn version(&self, key: &Key) -> Option<u64> {
        let at = *self.by_name.get(&*name_of(key))?;
        Some(self.slots[at as usize].as_ref()?.version)
    }

    /// How many objects were read so far: what plans cost.
    pub fn visits(&self) -> u64 {
        self.visits.get()
    }

    /// Bytes of what is packed, and how many objects are decoded.
    pub fn sizes(&self) -> (usize, usize) {
        let decoded = self.decoded.borrow();
        (self.packed_bytes, decoded.young.len() + decoded.old.len())
    }

    /// Puts `object` in place of the one with its key and returns that one.
    pub(crate) fn insert(&mut self, object: Arc<R>) -> Option<Arc<R>> {
        let key = object.key();
        let name: Arc<str> = name_of(&key).into();
        let version = object.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default();
        let (before, at, name) = match self.by_name.get_key_value(&name) {
            Some((name, at)) => (Some(self.read(*at)), *at, name.clone()),
            None => (None, self.free.pop().unwrap_or_else(|| At::try_from(self.slots.len()).unwrap_or(At::MAX)), name),
        };
        let terms = hashes(object.as_ref());
        match &before {
            Some(before) => {
                let was = hashes(before.as_ref());
                for hash in was.difference(&terms) {
                    self.by_term.remove(&(*hash, at));
                }
                self.by_term.extend(terms.difference(&was).map(|hash| (*hash, at)));
            }
            None => {
                self.by_term.extend(terms.into_iter().map(|hash| (hash, at)));
                self.by_name.insert(name.clone(), at);
            }
        }
        let slot = Some(Slot { name, version, packed: None });
        match self.slots.get_mut(at as usize) {
            Some(place) => {
                self.packed_bytes -= std::mem::replace(place, slot).as_ref().map_or(0, Slot::packed_bytes);
            }
            None => self.slots.push(slot),
        }
        let decoded = self.decoded.get_mut();
        decoded.old.remove(&at);
        decoded.young.insert(at, object);
        if decoded.young.len() > DECODED {
            self.age();
        }
        before
    }

    /// Takes the object with this key out.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<R>> {
        let at = *self.by_name.get(&*name_of(key))?;
        let before = self.read(at);
        for hash in hashes(before.as_ref()) {
            self.by_term.remove(&(hash, at));
        }
        self.by_name.remove(&*name_of(key));
        let decoded = self.decoded.get_mut();
        decoded.young.remove(&at);
        decoded.old.remove(&at);
        self.packed_bytes -= self.slots[at as usize].take().as_ref().map_or(0, Slot::packed_bytes);
        if let Some(place) = self.unnamed.as_mut().and_then(|unnamed| unnamed.get_mut(at as usize)) {
            // Whoever comes into this slot next is new.
            *place = false;
        }
        self.free.push(at);
        Some(before)
    }

    /// A listing begins: what is there now may turn out to be gone.
    pub(crate) fn begin_listing(&mut self) {
        self.unnamed = Some(self.slots.iter().map(Option::is_some).collect());
    }

    /// The listing names this key.
    pub(crate) fn name_listed(&mut self, key: &Key) {
        let at = self.by_name.get(&*name_of(key)).map(|at| *at as usize);
        if let (Some(at), Some(unnamed)) = (at, &mut self.unnamed)
            && let Some(place) = unnamed.get_mut(at)
        {
            *place = false;
        }
    }

    /// The listing is complete: the keys that it has not named, in order.
    pub(crate) fn end_listing(&mut self) -> Vec<Key> {
        let Some(unnamed) = self.unnamed.take() else { return Vec::new() };
        let is_unnamed = |at: &At| unnamed.get(*at as usize).is_some_and(|unnamed| *unnamed);
        self.by_name.iter().filter(|(_, at)| is_unnamed(at)).map(|(name, _)| key_of(name)).collect()
    }

    /// Begins a generation: what was not read during the last one is packed.
    pub(crate) fn age(&mut self) {
        let decoded = self.decoded.get_mut();
        let young = std::mem::take(&mut decoded.young);
        for (at, object) in std::mem::replace(&mut decoded.old, young) {
            if let Some(slot) = self.slots[at as usize].as_mut().filter(|slot| slot.packed.is_none()) {
                let packed = self.packer.pack(object.as_ref());
                self.packed_bytes += packed.len();
                slot.packed = Some(packed);
            }
        }
    }

    fn visited<T>(&self, what: T) -> T {
        self.visits.set(self.visits.get() + 1);
        what
    }

    fn read(&self, at: At) -> Arc<R> {
        let mut decoded = self.visited(self.decoded.borrow_mut());
        if let Some(object) = decoded.get(at) {
            return object;
        }
        let packed = self.slots[at as usize].as_ref().and_then(|slot| slot.packed.as_ref());
        let object = Arc::new(self.packer.unpack::<R>(packed.expect("what is not decoded is packed")));
        if decoded.young.len() < 2 * DECODED {
            decoded.young.insert(at, object.clone());
        }
        object
    }
}

/// A key as the indexer orders it: by namespace, then by name.
fn name_of(key: &Key) -> String {
    format!("{}\0{}", key.namespace, key.name)
}

fn key_of(name: &str) -> Key {
    let (namespace, name) = name.split_once('\0').unwrap_or(("", name));
    Key::new(namespace, name)
}

fn hashes<R: Indexed>(object: &R) -> BTreeSet<u64> {
    let mut hashes = BTreeSet::new();
    object.every_term(&mut |term| {
        hashes.insert(hash(term));
    });
    hashes
}

fn hash(term: Term<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    term.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use knoll_api::{labels, serving::Revision};

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
        assert!(indexer.by_term.is_empty() && indexer.by_name.is_empty());
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
