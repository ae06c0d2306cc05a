//! Every object the control plane knows, as last seen. Changes only by what the watches and I/O report;
//! plans read it and write nothing.

use std::{ops::Deref, sync::Arc};

use knoll_api::{
    Key, Kind, Object, Resource,
    config::{ConfigBundle, eventing::EventingBundle},
    for_each_kind,
    k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    DuckKind, Ducks, GroupKind, Indexer, Lineage, Observed, Settings, SystemConfig, Term, UntypedKind,
    access::is_rule,
    kube::NodeLoads,
    lineage::Marks,
    terms::{Indexed as _, leads_to},
    unreadable::Unreadable,
    untyped::Untyped,
};

/// What a watch reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object is like this now.
    Put(Object),
    /// The object is gone.
    Gone(Kind, Key),
}

impl Change {
    /// Kind and key of the object.
    pub fn subject(&self) -> (Kind, Key) {
        match self {
            Change::Put(object) => (object.kind(), object.key()),
            Change::Gone(kind, key) => (*kind, key.clone()),
        }
    }
}

/// What became different: input to [`crate::Rows::woken`].
#[derive(Clone, Debug, PartialEq)]
pub enum Changed {
    /// An object came, changed or went. At least one side is present.
    Object {
        /// As it was.
        before: Option<Object>,
        /// As it is.
        after: Option<Object>,
    },
    /// An object of a kind that controllers do not know as a type came, changed or went. At least one side is present.
    Untyped {
        /// Its kind.
        kind: UntypedKind,
        /// Its key.
        key: Key,
        /// As it was.
        before: Option<Lineage>,
        /// As it is.
        after: Option<Lineage>,
    },
    /// All objects of a kind are known from now on that controllers do not know as a type.
    Known(GroupKind),
    /// An object of a kind that no controller knows, or what is known of all of the kind: concerns what refers to it.
    Duck(DuckKind, Option<Key>),
    /// A fact beside the objects; concerns the rows of this kind, for this key.
    Observed(Kind, Key),
    /// The control plane's configuration: concerns every key of the rows that read it.
    Config(SystemConfig),
}

macro_rules! world {
    ($($variant:ident, $field:ident, $group:literal, $version:literal, $plural:literal, $kind:literal, $scope:ident, $ty:ty;)*) => {
        /// Every object, an index a kind, with what else plans read.
        #[derive(Clone, Debug)]
        pub struct World {
            $(
                #[doc = concat!("Every `", $kind, "` of `", $group, "/", $version, "`.")]
                pub $field: Indexer<$ty>,
            )*
            /// What Serving's ConfigMaps say.
            pub config: Arc<ConfigBundle>,
            /// What Eventing's ConfigMaps say.
            pub eventing: Arc<EventingBundle>,
            /// What is known beside the objects.
            pub observed: Observed,
            /// What the process was started with.
            pub settings: Settings,
            /// What pods ask of their nodes.
            pub(crate) node_loads: NodeLoads,
            pub(crate) unreadable: Unreadable,
            /// Objects of other kinds, as far as garbage collection reads them.
            pub untyped: Untyped,
            /// The same, as far as objects of Eventing refer to them.
            pub ducks: Ducks,
        }

        impl World {
            /// A World without objects.
            pub fn new(settings: Settings) -> World {
                let mut config = ConfigBundle::default();
                config.domain = config.domain.or_else(&settings.default_domain);
                World {
                    $($field: Indexer::default(),)*
                    config: Arc::new(config),
                    eventing: Arc::default(),
                    observed: Observed::default(),
                    settings,
                    node_loads: NodeLoads::default(),
                    unreadable: Unreadable::default(),
                    untyped: Untyped::default(),
                    ducks: Ducks::default(),
                }
            }

            /// Puts an object in its place; returns what was there.
            fn put(&mut self, object: Object) -> Option<Object> {
                match object { $(Object::$variant(object) => self.$field.insert(object).map(Object::$variant),)* }
            }

            /// Takes an object out.
            fn take(&mut self, kind: Kind, key: &Key) -> Option<Object> {
                match kind { $(Kind::$variant => self.$field.remove(key).map(Object::$variant),)* }
            }

            /// The object of `kind` with this key.
            pub fn object(&self, kind: Kind, key: &Key) -> Option<Object> {
                match kind { $(Kind::$variant => self.$field.get(key).map(Object::$variant),)* }
            }

            /// Whether there is an object of `kind` with this key.
            pub fn contains(&self, kind: Kind, key: &Key) -> bool {
                match kind { $(Kind::$variant => self.$field.contains(key),)* }
            }

            fn version(&self, kind: Kind, key: &Key) -> Option<u64> {
                match kind { $(Kind::$variant => self.$field.version(key),)* }
            }

            /// Keys of every object of `kind`, in order.
            pub fn keys(&self, kind: Kind) -> Vec<Key> {
                match kind { $(Kind::$variant => self.$field.keys().collect(),)* }
            }

            /// The first `most` keys of `kind` after `after`, in order; from the first when that is nothing.
            pub fn keys_after(&self, kind: Kind, after: Option<&Key>, most: usize) -> Vec<Key> {
                match kind { $(Kind::$variant => self.$field.keys_after(after, most),)* }
            }

            /// Whether a namespace holds anything of `kind`.
            pub fn is_any_in(&self, kind: Kind, namespace: &str) -> bool {
                match kind { $(Kind::$variant => self.$field.keys_in(namespace).next().is_some(),)* }
            }

            /// Keys of the objects of `kind` in a namespace, in order.
            pub(crate) fn keys_in(&self, kind: Kind, namespace: &str) -> Vec<Key> {
                match kind { $(Kind::$variant => self.$field.keys_in(namespace).collect(),)* }
            }

            /// Keys of the objects of `kind` with any owner reference to this uid, in order.
            pub fn dependents_of(&self, kind: Kind, uid: &str) -> Vec<Key> {
                match kind {
                    $(Kind::$variant => self.$field.dependents(uid).iter().map(|object| object.key()).collect(),)*
                }
            }

            /// Keys of the objects of a kind that a term may speak of, in order. Reads none.
            pub(crate) fn find_keys(&self, of: Kind, term: Term<'_>) -> Vec<Key> {
                match of { $(Kind::$variant => self.$field.find_keys(term),)* }
            }

            /// The same for a term of which only the hash is known.
            pub(crate) fn find_keys_of(&self, of: Kind, hash: u64) -> Vec<Key> {
                match of { $(Kind::$variant => self.$field.find_keys_of(hash),)* }
            }

            /// Who the object of `kind` with this key is, and whether it goes. Reads none.
            pub(crate) fn marks_of(&self, kind: Kind, key: &Key) -> Option<Marks> {
                match kind { $(Kind::$variant => self.$field.marks(key),)* }
            }

            /// What an object of any kind is found by of its own.
            pub(crate) fn terms_of(object: &Object, add: &mut dyn FnMut(Term<'_>)) {
                match object { $(Object::$variant(object) => object.own_terms(add),)* }
            }

            /// A listing of `kind` begins; one that has not ended is void.
            pub fn begin_listing(&mut self, kind: Kind) {
                self.unreadable.begin_listing(kind);
                match kind { $(Kind::$variant => self.$field.begin_listing(),)* }
            }

            pub(crate) fn name_listed(&mut self, kind: Kind, key: &Key) {
                match kind { $(Kind::$variant => self.$field.name_listed(key),)* }
            }

            /// The listing of `kind` is complete: the keys that it has not named.
            pub fn end_listing(&mut self, kind: Kind) -> Vec<Key> {
                let mut gone = match kind { $(Kind::$variant => self.$field.end_listing(),)* };
                gone.extend(self.unreadable.end_listing(kind));
                gone
            }

            /// Packs what was not read for one to two calls.
            pub fn age(&mut self) {
                $(self.$field.age();)*
            }

            /// How many objects plans have read so far.
            pub fn visits(&self) -> u64 {
                0 $(+ self.$field.visits())*
            }

            /// How many objects of each kind plans have read so far.
            #[cfg(test)]
            pub(crate) fn visits_by_kind(&self) -> std::collections::BTreeMap<Kind, u64> {
                [$((Kind::$variant, self.$field.visits())),*].into()
            }

            /// How many objects of each kind there are, in how many packed bytes, and how many of them are decoded.
            pub fn sizes(&self) -> Vec<Size> {
                vec![$({
                    let (packed_bytes, decoded) = self.$field.sizes();
                    Size { kind: Kind::$variant, objects: self.$field.len(), packed_bytes, decoded }
                },)*]
            }
        }
    };
}
for_each_kind!(world);

/// How much of a kind there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The kind.
    pub kind: Kind,
    /// Its objects.
    pub objects: usize,
    /// Bytes of those that are packed.
    pub packed_bytes: usize,
    /// How many are decoded.
    pub decoded: usize,
}

/// Metadata of an object.
#[derive(Clone, Debug)]
pub struct Meta(Object);

impl Deref for Meta {
    type Target = ObjectMeta;

    fn deref(&self) -> &ObjectMeta {
        self.0.meta()
    }
}

impl World {
    /// Keys of the objects of kind `of` that may lead to the object of `kind` with this key, in order. Reads none.
    pub(crate) fn leading_to(&self, of: Kind, kind: Kind, key: &Key) -> Vec<Key> {
        self.find_keys(of, leads_to(kind, key))
    }

    /// Metadata of the object of `kind` with this key.
    pub fn meta(&self, kind: Kind, key: &Key) -> Option<Meta> {
        self.object(kind, key).map(Meta)
    }

    /// Objects of any kind with an owner reference to this uid, ordered by kind and key.
    pub fn dependents(&self, uid: &str) -> Vec<(Kind, Key)> {
        let of =
            |kind: &Kind| self.dependents_of(*kind, uid).into_iter().map(move |key| (*kind, key)).collect::<Vec<_>>();
        Kind::ALL.iter().flat_map(of).collect()
    }

    /// Takes in what a watch reports, and says what became different. Applying the same change twice says nothing.
    pub fn apply(&mut self, change: Change) -> Vec<Changed> {
        if !self.unreadable.is_empty() {
            let (kind, key) = change.subject();
            self.unreadable.remove(kind, &key);
        }
        let (before, after) = match change {
            Change::Put(object) => (self.put(object.clone()), Some(object)),
            Change::Gone(kind, key) => (self.take(kind, &key), None),
        };
        if before == after {
            return Vec::new();
        }
        self.node_loads.change(before.as_ref(), after.as_ref());
        self.ducks.count(before.as_ref(), after.as_ref());
        let config = after.as_ref().or(before.as_ref()).and_then(|object| {
            self.observed.rules += u64::from(is_rule(object.kind()));
            self.forget(object.kind(), &object.key());
            self.read_config(object)
        });
        config.into_iter().chain([Changed::Object { before, after }]).collect()
    }

    /// Whether an object that a listing names differs from what is known: what has the resourceVersion that is known is
    /// as it was.
    pub fn note_listed(&mut self, object: &Object) -> bool {
        let (kind, key) = (object.kind(), object.key());
        if !self.unreadable.is_empty() {
            self.unreadable.remove(kind, &key);
        }
        self.name_listed(kind, &key);
        let version = object.meta().resource_version.as_deref().and_then(|text| text.parse().ok());
        version.is_none_or(|version: u64| self.version(kind, &key) != Some(version))
    }

    /// Takes in a complete listing of `kind`: what it does not name is gone.
    pub fn replace(&mut self, kind: Kind, objects: Vec<Object>) -> Vec<Changed> {
        self.begin_listing(kind);
        let mut changed = Vec::new();
        for object in objects {
            if self.note_listed(&object) {
                changed.extend(self.apply(Change::Put(object)));
            }
        }
        let gone = self.end_listing(kind);
        changed.extend(gone.into_iter().flat_map(|key| self.apply(Change::Gone(kind, key))));
        changed
    }

    /// Whether an object of `kind` with this key and this uid exists. Reads none.
    pub fn holds(&self, kind: Kind, key: &Key, uid: &str) -> bool {
        self.marks_of(kind, key).is_some_and(|marks| marks.are_of(uid))
    }
}

impl Changed {
    /// Kind and key of the object or fact; `None` for configuration and for what controllers do not know as a type.
    pub fn subject(&self) -> Option<(Kind, Key)> {
        match self {
            Changed::Object { before, after } => {
                after.as_ref().or(before.as_ref()).map(|object| (object.kind(), object.key()))
            }
            Changed::Observed(kind, key) => Some((*kind, key.clone())),
            Changed::Config(_) | Changed::Duck(..) | Changed::Untyped { .. } | Changed::Known(_) => None,
        }
    }
}
