//! A controller as a table row.

use std::collections::BTreeSet;

use jiff::Timestamp;
use knoll_api::{Key, Kind, Object};

use crate::{Plan, Rows, Settings, SystemConfig, World, autoscaling, eventing, kube, networking, serving};

/// Keys (of kind `of`) that a change to `object` concerns. Called with the object as it was and as it is.
pub type Mapper = fn(world: &World, object: &Object, of: Kind) -> Vec<Key>;

/// A controller.
#[derive(Clone, Copy)]
pub struct Row {
    /// For logs and metrics.
    pub name: &'static str,
    /// Kind of the keys it plans for. A change to an object of this kind always wakes its key.
    pub of: Kind,
    /// Which keys a change to an object of another kind (or to a sibling) wakes.
    pub wakes: &'static [(Kind, Mapper)],
    /// The control plane's ConfigMaps it reads; a change to one wakes all its keys.
    pub configs: &'static [SystemConfig],
    /// Kinds whose objects it reads and which are not in `wakes`.
    pub reads: &'static [Kind],
    /// What it does where one of its kinds is not served.
    pub absence: Absence,
    /// Decides what is to be done for a key. The key's object may be gone.
    pub plan: fn(world: &World, key: &Key, now: Timestamp) -> Plan,
}

/// What a controller does where one of its kinds is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// It rests until the kind appears.
    TurnsOff,
    /// It goes on: of a kind that is not served there is nothing.
    IsEmpty,
    /// It rests until these kinds appear, for what it does not find of them it takes away; of others there is nothing. A
    /// kind may be missing for a moment only, and what is taken away then does not come back.
    TurnsOffFor(&'static [Kind]),
}

impl Absence {
    /// Whether a controller rests where this kind is not served.
    pub fn turns_off(self, kind: Kind) -> bool {
        match self {
            Self::TurnsOff => true,
            Self::IsEmpty => false,
            Self::TurnsOffFor(kinds) => kinds.contains(&kind),
        }
    }
}

/// The key of the object's controller, if that is of the row's kind.
pub fn by_controller(_world: &World, object: &Object, of: Kind) -> Vec<Key> {
    let meta = object.meta();
    let owners = meta.owner_references.iter().flatten();
    owners
        .filter(|owner| owner.controller == Some(true))
        .filter(|owner| Kind::from_api(&owner.api_version, &owner.kind) == Some(of))
        .map(|owner| match of.scope() {
            knoll_api::kind::Scope::Cluster => Key::new("", owner.name.clone()),
            knoll_api::kind::Scope::Namespaced => {
                Key::new(meta.namespace.clone().unwrap_or_default(), owner.name.clone())
            }
        })
        .collect()
}

/// The object's own key: for kinds that share a name with the row's.
pub fn by_same_key(_world: &World, object: &Object, _of: Kind) -> Vec<Key> {
    vec![object.key()]
}

/// A group of controllers that run in one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowGroup {
    /// From what users write to what runs and is routed.
    Controllers,
    /// The scale of revisions.
    Autoscaler,
    /// What the gateway of this process routes.
    Gateway,
    /// From Brokers, channels, flows and sources to what the data plane of events carries out.
    Eventing,
    /// What a cluster brings along, for where there is none.
    Cluster,
}

impl RowGroup {
    /// Every group.
    pub const ALL: &[RowGroup] =
        &[RowGroup::Controllers, RowGroup::Autoscaler, RowGroup::Gateway, RowGroup::Eventing, RowGroup::Cluster];

    fn rows(self) -> Vec<Row> {
        match self {
            RowGroup::Controllers => serving::rows().into_iter().chain(networking::controllers()).collect(),
            RowGroup::Autoscaler => autoscaling::rows(),
            RowGroup::Gateway => networking::gateway(),
            RowGroup::Eventing => eventing::rows(),
            RowGroup::Cluster => kube::rows(),
        }
    }
}

/// The controllers of these groups.
pub fn rows_of(groups: &[RowGroup]) -> Rows {
    Rows::new(groups.iter().flat_map(|group| group.rows()).collect())
}

/// The controllers that run with these settings.
pub fn rows(settings: &Settings) -> Rows {
    let apart = [RowGroup::Eventing, RowGroup::Cluster];
    let here = |group: &&RowGroup| !apart.contains(group) || settings.standalone;
    rows_of(&RowGroup::ALL.iter().filter(here).copied().collect::<Vec<_>>())
}

impl Row {
    /// Every kind it needs to have been listed before it plans.
    pub fn kinds(&self) -> BTreeSet<Kind> {
        self.needs().collect()
    }

    /// The same, some of them more than once.
    pub fn needs(&self) -> impl Iterator<Item = Kind> + '_ {
        let config = (!self.configs.is_empty()).then_some(Kind::ConfigMap);
        let woken = self.wakes.iter().map(|(kind, _)| *kind);
        woken.chain(self.reads.iter().copied()).chain([self.of]).chain(config)
    }

    /// The keys that a change to an object of one of its kinds concerns.
    pub(crate) fn concerned(&self, world: &World, object: &Object) -> Vec<Key> {
        let kind = object.kind();
        let mut keys = if kind == self.of { vec![object.key()] } else { Vec::new() };
        for (_, map) in self.wakes.iter().filter(|(on, _)| *on == kind) {
            keys.extend(map(world, object, self.of));
        }
        keys
    }
}
