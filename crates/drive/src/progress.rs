//! How far the World is, kind by kind, and which controllers may plan.
//!
//! A controller plans once every kind it declares was listed. A kind that is not served (its CRD is absent) turns off
//! those that cannot do without it until it appears; the others go on.

use std::collections::{BTreeMap, BTreeSet};

use knoll_api::Kind;
use knoll_plan::{Row, World, table};

use crate::queue::Barrier;

/// How far the World is.
#[derive(Default)]
pub(crate) struct Progress {
    revisions: BTreeMap<Kind, u64>,
    absent: BTreeSet<Kind>,
    configured: bool,
}

impl Progress {
    /// A kind was heard of, up to this revision.
    pub(crate) fn heard(&mut self, kind: Kind, revision: u64) {
        let reached = self.revisions.entry(kind).or_default();
        *reached = revision.max(*reached);
    }

    /// A kind is served and was listed. Whether that is news.
    pub(crate) fn listed(&mut self, kind: Kind) -> bool {
        self.absent.remove(&kind) | !self.revisions.contains_key(&kind)
    }

    /// A kind is not served. Whether that is news.
    pub(crate) fn absent(&mut self, kind: Kind) -> bool {
        self.revisions.remove(&kind);
        self.absent.insert(kind)
    }

    /// Whether a kind is not served.
    pub(crate) fn is_absent(&self, kind: Kind) -> bool {
        self.absent.contains(&kind)
    }

    /// Whether everything there is of these kinds is known, if only that they are not served.
    pub(crate) fn knows<'a>(&self, kinds: impl IntoIterator<Item = &'a Kind>) -> bool {
        kinds.into_iter().all(|kind| self.revisions.contains_key(kind) || self.absent.contains(kind))
    }

    /// The configuration is known, though its kind may not have been listed yet.
    pub(crate) fn configured(&mut self) {
        self.configured = true;
    }

    /// Whether all that a table is made of is known: of ConfigMaps that is the configuration.
    pub(crate) fn may_route(&self) -> bool {
        let unknown = |kind: &&Kind| !(self.configured && **kind == Kind::ConfigMap);
        self.knows(table::KINDS.iter().filter(unknown))
    }

    /// Whether a controller may plan. Cheap: it is asked of each, whenever a kind was listed.
    pub(crate) fn may_plan(&self, row: &Row) -> bool {
        row.needs().all(|kind| self.knows([&kind]) && !(row.absence.turns_off(kind) && self.absent.contains(&kind)))
    }

    /// Why a controller may not plan; nothing when it may.
    pub(crate) fn hindrance(&self, row: &Row) -> Option<String> {
        let kinds = row.kinds();
        let named = |kind: &Kind| format!("{}.{}", kind.plural(), kind.group());
        let mut missing = kinds.iter().filter(|kind| self.absent.contains(kind));
        if let Some(kind) = missing.find(|kind| row.absence.turns_off(**kind)) {
            return Some(format!("{} is not served", named(kind)));
        }
        let unknown = kinds.iter().find(|kind| !self.knows([*kind]))?;
        Some(format!("{} was not listed yet", named(unknown)))
    }

    /// Whether the World shows what a key waits for.
    pub(crate) fn reached(&self, world: &World, barrier: &Barrier) -> bool {
        match barrier {
            // Nothing more is heard of a kind that is not served.
            Barrier::Revision(kind, _) if self.absent.contains(kind) => true,
            other => shows(world, |kind| self.revisions.get(&kind).copied(), other),
        }
    }
}

/// Whether the World shows what a key waits for; `revision` says how far it is.
pub fn shows(world: &World, revision: impl Fn(Kind) -> Option<u64>, barrier: &Barrier) -> bool {
    match barrier {
        Barrier::Revision(kind, at) => revision(*kind).is_some_and(|revision| revision >= *at),
        Barrier::Going(kind, key, uid) => world
            .meta(*kind, key)
            .is_none_or(|meta| meta.uid.as_ref() != Some(uid) || meta.deletion_timestamp.is_some()),
        Barrier::Bound(key) => world.pods.get(key).is_none_or(|pod| {
            pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_ref().is_some_and(|node| !node.is_empty()))
        }),
    }
}

#[cfg(test)]
mod tests {
    use knoll_plan::{Settings, rows};

    use super::*;

    #[test]
    fn a_controller_may_plan_when_nothing_hinders_it() {
        let rows = rows(&Settings::default());
        let mut progress = Progress::default();
        let check = |progress: &Progress| {
            for row in rows.all() {
                assert_eq!(progress.may_plan(row), progress.hindrance(row).is_none(), "{} of {:?}", row.name, row.of);
            }
            rows.all().iter().filter(|row| progress.may_plan(row)).count()
        };
        assert_eq!(check(&progress), 0);
        for kind in rows.kinds() {
            if kind == Kind::Certificate || kind == Kind::Broker {
                progress.absent(kind);
            } else {
                progress.heard(kind, 1);
            }
            check(&progress);
        }
        let without = check(&progress);
        assert!(0 < without && without < rows.all().len(), "those that turn off rest");
        progress.listed(Kind::Certificate);
        progress.heard(Kind::Certificate, 2);
        assert_eq!(check(&progress), rows.all().len());
    }
}
