//! The whole chain: what users apply, and what they see then.

use expect_test::expect;
use knoll_api::{Key, Kind, Resource, conditions::READY, table::RoutingTable};
use serde_json::json;

use super::platform::{Kubelet, Platform};
use crate::{QueuePlacement, Settings, status::Reporting};

/// A Service as admission leaves it: `extra` goes below `metadata`, `template` below the template's metadata.
pub(super) fn service(name: &str, image: &str, extra: &str, template: &str, traffic: &str) -> String {
    let traffic = if traffic.is_empty() { "[{percent: 100, latestRevision: true}]" } else { traffic };
    format!(
        r#"
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: {name}
  annotations: {{serving.knative.dev/creator: me, serving.knative.dev/lastModifier: me{extra}}}
spec:
  template:
    metadata: {{{template}}}
    spec:
      containerConcurrency: 0
      timeoutSeconds: 300
      enableServiceLinks: false
      containers:
      - name: user-container
        image: {image}
        readinessProbe: {{tcpSocket: {{port: 0}}, successThreshold: 1}}
        resources: {{}}
  traffic: {traffic}
"#
    )
}

fn hello() -> String {
    service("hello", "hello:1", "", "", "")
}

fn key(name: &str) -> Key {
    Key::new("default", name)
}

/// The splits of a host, `service percent`.
fn splits(table: &RoutingTable, host: &str, external: bool) -> Vec<String> {
    let hosts = if external { &table.external } else { &table.local };
    let Some(host) = hosts.get(host) else { return vec!["no such host".into()] };
    let splits = host.paths.iter().flat_map(|path| &path.splits);
    splits.map(|split| format!("{} {}", split.service.name, split.percent)).collect()
}

fn conditions<R: Reporting>(object: &R) -> String {
    let lines = object
        .common()
        .conditions
        .iter()
        .map(|c| format!("{}={} {} {}", c.type_, c.status, c.reason, c.message).trim_end().to_owned() + "\n");
    lines.collect()
}

#[test]
fn a_service_becomes_ready_with_its_whole_tree() {
    let mut platform = Platform::new();
    platform.add(&hello());
    assert_eq!(platform.ready_of("hello"), "True");
    let service = platform.service("hello");
    assert_eq!(service.status.common.observed_generation, Some(1));
    assert_eq!(service.status.url.as_deref(), Some("http://hello.default.example.com"));
    assert_eq!(service.status.latest_ready_revision_name.as_deref(), Some("hello-00001"));
    let table = platform.routing.table();
    assert_eq!(splits(table, "hello.default.example.com", true), ["hello-00001 100"]);
    assert_eq!(splits(table, "hello.default", false), ["hello-00001 100"]);
    let backend = &table.backends[&key("hello-00001")];
    assert_eq!(backend.instances[0].address, "10.244.0.7:8080".parse().unwrap());
    platform.check_tree(expect![[r#"
        Service hello gen=1
          Configuration hello gen=1
            Revision hello-00001 gen=1
              PodAutoscaler hello-00001 gen=1
                Metric hello-00001 gen=1
                ServerlessService hello-00001 gen=3
                  CoreService hello-00001 gen=1
                  CoreService hello-00001-private gen=1
                    EndpointSlice hello-00001-private-zg95t gen=1
                  Endpoints hello-00001 gen=1
                    EndpointSlice hello-00001-c6pjp gen=1
              Image hello-00001-cache-user-container gen=1
              Deployment hello-00001-deployment gen=1
                ReplicaSet hello-00001-deployment- gen=1
                  Pod hello-00001-deployment- gen=2
          Route hello gen=1
            Ingress hello gen=1
            CoreService hello gen=2
    "#]]);
}

#[test]
fn with_sidecars_a_service_becomes_ready_goes_to_zero_and_comes_back_too() {
    let settings = Settings { queue_placement: QueuePlacement::Sidecar, ..Settings::default() };
    let mut platform = Platform::with(settings, 0);
    platform.add(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: config-deployment, namespace: knative-serving}
data: {queue-sidecar-image: q}
"#,
    );
    platform.add(&hello());
    assert_eq!(platform.ready_of("hello"), "True");
    let pod = platform.routing.table().backends[&key("hello-00001")].instances[0].address;
    assert_eq!(pod, "10.244.0.7:8012".parse().unwrap());
    platform.decide("hello-00001", 0);
    platform.pass(120);
    assert_eq!(platform.replicas("hello-00001-deployment"), Some(0));
    assert_eq!(platform.ready_of("hello"), "True");
    platform.decide("hello-00001", 1);
    assert_eq!(platform.routing.table().backends[&key("hello-00001")].instances.len(), 1);
}

#[test]
fn in_whatever_order_controllers_act_they_end_with_the_same_objects() {
    let journey = |seed| {
        let mut platform = Platform::with(Settings::default(), seed);
        platform.add(&hello());
        platform.edit(Kind::Service, "hello", |value| {
            value["spec"]["template"]["spec"]["containers"][0]["image"] = json!("hello:2");
        });
        assert_eq!(platform.ready_of("hello"), "True", "seed {seed}");
        assert_eq!(platform.service("hello").metadata.generation, Some(2), "seed {seed}");
        let route = platform.cluster.world.routes.get(&key("hello")).unwrap();
        assert_eq!(route.metadata.generation, Some(1), "seed {seed}");
        (platform.cluster.names(), platform.routing.table().clone())
    };
    let usual = journey(0);
    for seed in 1..12 {
        assert!(journey(seed) == usual, "seed {seed}");
    }
}

#[test]
fn a_pod_that_never_starts_leaves_the_service_unknown() {
    let mut platform = Platform::new();
    platform.kubelet = Kubelet::Idle;
    platform.add(&hello());
    expect![[r#"Unknown RevisionMissing Configuration "hello" is waiting for a Revision to become ready."#]]
        .assert_eq(&platform.ready_of("hello"));
}

#[test]
fn an_idle_service_goes_to_zero_stays_ready_and_comes_back() {
    let mut platform = Platform::new();
    platform.add(&hello());
    platform.decide("hello-00001", 0);
    assert_eq!(platform.replicas("hello-00001-deployment"), Some(1));
    platform.pass(59);
    assert_eq!(platform.replicas("hello-00001-deployment"), Some(1), "a stable window must pass");
    platform.pass(40);
    assert_eq!(platform.replicas("hello-00001-deployment"), Some(0));
    assert_eq!(platform.ready_of("hello"), "True");
    let autoscaler = platform.cluster.world.pod_autoscalers.get(&key("hello-00001")).unwrap();
    expect![[r#"
        Active=False NoTraffic The target is not receiving traffic.
        Ready=False NoTraffic The target is not receiving traffic.
        SKSReady=Unknown NotReady K8s Service is not ready
        ScaleTargetInitialized=True
    "#]]
    .assert_eq(&conditions(autoscaler.as_ref()));
    assert!(platform.routing.table().backends[&key("hello-00001")].instances.is_empty());

    platform.decide("hello-00001", 1);
    assert_eq!(platform.replicas("hello-00001-deployment"), Some(1));
    assert_eq!(platform.routing.table().backends[&key("hello-00001")].instances.len(), 1);
    assert_eq!(platform.service("hello").metadata.generation, Some(1));
}

#[test]
fn a_new_image_moves_all_traffic_and_lets_the_old_revision_go() {
    let mut platform = Platform::new();
    platform.add(&hello());
    platform.edit(Kind::Service, "hello", |value| {
        value["spec"]["template"]["spec"]["containers"][0]["image"] = json!("hello:2");
    });
    assert_eq!(platform.ready_of("hello"), "True");
    assert_eq!(platform.service("hello").status.common.observed_generation, Some(2));
    assert_eq!(splits(platform.routing.table(), "hello.default.example.com", true), ["hello-00002 100"]);
    let old = platform.cluster.world.revisions.get(&key("hello-00001")).unwrap().clone();
    assert_eq!(old.label("serving.knative.dev/routingState"), Some("reserve"));
    platform.decide("hello-00001", 0);
    platform.pass(100);
    assert_eq!(platform.replicas("hello-00001-deployment"), Some(0));
    assert_eq!(platform.replicas("hello-00002-deployment"), Some(1));
}

#[test]
fn named_revisions_share_traffic_under_tags() {
    let mut platform = Platform::new();
    platform.add(&service("hello", "hello:1", "", "name: hello-v1", ""));
    platform.edit(Kind::Service, "hello", |value| {
        value["spec"]["template"]["metadata"]["name"] = json!("hello-v2");
        value["spec"]["template"]["spec"]["containers"][0]["image"] = json!("hello:2");
        value["spec"]["traffic"] = json!([
            {"tag": "v1", "revisionName": "hello-v1", "latestRevision": false, "percent": 20},
            {"tag": "v2", "revisionName": "hello-v2", "latestRevision": false, "percent": 80},
            {"tag": "latest", "latestRevision": true, "percent": 0},
        ]);
    });
    assert_eq!(platform.ready_of("hello"), "True");
    let table = platform.routing.table();
    assert_eq!(splits(table, "hello.default.example.com", true), ["hello-v1 20", "hello-v2 80"]);
    assert_eq!(splits(table, "v1-hello.default.example.com", true), ["hello-v1 100"]);
    assert_eq!(splits(table, "latest-hello.default", false), ["hello-v2 100"]);
    let traffic = serde_json::to_string_pretty(&platform.service("hello").status.traffic).unwrap();
    expect![[r#"
        [
          {
            "tag": "v1",
            "revisionName": "hello-v1",
            "latestRevision": false,
            "percent": 20,
            "url": "http://v1-hello.default.example.com"
          },
          {
            "tag": "v2",
            "revisionName": "hello-v2",
            "latestRevision": false,
            "percent": 80,
            "url": "http://v2-hello.default.example.com"
          },
          {
            "tag": "latest",
            "revisionName": "hello-v2",
            "latestRevision": true,
            "percent": 0,
            "url": "http://latest-hello.default.example.com"
          }
        ]"#]]
    .assert_eq(&traffic);
}

#[test]
fn a_template_that_changes_under_a_taken_name_is_refused_and_traffic_stays() {
    let mut platform = Platform::new();
    platform.add(&service("hello", "hello:1", "", "name: hello-v1", ""));
    platform.edit(Kind::Service, "hello", |value| {
        value["spec"]["template"]["spec"]["containers"][0]["image"] = json!("hello:2");
    });
    expect![[r#"
        ConfigurationsReady=False RevisionFailed Revision creation failed with message: revisions.serving.knative.dev "hello-v1" already exists.
        Ready=False RevisionNameTaken The revision name "hello-v1" is taken by a conflicting Revision, so traffic will not be migrated
        RoutesReady=False RevisionNameTaken The revision name "hello-v1" is taken by a conflicting Revision, so traffic will not be migrated
    "#]].assert_eq(&conditions(platform.service("hello").as_ref()));
    assert_eq!(splits(platform.routing.table(), "hello.default.example.com", true), ["hello-v1 100"]);
}

#[test]
fn a_new_default_domain_moves_every_url() {
    let mut platform = Platform::new();
    platform.add(&hello());
    platform.edit_in(Kind::ConfigMap, &Key::new("knative-serving", "config-domain"), |value| {
        value["data"] = json!({"apps.example.test": ""});
    });
    let service = platform.service("hello");
    assert_eq!(service.status.url.as_deref(), Some("http://hello.default.apps.example.test"));
    assert_eq!(platform.ready_of("hello"), "True");
    let table = platform.routing.table();
    assert_eq!(splits(table, "hello.default.apps.example.test", true), ["hello-00001 100"]);
    assert_eq!(splits(table, "hello.default.example.com", true), ["no such host"]);
}

#[test]
fn a_label_on_the_placeholder_hides_one_name() {
    let mut platform = Platform::new();
    platform.add(&hello());
    platform.edit(Kind::CoreService, "hello", |value| {
        value["metadata"]["labels"]["networking.knative.dev/visibility"] = json!("cluster-local");
    });
    let url = platform.service("hello").status.url.clone();
    assert_eq!(url.as_deref(), Some("http://hello.default.svc.cluster.local"));
    let table = platform.routing.table();
    assert!(table.external.is_empty());
    assert_eq!(splits(table, "hello.default.svc.cluster.local", false), ["hello-00001 100"]);
    assert_eq!(platform.ready_of("hello"), "True");
}

#[test]
fn a_missing_image_fails_everything_above_it_and_heals_when_it_is_pushed() {
    let mut platform = Platform::new();
    platform.cluster.broken_images.insert("hello:1".into(), "no such image".into());
    platform.add(&hello());
    let revision = platform.cluster.world.revisions.get(&key("hello-00001")).unwrap().clone();
    expect![[r#"
        ContainerHealthy=False ContainerMissing Unable to fetch image "hello:1": failed to resolve image to digest: no such image
        Ready=False ContainerMissing Unable to fetch image "hello:1": failed to resolve image to digest: no such image
        ResourcesAvailable=Unknown ResolvingDigests
    "#]].assert_eq(&conditions(revision.as_ref()));
    expect![[r#"
        ConfigurationsReady=False RevisionFailed Revision "hello-00001" failed with message: Unable to fetch image "hello:1": failed to resolve image to digest: no such image.
        Ready=False RevisionFailed Revision "hello-00001" failed with message: Unable to fetch image "hello:1": failed to resolve image to digest: no such image.
        RoutesReady=False RevisionMissing Configuration "hello" does not have any ready Revision.
    "#]].assert_eq(&conditions(platform.service("hello").as_ref()));
    platform.cluster.broken_images.clear();
    platform.pass(2);
    assert_eq!(platform.ready_of("hello"), "True");
}

#[test]
fn a_container_that_ends_shows_its_code_and_its_last_words() {
    let mut platform = Platform::new();
    platform.kubelet = Kubelet::Crashes;
    platform.add(&hello());
    expect![[r#"False RevisionFailed Revision "hello-00001" failed with message: Container failed with: boom."#]]
        .assert_eq(&platform.ready_of("hello"));
    let revision = platform.cluster.world.revisions.get(&key("hello-00001")).unwrap().clone();
    expect![[r#"
        Active=Unknown Queued Requests to the target are being buffered as resources are provisioned.
        ContainerHealthy=False ExitCode5 Container failed with: boom
        Ready=False ExitCode5 Container failed with: boom
        ResourcesAvailable=Unknown Deploying
    "#]]
    .assert_eq(&conditions(revision.as_ref()));
    platform.kubelet = Kubelet::Starts;
    platform.settle();
    assert_eq!(platform.ready_of("hello"), "True");
}

#[test]
fn a_gradual_rollout_moves_traffic_in_steps() {
    let mut platform = Platform::new();
    platform.add(&service("hello", "hello:1", ", serving.knative.dev/rollout-duration: 60s", "", ""));
    platform.edit(Kind::Service, "hello", |value| {
        value["spec"]["template"]["spec"]["containers"][0]["image"] = json!("hello:2");
    });
    let host = "hello.default.example.com";
    assert_eq!(splits(platform.routing.table(), host, true), ["hello-00001 99", "hello-00002 1"]);
    expect!["Unknown RolloutInProgress A gradual rollout of the latest revision(s) is in progress."]
        .assert_eq(&platform.ready_of("hello"));
    platform.pass(30);
    let halfway = splits(platform.routing.table(), host, true);
    assert_eq!(halfway.len(), 2, "{halfway:?}");
    platform.pass(40);
    assert_eq!(splits(platform.routing.table(), host, true), ["hello-00002 100"]);
    assert_eq!(platform.ready_of("hello"), "True");
}

#[test]
fn deleting_a_service_leaves_nothing_behind() {
    let mut platform = Platform::new();
    let before = platform.cluster.names();
    platform.add(&hello());
    platform.cluster.delete(Kind::Service, &key("hello"));
    platform.settle();
    assert_eq!(platform.cluster.names(), before);
    assert_eq!(*platform.routing.table(), RoutingTable::default());
}

#[test]
fn a_floor_patched_onto_a_revision_is_followed_at_once() {
    let mut platform = Platform::new();
    platform.add(&hello());
    platform.decide("hello-00001", 1);
    for (floor, wanted) in [(json!("2"), 2), (json!("3"), 3), (serde_json::Value::Null, 1)] {
        platform.edit(Kind::Revision, "hello-00001", |value| {
            let annotations = value["metadata"]["annotations"].as_object_mut().unwrap();
            match floor.is_null() {
                true => annotations.remove("autoscaling.knative.dev/min-scale"),
                false => annotations.insert("autoscaling.knative.dev/min-scale".into(), floor),
            };
        });
        assert_eq!(platform.replicas("hello-00001-deployment"), Some(wanted));
    }
    let deployment = platform.cluster.world.deployments.get(&key("hello-00001-deployment")).unwrap();
    assert!(deployment.annotation("autoscaling.knative.dev/min-scale").is_none(), "a floor must not roll pods");
}

#[test]
fn a_domain_mapping_answers_under_the_users_name_without_a_second_hop() {
    let mut platform = Platform::new();
    platform.add(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: config-network, namespace: knative-serving}
data: {autocreate-cluster-domain-claims: "true"}
"#,
    );
    platform.add(&hello());
    platform.add(
        r#"
apiVersion: serving.knative.dev/v1beta1
kind: DomainMapping
metadata: {name: www.example.org}
spec: {ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: hello, namespace: default}}
---
apiVersion: serving.knative.dev/v1beta1
kind: DomainMapping
metadata: {name: www.example.org, namespace: other}
spec: {ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: hello, namespace: other}}
"#,
    );
    let mapping = |platform: &Platform, namespace: &str| {
        let key = Key::new(namespace, "www.example.org");
        conditions(platform.cluster.world.domain_mappings.get(&key).unwrap().as_ref())
    };
    expect![[r#"
        CertificateProvisioned=True TLSNotEnabled external-domain-tls is not enabled
        DomainClaimed=True
        IngressReady=True
        Ready=True
        ReferenceResolved=True
    "#]]
    .assert_eq(&mapping(&platform, "default"));
    expect![[r#"
        CertificateProvisioned=Unknown
        DomainClaimed=False DomainAlreadyClaimed The domain name is already in use by another DomainMapping
        IngressReady=Unknown IngressNotConfigured Ingress has not yet been reconciled.
        Ready=False DomainAlreadyClaimed The domain name is already in use by another DomainMapping
        ReferenceResolved=Unknown
    "#]]
    .assert_eq(&mapping(&platform, "other"));
    assert_eq!(splits(platform.routing.table(), "www.example.org", true), ["hello-00001 100"]);
    assert!(platform.routing.table().external["www.example.org"].paths[0].rewrite_host.is_none());

    platform.cluster.delete(Kind::DomainMapping, &key("www.example.org"));
    platform.settle();
    assert!(mapping(&platform, "other").contains("DomainClaimed=True"));
}

#[test]
fn revisions_that_nobody_leads_to_are_collected_by_age() {
    let mut platform = Platform::new();
    platform.add(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: config-gc, namespace: knative-serving}
data: {min-non-active-revisions: "1", retain-since-create-time: 1h, retain-since-last-active-time: 1h}
"#,
    );
    platform.add(&hello());
    for image in ["hello:2", "hello:3", "hello:4"] {
        platform.edit(Kind::Service, "hello", |value| {
            value["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        });
        platform.pass(60);
    }
    assert_eq!(platform.cluster.world.revisions.len(), 4);
    platform.pass(2 * 3600);
    let left: Vec<_> = platform.cluster.world.revisions.keys().map(|key| key.name.clone()).collect();
    assert_eq!(left, ["hello-00003", "hello-00004"]);
    assert!(platform.cluster.world.revisions.get(&key("hello-00004")).unwrap().condition(READY).is_some());
}
