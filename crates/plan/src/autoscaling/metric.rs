//! PodAutoscaler → Metric, and the Metric's own status.
//!
//! The gateway sees every request and reports on its own, so a Metric is collected as soon as it is there; it
//! exists for those who look.

use std::time::Duration;

use knoll_api::{
    Key, Kind, Resource, Timestamp,
    autoscaling::{Metric, MetricSpec, PodAutoscaler},
    conditions::READY,
};

use super::{annotations::Annotations, pod_autoscaler::foreign};
use crate::{
    Plan, Row, World,
    children::{annotations, child_of, labels},
    status::Reporting,
};

/// The controller.
pub(crate) const ROW: Row = Row { name: "metric", of: Kind::Metric, wakes: &[], configs: &[], plan };

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let Some(metric) = world.metrics.get(key).filter(|metric| !metric.is_deleting()) else { return Plan::nothing() };
    let mut plan = Plan::nothing();
    let mut next = Metric::clone(&metric);
    next.conditions(now).initialize().mark_true(READY);
    plan.report(metric.as_ref(), next);
    plan
}

/// Makes the Metric of `next` as it should be. `None` when its name is taken.
pub(super) fn reconcile(
    world: &World,
    wishes: Annotations<'_>,
    next: &mut PodAutoscaler,
    plan: &mut Plan,
    now: Timestamp,
) -> Option<()> {
    let spec = spec(wishes, &next.status.metrics_service_name);
    let Some(existing) = world.metrics.get(&next.key()) else {
        let metadata = child_of(next, next.name(), labels(next), annotations(next));
        plan.create(Metric { metadata, spec, ..Metric::default() });
        return Some(());
    };
    if !existing.is_controlled_by(next) {
        foreign(next, "Metric", existing.name(), now);
        return None;
    }
    plan.update(existing.as_ref(), Metric { spec, ..Metric::clone(&existing) });
    Some(())
}

fn spec(wishes: Annotations<'_>, scrape_target: &str) -> MetricSpec {
    let stable = wishes.stable_window();
    let panic = knoll_scale::window::panic_window(stable, wishes.panic_window_percent());
    #[expect(clippy::float_cmp, reason = "-1 is a name, not a measurement")]
    let through_gateway = wishes.target_burst_capacity() == -1.0;
    MetricSpec {
        stable_window: nanoseconds(stable),
        panic_window: nanoseconds(panic),
        scrape_target: if through_gateway { String::new() } else { scrape_target.to_owned() },
    }
}

fn nanoseconds(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}
