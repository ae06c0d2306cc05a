//! Owners and dependents: what loses its last owner goes; an owner that was deleted in the foreground waits for its
//! dependents, and one whose dependents are to be orphaned lets them go first.
//!
//! A row a kind, which are woken together ([`owners_and_dependents`]), and [`collect`] for the kinds that controllers do not
//! know as types. An owner is absent where the kind it is of is known and none has its name and uid; one of a kind that is not
//! served, or whose objects cannot be listed, may exist, and what it owns stays as it is. That an owner is absent is confirmed
//! with the API server before anything is deleted: the World may hear of a dependent before its owner.

use std::{collections::BTreeSet, time::Duration};

use knoll_api::{
    Key, Kind, Timestamp, for_each_kind, k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference, kind::Scope,
};

use crate::{
    Absence, AnyKind, EventRecord, EventType, Lineage, MetadataList, Plan, Propagation, Row, Target, Want, World,
    lineage::{Marks, group_of},
};

/// Name of the rows.
pub(crate) const NAME: &str = "garbage-collection";
/// Most dependents one plan acts on; the rest follows once these are seen.
const BURST: usize = 500;
/// How soon an object is looked at again whose owner is of a kind that controllers know and that is not served for now.
const AWAY: Duration = Duration::from_secs(30);
/// How soon an owner that waits is looked at again while it is not known yet what it may own.
const AWAITED: Duration = Duration::from_secs(1);
/// Owners of one object that are sought in other namespaces, to say so.
const MOST_SOUGHT: usize = 8;
/// Objects that are looked through for a circle of owners that wait for each other, and what they own together: users draw
/// such graphs as dense as they like. A circle that is larger is none.
const MOST_WAITING: usize = 128;
const MOST_OWNED: usize = 4096;

macro_rules! collectors {
    ($($variant:ident, $field:ident, $group:literal, $version:literal, $plural:literal, $kind:literal, $scope:ident, $ty:ty;)*) => {
        mod row {
            use super::{AnyKind, Key, Kind, Plan, Timestamp, World, collect};
            $(
                pub(super) fn $field(world: &World, key: &Key, _now: Timestamp) -> Plan {
                    collect(world, AnyKind::Typed(Kind::$variant), key)
                }
            )*
        }

        /// A row for every kind.
        pub(super) fn rows() -> Vec<Row> {
            vec![$(Row {
                name: NAME,
                of: Kind::$variant,
                wakes: &[],
                configs: &[],
                reads: Kind::ALL,
                absence: Absence::IsEmpty,
                plan: row::$field,
            }),*]
        }
    };
}
for_each_kind!(collectors);

/// An object concerns itself; an owner that goes concerns its dependents; a dependent that changes concerns owners that
/// wait for it.
pub(crate) fn owners_and_dependents(world: &World, kind: AnyKind, key: &Key, lineage: &Lineage) -> Vec<(AnyKind, Key)> {
    let mut concerned = Vec::new();
    if !lineage.uid.is_empty() && (lineage.is_deleting || !world.has(kind, key, &lineage.uid)) {
        concerned = world.may_be_owned(&lineage.uid);
    }
    for owner in &lineage.owners {
        let Place::At(kind, key) = place(world, owner, key) else { continue };
        if world.marks(kind, &key).is_some_and(|owner| owner.is_deleting) {
            concerned.push((kind, key));
        }
    }
    concerned.push((kind, key.clone()));
    concerned
}

/// Where an owner is looked for.
enum Place {
    At(AnyKind, Key),
    /// Its kind is not served, or its objects are not known. Who waits for that is woken.
    Unknown,
    /// The same of a kind that controllers know: it comes back.
    Away,
    /// It would be in a namespace, and what it is to own is in none.
    Invalid(AnyKind),
}

/// Where the owner of an object is, whichever of its kind's versions the reference names: in the namespace of the object,
/// if owners of the kind are in any.
fn place(world: &World, owner: &OwnerReference, dependent: &Key) -> Place {
    let group = group_of(&owner.api_version);
    let (kind, is_namespaced) = match Kind::in_any_version(group, &owner.kind) {
        Some(kind) if world.observed.absent.contains(&kind) => return Place::Away,
        Some(kind) => (AnyKind::Typed(kind), kind.scope() == Scope::Namespaced),
        None => match world.untyped.known(group, &owner.kind) {
            Some((kind, is_namespaced)) => (AnyKind::Untyped(kind), is_namespaced),
            None => return Place::Unknown,
        },
    };
    match (is_namespaced, dependent.namespace.is_empty()) {
        (false, _) => Place::At(kind, Key::new("", owner.name.clone())),
        (true, false) => Place::At(kind, dependent.sibling(owner.name.clone())),
        (true, true) => Place::Invalid(kind),
    }
}

/// What is to be done for an object of any kind.
pub(crate) fn collect(world: &World, kind: AnyKind, key: &Key) -> Plan {
    let mut plan = Plan::nothing();
    let Some(lineage) = world.lineage(kind, key) else { return plan };
    let node = Node { world, kind, key, lineage: &lineage };
    if lineage.is_deleting {
        if lineage.is_foreground {
            node.wait_for_dependents(&mut plan);
        } else if lineage.is_orphaning {
            node.orphan_dependents(&mut plan);
        }
    } else if !lineage.owners.is_empty() {
        node.follow_owners(&mut plan);
    }
    plan
}

/// How an owner reference stands.
enum Standing {
    /// The owner exists.
    Solid,
    /// The owner exists and waits for its dependents.
    Waiting,
    /// The World does not hold the owner.
    Absent(AnyKind, Key),
    /// Nothing can be said of the owner.
    Unknown,
    /// Nothing can be said of the owner for now.
    Away,
    /// Such an owner cannot be, and that is nothing to delete an object for.
    Invalid(AnyKind),
}

/// An object that is planned for.
struct Node<'a> {
    world: &'a World,
    kind: AnyKind,
    key: &'a Key,
    lineage: &'a Lineage,
}

impl Node<'_> {
    fn target(&self) -> Target {
        self.world.target(self.kind, self.key)
    }

    fn standing(&self, owner: &OwnerReference) -> Standing {
        let (kind, key) = match place(self.world, owner, self.key) {
            Place::At(kind, key) => (kind, key),
            Place::Unknown => return Standing::Unknown,
            Place::Away => return Standing::Away,
            Place::Invalid(kind) => return Standing::Invalid(kind),
        };
        match self.world.marks(kind, &key).filter(|found| found.are_of(&owner.uid)) {
            Some(found) if found.waits() => Standing::Waiting,
            Some(_) => Standing::Solid,
            None => Standing::Absent(kind, key),
        }
    }

    /// What it owns, read one after the other. As its owner is sought in the namespace of what it owns, nothing of another
    /// namespace is.
    fn dependents(&self) -> impl Iterator<Item = (AnyKind, Key, Lineage)> {
        let uid = self.lineage.uid.as_str();
        let found = self.world.may_be_owned(uid).into_iter().filter(|(_, key)| may_own(self.key, key));
        found.filter_map(move |(kind, key)| {
            let lineage = self.world.lineage(kind, &key)?;
            lineage.owners.iter().any(|owner| owner.uid == uid).then_some((kind, key, lineage))
        })
    }

    /// Goes when every owner is absent or waits for it; leaves those when another stays. As long as nothing can be said of
    /// one of them, all stays as it is.
    fn follow_owners(&self, plan: &mut Plan) {
        let (mut is_solid, mut is_open, mut is_awaited) = (false, false, false);
        let (mut lost, mut absent) = (Vec::new(), Vec::new());
        let mut sought = 0..MOST_SOUGHT;
        for owner in &self.lineage.owners {
            match self.standing(owner) {
                Standing::Solid => is_solid = true,
                Standing::Waiting => {
                    is_awaited = true;
                    lost.push(owner.uid.clone());
                }
                Standing::Absent(kind, key) => {
                    if !key.namespace.is_empty() && sought.next().is_some() {
                        self.report_elsewhere(plan, kind, owner);
                    }
                    lost.push(owner.uid.clone());
                    absent.push((self.world.target(kind, &key), owner.uid.clone()));
                }
                Standing::Unknown => is_open = true,
                Standing::Away => {
                    plan.recheck_after(AWAY);
                    is_open = true;
                }
                Standing::Invalid(kind) => {
                    if sought.next().is_some() {
                        self.report_elsewhere(plan, kind, owner);
                    }
                    is_open = true;
                }
            }
        }
        if is_open || (is_solid && lost.is_empty()) {
            return;
        }
        let (object, uid) = (self.target(), self.lineage.uid.clone());
        plan.wants.push(if is_solid {
            Want::Shrink { object, uid, list: MetadataList::OwnerReferences, without: lost, absent }
        } else {
            let owners = self.lineage.owners.iter().map(|owner| owner.uid.clone()).collect();
            Want::Collect { object, uid, owners, absent, propagation: self.propagation(is_awaited) }
        });
    }

    /// What becomes of what this object owns when it goes: as its finalizers say, and before it where its owner waits.
    fn propagation(&self, is_awaited: bool) -> Propagation {
        if self.lineage.is_foreground || (is_awaited && self.dependents().next().is_some()) {
            Propagation::Foreground
        } else if self.lineage.is_orphaning {
            Propagation::Orphan
        } else {
            Propagation::Background
        }
    }

    /// Says so where an owner is in another namespace. Looks into each of them.
    fn report_elsewhere(&self, plan: &mut Plan, kind: AnyKind, owner: &OwnerReference) {
        let own = &self.key.namespace;
        let has = |namespace: Key| {
            namespace.name != *own && self.world.has(kind, &Key::new(namespace.name, owner.name.clone()), &owner.uid)
        };
        if !self.world.namespaces.keys().any(has) {
            return;
        }
        let OwnerReference { api_version: version, kind: owner_kind, name, uid, .. } = owner;
        let shown = format!("[{version}/{owner_kind}, namespace: {own}, name: {name}, uid: {uid}]");
        let (api_version, kind) = self.world.names(self.kind);
        plan.wants.push(Want::RecordEvent(EventRecord {
            api_version,
            kind,
            key: self.key.clone(),
            uid: self.lineage.uid.clone(),
            type_: EventType::Warning,
            reason: "OwnerRefInvalidNamespace".to_owned(),
            message: format!("ownerRef {shown} does not exist in namespace {own:?}"),
        }));
    }

    /// Lets the owner go once nothing that blocks it is left. The dependents delete themselves, see
    /// [`Self::follow_owners`].
    fn wait_for_dependents(&self, plan: &mut Plan) {
        let uid = self.lineage.uid.as_str();
        let own = (self.kind, self.key.clone());
        let blocks = |(kind, key, dependent): (AnyKind, Key, Lineage)| {
            let blocking = |owner: &OwnerReference| owner.uid == uid && owner.block_owner_deletion == Some(true);
            dependent.owners.iter().any(blocking) && !waits_for(self.world, (kind, key), &own)
        };
        if !self.dependents().any(blocks) {
            self.drop_finalizer(plan);
        }
    }

    fn orphan_dependents(&self, plan: &mut Plan) {
        let mut dependents = self.dependents().take(BURST).peekable();
        if dependents.peek().is_none() {
            self.drop_finalizer(plan);
        }
        for (kind, key, dependent) in dependents {
            plan.wants.push(Want::Shrink {
                object: self.world.target(kind, &key),
                uid: dependent.uid,
                list: MetadataList::OwnerReferences,
                without: vec![self.lineage.uid.clone()],
                absent: Vec::new(),
            });
        }
    }

    /// Lets an owner go, once all is known that it may own.
    fn drop_finalizer(&self, plan: &mut Plan) {
        if !self.world.untyped.is_complete() {
            plan.recheck_after(AWAITED);
            return;
        }
        plan.wants.push(Want::Shrink {
            object: self.target(),
            uid: self.lineage.uid.clone(),
            list: MetadataList::Finalizers,
            without: vec![self.lineage.finalizer().to_owned()],
            absent: Vec::new(),
        });
    }
}

/// Whether an owner of this key may own what is at another.
fn may_own(owner: &Key, owned: &Key) -> bool {
    owner.namespace.is_empty() || owner.namespace == owned.namespace
}

/// Whether a dependent that is being deleted waits, through others, for `owner` itself: a circle nobody would leave. Reads
/// no object.
fn waits_for(world: &World, dependent: (AnyKind, Key), owner: &(AnyKind, Key)) -> bool {
    if dependent == *owner {
        return true;
    }
    let (mut seen, mut left, mut owned) = (BTreeSet::from([dependent.clone()]), vec![dependent], 0);
    while let Some((kind, key)) = left.pop() {
        let Some(marks) = world.marks(kind, &key).filter(Marks::waits) else { continue };
        for next in world.may_be_owned_by(marks) {
            owned += 1;
            if !may_own(&key, &next.1) {
                continue;
            }
            if next == *owner {
                return true;
            }
            if owned == MOST_OWNED || seen.len() == MOST_WAITING {
                return false;
            }
            if world.marks(next.0, &next.1).is_some_and(|marks| marks.waits()) && seen.insert(next.clone()) {
                left.push(next);
            }
        }
    }
    false
}

#[cfg(test)]
mod tests;
