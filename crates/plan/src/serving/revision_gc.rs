//! Collects Revisions that no Route has led to for a while, down to a number that is always kept.

use std::time::Duration;

use knoll_api::{
    Key, Kind, Resource, Timestamp,
    config::GarbageCollectionConfig,
    labels::serving as keys,
    serving::{Configuration, Revision},
};

use crate::{Absence, Plan, Row, SystemConfig, World, by_controller};

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "revision-gc",
    of: Kind::Configuration,
    wakes: &[(Kind::Revision, by_controller)],
    configs: &[SystemConfig::Serving("config-gc")],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let config = &world.config.gc;
    let disabled = config.max_non_active_revisions.is_none()
        && config.retain_since_create_time.is_none()
        && config.retain_since_last_active_time.is_none();
    let Some(configuration) = world.configurations.get(key).filter(|c| !disabled && !c.is_deleting()) else {
        return plan;
    };
    let least = usize::try_from(config.min_non_active_revisions).unwrap_or_default();
    let revisions = world.revisions.labelled(&key.namespace, keys::CONFIGURATION, &key.name);
    let mut idle: Vec<&Revision> = revisions
        .iter()
        .map(AsRef::as_ref)
        .filter(|revision| !is_kept(revision, &configuration) && !revision.is_deleting())
        .collect();
    if idle.len() <= least {
        return plan;
    }
    idle.sort_by_key(|revision| (last_active(revision), revision.name()));
    let mut spare = idle.len() - least;
    let mut kept = Vec::with_capacity(idle.len());
    for revision in idle {
        match stale_in(config, revision, now) {
            Some(Duration::ZERO) if spare > 0 => {
                plan.delete(revision);
                spare -= 1;
            }
            wait => {
                if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
                    plan.recheck_after(wait);
                }
                kept.push(revision);
            }
        }
    }
    let most = config.max_non_active_revisions.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    if spare > 0 {
        for revision in kept.iter().take(kept.len().saturating_sub(most)) {
            plan.delete(*revision);
        }
    }
    plan
}

/// Whether a Revision is in use, or kept on purpose.
fn is_kept(revision: &Revision, configuration: &Configuration) -> bool {
    let latest = configuration.status.latest_ready_revision_name.as_deref() == Some(revision.name());
    let asked = revision.annotation(keys::NO_GC).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    latest || asked || revision.label(keys::ROUTING_STATE) != Some("reserve")
}

fn created(revision: &Revision) -> Timestamp {
    revision.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0)
}

/// When a Route last led to it.
fn last_active(revision: &Revision) -> Timestamp {
    let modified = revision.annotation(keys::ROUTING_STATE_MODIFIED).and_then(|text| text.parse().ok());
    modified.unwrap_or_else(|| created(revision))
}

/// How long until a Revision is stale; never when age does not count.
fn stale_in(config: &GarbageCollectionConfig, revision: &Revision, now: Timestamp) -> Option<Duration> {
    let left = |since: Timestamp, retain: Option<Duration>| {
        let age = Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO);
        Some(retain?.saturating_sub(age))
    };
    let since_created = left(created(revision), config.retain_since_create_time);
    let since_active = left(last_active(revision), config.retain_since_last_active_time);
    since_created.into_iter().chain(since_active).max()
}
