//! All controllers together, and which keys of which of them a change wakes.
//!
//! A change asks the rows that may be concerned and no other, and controllers that are a row for every kind all at once:
//! what it costs does not grow with the number of kinds.
//!
//! Kinds that controllers do not know as types have no row of their own: garbage collection plans for their keys, and what
//! comes after the last row stands for them ([`Rows::index_of`]).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use knoll_api::{Key, Kind, Object};

use crate::{AnyKind, Changed, Lineage, Plan, Row, UntypedKind, World, eventing, kube};

/// Whom a change to an object concerns, of whichever kind. Called with the object as it was and as it is.
pub(crate) type Router = fn(world: &World, kind: AnyKind, key: &Key, lineage: &Lineage) -> Vec<(AnyKind, Key)>;

/// Controllers that are a row for every kind: the name of their rows, and who is concerned by what.
const FAMILIES: &[(&str, Router)] = &[(kube::GARBAGE_COLLECTION, kube::owners_and_dependents)];

/// Controllers that go by dates: by the times of schedules, and by when tokens end that the API server issued. All others
/// ask for how long something has been so.
const BY_DATES: [&str; 2] = [kube::CRON_JOB, eventing::SINK_BINDING];

/// A set of controllers.
#[derive(Clone)]
pub struct Rows {
    rows: Vec<Row>,
    /// Every index of a row.
    indices: Vec<usize>,
    /// Rows that a change to an object of a kind may wake, but for those of families.
    by_kind: BTreeMap<Kind, Vec<usize>>,
    families: Vec<Family>,
}

/// Rows of one name.
#[derive(Clone)]
struct Family {
    router: Router,
    rows: Vec<usize>,
    by_kind: BTreeMap<Kind, usize>,
}

/// What a change wakes. Rows are named by their index in [`Rows::all`]; single keys may be of what comes after the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Woken {
    /// Single keys, in order, each once.
    pub keys: BTreeSet<(usize, Key)>,
    /// Rows of which every key is to be planned again; may be spread over time.
    pub all: BTreeSet<usize>,
}

/// Rows that find out together whom a change concerns: one, or all of a family.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Their indices in [`Rows::all`].
    pub rows: &'a [usize],
    family: Option<&'a Family>,
}

impl Rows {
    /// A set of exactly these controllers.
    pub fn new(rows: Vec<Row>) -> Rows {
        let in_family = |row: &Row| FAMILIES.iter().any(|(name, _)| *name == row.name);
        let mut by_kind: BTreeMap<Kind, Vec<usize>> = BTreeMap::new();
        for (index, row) in rows.iter().enumerate().filter(|(_, row)| !in_family(row)) {
            let kinds: BTreeSet<Kind> = row.wakes.iter().map(|(kind, _)| *kind).chain([row.of]).collect();
            kinds.into_iter().for_each(|kind| by_kind.entry(kind).or_default().push(index));
        }
        let families = FAMILIES.iter().map(|&(name, router)| {
            let of = |(index, row): (usize, &Row)| (row.name == name).then_some((row.of, index));
            let by_kind: BTreeMap<Kind, usize> = rows.iter().enumerate().filter_map(of).collect();
            Family { router, rows: by_kind.values().copied().collect(), by_kind }
        });
        let families = families.filter(|family| !family.rows.is_empty()).collect();
        Rows { indices: (0..rows.len()).collect(), by_kind, families, rows }
    }

    /// Every kind that any of them needs.
    pub fn kinds(&self) -> BTreeSet<Kind> {
        self.rows.iter().flat_map(Row::kinds).collect()
    }

    /// Every controller.
    pub fn all(&self) -> &[Row] {
        &self.rows
    }

    /// What stands for a kind that controllers do not know as a type, after the last row.
    pub fn index_of(&self, kind: UntypedKind) -> usize {
        self.rows.len() + kind.place()
    }

    /// Who collects garbage: the index of one row; nothing where none does.
    pub fn collector(&self) -> Option<usize> {
        self.rows.iter().position(|row| row.name == kube::GARBAGE_COLLECTION)
    }

    /// The controller's name, for logs.
    pub fn name(&self, index: usize) -> &'static str {
        self.rows.get(index).map_or(kube::GARBAGE_COLLECTION, |row| row.name)
    }

    /// Whether a controller goes by dates: then `now` is what the wall clock says, and its keys are planned again when that is
    /// set. To all others `now` is a time that does not jump.
    pub fn goes_by_dates(&self, index: usize) -> bool {
        self.rows.get(index).is_some_and(|row| BY_DATES.contains(&row.name))
    }

    /// Decides what is to be done for a key of a row, or of what comes after the last.
    pub fn plan(&self, index: usize, world: &World, key: &Key, now: Timestamp) -> Plan {
        match self.rows.get(index) {
            Some(row) => (row.plan)(world, key, now),
            None => kube::collect(world, AnyKind::Untyped(UntypedKind::at(index - self.rows.len())), key),
        }
    }

    /// Indices of those that plan for keys of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = usize> + '_ {
        let alone = self.by_kind.get(&kind).into_iter().flatten().copied();
        let in_families = self.families.iter().filter_map(move |family| family.by_kind.get(&kind).copied());
        alone.filter(move |index| self.rows[*index].of == kind).chain(in_families)
    }

    /// Who is to be asked whom `changed` concerns.
    pub fn asked(&self, changed: &Changed) -> Vec<Asked<'_>> {
        let alone = |index: usize| Asked { rows: &self.indices[index..=index], family: None };
        match changed {
            Changed::Config(config) => {
                let reads = |index: &usize| self.rows[*index].configs.contains(config);
                self.indices.iter().copied().filter(reads).map(alone).collect()
            }
            Changed::Observed(kind, _) => self.of(*kind).map(alone).collect(),
            Changed::Duck(..) => {
                let refers = |index: &usize| {
                    let Row { name, of, .. } = self.rows[*index];
                    of.group().ends_with("knative.dev") && name != kube::GARBAGE_COLLECTION
                };
                self.indices.iter().copied().filter(refers).map(alone).collect()
            }
            Changed::Untyped { .. } | Changed::Known(_) => {
                self.families.iter().map(|family| Asked { rows: &family.rows, family: Some(family) }).collect()
            }
            Changed::Object { .. } => {
                let kind = changed.subject().map(|(kind, _)| kind);
                let rows = kind.and_then(|kind| self.by_kind.get(&kind)).into_iter().flatten().copied().map(alone);
                let families = self.families.iter();
                rows.chain(families.map(|family| Asked { rows: &family.rows, family: Some(family) })).collect()
            }
        }
    }

    /// What `changed` wakes of those that are asked. `world` already holds the change.
    pub fn woken_of(&self, asked: Asked<'_>, world: &World, changed: &Changed) -> Woken {
        let mut woken = Woken::default();
        match changed {
            Changed::Config(_) => woken.all.extend(asked.rows),
            Changed::Duck(kind, object) => {
                for row in asked.rows {
                    let keys = world.leading_to_duck(self.rows[*row].of, kind, object.as_ref());
                    woken.keys.extend(keys.into_iter().map(|key| (*row, key)));
                }
            }
            Changed::Observed(_, key) => woken.keys.extend(asked.rows.iter().map(|index| (*index, key.clone()))),
            Changed::Object { before, after } => {
                for object in before.iter().chain(after) {
                    woken.keys.extend(self.concerned(asked, world, object));
                }
            }
            Changed::Untyped { kind, key, before, after } => {
                for lineage in before.iter().chain(after) {
                    woken.keys.extend(self.related(asked, world, AnyKind::Untyped(*kind), key, lineage));
                }
            }
            Changed::Known(name) => {
                woken.keys.extend(self.places(asked, world.owned_by_kind(&name.group, &name.kind)));
            }
        }
        woken
    }

    /// Whom a change to an object concerns of a family.
    fn related(
        &self,
        asked: Asked<'_>,
        world: &World,
        kind: AnyKind,
        key: &Key,
        lineage: &Lineage,
    ) -> Vec<(usize, Key)> {
        let concerned = asked.family.map(|family| (family.router)(world, kind, key, lineage));
        self.places(asked, concerned.unwrap_or_default())
    }

    /// Who of a family plans for these.
    fn places(&self, asked: Asked<'_>, objects: Vec<(AnyKind, Key)>) -> Vec<(usize, Key)> {
        let place = |kind: AnyKind| match kind {
            AnyKind::Typed(kind) => asked.family?.by_kind.get(&kind).copied(),
            AnyKind::Untyped(kind) => Some(self.index_of(kind)),
        };
        objects.into_iter().filter_map(|(kind, key)| Some((place(kind)?, key))).collect()
    }

    fn concerned(&self, asked: Asked<'_>, world: &World, object: &Object) -> Vec<(usize, Key)> {
        match asked.family {
            Some(_) => {
                let lineage = Lineage::of(object.meta());
                self.related(asked, world, AnyKind::Typed(object.kind()), &object.key(), &lineage)
            }
            None => {
                let rows = asked.rows.iter().copied();
                rows.flat_map(|row| self.rows[row].concerned(world, object).into_iter().map(move |key| (row, key)))
                    .collect()
            }
        }
    }

    /// What `changed` wakes. `world` already holds the change.
    pub fn woken(&self, world: &World, changed: &Changed) -> Woken {
        let mut woken = Woken::default();
        for asked in self.asked(changed) {
            let one = self.woken_of(asked, world, changed);
            woken.keys.extend(one.keys);
            woken.all.extend(one.all);
        }
        woken
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Change, Settings, SystemConfig, rows};

    /// How many are asked about a change to an object of a kind.
    fn asked(rows: &Rows, kind: Kind) -> usize {
        let after = Object::from_json(kind, json!({"metadata": {"name": "n", "namespace": "a"}, "spec": {}})).ok();
        rows.asked(&Changed::Object { before: None, after }).len()
    }

    #[test]
    fn a_change_asks_those_it_may_concern_however_many_kinds_there_are() {
        let rows = rows(&Settings::default());
        // Its own controller, the ContainerSource or EventTransform that made it, Triggers that wait for it, EventPolicies
        // and EventTypes that speak of it, its namespace, and what owns it or depends on it.
        assert_eq!(asked(&rows, Kind::SinkBinding), 8);
        assert!(asked(&rows, Kind::ConfigMap) < Kind::ALL.len() / 3, "{}", asked(&rows, Kind::ConfigMap));
        // What sends events is woken by each of the kinds that take some.
        let pairs: usize = rows.by_kind.values().map(Vec::len).sum();
        assert!(pairs < 7 * Kind::ALL.len(), "{pairs} pairs of a row and a kind");
    }

    #[test]
    fn a_change_wakes_the_object_its_owner_and_who_reads_the_configuration() {
        let rows = rows(&Settings::default());
        let mut world = World::new(Settings::default());
        let map = json!({"metadata": {"name": "config-gc", "namespace": "knative-serving"}, "data": {"min-non-active-revisions": "7"}});
        let map = Object::from_json(Kind::ConfigMap, map).expect("a ConfigMap");
        let changes = world.apply(Change::Put(map));
        let woken: Vec<Woken> = changes.iter().map(|changed| rows.woken(&world, changed)).collect();
        let names = |woken: &Woken| -> Vec<&str> {
            let rows =
                woken.all.iter().chain(woken.keys.iter().map(|(index, _)| index)).map(|index| rows.all()[*index]);
            rows.map(|row| row.name).collect()
        };
        assert_eq!(changes[0], Changed::Config(SystemConfig::Serving("config-gc")));
        assert_eq!(names(&woken[0]), ["revision-gc"]);
        assert!(names(&woken[1]).contains(&kube::GARBAGE_COLLECTION));
        assert!(rows.of(Kind::ConfigMap).any(|index| rows.all()[index].name == kube::GARBAGE_COLLECTION));
    }
}
