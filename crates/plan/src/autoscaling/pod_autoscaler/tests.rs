use expect_test::{Expect, expect};
use knoll_api::{Key, Kind};
use serde_json::json;

use super::ROW;
use crate::{
    Observation, ScaleDecision,
    check::{Cluster, NOW, check_in},
};

const AUTOSCALER: &str = r#"
apiVersion: autoscaling.internal.knative.dev/v1alpha1
kind: PodAutoscaler
metadata:
  name: r
  owner: Revision/r
  labels: {serving.knative.dev/revision: r}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: r-deployment}
  reachability: Reachable
  protocolType: http1
"#;

const REST: &str = r#"
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: r-deployment}
spec: {replicas: 1, selector: {}, template: {}}
---
apiVersion: networking.internal.knative.dev/v1alpha1
kind: ServerlessService
metadata: {name: r, owner: PodAutoscaler/r, labels: {serving.knative.dev/revision: r}}
spec:
  mode: Proxy
  numActivators: 4
  protocolType: http1
  objectRef: {apiVersion: apps/v1, kind: Deployment, name: r-deployment}
status:
  observedGeneration: 1
  serviceName: r
  privateServiceName: r-private
  conditions:
  - {type: ActivatorEndpointsPopulated, status: "True", lastTransitionTime: "2026-01-01T11:59:00Z"}
  - {type: Ready, status: "True"}
---
apiVersion: autoscaling.internal.knative.dev/v1alpha1
kind: Metric
metadata: {name: r, owner: PodAutoscaler/r}
spec: {stableWindow: 60000000000, panicWindow: 6000000000, scrapeTarget: r-private}
"#;

/// A PodAutoscaler that has been `active` for `seconds`, with `ready` pods and this decision.
struct Case<'a> {
    annotations: &'a [(&'a str, &'a str)],
    active: &'a str,
    seconds: i64,
    initialized: bool,
    ready: usize,
    desired: Option<i32>,
    reachability: &'a str,
}

const CASE: Case<'static> = Case {
    annotations: &[],
    active: "True",
    seconds: 10,
    initialized: true,
    ready: 1,
    desired: Some(1),
    reachability: "Reachable",
};

#[track_caller]
fn check_case(case: &Case<'_>, expected: Expect) {
    let mut cluster = Cluster::of(&format!("{AUTOSCALER}{REST}"));
    let key = Key::new("default", "r");
    let since = (NOW - jiff::SignedDuration::from_secs(case.seconds)).to_string();
    let initialized = if case.initialized { "True" } else { "Unknown" };
    cluster.edit(Kind::PodAutoscaler, &key, |value| {
        for (name, text) in case.annotations {
            value["metadata"]["annotations"][format!("autoscaling.knative.dev/{name}")] = json!(text);
        }
        value["spec"]["reachability"] = json!(case.reachability);
        value["metadata"]["generation"] = json!(1);
        value["status"] = json!({
            "observedGeneration": 1, "serviceName": "r", "metricsServiceName": "r-private", "desiredScale": 1, "actualScale": 1,
            "conditions": [
                {"type": "Active", "status": case.active, "lastTransitionTime": since},
                {"type": "Ready", "status": case.active, "lastTransitionTime": since},
                {"type": "SKSReady", "status": "True", "lastTransitionTime": since},
                {"type": "ScaleTargetInitialized", "status": initialized, "lastTransitionTime": since},
            ],
        });
    });
    for pod in 0..case.ready {
        cluster.add(&format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: p{pod}, labels: {{serving.knative.dev/revision: r}}}}
status: {{conditions: [{{type: Ready, status: "True"}}]}}
"#
        ));
    }
    if let Some(desired) = case.desired {
        let decision = Some(ScaleDecision { desired, excess_burst_capacity: -1, at: NOW });
        cluster.world.observe(Observation::ScaleDecision { revision: key, decision });
    }
    check_in(&ROW, "default/r", cluster, expected);
}

#[test]
fn first_comes_the_serverless_service_through_the_gateway() {
    check_in(
        &ROW,
        "default/r",
        Cluster::of(AUTOSCALER),
        expect![[r#"
        create ServerlessService default/r
          labels serving.knative.dev/revision="r"
          mode "Proxy"
          numActivators 2
          objectRef {"apiVersion":"apps/v1","kind":"Deployment","name":"r-deployment"}
          protocolType "http1"
        status PodAutoscaler default/r
          actualScale 0
          desiredScale -1
          metricsServiceName ""
          observedGeneration 1
          serviceName ""
          Active=Unknown Queued Requests to the target are being buffered as resources are provisioned.
          Ready=Unknown Queued Requests to the target are being buffered as resources are provisioned.
          SKSReady=Unknown NotReady No Private Service Name
          ScaleTargetInitialized=Unknown
    "#]],
    );
}

#[test]
fn another_class_is_left_to_others() {
    let foreign =
        AUTOSCALER.replace("labels:", "annotations: {autoscaling.knative.dev/class: x.example.com}\n  labels:");
    check_in(&ROW, "default/r", Cluster::of(&foreign), expect![[""]]);
}

#[test]
fn a_decision_is_carried_out_within_the_users_limits() {
    check_case(
        &Case { desired: Some(5), ..CASE },
        expect![[r#"
        scale Deployment default/r-deployment to 5
        status PodAutoscaler default/r
          actualScale 1
          desiredScale 5
          metricsServiceName "r-private"
          observedGeneration 1
          serviceName "r"
          Active=True
          Ready=True
          SKSReady=True
          ScaleTargetInitialized=True
    "#]],
    );
    let limits = [("min-scale", "2"), ("max-scale", "3")];
    check_case(
        &Case { desired: Some(5), annotations: &limits, ..CASE },
        expect![[r#"
        scale Deployment default/r-deployment to 3
        status PodAutoscaler default/r
          actualScale 1
          desiredScale 3
          metricsServiceName "r-private"
          observedGeneration 1
          serviceName "r"
          Active=Unknown Queued Requests to the target are being buffered as resources are provisioned.
          Ready=Unknown Queued Requests to the target are being buffered as resources are provisioned.
          SKSReady=True
          ScaleTargetInitialized=True
    "#]],
    );
    check_case(
        &Case { desired: Some(0), annotations: &limits, ..CASE },
        expect![[r#"
        scale Deployment default/r-deployment to 2
        status PodAutoscaler default/r
          actualScale 1
          desiredScale 2
          metricsServiceName "r-private"
          observedGeneration 1
          serviceName "r"
          Active=Unknown Queued Requests to the target are being buffered as resources are provisioned.
          Ready=Unknown Queued Requests to the target are being buffered as resources are provisioned.
          SKSReady=True
          ScaleTargetInitialized=True
    "#]],
    );
}

#[test]
fn the_initial_scale_stays_until_traffic_was_watched_for_a_stable_window() {
    let initial = [("initial-scale", "3")];
    let reached = Case { annotations: &initial, ready: 3, desired: Some(1), ..CASE };
    check_case(
        &Case { seconds: 1, ..reached },
        expect![[r#"
        scale Deployment default/r-deployment to 3
        update ServerlessService default/r
          spec/numActivators 4 -> 6
        status PodAutoscaler default/r
          actualScale 3
          desiredScale 3
          metricsServiceName "r-private"
          observedGeneration 1
          serviceName "r"
          Active=True
          Ready=Unknown NotReady
          SKSReady=Unknown NotReady
          ScaleTargetInitialized=True
        recheck after 59s
    "#]],
    );
    check_case(
        &Case { seconds: 60, ..reached },
        expect![[r#"
        update ServerlessService default/r
          spec/numActivators 4 -> 6
        status PodAutoscaler default/r
          actualScale 3
          desiredScale 1
          metricsServiceName "r-private"
          observedGeneration 1
          serviceName "r"
          Active=True
          Ready=Unknown NotReady
          SKSReady=Unknown NotReady
          ScaleTargetInitialized=True
    "#]],
    );
}

#[test]
fn an_unreachable_revision_has_no_floor() {
    let limits = [("min-scale", "2")];
    let gone = Case { desired: Some(0), annotations: &limits, active: "False", seconds: 40, ..CASE };
    check_case(
        &Case { reachability: "Unreachable", ..gone },
        expect![[r#"
        scale Deployment default/r-deployment to 0
        status PodAutoscaler default/r
          actualScale 1
          desiredScale 0
          metricsServiceName "r-private"
          observedGeneration 2
          serviceName "r"
          Active=False NoTraffic The target is not receiving traffic.
          Ready=False NoTraffic The target is not receiving traffic.
          SKSReady=True
          ScaleTargetInitialized=True
    "#]],
    );
}

#[test]
fn zero_comes_in_two_phases() {
    check_case(
        &Case { desired: Some(0), ..CASE },
        expect![[r#"
        recheck after 3s
    "#]],
    );
    check_case(
        &Case { desired: Some(0), seconds: 60, ..CASE },
        expect![[r#"
        status PodAutoscaler default/r
          actualScale 1
          desiredScale 0
          metricsServiceName "r-private"
          observedGeneration 1
          serviceName "r"
          Active=False NoTraffic The target is not receiving traffic.
          Ready=False NoTraffic The target is not receiving traffic.
          SKSReady=True
          ScaleTargetInitialized=True
        recheck after 3s
    "#]],
    );
    check_case(
        &Case { desired: Some(0), active: "False", seconds: 5, ..CASE },
        expect![[r#"
        scale Deployment default/r-deployment to 0
        status PodAutoscaler default/r
          actualScale 1
          desiredScale 0
          metricsServiceName "r-private"
          observedGeneration 1
          serviceName "r"
          Active=False NoTraffic The target is not receiving traffic.
          Ready=False NoTraffic The target is not receiving traffic.
          SKSReady=True
          ScaleTargetInitialized=True
    "#]],
    );
}

#[test]
fn an_activation_that_takes_too_long_is_given_up() {
    let starting = Case { desired: Some(0), active: "Unknown", initialized: false, ready: 0, ..CASE };
    check_case(
        &Case { seconds: 600, ..starting },
        expect![[r#"
        update ServerlessService default/r
          spec/numActivators 4 -> 3
        status PodAutoscaler default/r
          actualScale 0
          desiredScale 1
          metricsServiceName "r-private"
          observedGeneration 1
          serviceName "r"
          Active=Unknown Queued Requests to the target are being buffered as resources are provisioned.
          Ready=Unknown Queued Requests to the target are being buffered as resources are provisioned.
          SKSReady=Unknown NotReady
          ScaleTargetInitialized=Unknown
        recheck after 30s
    "#]],
    );
    check_case(
        &Case { seconds: 631, ..starting },
        expect![[r#"
        scale Deployment default/r-deployment to 0
        update ServerlessService default/r
          spec/numActivators 4 -> 3
        status PodAutoscaler default/r
          actualScale 0
          desiredScale 0
          metricsServiceName "r-private"
          observedGeneration 1
          serviceName "r"
          Active=False TimedOut The target could not be activated.
          Ready=False TimedOut The target could not be activated.
          SKSReady=Unknown NotReady
          ScaleTargetInitialized=Unknown
    "#]],
    );
}

#[test]
fn a_restarted_autoscaler_changes_nothing() {
    check_case(&Case { desired: None, ..CASE }, expect![[""]]);
    check_case(
        &Case { desired: None, active: "False", ready: 0, ..CASE },
        expect![[r#"
        update ServerlessService default/r
          spec/numActivators 4 -> 3
        status PodAutoscaler default/r
          actualScale 0
          desiredScale 1
          metricsServiceName "r-private"
          observedGeneration 1
          serviceName "r"
          Active=False NoTraffic The target is not receiving traffic.
          Ready=False NoTraffic The target is not receiving traffic.
          SKSReady=Unknown NotReady
          ScaleTargetInitialized=True
    "#]],
    );
}
