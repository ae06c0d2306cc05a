//! What an [`Indexer`](crate::Indexer) is made of, the same for every kind: code that is written for a type is built for each
//! kind anew.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    ops::Bound,
    sync::Arc,
};

use knoll_api::Key;

use crate::{
    lineage::Marks,
    packed::{Packed, Packer},
    terms::{Indexed, Term},
};

/// Decoded objects of a kind in one generation; when there are more, those not read since the last generation began
/// are packed. Readers beyond twice as many decode without keeping.
pub(crate) const DECODED: usize = 96;

/// Which slot an object is in.
pub(crate) type At = u32;

/// A decoded object of the shelf's kind.
pub(crate) type Stored = Arc<dyn Any + Send + Sync>;

#[derive(Clone, Debug)]
struct Slot {
    name: Arc<str>,
    /// The resourceVersion, as a number where it is one.
    version: u64,
    marks: Marks,
    /// Nothing while only the decoded object exists.
    packed: Option<Packed>,
}

impl Slot {
    fn packed_bytes(&self) -> usize {
        self.packed.as_ref().map_or(0, Packed::len)
    }
}

/// Decoded objects, in two generations: what was not read during a whole one goes.
#[derive(Clone, Debug, Default)]
struct Decoded {
    young: BTreeMap<At, Stored>,
    old: BTreeMap<At, Stored>,
}

impl Decoded {
    fn get(&mut self, at: At) -> Option<Stored> {
        if let Some(object) = self.young.get(&at) {
            return Some(object.clone());
        }
        let object = self.old.remove(&at)?;
        self.young.insert(at, object.clone());
        Some(object)
    }
}

/// An object that comes.
pub(crate) struct Coming {
    pub(crate) key: Key,
    /// The resourceVersion, as a number where it is one.
    pub(crate) version: u64,
    /// Who it is, and whether it goes.
    pub(crate) marks: Marks,
    /// Hashes of the terms that it is found by.
    pub(crate) terms: BTreeSet<u64>,
    pub(crate) object: Stored,
}

/// All objects of one kind, whichever it is.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    /// JSON of an object of the kind.
    to_bytes: fn(&dyn Any) -> Vec<u8>,
    slots: Vec<Option<Slot>>,
    free: Vec<At>,
    by_name: BTreeMap<Arc<str>, At>,
    /// Hashes of the terms that an object is found by.
    by_term: BTreeSet<(u64, At)>,
    decoded: RefCell<Decoded>,
    packer: Packer,
    packed_bytes: usize,
    visits: Cell<u64>,
    /// While a listing is under way: those it may turn out not to name, by slot.
    unnamed: Option<Vec<bool>>,
}

impl Shelf {
    /// An empty one. `to_bytes` gives the JSON of an object of the kind.
    pub(crate) fn new(to_bytes: fn(&dyn Any) -> Vec<u8>) -> Shelf {
        Shelf {
            to_bytes,
            slots: Vec::new(),
            free: Vec::new(),
            by_name: BTreeMap::new(),
            by_term: BTreeSet::new(),
            decoded: RefCell::default(),
            packer: Packer::default(),
            packed_bytes: 0,
            visits: Cell::new(0),
            unnamed: None,
        }
    }

    /// Where the object with this key is.
    pub(crate) fn place(&self, key: &Key) -> Option<At> {
        self.by_name.get(&*name_of(key)).copied()
    }

    /// Every place, ordered by namespace and name.
    pub(crate) fn places(&self) -> impl DoubleEndedIterator<Item = At> {
        self.by_name.values().copied()
    }

    /// Every key, in order.
    pub(crate) fn keys(&self) -> impl DoubleEndedIterator<Item = Key> {
        self.by_name.keys().map(|name| self.visited(key_of(name)))
    }

    /// The first `most` keys after `after`, in order; from the first when that is nothing.
    pub(crate) fn keys_after(&self, after: Option<&Key>, most: usize) -> Vec<Key> {
        let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(name_of(key)));
        let names = self.by_name.range::<str, _>((from.as_ref().map(|name| &**name), Bound::Unbounded));
        names.take(most).map(|(name, _)| self.visited(key_of(name))).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Places of one namespace, ordered by name.
    pub(crate) fn within(&self, namespace: &str) -> impl Iterator<Item = At> + use<'_> {
        self.range(namespace).map(|(_, at)| *at)
    }

    /// Keys of one namespace, ordered by name.
    pub(crate) fn keys_within(&self, namespace: &str) -> impl Iterator<Item = Key> + use<'_> {
        self.range(namespace).map(|(name, _)| self.visited(key_of(name)))
    }

    fn range(&self, namespace: &str) -> impl Iterator<Item = (&Arc<str>, &At)> + use<'_> {
        let prefix = format!("{namespace}\0");
        self.by_name
            .range::<str, _>((Bound::Included(&*prefix), Bound::Unbounded))
            .take_while(move |(name, _)| name.starts_with(&prefix))
    }

    /// Places of the objects that a term may speak of, in order of their names.
    pub(crate) fn found(&self, term: Term<'_>) -> Vec<At> {
        self.named(hash(term)).into_iter().map(|(_, at)| at).collect()
    }

    /// Keys of the objects that a term of this hash may speak of, in order.
    pub(crate) fn found_keys(&self, hash: u64) -> Vec<Key> {
        self.named(hash).into_iter().map(|(name, _)| self.visited(key_of(name))).collect()
    }

    fn named(&self, hash: u64) -> Vec<(&Arc<str>, At)> {
        let found = self.by_term.range((hash, At::MIN)..=(hash, At::MAX));
        let mut found: Vec<(&Arc<str>, At)> =
            found.filter_map(|(_, at)| Some((&self.slots[*at as usize].as_ref()?.name, *at))).collect();
        found.sort();
        found
    }

    /// The resourceVersion of an object as a number; nothing when there is no such object.
    pub(crate) fn version(&self, key: &Key) -> Option<u64> {
        let at = self.place(key)?;
        Some(self.slots[at as usize].as_ref()?.version)
    }

    /// Who the object with this key is, and whether it goes. Reads none.
    pub(crate) fn marks(&self, key: &Key) -> Option<Marks> {
        let at = self.place(key)?;
        Some(self.slots[at as usize].as_ref()?.marks)
    }

    pub(crate) fn visits(&self) -> u64 {
        self.visits.get()
    }

    /// Bytes of what is packed, and how many objects are decoded.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        let decoded = self.decoded.borrow();
        (self.packed_bytes, decoded.young.len() + decoded.old.len())
    }

    #[cfg(test)]
    pub(crate) fn is_bare(&self) -> bool {
        self.by_term.is_empty() && self.by_name.is_empty()
    }

    /// Puts an object in place of the one with its key, which was found by the terms `was`.
    pub(crate) fn insert(&mut self, coming: Coming, was: &BTreeSet<u64>) {
        let Coming { key, version, marks, terms, object } = coming;
        let name: Arc<str> = name_of(&key).into();
        let (at, name) = match self.by_name.get_key_value(&name) {
            Some((name, at)) => (*at, name.clone()),
            None => {
                let at = self.free.pop().unwrap_or_else(|| At::try_from(self.slots.len()).unwrap_or(At::MAX));
                self.by_name.insert(name.clone(), at);
                (at, name)
            }
        };
        for hash in was.difference(&terms) {
            self.by_term.remove(&(*hash, at));
        }
        self.by_term.extend(terms.difference(was).map(|hash| (*hash, at)));
        let slot = Some(Slot { name, version, marks, packed: None });
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
    }

    /// Takes out the object with this key, which was found by the terms `was`.
    pub(crate) fn remove(&mut self, key: &Key, was: &BTreeSet<u64>) {
        let Some(at) = self.by_name.remove(&*name_of(key)) else { return };
        for hash in was {
            self.by_term.remove(&(*hash, at));
        }
        let decoded = self.decoded.get_mut();
        decoded.young.remove(&at);
        decoded.old.remove(&at);
        self.packed_bytes -= self.slots[at as usize].take().as_ref().map_or(0, Slot::packed_bytes);
        if let Some(place) = self.unnamed.as_mut().and_then(|unnamed| unnamed.get_mut(at as usize)) {
            // Whoever comes into this slot next is new.
            *place = false;
        }
        self.free.push(at);
    }

    /// A listing begins: what is there now may turn out to be gone.
    pub(crate) fn begin_listing(&mut self) {
        self.unnamed = Some(self.slots.iter().map(Option::is_some).collect());
    }

    /// The listing names this key.
    pub(crate) fn name_listed(&mut self, key: &Key) {
        let at = self.place(key).map(|at| at as usize);
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
                let packed = self.packer.pack(&(self.to_bytes)(object.as_ref()));
                self.packed_bytes += packed.len();
                slot.packed = Some(packed);
            }
        }
    }

    pub(crate) fn visited<T>(&self, what: T) -> T {
        self.visits.set(self.visits.get() + 1);
        what
    }

    /// The object at a place where it is decoded; its JSON otherwise.
    pub(crate) fn read(&self, at: At) -> Result<Stored, Vec<u8>> {
        let mut decoded = self.visited(self.decoded.borrow_mut());
        decoded.get(at).ok_or_else(|| {
            let packed = self.slots[at as usize].as_ref().and_then(|slot| slot.packed.as_ref());
            self.packer.unpack(packed.expect("what is not decoded is packed"))
        })
    }

    /// Keeps what was decoded, as far as there is room.
    pub(crate) fn keep(&self, at: At, object: Stored) {
        let mut decoded = self.decoded.borrow_mut();
        if decoded.young.len() < 2 * DECODED {
            decoded.young.insert(at, object);
        }
    }
}

/// A key as it is ordered: by namespace, then by name.
pub(crate) fn name_of(key: &Key) -> String {
    format!("{}\0{}", key.namespace, key.name)
}

/// The key of such a name.
pub(crate) fn key_of(name: &str) -> Key {
    let (namespace, name) = name.split_once('\0').unwrap_or(("", name));
    Key::new(namespace, name)
}

/// Hashes of the terms that an object is found by.
pub(crate) fn hashes<R: Indexed>(object: &R) -> BTreeSet<u64> {
    let mut hashes = BTreeSet::new();
    object.every_term(&mut |term| {
        hashes.insert(hash(term));
    });
    hashes
}

/// What an index holds of a term.
pub(crate) fn hash(term: Term<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    term.hash(&mut hasher);
    hasher.finish()
}
