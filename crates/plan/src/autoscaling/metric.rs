//! PodAutoscaler → Metric, and the Metric's own status.
//!
//! A Metric is ready while statistics of its revision can come in: the gateway sees every request and reports on its
//! own, from the moment it routes by a table, for every revision that has a private Service to be reached by. Before
//! that, and where a scraper would be needed that there is not, it says what is missing.

use std::time::Duration;

use knoll_api::{
    Key, Kind, Resource, Timestamp,
    autoscaling::{Metric, MetricSpec, PodAutoscaler},
    conditions::READY,
};

use super::{annotations::Annotations, pod_autoscaler::foreign};
use crate::{
    Absence, Plan, QueuePlacement, Row, World, by_same_key,
    children::{annotations, child_of, labels},
    status::Reporting,
};

/// How soon a Metric looks again for the gateway's first table.
const RECHECK: Duration = Duration::from_secs(1);

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "metric",
    of: Kind::Metric,
    wakes: &[(Kind::ServerlessService, by_same_key)],
    configs: &[],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let Some(metric) = world.metrics.get(key).filter(|metric| !metric.is_deleting()) else { return Plan::nothing() };
    let mut plan = Plan::nothing();
    let mut next = Metric::clone(&metric);
    next.conditions(now).initialize();
    let missing = missing(world, &metric);
    if !world.observed.routes && missing.is_none() {
        plan.recheck_after(RECHECK);
        if metric.is_ready() {
            // An earlier process had it ready. The gateway of this one is about to take its first table.
            return plan;
        }
    }
    let mut conditions = next.conditions(now);
    match missing {
        None if world.observed.routes => conditions.mark_true(READY),
        None => conditions.mark_unknown(READY, "DidNotReceiveStat", "The gateway has no routes yet"),
        Some(message) => conditions.mark_unknown(READY, "NoEndpoints", message),
    };
    plan.report(metric.as_ref(), next);
    plan
}

/// What statistics of the revision cannot come in without, if that is not there.
fn missing(world: &World, metric: &Metric) -> Option<&'static str> {
    let reports = world.settings.queue_placement == QueuePlacement::Gateway || metric.spec.scrape_target.is_empty();
    if !reports {
        return Some("Nobody asks the instances for statistics");
    }
    let sks = world.serverless_services.get(&metric.key());
    let reached = sks.is_some_and(|sks| !sks.status.private_service_name.is_empty());
    (!reached).then_some("The revision has no private Service yet")
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

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::ROW;
    use crate::{
        Observation,
        check::{Cluster, check, check_in},
    };

    const METRIC: &str = r#"
apiVersion: autoscaling.internal.knative.dev/v1alpha1
kind: Metric
metadata: {name: r, owner: PodAutoscaler/r}
spec: {scrapeTarget: r-private}
"#;
    const SKS: &str = r#"
---
apiVersion: networking.internal.knative.dev/v1alpha1
kind: ServerlessService
metadata: {name: r}
spec: {}
status: {privateServiceName: r-private}
"#;

    #[test]
    fn a_metric_says_what_its_statistics_cannot_come_in_without() {
        check(
            &ROW,
            "default/r",
            METRIC,
            expect![[r#"
                status Metric default/r
                  observedGeneration 1
                  Ready=Unknown NoEndpoints The revision has no private Service yet
            "#]],
        );
        check(
            &ROW,
            "default/r",
            &format!("{METRIC}{SKS}"),
            expect![[r#"
                status Metric default/r
                  observedGeneration 1
                  Ready=Unknown DidNotReceiveStat The gateway has no routes yet
                recheck after 1s
            "#]],
        );
    }

    #[test]
    fn a_metric_is_ready_once_the_gateway_routes() {
        let mut cluster = Cluster::of(&format!("{METRIC}{SKS}"));
        cluster.world.observe(Observation::Published(Default::default()));
        check_in(
            &ROW,
            "default/r",
            cluster,
            expect![[r#"
                status Metric default/r
                  observedGeneration 1
                  Ready=True
            "#]],
        );
    }
}
