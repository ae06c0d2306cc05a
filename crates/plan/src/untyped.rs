//! Objects of kinds that controllers do not know as types: custom resources, and what of Kubernetes nothing here acts on.
//! Of each is kept what garbage collection reads, in a few words and the text of its owner references.
//!
//! What is not known is not gone: a kind is known once it is served and its objects were listed, and until then, and when
//! it is served no more, nothing is said of its objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use knoll_api::{Key, Kind};

use crate::{
    Changed, Lineage, World,
    lineage::{AnyKind, Marks, group_of},
    shelf::{hash, key_of, name_of},
    terms::Term,
};

/// A kind, whichever of its versions is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKind {
    /// API group; empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
}

/// A kind that is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServedKind {
    /// Which.
    pub name: GroupKind,
    /// The version that it is followed in.
    pub version: String,
    /// Its name in paths.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub is_namespaced: bool,
}

impl ServedKind {
    /// `group/version`, or the bare version in the core group.
    pub fn api_version(&self) -> String {
        let (group, version) = (&self.name.group, &self.version);
        if group.is_empty() { version.clone() } else { format!("{group}/{version}") }
    }

    /// Path of the collection of one namespace, or of all.
    pub fn collection_path(&self, namespace: Option<&str>) -> String {
        let root = if self.name.group.is_empty() { "/api" } else { "/apis" };
        let (api_version, plural) = (self.api_version(), &self.plural);
        match namespace.filter(|_| self.is_namespaced) {
            Some(namespace) => format!("{root}/{api_version}/namespaces/{namespace}/{plural}"),
            None => format!("{root}/{api_version}/{plural}"),
        }
    }
}

/// A kind that is served and that controllers do not know as a type. Means another once it is served no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UntypedKind(u32);

impl UntypedKind {
    /// The one at this place.
    pub(crate) fn at(place: usize) -> Self {
        Self(u32::try_from(place).unwrap_or(u32::MAX))
    }

    /// Its place: a small number.
    pub(crate) fn place(self) -> usize {
        self.0 as usize
    }
}

/// What is seen of kinds that controllers do not know as types.
#[derive(Clone, Debug, PartialEq)]
pub enum Sighting {
    /// These are served, and no others.
    Served(Vec<ServedKind>),
    /// Something of one of them.
    Of(GroupKind, UntypedSeen),
}

/// What is seen of one kind.
#[derive(Clone, Debug, PartialEq)]
pub enum UntypedSeen {
    /// A listing begins.
    Begins,
    /// An object of a listing.
    Item(Key, Lineage),
    /// The listing is complete: the items were everything there is.
    Listed,
    /// An object is like this now.
    Put(Key, Lineage),
    /// An object is gone.
    Gone(Key),
    /// The kind is not served, for a moment at least.
    Absent,
    /// Its objects may not be listed.
    Refused,
}

/// What is known of the objects of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing yet.
    #[default]
    Awaited,
    /// All.
    Listed,
    /// Nothing for now.
    Unknown,
}

/// An object: its uid, its [`Lineage`]'s marks, and its owner references as JSON; nothing where it has none.
#[derive(Clone, Debug)]
struct Packed {
    uid: Box<str>,
    marks: u8,
    owners: Box<str>,
}

const DELETING: u8 = 1;
const FOREGROUND: u8 = 2;
const ORPHANING: u8 = 4;

impl Packed {
    fn new(lineage: &Lineage) -> Self {
        let mark = |is: bool, mark: u8| if is { mark } else { 0 };
        let owners = if lineage.owners.is_empty() {
            String::new()
        } else {
            serde_json::to_string(&lineage.owners).expect("owner references are JSON")
        };
        Self {
            uid: lineage.uid.as_str().into(),
            marks: mark(lineage.is_deleting, DELETING)
                | mark(lineage.is_foreground, FOREGROUND)
                | mark(lineage.is_orphaning, ORPHANING),
            owners: owners.into(),
        }
    }

    fn unpack(&self) -> Lineage {
        let owners = if self.owners.is_empty() { Ok(Vec::new()) } else { serde_json::from_str(&self.owners) };
        let is = |mark: u8| self.marks & mark != 0;
        Lineage {
            uid: self.uid.to_string(),
            is_deleting: is(DELETING),
            is_foreground: is(FOREGROUND),
            is_orphaning: is(ORPHANING),
            owners: owners.expect("what was packed is read again"),
        }
    }

    fn marks(&self) -> Marks {
        Marks::new(&self.uid, self.marks & DELETING != 0, self.marks & FOREGROUND != 0)
    }

    fn bytes(&self) -> usize {
        self.uid.len() + self.owners.len()
    }
}

/// A kind that is served.
#[derive(Clone, Debug, Default)]
struct Tracked {
    served: ServedKind,
    state: State,
    objects: BTreeMap<Arc<str>, Packed>,
    /// While a listing is under way: what it has not named yet.
    unnamed: Option<BTreeSet<Arc<str>>>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Untyped {
    /// Whether it is still to be told which kinds are served.
    is_awaited: bool,
    places: BTreeMap<GroupKind, UntypedKind>,
    kinds: Vec<Option<Tracked>>,
    /// Objects by their owners: hashes of terms.
    by_term: BTreeSet<(u64, UntypedKind, Arc<str>)>,
    objects: usize,
    bytes: usize,
}

impl Untyped {
    /// Which kinds are served will be told.
    pub fn await_kinds(&mut self) {
        self.is_awaited = true;
    }

    /// Whether all is known that will be.
    pub(crate) fn is_complete(&self) -> bool {
        !self.is_awaited && self.kinds.iter().flatten().all(|kind| kind.state != State::Awaited)
    }

    /// Kinds, objects, and the bytes of what varies among these.
    pub fn size(&self) -> (usize, usize, usize) {
        (self.places.len(), self.objects, self.bytes)
    }

    /// The kind of this name, and whether its objects live in namespaces; nothing unless all its objects are known.
    pub(crate) fn known(&self, group: &str, kind: &str) -> Option<(UntypedKind, bool)> {
        let place = *self.places.get(&GroupKind { group: group.to_owned(), kind: kind.to_owned() })?;
        let tracked = self.tracked(place).filter(|tracked| tracked.state == State::Listed)?;
        Some((place, tracked.served.is_namespaced))
    }

    /// Every object that garbage collection may have something to do with, in order.
    pub fn concerned(&self) -> Vec<(UntypedKind, Key)> {
        let of = |(place, tracked): (usize, &Option<Tracked>)| {
            let objects = tracked.iter().flat_map(|tracked| &tracked.objects);
            let concerned = objects.filter(|(_, object)| object.marks & DELETING != 0 || !object.owners.is_empty());
            concerned.map(|(name, _)| (UntypedKind::at(place), key_of(name))).collect::<Vec<_>>()
        };
        self.kinds.iter().enumerate().flat_map(of).collect()
    }

    pub(crate) fn lineage(&self, kind: UntypedKind, key: &Key) -> Option<Lineage> {
        self.tracked(kind)?.objects.get(&*name_of(key)).map(Packed::unpack)
    }

    /// Who an object is, and whether it goes.
    pub(crate) fn marks(&self, kind: UntypedKind, key: &Key) -> Option<Marks> {
        self.tracked(kind)?.objects.get(&*name_of(key)).map(Packed::marks)
    }

    /// The objects that a term may speak of, in order.
    pub(crate) fn find(&self, term: Term<'_>) -> Vec<(AnyKind, Key)> {
        self.find_by(hash(term))
    }

    /// The same for a term of which only the hash is known.
    pub(crate) fn find_by(&self, hash: u64) -> Vec<(AnyKind, Key)> {
        let from = (hash, UntypedKind(0), Arc::from(""));
        let found = self.by_term.range(from..).take_while(|(other, ..)| *other == hash);
        found.map(|(_, kind, name)| (AnyKind::Untyped(*kind), key_of(name))).collect()
    }

    pub(crate) fn object_path(&self, kind: UntypedKind, key: &Key) -> String {
        let collection = self.tracked(kind).map(|tracked| tracked.served.collection_path(Some(&key.namespace)));
        format!("{}/{}", collection.unwrap_or_default(), key.name)
    }

    pub(crate) fn names(&self, kind: UntypedKind) -> (String, String) {
        let served = self.tracked(kind).map(|tracked| &tracked.served);
        served.map(|served| (served.api_version(), served.name.kind.clone())).unwrap_or_default()
    }

    fn tracked(&self, kind: UntypedKind) -> Option<&Tracked> {
        self.kinds.get(kind.place())?.as_ref()
    }

    fn tracked_mut(&mut self, kind: UntypedKind) -> Option<&mut Tracked> {
        self.kinds.get_mut(kind.place())?.as_mut()
    }

    /// Takes in which kinds are served; of others nothing is known any more.
    fn serve(&mut self, kinds: Vec<ServedKind>) -> Vec<Changed> {
        self.is_awaited = false;
        let named: BTreeSet<&GroupKind> = kinds.iter().map(|kind| &kind.name).collect();
        let gone: Vec<GroupKind> = self.places.keys().filter(|name| !named.contains(name)).cloned().collect();
        let mut changed = Vec::new();
        for name in gone {
            if let Some(kind) = self.places.remove(&name) {
                changed.extend(self.clear(kind));
                self.kinds[kind.place()] = None;
            }
        }
        for served in kinds {
            match self.places.get(&served.name).copied() {
                Some(kind) => self.tracked_mut(kind).into_iter().for_each(|tracked| tracked.served = served.clone()),
                None => self.begin(served),
            }
        }
        changed
    }

    fn begin(&mut self, served: ServedKind) {
        let place = self.kinds.iter().position(Option::is_none).unwrap_or(self.kinds.len());
        self.places.insert(served.name.clone(), UntypedKind::at(place));
        let tracked = Some(Tracked { served, ..Tracked::default() });
        match self.kinds.get_mut(place) {
            Some(free) => *free = tracked,
            None => self.kinds.push(tracked),
        }
    }

    fn take_in(&mut self, kind: UntypedKind, seen: UntypedSeen) -> Vec<Changed> {
        let Some(tracked) = self.tracked_mut(kind) else { return Vec::new() };
        match seen {
            UntypedSeen::Begins => {
                tracked.unnamed = Some(tracked.objects.keys().cloned().collect());
                Vec::new()
            }
            UntypedSeen::Item(key, lineage) => {
                if let Some(unnamed) = &mut tracked.unnamed {
                    unnamed.remove(&*name_of(&key));
                }
                self.put(kind, key, Some(lineage)).into_iter().collect()
            }
            UntypedSeen::Put(key, lineage) => self.put(kind, key, Some(lineage)).into_iter().collect(),
            UntypedSeen::Gone(key) => self.put(kind, key, None).into_iter().collect(),
            UntypedSeen::Listed => {
                let is_news = std::mem::replace(&mut tracked.state, State::Listed) != State::Listed;
                let name = tracked.served.name.clone();
                let unnamed = tracked.unnamed.take().unwrap_or_default();
                let gone = unnamed.iter().filter_map(|name| self.put(kind, key_of(name), None)).collect::<Vec<_>>();
                gone.into_iter().chain(is_news.then_some(Changed::Known(name))).collect()
            }
            UntypedSeen::Absent => {
                tracked.state = State::Unknown;
                self.clear(kind)
            }
            UntypedSeen::Refused => {
                tracked.state = State::Unknown;
                Vec::new()
            }
        }
    }

    /// Forgets every object of a kind.
    fn clear(&mut self, kind: UntypedKind) -> Vec<Changed> {
        let names: Vec<Arc<str>> =
            self.tracked(kind).into_iter().flat_map(|tracked| tracked.objects.keys().cloned()).collect();
        names.iter().filter_map(|name| self.put(kind, key_of(name), None)).collect()
    }

    /// Puts an object in place of what was known of it, or takes it out.
    fn put(&mut self, kind: UntypedKind, key: Key, after: Option<Lineage>) -> Option<Changed> {
        let tracked = self.kinds.get_mut(kind.place())?.as_mut()?;
        let name = name_of(&key);
        let before = tracked.objects.remove_entry(&*name);
        let name = before.as_ref().map_or_else(|| name.into(), |(name, _)| name.clone());
        if let Some(after) = &after {
            let packed = Packed::new(after);
            self.objects += 1;
            self.bytes += name.len() + packed.bytes();
            tracked.objects.insert(name.clone(), packed);
        }
        let before = before.map(|(_, packed)| {
            self.objects -= 1;
            self.bytes -= name.len() + packed.bytes();
            packed.unpack()
        });
        if before == after {
            return None;
        }
        for hash in before.as_ref().map(terms).unwrap_or_default() {
            self.by_term.remove(&(hash, kind, name.clone()));
        }
        let terms = after.as_ref().map(terms).unwrap_or_default();
        self.by_term.extend(terms.into_iter().map(|hash| (hash, kind, name.clone())));
        Some(Changed::Untyped { kind, key, before, after })
    }
}

/// What an object is found by.
fn terms(lineage: &Lineage) -> BTreeSet<u64> {
    let mut hashes = BTreeSet::new();
    for owner in &lineage.owners {
        owner_terms(&owner.api_version, &owner.kind, &owner.uid, &mut |term| {
            hashes.insert(hash(term));
        });
    }
    hashes
}

/// What an object is found by for one of its owners.
pub(crate) fn owner_terms(api_version: &str, kind: &str, uid: &str, add: &mut dyn FnMut(Term<'_>)) {
    add(Term::Owner(uid));
    let group = group_of(api_version);
    if Kind::in_any_version(group, kind).is_none() {
        add(Term::OwnerKind { group, kind });
    }
}

impl World {
    /// Takes in what is seen of kinds that controllers do not know as types, and says what became different.
    pub fn see(&mut self, sighting: Sighting) -> Vec<Changed> {
        match sighting {
            Sighting::Served(kinds) => self.untyped.serve(kinds),
            Sighting::Of(name, seen) => match self.untyped.places.get(&name).copied() {
                Some(kind) => self.untyped.take_in(kind, seen),
                // It was served no more when this came.
                None => Vec::new(),
            },
        }
    }
}

#[cfg(test)]
mod tests;
