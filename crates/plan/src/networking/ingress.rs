//! Ingress status: ready once the gateway routes by this very generation, never on hope.

use knoll_api::{
    Key, Kind, Resource, Timestamp, conditions,
    networking::{Ingress, LoadBalancerIngress, LoadBalancerStatus},
};

use crate::{
    Absence, Plan, Row, SystemConfig, World,
    serving::route::{domains::local_host, ingress_class},
    status::Reporting,
};

const NETWORK_CONFIGURED: &str = "NetworkConfigured";
const LOAD_BALANCER_READY: &str = "LoadBalancerReady";

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "ingress",
    of: Kind::Ingress,
    wakes: &[],
    configs: &[SystemConfig::Serving("config-network")],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

/// Whether this process routes the Ingress. Where Knoll is its own cluster, it also serves the class that the
/// configuration makes the default, whatever its name.
pub(super) fn is_ours(world: &World, ingress: &Ingress) -> bool {
    let class = ingress_class(world, ingress);
    let default = &world.config.network.ingress_class;
    class == world.settings.ingress_class || (world.settings.standalone && class == default)
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let Some(ingress) = world.ingresses.get(key) else { return Plan::nothing() };
    if ingress.is_deleting() || !is_ours(world, &ingress) {
        return Plan::nothing();
    }
    let generation = ingress.metadata.generation.unwrap_or_default();
    if !world.observed.routes && conditions::is_ready(Some(generation), &ingress.status.common) {
        // An earlier process had it ready. The gateway of this one is about to take its first table.
        return Plan::nothing();
    }
    let mut plan = Plan::nothing();
    let mut next = Ingress::clone(&ingress);
    next.conditions(now).initialize().mark_true(NETWORK_CONFIGURED);
    let routed = world.observed.published.get(key) == Some(&generation);
    if routed {
        let balancer = |service: &Key| {
            let domain_internal = local_host(world, &service.namespace, &service.name);
            Some(LoadBalancerStatus { ingress: vec![LoadBalancerIngress { domain_internal, ..Default::default() }] })
        };
        next.status.public_load_balancer = balancer(&world.settings.gateway.service);
        next.status.private_load_balancer = balancer(&world.settings.gateway.local_service);
        next.conditions(now).mark_true(LOAD_BALANCER_READY);
    } else {
        let text = "Waiting for load balancer to be ready";
        next.conditions(now).mark_unknown(LOAD_BALANCER_READY, "Uninitialized", text);
    }
    plan.report(ingress.as_ref(), next);
    plan
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use knoll_api::Key;

    use super::ROW;
    use crate::check::{Cluster, check, check_in};

    const INGRESS: &str = r#"
apiVersion: networking.internal.knative.dev/v1alpha1
kind: Ingress
metadata:
  name: hello
  generation: 2
  annotations: {networking.knative.dev/ingress.class: knoll.ingress.networking.knative.dev}
spec: {}
"#;

    #[test]
    fn an_ingress_waits_for_the_table_of_its_generation() {
        let mut cluster = Cluster::of(INGRESS);
        cluster.world.observed.published.insert(Key::new("default", "hello"), 1);
        check_waits(cluster);
    }

    /// The Ingress becomes one that waits.
    fn check_waits(cluster: Cluster) {
        check_in(
            &ROW,
            "default/hello",
            cluster,
            expect![[r#"
            status Ingress default/hello
              observedGeneration 2
              LoadBalancerReady=Unknown Uninitialized Waiting for load balancer to be ready
              NetworkConfigured=True
              Ready=Unknown Uninitialized Waiting for load balancer to be ready
        "#]],
        );
    }

    #[test]
    fn an_ingress_that_was_ready_stays_so_until_the_gateway_has_its_first_table() {
        let status = r#"
status:
  observedGeneration: 2
  conditions:
  - {type: LoadBalancerReady, status: "True", lastTransitionTime: "2026-01-01T00:00:00Z"}
  - {type: NetworkConfigured, status: "True", lastTransitionTime: "2026-01-01T00:00:00Z"}
  - {type: Ready, status: "True", lastTransitionTime: "2026-01-01T00:00:00Z"}
"#;
        let restarted = || Cluster::of(&format!("{}{status}", INGRESS.trim_end()));
        check_in(&ROW, "default/hello", restarted(), expect![[""]]);
        let mut routing = restarted();
        routing.world.observed.routes = true;
        check_waits(routing);
    }

    #[test]
    fn an_ingress_in_the_table_is_ready() {
        let mut cluster = Cluster::of(INGRESS);
        cluster.world.observed.published.insert(Key::new("default", "hello"), 2);
        check_in(
            &ROW,
            "default/hello",
            cluster,
            expect![[r#"
            status Ingress default/hello
              observedGeneration 2
              privateLoadBalancer {"ingress":[{"domainInternal":"knoll-local-gateway.knative-serving.svc.cluster.local"}]}
              publicLoadBalancer {"ingress":[{"domainInternal":"knoll-gateway.knative-serving.svc.cluster.local"}]}
              LoadBalancerReady=True
              NetworkConfigured=True
              Ready=True
        "#]],
        );
    }

    #[test]
    fn an_ingress_of_another_class_is_left_alone() {
        check(&ROW, "default/hello", &INGRESS.replace("class: knoll", "class: other"), expect![[""]]);
    }
}
