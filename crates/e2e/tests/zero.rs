//! Instances come and go with requests.

use std::{
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use knoll_e2e::{Cluster, Configured, Namespace, Socket, at_once, condition, found_within, until};
use serde_json::json;

/// Short windows for as long as a test of this file wants them.
static SHORT: Mutex<Weak<Configured>> = Mutex::new(Weak::new());

fn short_windows() -> Arc<Configured> {
    let mut short = SHORT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    short.upgrade().unwrap_or_else(|| {
        let windows = json!({"stable-window": "6s", "scale-to-zero-grace-period": "6s"});
        let configured = Arc::new(Cluster::from_environment().configure("config-autoscaler", windows));
        *short = Arc::downgrade(&configured);
        configured
    })
}

/// A service of the actor with these annotations on its template.
fn actor(name: &str, annotations: &serde_json::Value) -> String {
    json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"template": {
            "metadata": {"annotations": annotations},
            "spec": {"containers": [{"image": "localhost:5000/e2e/actor:1"}]},
        }},
    })
    .to_string()
}

fn pods_go(space: &Namespace, service: &str) {
    until("the pods go away", || {
        let query = format!("labelSelector=serving.knative.dev/service={service}");
        space.cluster.list(&space.name, "pods", &query).is_empty().then_some(())
    });
}

#[test]
fn an_idle_service_goes_to_zero_and_comes_back_on_a_request() {
    let _short = short_windows();
    let space = Namespace::new("zero");
    space.apply_example("hello.yaml");
    space.ready("hello");
    assert_eq!(space.ask("hello").body, "Hello World!\n");
    let idle = Instant::now();
    pods_go(&space, "hello");
    let elapsed = idle.elapsed();
    // The window of 6 s is six buckets of a second; a request counts from the start of its bucket.
    assert!(elapsed >= Duration::from_secs(5), "the window is not over after {elapsed:?}");
    let revision = space.object("revisions", "hello-00001");
    assert_eq!(condition(&revision, "Ready")["status"], "True", "a revision at zero is ready");
    let active = condition(&revision, "Active");
    assert_eq!((active["status"].as_str(), active["reason"].as_str()), (Some("False"), Some("NoTraffic")));
    assert_eq!(condition(&space.object("ksvc", "hello"), "Ready")["status"], "True");

    let answer = space.ask("hello");
    assert_eq!((answer.status, answer.body.as_str()), (200, "Hello World!\n"));
    assert_eq!(space.pods("hello").len(), 1);
}

#[test]
fn twenty_requests_that_wait_at_zero_are_all_answered() {
    let _short = short_windows();
    let space = Namespace::new("crowd");
    space.apply_example("hello.yaml");
    space.ready("hello");
    pods_go(&space, "hello");
    for answer in at_once(&space.cluster.gateway, &space.host("hello"), "/", 20) {
        let answer = answer.expect("the gateway answers");
        assert_eq!((answer.status, answer.body.as_str()), (200, "Hello World!\n"));
    }
}

#[test]
fn min_scale_keeps_instances_and_max_scale_limits_them() {
    let _short = short_windows();
    let space = Namespace::new("bounds");
    let annotations = json!({
        "autoscaling.knative.dev/min-scale": "2", "autoscaling.knative.dev/max-scale": "3",
        "autoscaling.knative.dev/target": "1",
    });
    space.apply(&actor("bounded", &annotations));
    space.ready("bounded");
    assert_eq!(space.ready_pods("bounded"), 2, "it is ready with as many as it is to have");
    let host = space.host("bounded");
    std::thread::scope(|scope| {
        let load = scope.spawn(|| at_once(&space.cluster.gateway, &host, "/busy?8000", 12));
        until("it grows to its most", || (space.ready_pods("bounded") == 3).then_some(()));
        let more = found_within(Duration::from_secs(4), || (space.pods("bounded").len() > 3).then_some(()));
        assert!(more.is_none(), "never more than its most");
        for answer in load.join().expect("the clients end") {
            assert_eq!(answer.expect("the gateway answers").status, 200);
        }
    });
    until("it shrinks to its least", || (space.pods("bounded").len() == 2).then_some(()));
    let fewer = found_within(Duration::from_secs(14), || (space.pods("bounded").len() < 2).then_some(()));
    assert!(fewer.is_none(), "never fewer than its least");
}

#[test]
fn initial_scale_is_what_a_revision_starts_with() {
    let _short = short_windows();
    let space = Namespace::new("initial");
    space.apply(&actor("three", &json!({"autoscaling.knative.dev/initial-scale": "3"})));
    space.ready("three");
    assert!(space.ready_pods("three") >= 3, "ready means that the first instances are");
    pods_go(&space, "three");
}

#[test]
fn initial_scale_zero_is_ready_without_an_instance() {
    let _short = short_windows();
    let _allowed =
        Cluster::from_environment().configure("config-autoscaler", json!({"allow-zero-initial-scale": "true"}));
    let space = Namespace::new("none");
    until("the setting is seen", || {
        let output = space.cluster.try_kubectl(
            &["-n", &space.name, "apply", "-f", "-"],
            &actor("none", &json!({"autoscaling.knative.dev/initial-scale": "0"})),
        );
        output.status.success().then_some(())
    });
    space.ready("none");
    assert_eq!(space.pods("none").len(), 0, "none was asked for");
    assert_eq!(space.ask("none").body, "actor \n");
}

#[test]
fn activation_scale_is_what_a_request_brings_back() {
    let _short = short_windows();
    let space = Namespace::new("activation");
    space.apply(&actor("three", &json!({"autoscaling.knative.dev/activation-scale": "3"})));
    space.ready("three");
    pods_go(&space, "three");
    let host = space.host("three");
    std::thread::scope(|scope| {
        let answers = scope.spawn(|| at_once(&space.cluster.gateway, &host, "/busy?3000", 1));
        until("as many come back as were asked for", || (space.ready_pods("three") == 3).then_some(()));
        for answer in answers.join().expect("the client ends") {
            assert_eq!(answer.expect("the gateway answers").status, 200);
        }
    });
}

#[test]
fn a_socket_that_stays_open_keeps_its_instance_however_quiet_it_is() {
    let _short = short_windows();
    let space = Namespace::new("quiet");
    let spec = |name: &str| {
        json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"template": {"spec": {
                "timeoutSeconds": 300, "responseStartTimeoutSeconds": 3,
                "containers": [{"image": "localhost:5000/e2e/actor:1"}],
            }}},
        })
    };
    // The socket is there before the window of its instance is over, however long the other takes to be ready.
    space.apply(&spec("held").to_string());
    space.ready("held");
    let mut socket = Socket::open(&space.cluster.gateway, &space.host("held"));
    assert!(socket.echoes(1));
    let names = || space.pods("held").iter().map(|pod| pod["metadata"]["name"].to_string()).collect::<Vec<_>>();
    let before = names();
    assert_eq!(before.len(), 1);
    space.apply(&spec("idle").to_string());
    space.ready("idle");
    // As long as the other needs to go that has no socket, and as long again as the window.
    pods_go(&space, "idle");
    let changed = found_within(Duration::from_secs(10), || (names() != before).then(names));
    assert_eq!(changed, None, "the instance stays that {before:?} names");
    assert!(socket.echoes(2), "the socket is still that instance's");
    drop(socket);
    pods_go(&space, "held");
}
