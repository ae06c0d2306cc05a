use expect_test::expect;

use super::*;

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("JSON")
}

#[test]
fn a_minimal_service_gets_what_clients_expect_and_nothing_else() {
    let object = Check::new().defaulted(Kind::Service, service());
    expect![[r#"
        {
          "metadata": {
            "annotations": {
              "serving.knative.dev/creator": "alice",
              "serving.knative.dev/lastModifier": "alice"
            },
            "name": "hello",
            "namespace": "ns"
          },
          "spec": {
            "template": {
              "spec": {
                "containerConcurrency": 0,
                "containers": [
                  {
                    "image": "busybox",
                    "name": "user-container",
                    "readinessProbe": {
                      "successThreshold": 1,
                      "tcpSocket": {
                        "port": 0
                      }
                    },
                    "resources": {}
                  }
                ],
                "enableServiceLinks": false,
                "timeoutSeconds": 300
              }
            },
            "traffic": [
              {
                "latestRevision": true,
                "percent": 100
              }
            ]
          }
        }"#]]
    .assert_eq(&pretty(&object));
}

#[test]
fn unknown_fields_and_other_values_survive() {
    let mut object = service();
    object["spec"]["template"]["spec"]["containers"][0]["future"] = json!({"a": null});
    object["status"] = json!({"x": 1});
    let object = Check::new().defaulted(Kind::Service, object);
    assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["future"], json!({"a": null}));
    assert_eq!(object["status"], json!({"x": 1}));
}

#[test]
fn wrong_types_are_left_for_the_schema() {
    for object in [
        json!({"spec": "text"}),
        json!({"spec": {"template": 3, "traffic": "x"}}),
        json!({"spec": {"template": {"spec": {"containers": {"a": 1}, "volumes": 2}}}}),
        json!({"spec": {"template": {"spec": {"containers": [1, null, {"resources": [], "readinessProbe": "x"}]}}}}),
        json!({"metadata": {"annotations": []}, "spec": {"traffic": [1]}}),
        json!("text"),
    ] {
        for &kind in Kind::ALL {
            let check = Check::new();
            let _object = check.errors(kind, object.clone());
        }
    }
}

#[test]
fn a_long_timeout_brings_the_response_start_timeout_in() {
    let mut object = service();
    object["spec"]["template"]["spec"]["timeoutSeconds"] = json!(600);
    let object = Check::new().defaulted(Kind::Service, object);
    assert_eq!(object["spec"]["template"]["spec"]["responseStartTimeoutSeconds"], json!(300));
    assert_eq!(object["spec"]["template"]["spec"].get("idleTimeoutSeconds"), None);
}

#[test]
fn names_avoid_those_that_are_taken() {
    let spec = json!({
        "containers": [{"image": "a", "ports": [{}]}, {"image": "b", "name": "user-container-0"}, {"image": "c"}],
        "initContainers": [{"image": "d"}],
    });
    let object = Check::new().defaulted(Kind::Service, service_with(spec));
    let spec = &object["spec"]["template"]["spec"];
    let names: Vec<&Value> = (0..3).map(|at| &spec["containers"][at]["name"]).collect();
    assert_eq!(names, ["user-container-1", "user-container-0", "user-container-2"]);
    assert_eq!(spec["initContainers"][0]["name"], "init-container");
    assert_eq!(spec["containers"][2].get("readinessProbe"), None, "sidecars are not probed");
}

#[test]
fn names_come_from_the_template_of_the_administrator() {
    let mut check = Check::new();
    let data = [("container-name-template".to_owned(), "{{.Name}}".to_owned())].into();
    check.config.defaults = crate::config::DefaultsConfig::parse(&data).expect("a template");
    let object = check.defaulted(Kind::Service, service());
    assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["name"], "hello");
}

#[test]
fn amounts_are_canonical_and_get_the_defaults_of_the_administrator() {
    let mut check = Check::new();
    let data = [("revision-cpu-request", "100m"), ("revision-memory-limit", "1024Mi")];
    let data = data.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    check.config.defaults = crate::config::DefaultsConfig::parse(&data).expect("amounts");
    let spec = json!({"containers": [{"image": "a", "resources": {"limits": {"cpu": 1, "memory": "1000M"}}}]});
    let object = check.defaulted(Kind::Service, service_with(spec));
    let expected = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "1G"}});
    assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["resources"], expected);
}

#[test]
fn probes_with_a_period_get_thresholds() {
    let probe = json!({"periodSeconds": 5, "grpc": {"port": 8080}});
    let spec = json!({"containers": [{"image": "a", "readinessProbe": probe, "livenessProbe": {"grpc": {"port": 1}}}]});
    let object = Check::new().defaulted(Kind::Service, service_with(spec));
    let container = &object["spec"]["template"]["spec"]["containers"][0];
    let expected = json!({
        "periodSeconds": 5, "successThreshold": 1, "failureThreshold": 3, "timeoutSeconds": 1,
        "grpc": {"port": 8080, "service": ""},
    });
    assert_eq!(container["readinessProbe"], expected);
    assert_eq!(container["livenessProbe"], json!({"grpc": {"port": 1, "service": ""}}));
}

#[test]
fn mounts_are_read_only_where_the_volume_cannot_be_written() {
    let spec = json!({
        "containers": [{"image": "a", "volumeMounts": [
            {"name": "s", "mountPath": "/s"}, {"name": "e", "mountPath": "/e"}
        ]}],
        "volumes": [{"name": "s", "secret": {"secretName": "x"}}, {"name": "e", "emptyDir": {}}],
    });
    let object = Check::new().defaulted(Kind::Service, service_with(spec));
    let mounts = &object["spec"]["template"]["spec"]["containers"][0]["volumeMounts"];
    assert_eq!(mounts[0]["readOnly"], json!(true));
    assert_eq!(mounts[1].get("readOnly"), None);
}

#[test]
fn secure_defaults_fill_in_the_restricted_standard() {
    let check = Check::with_features(&[("secure-pod-defaults", "Enabled")]);
    let spec = json!({"containers": [
        {"image": "a", "ports": [{"containerPort": 80}]},
        {"image": "b", "securityContext": {"capabilities": {"drop": []}, "runAsNonRoot": false}},
    ]});
    let object = check.defaulted(Kind::Service, service_with(spec));
    let containers = &object["spec"]["template"]["spec"]["containers"];
    let expected = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    assert_eq!(containers[0]["securityContext"], expected);
    assert_eq!(containers[1]["securityContext"]["capabilities"], json!({"drop": []}));
    assert_eq!(containers[1]["securityContext"]["runAsNonRoot"], json!(false));
}

#[test]
fn service_links_are_set_only_on_creation() {
    let check = Check::new();
    let old = check.defaulted(Kind::Service, service());
    let new = check.updated(Kind::Service, &old, service());
    assert_eq!(new["spec"]["template"]["spec"].get("enableServiceLinks"), None);
}

#[test]
fn the_last_modifier_changes_with_the_spec_alone() {
    let check = Check::new();
    let old = check.defaulted(Kind::Service, service());
    let mut context = check.context();
    context.user = "bob";
    let mut labelled = old.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    default(Kind::Service, Operation::Update, &mut labelled, Some(&old), &context);
    assert_eq!(labelled["metadata"]["annotations"]["serving.knative.dev/lastModifier"], "alice");
    let mut changed = old.clone();
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other");
    default(Kind::Service, Operation::Update, &mut changed, Some(&old), &context);
    assert_eq!(changed["metadata"]["annotations"]["serving.knative.dev/lastModifier"], "bob");
    assert_eq!(changed["metadata"]["annotations"]["serving.knative.dev/creator"], "alice");
}

#[test]
fn owned_configurations_and_routes_carry_no_users_of_their_own() {
    let owner = json!([{"kind": "Service", "name": "hello"}]);
    for kind in [Kind::Configuration, Kind::Route] {
        let object = json!({"metadata": {"name": "hello", "ownerReferences": owner}, "spec": {"traffic": [{}]}});
        let object = Check::new().defaulted(kind, object);
        assert_eq!(object["metadata"].get("annotations"), None);
    }
}

#[test]
fn a_named_revision_is_not_filled_in_again() {
    let check = Check::new();
    let mut old = service();
    old["spec"]["template"]["metadata"] = json!({"name": "hello-v1"});
    let new = check.updated(Kind::Service, &old, old.clone());
    assert_eq!(new["spec"]["template"], old["spec"]["template"]);
    assert_eq!(new["spec"]["traffic"], json!([{"latestRevision": true, "percent": 100}]));
}

#[test]
fn revisions_are_filled_in_only_once() {
    let check = Check::new();
    let revision = json!({"metadata": {"name": "r"}, "spec": {"containers": [{"image": "a"}]}});
    let created = check.defaulted(Kind::Revision, revision.clone());
    assert_eq!(created["spec"]["timeoutSeconds"], json!(300));
    assert_eq!(check.updated(Kind::Revision, &revision, revision.clone()), revision);
}

#[test]
fn traffic_without_targets_is_filled_in_only_in_services() {
    let route = json!({"metadata": {"name": "r", "ownerReferences": [{}]}, "spec": {}});
    assert_eq!(Check::new().defaulted(Kind::Route, route.clone()), route);
    let route =
        json!({"metadata": {"ownerReferences": [{}]}, "spec": {"traffic": [{"revisionName": "r"}, {"tag": "t"}]}});
    let expected = json!([
        {"revisionName": "r", "latestRevision": false, "percent": 0},
        {"tag": "t", "latestRevision": true, "percent": 0},
    ]);
    assert_eq!(Check::new().defaulted(Kind::Route, route)["spec"]["traffic"], expected);
}

#[test]
fn internal_kinds_get_their_defaults() {
    let check = Check::new();
    let pa = check.defaulted(Kind::PodAutoscaler, json!({"metadata": {"name": "r"}}));
    let expected = json!({
        "autoscaling.knative.dev/class": "kpa.autoscaling.knative.dev",
        "autoscaling.knative.dev/metric": "concurrency",
    });
    assert_eq!(pa["metadata"]["annotations"], expected);
    let hpa = json!({"metadata": {"annotations": {"autoscaling.knative.dev/class": "hpa.autoscaling.knative.dev"}}});
    let hpa = check.defaulted(Kind::PodAutoscaler, hpa);
    assert_eq!(hpa["metadata"]["annotations"]["autoscaling.knative.dev/metric"], "cpu");

    let ingress = json!({"spec": {"rules": [{"http": {"paths": [{"splits": [{"serviceName": "s"}]}]}}]}});
    let ingress = check.defaulted(Kind::Ingress, ingress);
    assert_eq!(ingress["spec"]["rules"][0]["visibility"], "ExternalIP");
    assert_eq!(ingress["spec"]["rules"][0]["http"]["paths"][0]["splits"][0]["percent"], 100);

    let mapping = json!({"metadata": {"name": "a.b", "namespace": "ns"}, "spec": {"ref": {"name": "s"}}});
    assert_eq!(check.defaulted(Kind::DomainMapping, mapping)["spec"]["ref"]["namespace"], "ns");
}
