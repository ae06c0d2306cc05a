use expect_test::{Expect, expect};
use knoll_api::{Key, Kind, Resource};

use super::ROW;
use crate::{
    QueuePlacement, Settings, World,
    check::{Cluster, NOW, check},
    status::Reporting,
};

const REVISION: &str = r#"
apiVersion: serving.knative.dev/v1
kind: Revision
metadata:
  name: r
  owner: Configuration/hello
  labels: {serving.knative.dev/configuration: hello, serving.knative.dev/service: hello, serving.knative.dev/routingState: active}
  annotations: {autoscaling.knative.dev/min-scale: "2", serving.knative.dev/routes: hello, note: kept}
spec:
  containerConcurrency: 5
  timeoutSeconds: 300
  containers:
  - name: user-container
    image: img:1
    ports: [{containerPort: 9000, name: http1}]
    env: [{name: A, value: b}]
    readinessProbe: {httpGet: {path: /ok, port: http1, scheme: http}, successThreshold: 1}
    livenessProbe: {httpGet: {path: /live, port: 1234}}
"#;

const RESOLVED: &str = "
status:
  containerStatuses: [{name: user-container, imageDigest: img@sha256:1}]
";

/// The Deployment that is made, as JSON.
fn deployment(cluster: &Cluster) -> serde_json::Value {
    let plan = (ROW.plan)(&cluster.world, &Key::new("default", "r"), NOW);
    let made = plan.wants.iter().find_map(|want| match want {
        crate::Want::Create(object) if object.kind() == Kind::Deployment => Some(object.to_json()),
        _ => None,
    });
    made.expect("a Deployment")
}

const QUEUE_IMAGE: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: config-deployment, namespace: knative-serving}
data: {queue-sidecar-image: q}
"#;

fn check_deployment(placement: QueuePlacement, expected: Expect) {
    let mut cluster = Cluster::with(Settings { queue_placement: placement, ..Settings::default() });
    cluster.add(&format!("{REVISION}{RESOLVED}"));
    cluster.add(QUEUE_IMAGE);
    let deployment = deployment(&cluster);
    expected.assert_eq(&serde_json::to_string_pretty(&deployment["spec"]["template"]).unwrap());
}

#[test]
fn a_tag_is_resolved_before_anything_is_made() {
    check(
        &ROW,
        "default/r",
        REVISION,
        expect![[r#"
        resolve img:1
        status Revision default/r
          observedGeneration 1
          ContainerHealthy=Unknown
          Ready=Unknown ResolvingDigests
          ResourcesAvailable=Unknown ResolvingDigests
    "#]],
    );
}

#[test]
fn a_resolved_revision_makes_its_children() {
    check(
        &ROW,
        "default/r",
        &format!("{REVISION}{RESOLVED}"),
        expect![[r#"
        create Deployment default/r-deployment
          labels app="r" serving.knative.dev/configuration="hello" serving.knative.dev/deployment-hash="gapm7k" serving.knative.dev/revision="r" serving.knative.dev/revisionUID="uid-Revision-r" serving.knative.dev/service="hello"
          annotations note="kept"
          progressDeadlineSeconds 600
          replicas 1
          revisionHistoryLimit 0
          selector {"matchLabels":{"serving.knative.dev/revisionUID":"uid-Revision-r"}}
          strategy {"rollingUpdate":{"maxUnavailable":0},"type":"RollingUpdate"}
          template {"metadata":{"annotations":{"kubectl.kubernetes.io/default-container":"user-container","note":"kept"},"labels":{"app":"r","serving.knative.dev/configuration":"hello","serving.knative.dev/revision":"r","serving.knative.dev/revisionUID":"uid-Revision-r","serving.knative.dev/service":"hello"}},"spec":{"affinity":{"podAntiAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"podAffinityTerm":{"labelSelector":{"matchLabels":{"serving.knative.dev/revision":"r"}},"topologyKey":"kubernetes.io/hostname"},"weight":100}]}},"containers":[{"env":[{"name":"A","value":"b"},{"name":"PORT","value":"9000"},{"name":"K_REVISION","value":"r"},{"name":"K_CONFIGURATION","value":"hello"},{"name":"K_SERVICE","value":"hello"}],"image":"img@sha256:1","livenessProbe":{"httpGet":{"path":"/live","port":9000}},"name":"user-container","ports":[{"containerPort":9000,"name":"user-port"}],"readinessProbe":{"failureThreshold":3,"httpGet":{"path":"/ok","port":9000,"scheme":"HTTP"},"periodSeconds":1,"successThreshold":1,"timeoutSeconds":1},"terminationMessagePolicy":"FallbackToLogsOnError"}],"enableServiceLinks":false,"terminationGracePeriodSeconds":300}}
        create Image default/r-cache-user-container
          labels app="r" serving.knative.dev/configuration="hello" serving.knative.dev/revision="r" serving.knative.dev/revisionUID="uid-Revision-r" serving.knative.dev/service="hello"
          annotations note="kept"
          image "img@sha256:1"
        create PodAutoscaler default/r
          labels app="r" serving.knative.dev/configuration="hello" serving.knative.dev/revision="r" serving.knative.dev/revisionUID="uid-Revision-r" serving.knative.dev/service="hello"
          annotations autoscaling.knative.dev/min-scale="2" note="kept"
          containerConcurrency 5
          protocolType "http1"
          reachability "Reachable"
          scaleTargetRef {"apiVersion":"apps/v1","kind":"Deployment","name":"r-deployment"}
        status Revision default/r
          containerStatuses [{"imageDigest":"img@sha256:1","name":"user-container"}]
          observedGeneration 1
          Active=Unknown Deploying
          ContainerHealthy=Unknown Deploying
          Ready=Unknown Deploying
          ResourcesAvailable=Unknown Deploying
    "#]],
    );
}

#[test]
fn pods_are_probed_directly_when_the_queue_is_in_the_gateway() {
    check_deployment(
        QueuePlacement::Gateway,
        expect![[r#"
        {
          "metadata": {
            "annotations": {
              "kubectl.kubernetes.io/default-container": "user-container",
              "note": "kept"
            },
            "labels": {
              "app": "r",
              "serving.knative.dev/configuration": "hello",
              "serving.knative.dev/revision": "r",
              "serving.knative.dev/revisionUID": "uid-Revision-r",
              "serving.knative.dev/service": "hello"
            }
          },
          "spec": {
            "affinity": {
              "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                  {
                    "podAffinityTerm": {
                      "labelSelector": {
                        "matchLabels": {
                          "serving.knative.dev/revision": "r"
                        }
                      },
                      "topologyKey": "kubernetes.io/hostname"
                    },
                    "weight": 100
                  }
                ]
              }
            },
            "containers": [
              {
                "env": [
                  {
                    "name": "A",
                    "value": "b"
                  },
                  {
                    "name": "PORT",
                    "value": "9000"
                  },
                  {
                    "name": "K_REVISION",
                    "value": "r"
                  },
                  {
                    "name": "K_CONFIGURATION",
                    "value": "hello"
                  },
                  {
                    "name": "K_SERVICE",
                    "value": "hello"
                  }
                ],
                "image": "img@sha256:1",
                "livenessProbe": {
                  "httpGet": {
                    "path": "/live",
                    "port": 9000
                  }
                },
                "name": "user-container",
                "ports": [
                  {
                    "containerPort": 9000,
                    "name": "user-port"
                  }
                ],
                "readinessProbe": {
                  "failureThreshold": 3,
                  "httpGet": {
                    "path": "/ok",
                    "port": 9000,
                    "scheme": "HTTP"
                  },
                  "periodSeconds": 1,
                  "successThreshold": 1,
                  "timeoutSeconds": 1
                },
                "terminationMessagePolicy": "FallbackToLogsOnError"
              }
            ],
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 300
          }
        }"#]],
    );
}

#[test]
fn pods_have_a_queue_container_when_it_is_not() {
    check_deployment(
        QueuePlacement::Sidecar,
        expect![[r#"
        {
          "metadata": {
            "annotations": {
              "kubectl.kubernetes.io/default-container": "user-container",
              "note": "kept"
            },
            "labels": {
              "app": "r",
              "serving.knative.dev/configuration": "hello",
              "serving.knative.dev/revision": "r",
              "serving.knative.dev/revisionUID": "uid-Revision-r",
              "serving.knative.dev/service": "hello"
            }
          },
          "spec": {
            "affinity": {
              "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                  {
                    "podAffinityTerm": {
                      "labelSelector": {
                        "matchLabels": {
                          "serving.knative.dev/revision": "r"
                        }
                      },
                      "topologyKey": "kubernetes.io/hostname"
                    },
                    "weight": 100
                  }
                ]
              }
            },
            "containers": [
              {
                "env": [
                  {
                    "name": "A",
                    "value": "b"
                  },
                  {
                    "name": "PORT",
                    "value": "9000"
                  },
                  {
                    "name": "K_REVISION",
                    "value": "r"
                  },
                  {
                    "name": "K_CONFIGURATION",
                    "value": "hello"
                  },
                  {
                    "name": "K_SERVICE",
                    "value": "hello"
                  }
                ],
                "image": "img@sha256:1",
                "lifecycle": {
                  "preStop": {
                    "httpGet": {
                      "path": "/wait-for-drain",
                      "port": 8022
                    }
                  }
                },
                "livenessProbe": {
                  "httpGet": {
                    "path": "/live",
                    "port": 9000
                  }
                },
                "name": "user-container",
                "ports": [
                  {
                    "containerPort": 9000,
                    "name": "user-port"
                  }
                ],
                "terminationMessagePolicy": "FallbackToLogsOnError"
              },
              {
                "env": [
                  {
                    "name": "SERVING_NAMESPACE",
                    "value": "default"
                  },
                  {
                    "name": "SERVING_SERVICE",
                    "value": "hello"
                  },
                  {
                    "name": "SERVING_CONFIGURATION",
                    "value": "hello"
                  },
                  {
                    "name": "SERVING_REVISION",
                    "value": "r"
                  },
                  {
                    "name": "QUEUE_SERVING_PORT",
                    "value": "8012"
                  },
                  {
                    "name": "QUEUE_SERVING_TLS_PORT",
                    "value": "8112"
                  },
                  {
                    "name": "CONTAINER_CONCURRENCY",
                    "value": "5"
                  },
                  {
                    "name": "REVISION_TIMEOUT_SECONDS",
                    "value": "300"
                  },
                  {
                    "name": "REVISION_RESPONSE_START_TIMEOUT_SECONDS",
                    "value": "0"
                  },
                  {
                    "name": "REVISION_IDLE_TIMEOUT_SECONDS",
                    "value": "0"
                  },
                  {
                    "name": "USER_PORT",
                    "value": "9000"
                  },
                  {
                    "name": "SYSTEM_NAMESPACE",
                    "value": "knative-serving"
                  },
                  {
                    "name": "SERVING_READINESS_PROBE",
                    "value": "{\"httpGet\":{\"host\":\"127.0.0.1\",\"path\":\"/ok\",\"port\":9000,\"scheme\":\"http\"},\"successThreshold\":1}"
                  },
                  {
                    "name": "ENABLE_HTTP2_AUTO_DETECTION",
                    "value": "false"
                  },
                  {
                    "name": "ENABLE_HTTP_FULL_DUPLEX",
                    "value": "false"
                  },
                  {
                    "name": "ROOT_CA",
                    "value": ""
                  },
                  {
                    "name": "QUEUE_PROXY_TLS_MIN_VERSION",
                    "value": ""
                  },
                  {
                    "name": "QUEUE_PROXY_TLS_MAX_VERSION",
                    "value": ""
                  },
                  {
                    "name": "QUEUE_PROXY_TLS_CIPHER_SUITES",
                    "value": ""
                  },
                  {
                    "name": "QUEUE_PROXY_TLS_CURVE_PREFERENCES",
                    "value": ""
                  },
                  {
                    "name": "ENABLE_MULTI_CONTAINER_PROBES",
                    "value": "false"
                  },
                  {
                    "name": "SERVING_POD",
                    "valueFrom": {
                      "fieldRef": {
                        "fieldPath": "metadata.name"
                      }
                    }
                  },
                  {
                    "name": "SERVING_POD_IP",
                    "valueFrom": {
                      "fieldRef": {
                        "fieldPath": "status.podIP"
                      }
                    }
                  },
                  {
                    "name": "HOST_IP",
                    "valueFrom": {
                      "fieldRef": {
                        "fieldPath": "status.hostIP"
                      }
                    }
                  }
                ],
                "image": "q",
                "name": "queue-proxy",
                "ports": [
                  {
                    "containerPort": 8022,
                    "name": "http-queueadm"
                  },
                  {
                    "containerPort": 9090,
                    "name": "http-autometric"
                  },
                  {
                    "containerPort": 9091,
                    "name": "http-usermetric"
                  },
                  {
                    "containerPort": 8012,
                    "name": "queue-port"
                  },
                  {
                    "containerPort": 8112,
                    "name": "https-port"
                  }
                ],
                "readinessProbe": {
                  "httpGet": {
                    "httpHeaders": [
                      {
                        "name": "K-Network-Probe",
                        "value": "queue"
                      }
                    ],
                    "port": 8012
                  },
                  "successThreshold": 1
                },
                "resources": {
                  "requests": {
                    "cpu": "25m"
                  }
                },
                "securityContext": {
                  "allowPrivilegeEscalation": false,
                  "capabilities": {
                    "drop": [
                      "ALL"
                    ]
                  },
                  "readOnlyRootFilesystem": true,
                  "runAsNonRoot": true,
                  "seccompProfile": {
                    "type": "RuntimeDefault"
                  }
                }
              }
            ],
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 300
          }
        }"#]],
    );
}

#[test]
fn without_the_image_of_the_queue_the_revision_says_what_is_missing() {
    let mut cluster = Cluster::with(Settings { queue_placement: QueuePlacement::Sidecar, ..Settings::default() });
    cluster.add(&format!("{REVISION}{RESOLVED}"));
    let plan = (ROW.plan)(&cluster.world, &Key::new("default", "r"), NOW);
    let [crate::Want::Status(knoll_api::Object::Revision(revision))] = &plan.wants[..] else {
        panic!("{:?}", plan.wants)
    };
    let ready = revision.condition("Ready").expect("a condition");
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "QueueImageMissing"));
    assert!(ready.message.contains("queue-sidecar-image"), "{}", ready.message);
    cluster.add(QUEUE_IMAGE);
    let plan = (ROW.plan)(&cluster.world, &Key::new("default", "r"), NOW);
    assert!(plan.wants.iter().any(|want| matches!(want, crate::Want::Create(knoll_api::Object::Deployment(_)))));
}

#[test]
fn a_changed_default_replaces_the_pods_and_a_changed_scale_does_not() {
    let mut cluster = Cluster::of(&format!("{REVISION}{RESOLVED}"));
    let key = Key::new("default", "r");
    let plan = (ROW.plan)(&cluster.world, &key, NOW);
    plan.wants.iter().for_each(|want| cluster.carry_out(want, NOW));
    let deployment = key.sibling("r-deployment");
    cluster.edit(Kind::Deployment, &deployment, |value| value["spec"]["replicas"] = 7.into());
    assert!(updates(&cluster.world).is_empty());
    cluster.add(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: config-deployment, namespace: knative-serving}
data: {queue-sidecar-image: q, progress-deadline: 30s}
"#,
    );
    assert_eq!(updates(&cluster.world), [(Some(30), Some(7))]);
}

/// Progress deadline and scale of every Deployment that is to be replaced.
fn updates(world: &World) -> Vec<(Option<i32>, Option<i32>)> {
    let plan = (ROW.plan)(world, &Key::new("default", "r"), NOW);
    let updated = plan.wants.iter().filter_map(|want| match want {
        crate::Want::Update(knoll_api::Object::Deployment(deployment)) => deployment.spec.clone(),
        _ => None,
    });
    updated.map(|spec| (spec.progress_deadline_seconds, spec.replicas)).collect()
}

/// Conditions after the Deployment, its pod and the PodAutoscaler report this.
fn conditions(deployment_status: &str, pod_status: &str, autoscaler_status: &str) -> String {
    let mut cluster = Cluster::of(&format!("{REVISION}{RESOLVED}"));
    let key = Key::new("default", "r");
    let plan = (ROW.plan)(&cluster.world, &key, NOW);
    plan.wants.iter().for_each(|want| cluster.carry_out(want, NOW));
    let yaml = |text: &str| serde_saphyr::from_str::<serde_json::Value>(text).expect("YAML");
    cluster.edit(Kind::Deployment, &key.sibling("r-deployment"), |value| value["status"] = yaml(deployment_status));
    cluster.edit(Kind::PodAutoscaler, &key, |value| value["status"] = yaml(autoscaler_status));
    cluster.add(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: p, labels: {{serving.knative.dev/revision: r, serving.knative.dev/revisionUID: uid-Revision-r}}}}
status: {pod_status}
"#
    ));
    for _ in 0..3 {
        let plan = (ROW.plan)(&cluster.world, &key, NOW);
        plan.wants.iter().for_each(|want| cluster.carry_out(want, NOW));
    }
    let revision = cluster.world.revisions.get(&key).expect("the revision").clone();
    let lines = revision
        .common()
        .conditions
        .iter()
        .map(|c| format!("{}={} {} {}", c.type_, c.status, c.reason, c.message).trim_end().to_owned() + "\n");
    let autoscaler = cluster.world.pod_autoscalers.get(&key).expect("the autoscaler");
    assert!(autoscaler.is_controlled_by(revision.as_ref()));
    lines.chain([format!("reachability={}\n", autoscaler.spec.reachability)]).collect()
}

const PROGRESSING: &str = r#"{conditions: [{type: Progressing, status: "True"}]}"#;
const UP: &str = r#"{readyReplicas: 1, availableReplicas: 1, conditions: [{type: Progressing, status: "True"}]}"#;
const TIMED_OUT: &str =
    r#"{conditions: [{type: Progressing, status: "False", reason: ProgressDeadlineExceeded, message: too long}]}"#;
const QUEUED: &str = r#"{serviceName: r, conditions: [{type: Ready, status: "Unknown", reason: Queued}]}"#;
const AT_ZERO: &str = r#"{serviceName: r, actualScale: 0, desiredScale: 0, conditions: [
    {type: Ready, status: "False", reason: NoTraffic}, {type: ScaleTargetInitialized, status: "True"}]}"#;
const ACTIVE: &str = r#"{serviceName: r, actualScale: 1, desiredScale: 1, conditions: [
    {type: Ready, status: "True"}, {type: ScaleTargetInitialized, status: "True"}]}"#;
const PULLING: &str = r#"{containerStatuses: [{name: user-container, image: i, imageID: "", ready: false, restartCount: 0,
    state: {waiting: {reason: ImagePullBackOff, message: Back-off pulling}}}]}"#;

#[test]
fn a_serving_revision_is_ready_and_stays_so_at_zero() {
    let ready = expect![[r#"
        Active=True
        ContainerHealthy=True
        Ready=True
        ResourcesAvailable=True
        reachability=Reachable
    "#]];
    ready.assert_eq(&conditions(UP, "{}", ACTIVE));
    expect![[r#"
        Active=False NoTraffic
        ContainerHealthy=True
        Ready=True
        ResourcesAvailable=True
        reachability=Reachable
    "#]]
    .assert_eq(&conditions(PROGRESSING, "{}", AT_ZERO));
}

#[test]
fn pulling_an_image_is_waiting_until_the_deadline_and_a_failure_after() {
    expect![[r#"
        Active=Unknown Queued
        ContainerHealthy=Unknown Deploying
        Ready=Unknown Deploying
        ResourcesAvailable=Unknown Deploying
        reachability=Reachable
    "#]]
    .assert_eq(&conditions(PROGRESSING, PULLING, QUEUED));
    expect![[r#"
        Active=Unknown Queued
        ContainerHealthy=Unknown Deploying
        Ready=False ImagePullBackOff Back-off pulling
        ResourcesAvailable=False ImagePullBackOff Back-off pulling
        reachability=Unreachable
    "#]]
    .assert_eq(&conditions(TIMED_OUT, PULLING, QUEUED));
}

#[test]
fn a_pod_without_a_place_shows_at_once() {
    let unschedulable = r#"{conditions: [{type: PodScheduled, status: "False", reason: Unschedulable,
        message: 0/1 nodes are available}]}"#;
    expect![[r#"
        Active=Unknown Queued
        ContainerHealthy=Unknown Deploying
        Ready=False Unschedulable 0/1 nodes are available
        ResourcesAvailable=False Unschedulable 0/1 nodes are available
        reachability=Unreachable
    "#]]
    .assert_eq(&conditions(PROGRESSING, unschedulable, QUEUED));
}

#[test]
fn a_refused_pod_shows_the_reason_of_its_replica_set() {
    let refused = r#"{conditions: [{type: Progressing, status: "True"},
        {type: ReplicaFailure, status: "True", reason: FailedCreate, message: exceeded quota}]}"#;
    expect![[r#"
        Active=Unknown Queued
        ContainerHealthy=Unknown Deploying
        Ready=False FailedCreate exceeded quota
        ResourcesAvailable=False FailedCreate exceeded quota
        reachability=Unreachable
    "#]]
    .assert_eq(&conditions(refused, "{}", QUEUED));
}

#[test]
fn giving_up_activation_fails_the_revision() {
    let gave_up = r#"{serviceName: r, conditions: [{type: Ready, status: "False", reason: TimedOut}]}"#;
    expect![[r#"
        Active=False TimedOut
        ContainerHealthy=Unknown Deploying
        Ready=False ProgressDeadlineExceeded Initial scale was never achieved
        ResourcesAvailable=False ProgressDeadlineExceeded Initial scale was never achieved
        reachability=Unreachable
    "#]]
    .assert_eq(&conditions(PROGRESSING, "{}", gave_up));
}
