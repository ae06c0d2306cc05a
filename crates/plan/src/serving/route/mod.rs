//! Route → Ingress, and a placeholder Kubernetes Service a name. Reports where and how traffic goes.
//!
//! A target that cannot serve freezes the Route: what was routed stays routed.

mod certificates;
pub(crate) mod domains;
mod ingress;
mod placeholder;
mod rollout;
mod traffic;

use std::{collections::BTreeMap, time::Duration};

use knoll_api::{
    Key, Kind, Resource, Timestamp,
    conditions::{FALSE, READY, TRUE},
    networking::Ingress,
    serving::{Route, TrafficTarget},
    status::Addressable,
};

use super::labeler::by_reference;
use crate::{Absence, Plan, Row, SystemConfig, World, by_controller, status::Reporting};

pub(crate) use certificates::{challenge_path, is_enabled as certificates_enabled};
pub(crate) use ingress::{http_option, ingress_class, without_excluded};
use rollout::Rollout;
pub(crate) use traffic::REVISION_MISSING;
use traffic::{Target, Traffic};

const ALL_TRAFFIC_ASSIGNED: &str = "AllTrafficAssigned";
const INGRESS_READY: &str = "IngressReady";
const CERTIFICATE_PROVISIONED: &str = "CertificateProvisioned";

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "route",
    of: Kind::Route,
    wakes: &[
        (Kind::Configuration, by_reference),
        (Kind::Revision, by_reference),
        (Kind::Ingress, by_controller),
        (Kind::CoreService, by_controller),
        (Kind::Endpoints, by_controller),
        (Kind::Certificate, by_controller),
    ],
    configs: &[
        SystemConfig::Serving("config-domain"),
        SystemConfig::Serving("config-network"),
        SystemConfig::Serving("config-features"),
    ],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

/// Which names are hidden from outside, by tag; `""` is the Route's own name.
type Hidden = BTreeMap<String, bool>;

/// Says why there is nothing more to do for now; the status has been written.
struct Stopped;

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let Some(route) = world.routes.get(key).filter(|route| !route.is_deleting()) else { return Plan::nothing() };
    let mut plan = Plan::nothing();
    let mut next = Route::clone(&route);
    next.conditions(now).initialize();
    if !route.is_observed() {
        ingress_not_configured(&mut next, now);
    }
    // A stop is a result like any other here: what there is to say is in the status.
    reconcile(world, &mut next, &mut plan, now).unwrap_or(());
    plan.report(route.as_ref(), next);
    plan
}

fn reconcile(world: &World, next: &mut Route, plan: &mut Plan, now: Timestamp) -> Result<(), Stopped> {
    let resolved = traffic::resolve(world, next);
    let hidden = hidden_names(world, next).map_err(|why| unknown_traffic(next, &why, now))?;
    let host = domains::host(world, next, next.name(), hidden[""]).map_err(|why| bad_name(next, &why, now))?;
    next.status.url = Some(domains::url(world, &host, hidden[""]));
    let traffic = resolved.map_err(|bad| {
        bad.report(next, now);
        Stopped
    })?;
    next.status.traffic =
        status_traffic(world, next, &traffic, &Rollout::default(), &hidden).map_err(|why| bad_name(next, &why, now))?;
    next.conditions(now).mark_true(ALL_TRAFFIC_ASSIGNED);
    let address = domains::local_address(world, next);
    next.status.address = Some(Addressable { url: Some(address), ..Addressable::default() });

    let placeholders = placeholder::reserve(world, next, &traffic, plan, now)?;
    let tls = certificates::reconcile(world, next, &traffic, &hidden, plan, now)?;
    let made = ingress::reconcile(world, next, &traffic, &hidden, &tls, plan, now)?;
    if let Some(wait) = made.next_step {
        plan.recheck_after(wait);
    }
    let done = made.rollout.is_done();
    match &made.settled {
        Some(ingress) if ingress.is_observed() => {
            if done {
                follow_ingress(next, ingress, now);
            }
            placeholder::point(next, &placeholders, ingress, plan);
        }
        _ => ingress_not_configured(next, now),
    }
    if !done {
        let text = "A gradual rollout of the latest revision(s) is in progress.";
        next.conditions(now).mark_unknown(INGRESS_READY, "RolloutInProgress", text);
        next.status.traffic =
            status_traffic(world, next, &traffic, &made.rollout, &hidden).map_err(|why| bad_name(next, &why, now))?;
    }
    Ok(())
}

/// What came of the Ingress.
struct Made {
    /// The Ingress, if it is as wanted already.
    settled: Option<std::sync::Arc<Ingress>>,
    /// The rollout that it carries.
    rollout: Rollout,
    /// When the rollout takes its next step.
    next_step: Option<Duration>,
}

fn ingress_not_configured(next: &mut Route, now: Timestamp) {
    next.conditions(now).mark_unknown(INGRESS_READY, "IngressNotConfigured", "Ingress has not yet been reconciled.");
}

fn unknown_traffic(next: &mut Route, why: &str, now: Timestamp) -> Stopped {
    next.conditions(now).mark_unknown(ALL_TRAFFIC_ASSIGNED, "Unknown", why);
    Stopped
}

fn bad_name(next: &mut Route, why: &str, now: Timestamp) -> Stopped {
    next.conditions(now).mark_false(ALL_TRAFFIC_ASSIGNED, "ErrorConfig", why);
    Stopped
}

fn follow_ingress(next: &mut Route, ingress: &Ingress, now: Timestamp) {
    let Some(ready) = ingress.condition(READY) else { return ingress_not_configured(next, now) };
    let mut conditions = next.conditions(now);
    match ready.status.as_str() {
        TRUE => conditions.mark_true(INGRESS_READY),
        FALSE => conditions.mark_false(INGRESS_READY, &ready.reason, &ready.message),
        _ => conditions.mark_unknown(INGRESS_READY, &ready.reason, &ready.message),
    };
}

/// Which names are hidden: all of them when the Route is, else those whose placeholder Service says so.
fn hidden_names(world: &World, route: &Route) -> Result<Hidden, String> {
    let all = domains::is_local(world, route);
    let tags = route.spec.traffic.iter().map(|target| target.tag.as_str()).chain([""]);
    tags.map(|tag| {
        let name = domains::tagged_name(world, route, tag)?;
        Ok((tag.to_owned(), all || placeholder::is_hidden(world, route, &name)))
    })
    .collect()
}

/// The traffic as the status shows it: by Revision, with every Revision of a rollout.
fn status_traffic(
    world: &World,
    route: &Route,
    traffic: &Traffic,
    rollout: &Rollout,
    hidden: &Hidden,
) -> Result<Vec<TrafficTarget>, String> {
    let mut shown = Vec::new();
    for target in &traffic.flat {
        let url = match target.tag.as_str() {
            "" => None,
            tag => Some(domains::tag_url(world, route, tag, hidden)?),
        };
        for (revision, percent) in shares(target, rollout) {
            shown.push(TrafficTarget {
                tag: target.tag.clone(),
                revision_name: revision,
                configuration_name: String::new(),
                latest_revision: target.latest,
                percent: Some(percent),
                url: url.clone(),
            });
        }
    }
    Ok(shown)
}

fn shares(target: &Target, rollout: &Rollout) -> Vec<(String, i64)> {
    let rolling = rollout.find(&target.tag, &target.configuration).filter(|_| target.latest == Some(true));
    match rolling {
        Some(rolling) => rolling.revisions.iter().map(|share| (share.revision_name.clone(), share.percent)).collect(),
        None => vec![(target.revision.clone(), target.percent)],
    }
}

#[cfg(test)]
mod tests;
