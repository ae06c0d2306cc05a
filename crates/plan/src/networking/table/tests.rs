use expect_test::expect;
use knoll_api::{Key, Kind, table::RoutingTable};

use super::{Panics, Routing, build};
use crate::check::Cluster;

const CLASS: &str = "annotations: {networking.knative.dev/ingress.class: knoll.ingress.networking.knative.dev}";

fn ingress(name: &str, host: &str, service: &str, port: &str) -> String {
    format!(
        r#"
apiVersion: networking.internal.knative.dev/v1alpha1
kind: Ingress
metadata: {{name: {name}, {CLASS}}}
spec:
  rules:
  - hosts: [{host}]
    visibility: ExternalIP
    http:
      paths:
      - splits: [{{serviceNamespace: default, serviceName: {service}, servicePort: {port}}}]
      - path: /deep/er
        splits: [{{serviceNamespace: default, serviceName: {service}, servicePort: {port}}}]
      - headers: {{X-Tag: {{exact: v}}}}
        splits: [{{serviceNamespace: default, serviceName: {service}, servicePort: {port}}}]
"#
    )
}

const PLAIN: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: plain}
spec: {ports: [{name: http2, port: 80, targetPort: 9}, {name: admin, port: 81, targetPort: 10}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: plain}
subsets:
- addresses: [{ip: 10.0.0.2}, {ip: 10.0.0.1, targetRef: {kind: Pod, name: p}}]
  ports: [{name: http2, port: 9}, {name: admin, port: 10}]
"#;

const REVISION: &str = r#"
apiVersion: serving.knative.dev/v1
kind: Revision
metadata: {name: r, labels: {serving.knative.dev/service: s, serving.knative.dev/configuration: c}}
spec: {containerConcurrency: 3, timeoutSeconds: 7, idleTimeoutSeconds: 2, containers: [{image: i, ports: [{name: h2c}]}]}
---
apiVersion: networking.internal.knative.dev/v1alpha1
kind: ServerlessService
metadata: {name: r}
spec: {}
"#;

fn pod(name: &str, ip: &str, ready: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{serving.knative.dev/revision: r}}}}
spec: {{containers: [{{name: user-container, ports: [{{name: user-port, containerPort: 8081}}]}}]}}
status: {{podIP: {ip}, conditions: [{{type: Ready, status: "{ready}"}}]}}
"#
    )
}

fn paths(table: &RoutingTable, host: &str) -> String {
    let host = &table.external[host];
    let line = |path: &knoll_api::table::Path| {
        format!("{:?} {:?} -> {} {}\n", path.prefix, path.headers, path.splits[0].service, path.splits[0].percent)
    };
    host.paths.iter().map(line).collect()
}

#[test]
fn paths_are_tried_longest_first_and_by_header_before_without() {
    let cluster = Cluster::of(&format!("{}---{PLAIN}", ingress("a", "A.example.com", "plain", "80")));
    expect![[r#"
        "/deep/er" [] -> default/plain:80 100
        "" [("x-tag", "v")] -> default/plain:80 100
        "" [] -> default/plain:80 100
    "#]]
    .assert_eq(&paths(&build(&cluster.world), "a.example.com"));
}

#[test]
fn a_service_of_its_own_is_found_by_port_and_a_revision_by_its_pods() {
    let mut cluster = Cluster::of(&format!("{}---{PLAIN}---{REVISION}", ingress("a", "a", "plain", "admin")));
    cluster.add(&pod("p1", "10.1.0.2", "True"));
    cluster.add(&pod("p2", "10.1.0.1", "True"));
    cluster.add(&pod("p3", "10.1.0.3", "False"));
    expect![[r#"
        {
            Key {
                namespace: "default",
                name: "plain:admin",
            }: Backend {
                protocol: Http1,
                revision: None,
                instances: [
                    Instance {
                        address: 10.0.0.1:10,
                        pod: "p",
                    },
                    Instance {
                        address: 10.0.0.2:10,
                        pod: "",
                    },
                ],
                failure: None,
            },
            Key {
                namespace: "default",
                name: "r",
            }: Backend {
                protocol: H2c,
                revision: Some(
                    RevisionPolicy {
                        revision: Key {
                            namespace: "default",
                            name: "r",
                        },
                        uid: "uid-Revision-r",
                        service: "s",
                        configuration: "c",
                        container_concurrency: 3,
                        timeout: 7s,
                        response_start_timeout: None,
                        idle_timeout: Some(
                            2s,
                        ),
                    },
                ),
                instances: [
                    Instance {
                        address: 10.1.0.1:8081,
                        pod: "p2",
                    },
                    Instance {
                        address: 10.1.0.2:8081,
                        pod: "p1",
                    },
                ],
                failure: None,
            },
        }"#]]
    .assert_eq(&format!("{:#?}", build(&cluster.world).backends));
}

#[test]
fn the_first_ingress_has_the_host_and_the_next_inherits_it() {
    let mut cluster = Cluster::of(&format!("{}---{PLAIN}", ingress("b", "x", "plain", "80")));
    let (mut routing, _) = Routing::new(&cluster.world);
    cluster.changes.clear();
    cluster.add(&ingress("a", "x", "plain", "81"));
    let update = routing.update(&cluster.world, &std::mem::take(&mut cluster.changes)).expect("a change");
    assert_eq!(update.published, [(Key::new("default", "a"), Some(1))].into());
    assert!(paths(&update.table, "x").contains("plain:81"));
    cluster.delete(Kind::Ingress, &Key::new("default", "a"));
    let update = routing.update(&cluster.world, &std::mem::take(&mut cluster.changes)).expect("a change");
    assert_eq!(update.published, [(Key::new("default", "a"), None)].into());
    assert!(paths(&update.table, "x").contains("plain:80"));
}

#[test]
fn what_changes_nothing_says_nothing() {
    let mut cluster = Cluster::of(&format!("{}---{PLAIN}---{REVISION}", ingress("a", "a", "r", "80")));
    cluster.add(&pod("p1", "10.1.0.2", "True"));
    let (mut routing, _) = Routing::new(&cluster.world);
    cluster.changes.clear();
    cluster.edit(Kind::Pod, &Key::new("default", "p1"), |value| {
        value["metadata"]["annotations"] = serde_json::json!({"a": "b"});
    });
    assert_eq!(routing.update(&cluster.world, &std::mem::take(&mut cluster.changes)), None);
}

/// Steps through additions, changes and removals in many orders; the table by changes is the table by definition.
#[test]
fn the_table_by_changes_is_the_table() {
    let documents = [
        ingress("a", "x", "r", "80"),
        ingress("b", "x", "plain", "80"),
        ingress("c", "yy", "plain", "admin"),
        format!("{}  httpOption: Redirected\n", ingress("a", "z", "plain", "81")),
        PLAIN.to_owned(),
        REVISION.to_owned(),
        pod("p1", "10.1.0.2", "True"),
        pod("p1", "10.1.0.2", "False"),
        pod("p2", "10.1.0.9", "True"),
    ];
    let gone = [
        (Kind::Ingress, "a"),
        (Kind::Ingress, "b"),
        (Kind::CoreService, "plain"),
        (Kind::Endpoints, "plain"),
        (Kind::Revision, "r"),
        (Kind::ServerlessService, "r"),
        (Kind::Pod, "p1"),
    ];
    let mut cluster = Cluster::new();
    let (mut routing, _) = Routing::new(&cluster.world);
    let mut seed = 1_u64;
    for _ in 0..600 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = usize::try_from(seed >> 33).expect("31 bits") % (documents.len() + gone.len());
        match documents.get(pick) {
            Some(document) => cluster.add(document),
            None => {
                let (kind, name) = gone[pick - documents.len()];
                cluster.delete(kind, &Key::new("default", name));
            }
        }
        // Several changes may come at once.
        if seed >> 62 != 0 {
            routing.update(&cluster.world, &std::mem::take(&mut cluster.changes));
            assert_eq!(*routing.table(), build(&cluster.world));
        }
    }
}

std::thread_local! {
    /// What panics when it is looked at, and how often.
    static MINE: std::cell::RefCell<Option<(Key, u64)>> = const { std::cell::RefCell::new(None) };
}

/// Panics at a key that a test has mined.
pub(super) fn step_on_mine(key: &Key) {
    let hit = MINE.with_borrow_mut(|mine| match mine {
        Some((mined, left)) if mined == key && *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    });
    assert!(!hit, "a mine went off at {key}");
}

/// What panicked since the last look: how often, where, and what it said.
fn panicked(routing: &mut Routing) -> String {
    let Panics { count, first } = routing.take_panics();
    let told: Vec<String> = first.iter().map(|(key, said)| format!("{key}: {said}")).collect();
    format!("{count}: {}", told.join(", "))
}

/// The table keeps what it had of the Ingress, or the backend, that a panic happened at; everybody else's moves on.
#[test]
fn a_panic_costs_the_ingress_or_the_backend_it_happened_at() {
    let mut cluster = Cluster::of(&format!("{}---{PLAIN}", ingress("a", "x", "plain", "80")));
    cluster.add(&ingress("b", "yy", "plain", "80"));
    let (mut routing, _) = Routing::new(&cluster.world);
    cluster.changes.clear();
    let update = |cluster: &mut Cluster, routing: &mut Routing| {
        routing.update(&cluster.world, &std::mem::take(&mut cluster.changes))
    };

    MINE.set(Some((Key::new("default", "a"), 2)));
    for round in 1..=2 {
        cluster.add(&ingress("a", "x", "plain", "81"));
        cluster.add(&ingress("b", &format!("y{round}"), "plain", "80"));
        let updated = update(&mut cluster, &mut routing).expect("the other changed");
        assert_eq!(panicked(&mut routing), "1: default/a: a mine went off at default/a");
        assert!(paths(&updated.table, "x").contains("plain:80"), "it keeps what it had");
        assert!(updated.table.external.contains_key(format!("y{round}").as_str()));
        assert!(!updated.published.contains_key(&Key::new("default", "a")), "it is not told as published");
    }
    cluster.add(&ingress("a", "x", "plain", "81"));
    let updated = update(&mut cluster, &mut routing).expect("a change");
    assert!(paths(&updated.table, "x").contains("plain:81"));
    assert_eq!(routing.take_panics(), Panics::default());

    // A backend: who answers for the Services' ports.
    MINE.set(Some((Key::new("default", "plain:81"), 2)));
    for round in 3..=4 {
        cluster.edit(Kind::Endpoints, &Key::new("default", "plain"), |value| {
            value["subsets"][0]["addresses"][0]["ip"] = format!("10.0.0.{round}").into();
        });
        let updated = update(&mut cluster, &mut routing).expect("the other port's changed");
        assert_eq!(panicked(&mut routing), "1: default/plain:81: a mine went off at default/plain:81");
        let addresses = |port: &str| format!("{:?}", updated.table.backends[&Key::new("default", port)].instances);
        assert!(addresses("plain:80").contains(&format!("10.0.0.{round}")), "{}", addresses("plain:80"));
        assert!(addresses("plain:81").contains("10.0.0.2:10"), "{}", addresses("plain:81"));
    }
    cluster.edit(Kind::Endpoints, &Key::new("default", "plain"), |value| {
        value["subsets"][0]["addresses"][0]["ip"] = "10.0.0.9".into();
    });
    update(&mut cluster, &mut routing).expect("a change");
    assert_eq!(*routing.table(), build(&cluster.world));
}
