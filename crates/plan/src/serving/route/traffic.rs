//! Which Revisions a Route's traffic goes to, and why not when it cannot.

use std::{collections::BTreeMap, sync::Arc};

use knoll_api::{
    Resource, Timestamp,
    conditions::READY,
    labels::serving as keys,
    serving::{Configuration, Revision, Route, TrafficTarget},
};

use super::ALL_TRAFFIC_ASSIGNED;
use crate::{World, serving::revision::is_h2c, status::Reporting};

/// A share of the traffic, down to its Revision.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) tag: String,
    pub(super) revision: String,
    /// The Configuration that the Revision belongs to; empty for a Revision on its own.
    pub(super) configuration: String,
    /// Whether the latest ready Revision is meant, as the spec says it.
    pub(super) latest: Option<bool>,
    pub(super) percent: i64,
    /// Whether the Revision speaks HTTP/2 with prior knowledge.
    pub(super) h2c: bool,
}

/// A Route's traffic.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Traffic {
    /// Targets by tag, each Revision once; all of them under `""`.
    pub(super) names: BTreeMap<String, Vec<Target>>,
    /// Targets as the spec lists them.
    pub(super) flat: Vec<Target>,
}

/// The reason of a Route whose target has no Revision that is ready.
pub(crate) const REVISION_MISSING: &str = "RevisionMissing";

/// Why a target cannot take traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadTarget {
    Missing { kind: &'static str, name: String },
    ConfigurationNotReady { name: String, failed: bool },
    RevisionNotReady { name: String, failed: bool },
    Foreign { revision: String, wanted: String, actual: String },
}

impl BadTarget {
    /// Whether waiting does not help.
    fn is_failure(&self) -> bool {
        match self {
            BadTarget::Missing { .. } | BadTarget::Foreign { .. } => true,
            BadTarget::ConfigurationNotReady { failed, .. } | BadTarget::RevisionNotReady { failed, .. } => *failed,
        }
    }

    /// Writes the reason into the status.
    pub(super) fn report(&self, next: &mut Route, now: Timestamp) {
        let (reason, message) = match self {
            BadTarget::Missing { kind, name } => {
                (format!("{kind}Missing"), format!("{kind} \"{name}\" referenced in traffic not found."))
            }
            BadTarget::ConfigurationNotReady { name, failed: true } => {
                (REVISION_MISSING.into(), format!("Configuration \"{name}\" does not have any ready Revision."))
            }
            BadTarget::ConfigurationNotReady { name, failed: false } => (
                REVISION_MISSING.into(),
                format!("Configuration \"{name}\" is waiting for a Revision to become ready."),
            ),
            BadTarget::RevisionNotReady { name, failed: true } => {
                (REVISION_MISSING.into(), format!("Revision \"{name}\" failed to become ready."))
            }
            BadTarget::RevisionNotReady { name, failed: false } => {
                (REVISION_MISSING.into(), format!("Revision \"{name}\" is not yet ready."))
            }
            BadTarget::Foreign { revision, wanted, actual } if actual.is_empty() => {
                ("RevisionNotOwned".into(), format!("Revision \"{revision}\" does not belong to Service \"{wanted}\"."))
            }
            BadTarget::Foreign { revision, wanted, actual } => (
                "RevisionNotOwned".into(),
                format!("Revision \"{revision}\" belongs to Service \"{actual}\", not Service \"{wanted}\"."),
            ),
        };
        let mut conditions = next.conditions(now);
        if self.is_failure() {
            conditions.mark_false(ALL_TRAFFIC_ASSIGNED, &reason, &message);
        } else {
            conditions.mark_unknown(ALL_TRAFFIC_ASSIGNED, &reason, &message);
        }
    }
}

/// Follows every target of the spec to its Revision. One bad target spoils all; of several, the last that will
/// not heal by itself is told, else the first.
pub(super) fn resolve(world: &World, route: &Route) -> Result<Traffic, BadTarget> {
    let mut traffic = Traffic::default();
    let mut bad: Option<BadTarget> = None;
    for target in &route.spec.traffic {
        match follow(world, route, target) {
            Ok(target) => traffic.add(target),
            Err(error) if bad.is_none() || error.is_failure() => bad = Some(error),
            Err(_) => {}
        }
    }
    match bad {
        Some(bad) => Err(bad),
        None => Ok(traffic.consolidated()),
    }
}

fn follow(world: &World, route: &Route, target: &TrafficTarget) -> Result<Target, BadTarget> {
    let (revision, configuration) = if target.revision_name.is_empty() {
        let configuration = configuration(world, route, &target.configuration_name)?;
        let Some(latest) = configuration.status.latest_ready_revision_name.as_deref().filter(|name| !name.is_empty())
        else {
            let failed = configuration.condition(READY).is_some_and(knoll_api::conditions::is_false);
            return Err(BadTarget::ConfigurationNotReady { name: configuration.name().to_owned(), failed });
        };
        (revision(world, route, latest)?, target.configuration_name.clone())
    } else {
        let revision = revision(world, route, &target.revision_name)?;
        check_service(route, &revision)?;
        let configuration = revision.label(keys::CONFIGURATION).unwrap_or_default().to_owned();
        (revision, configuration)
    };
    if !revision.is_ready() {
        let failed = revision.condition(READY).is_some_and(knoll_api::conditions::is_false);
        return Err(BadTarget::RevisionNotReady { name: revision.name().to_owned(), failed });
    }
    if !target.revision_name.is_empty() && !configuration.is_empty() {
        self::configuration(world, route, &configuration)?;
    }
    Ok(Target {
        tag: target.tag.clone(),
        revision: revision.name().to_owned(),
        configuration,
        latest: target.latest_revision,
        percent: target.percent.unwrap_or_default(),
        h2c: is_h2c(&revision),
    })
}

fn configuration(world: &World, route: &Route, name: &str) -> Result<Arc<Configuration>, BadTarget> {
    let found = world.configurations.get(&route.key().sibling(name));
    found.ok_or_else(|| BadTarget::Missing { kind: "Configuration", name: name.to_owned() })
}

fn revision(world: &World, route: &Route, name: &str) -> Result<Arc<Revision>, BadTarget> {
    let found = world.revisions.get(&route.key().sibling(name));
    found.ok_or_else(|| BadTarget::Missing { kind: "Revision", name: name.to_owned() })
}

/// A Route of a Service leads only to Revisions of that Service.
fn check_service(route: &Route, revision: &Revision) -> Result<(), BadTarget> {
    let wanted = route.label(keys::SERVICE).unwrap_or_default();
    let actual = revision.label(keys::SERVICE).unwrap_or_default();
    if wanted.is_empty() || wanted == actual {
        return Ok(());
    }
    Err(BadTarget::Foreign {
        revision: revision.name().to_owned(),
        wanted: wanted.to_owned(),
        actual: actual.to_owned(),
    })
}

impl Traffic {
    fn add(&mut self, target: Target) {
        self.names.entry(String::new()).or_default().push(target.clone());
        if !target.tag.is_empty() {
            self.names.entry(target.tag.clone()).or_default().push(target.clone());
        }
        let same = |other: &&mut Target| {
            (&other.tag, &other.revision, other.latest) == (&target.tag, &target.revision, target.latest)
        };
        match self.flat.iter_mut().find(same) {
            Some(other) => other.percent += target.percent,
            None => self.flat.push(target),
        }
    }

    /// Each Revision once under each name; a name with one Revision sends it everything.
    fn consolidated(mut self) -> Traffic {
        for targets in self.names.values_mut() {
            let mut merged: Vec<Target> = Vec::with_capacity(targets.len());
            for target in targets.drain(..) {
                match merged.iter_mut().find(|other| other.revision == target.revision) {
                    Some(other) => other.percent += target.percent,
                    None => merged.push(target),
                }
            }
            if let [only] = merged.as_mut_slice() {
                only.percent = 100;
            }
            *targets = merged;
        }
        self
    }
}
