//! What garbage collection reads of an object, whichever kind it is of: who it is, whether it goes, and who owns it.

use knoll_api::{
    Key, Kind,
    k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use serde_json::Value;

use crate::{World, shelf::hash, terms::Term, untyped::UntypedKind};

/// Finalizer of an owner that waits for its dependents.
const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an owner that lets its dependents go.
const ORPHAN: &str = "orphan";

/// A kind, whether controllers know it as a type or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnyKind {
    /// One that they know.
    Typed(Kind),
    /// Another that is served.
    Untyped(UntypedKind),
}

/// An object of any kind, and where it is in the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its kind.
    pub kind: AnyKind,
    /// Its key.
    pub key: Key,
    /// Its path in the API.
    pub path: String,
}

/// Who an object is, and whether it goes: what is known of it without reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// By which what it owns is found: the hash of its uid.
    uid: u64,
    /// Whether it is being deleted.
    pub(crate) is_deleting: bool,
    /// Whether it then waits for what it owns.
    pub(crate) is_foreground: bool,
}

impl Marks {
    /// Those of an object with this metadata.
    pub(crate) fn of(meta: &ObjectMeta) -> Marks {
        let is_foreground = meta.finalizers.iter().flatten().any(|finalizer| finalizer == FOREGROUND);
        Marks::new(meta.uid.as_deref().unwrap_or_default(), meta.deletion_timestamp.is_some(), is_foreground)
    }

    pub(crate) fn new(uid: &str, is_deleting: bool, is_foreground: bool) -> Marks {
        Marks { uid: hash(Term::Owner(uid)), is_deleting, is_foreground }
    }

    /// Whether it is the object of this uid. That of another may have the same hash, which nobody can bring about.
    pub(crate) fn are_of(&self, uid: &str) -> bool {
        !uid.is_empty() && self.uid == hash(Term::Owner(uid))
    }

    /// Whether it is being deleted and waits for what it owns.
    pub(crate) fn waits(&self) -> bool {
        self.is_deleting && self.is_foreground
    }
}

/// What garbage collection reads of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lineage {
    /// Its uid.
    pub uid: String,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// Whether it then waits for what it owns.
    pub is_foreground: bool,
    /// Whether it then leaves what it owns without an owner.
    pub is_orphaning: bool,
    /// Its owners, controllers or not.
    pub owners: Vec<OwnerReference>,
}

impl Lineage {
    /// That of an object with this metadata.
    pub fn of(meta: &ObjectMeta) -> Lineage {
        let finalizers = meta.finalizers.iter().flatten();
        Lineage {
            uid: meta.uid.clone().unwrap_or_default(),
            is_deleting: meta.deletion_timestamp.is_some(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            ..Lineage::held(finalizers.map(String::as_str))
        }
    }

    /// That of an object as JSON, of which no more than the metadata needs to be there. An owner reference that cannot be
    /// read is none.
    pub fn read(object: &Value) -> Lineage {
        let meta = &object["metadata"];
        let finalizers = meta["finalizers"].as_array().into_iter().flatten();
        let owners = meta["ownerReferences"].as_array().into_iter().flatten();
        Lineage {
            uid: meta["uid"].as_str().unwrap_or_default().to_owned(),
            is_deleting: meta["deletionTimestamp"].is_string(),
            owners: owners.filter_map(|owner| serde_json::from_value(owner.clone()).ok()).collect(),
            ..Lineage::held(finalizers.filter_map(Value::as_str))
        }
    }

    fn held<'a>(finalizers: impl Iterator<Item = &'a str>) -> Lineage {
        let mut lineage = Lineage::default();
        for finalizer in finalizers {
            lineage.is_foreground |= finalizer == FOREGROUND;
            lineage.is_orphaning |= finalizer == ORPHAN;
        }
        lineage
    }

    /// Name of the finalizer that holds an owner for what it owns.
    pub(crate) fn finalizer(&self) -> &'static str {
        if self.is_foreground { FOREGROUND } else { ORPHAN }
    }
}

/// The group that an `apiVersion` names; empty for the core group.
pub(crate) fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

impl World {
    /// What garbage collection reads of an object; nothing where there is none.
    pub(crate) fn lineage(&self, kind: AnyKind, key: &Key) -> Option<Lineage> {
        match kind {
            AnyKind::Typed(kind) => self.meta(kind, key).map(|meta| Lineage::of(&meta)),
            AnyKind::Untyped(kind) => self.untyped.lineage(kind, key),
        }
    }

    /// Who an object is, and whether it goes; nothing where there is none. Reads none.
    pub(crate) fn marks(&self, kind: AnyKind, key: &Key) -> Option<Marks> {
        match kind {
            AnyKind::Typed(kind) => self.marks_of(kind, key),
            AnyKind::Untyped(kind) => self.untyped.marks(kind, key),
        }
    }

    /// Whether an object of any kind with this key and this uid exists. Reads none.
    pub(crate) fn has(&self, kind: AnyKind, key: &Key, uid: &str) -> bool {
        self.marks(kind, key).is_some_and(|marks| marks.are_of(uid))
    }

    /// Objects of all kinds that may have an owner reference to the object of this uid, ordered by kind and key. Reads none.
    pub(crate) fn may_be_owned(&self, uid: &str) -> Vec<(AnyKind, Key)> {
        self.found_by(hash(Term::Owner(uid)))
    }

    /// The same for an object of which no more is known.
    pub(crate) fn may_be_owned_by(&self, marks: Marks) -> Vec<(AnyKind, Key)> {
        self.found_by(marks.uid)
    }

    fn found_by(&self, hash: u64) -> Vec<(AnyKind, Key)> {
        let of = |kind: Kind| self.find_keys_of(kind, hash).into_iter().map(move |key| (AnyKind::Typed(kind), key));
        Kind::ALL.iter().copied().flat_map(of).chain(self.untyped.find_by(hash)).collect()
    }

    /// Objects of all kinds with an owner of a kind that controllers do not know.
    pub(crate) fn owned_by_kind(&self, group: &str, kind: &str) -> Vec<(AnyKind, Key)> {
        let term = crate::Term::OwnerKind { group, kind };
        let of = |kind: Kind| self.find_keys(kind, term).into_iter().map(move |key| (AnyKind::Typed(kind), key));
        Kind::ALL.iter().copied().flat_map(of).chain(self.untyped.find(term)).collect()
    }

    /// Where an object is.
    pub(crate) fn target(&self, kind: AnyKind, key: &Key) -> Target {
        let path = match kind {
            AnyKind::Typed(kind) => kind.object_path(key),
            AnyKind::Untyped(kind) => self.untyped.object_path(kind, key),
        };
        Target { kind, key: key.clone(), path }
    }

    /// `apiVersion` and kind of an object.
    pub(crate) fn names(&self, kind: AnyKind) -> (String, String) {
        match kind {
            AnyKind::Typed(kind) => (kind.api_version(), kind.kind().to_owned()),
            AnyKind::Untyped(kind) => self.untyped.names(kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_read_of_json_is_what_is_read_of_metadata() {
        let owner = json!({"apiVersion": "example.com/v1", "kind": "Thing", "name": "o", "uid": "1", "blockOwnerDeletion": true});
        for (finalizers, held) in [
            (json!(["x/y"]), (false, false)),
            (json!(["foregroundDeletion"]), (true, false)),
            (json!(["a", "orphan"]), (false, true)),
        ] {
            let meta = json!({"name": "n", "uid": "2", "finalizers": finalizers, "ownerReferences": [owner],
                              "deletionTimestamp": "2025-06-15T15:00:00Z"});
            let lineage = Lineage::read(&json!({"metadata": meta}));
            assert_eq!((lineage.is_foreground, lineage.is_orphaning), held);
            assert!(lineage.is_deleting && lineage.owners[0].block_owner_deletion == Some(true));
            assert_eq!(lineage, Lineage::of(&serde_json::from_value(meta).expect("metadata")));
        }
        assert_eq!(Lineage::read(&json!({"metadata": {"ownerReferences": [7]}})), Lineage::default());
    }
}
