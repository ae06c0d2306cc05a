//! What the gateway does with a request.

use std::{
    thread,
    time::{Duration, Instant},
};

use knoll_e2e::{Connection, Namespace, Socket, at_once, get, host_of, request, until};
use serde_json::{Value, json};

const ACTOR: &str = "localhost:5000/e2e/actor:1";

/// One instance of the actor that stays, with more of a revision's spec.
fn actor(space: &Namespace, more: &Value) -> String {
    let mut spec = json!({"containers": [{"image": ACTOR}]});
    spec.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
    let annotations = json!({"autoscaling.knative.dev/min-scale": "1", "autoscaling.knative.dev/max-scale": "1"});
    let service = json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "actor"},
        "spec": {"template": {"metadata": {"annotations": annotations}, "spec": spec}},
    });
    space.apply(&service.to_string());
    space.ready("actor");
    space.host("actor")
}

#[test]
fn a_host_nobody_claims_is_404() {
    let space = Namespace::new("unknown");
    let answer = get(&space.cluster.gateway, &format!("nobody.{}.localhost", space.name), "/").expect("it answers");
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains(&format!("nobody.{}.localhost", space.name)), "{}", answer.body);
}

#[test]
fn container_concurrency_is_a_hard_limit() {
    let space = Namespace::new("limit");
    let host = actor(&space, &json!({"containerConcurrency": 1}));
    let begun = Instant::now();
    let answers = at_once(&space.cluster.gateway, &host, "/busy?200", 10);
    for answer in answers {
        let answer = answer.expect("it answers");
        assert_eq!((answer.status, answer.body.as_str()), (200, "1\n"), "never two at a time");
    }
    assert!(begun.elapsed().as_millis() >= 2000, "ten, one after the other");
    let host = actor(&space, &json!({"containerConcurrency": 3}));
    let answers = at_once(&space.cluster.gateway, &host, "/busy?500", 12);
    let most: Vec<u32> =
        answers.into_iter().map(|answer| answer.expect("it answers").body.trim().parse().expect("a number")).collect();
    assert_eq!(most.iter().max(), Some(&3), "three at a time: {most:?}");
}

#[test]
fn a_request_that_takes_too_long_is_504() {
    let space = Namespace::new("late");
    let host = actor(&space, &json!({"timeoutSeconds": 2}));
    let begun = Instant::now();
    let answer = get(&space.cluster.gateway, &host, "/hold").expect("it answers");
    assert_eq!(answer.status, 504, "{}", answer.body);
    let seconds = begun.elapsed().as_secs_f64();
    assert!((1.9..5.0).contains(&seconds), "after {seconds} s");
    assert_eq!(get(&space.cluster.gateway, &host, "/").expect("it answers").status, 200, "others are not affected");
}

#[test]
fn events_come_when_they_happen() {
    let space = Namespace::new("stream");
    let host = actor(&space, &json!({}));
    let mut stream = Connection::open(&space.cluster.gateway).expect("it listens");
    stream.send(&host, "GET", "/events", &[], "").expect("it is sent");
    let head = stream.head().expect("the head comes");
    assert_eq!((head.status, head.header("content-type")), (200, "text/event-stream"));
    // The second event is made only after the first was seen.
    assert_eq!(stream.chunk().expect("the first comes"), b"data: first\n\n");
    assert_eq!(get(&space.cluster.gateway, &host, "/release").expect("it answers").body, "done\n");
    assert_eq!(stream.chunk().expect("the second comes"), b"data: second\n\n");
    assert_eq!(stream.chunk().expect("the end comes"), b"");
}

#[test]
fn a_websocket_is_passed_through() {
    let space = Namespace::new("socket");
    let host = actor(&space, &json!({}));
    let mut socket = Socket::open(&space.cluster.gateway, &host);
    for round in 0..3 {
        assert!(socket.echoes(round), "round {round}");
    }
}

#[test]
fn a_websocket_outlives_the_time_for_an_answer_to_start_and_ends_with_its_request() {
    let space = Namespace::new("socket-time");
    let host = actor(&space, &json!({"timeoutSeconds": 5, "responseStartTimeoutSeconds": 1}));
    let mut socket = Socket::open(&space.cluster.gateway, &host);
    let begun = Instant::now();
    let mut rounds = 0;
    while socket.echoes(rounds) {
        rounds = rounds.wrapping_add(1);
        assert!(begun.elapsed().as_secs() < 30, "it is never cut");
        thread::sleep(Duration::from_millis(100));
    }
    let seconds = begun.elapsed().as_secs_f64();
    assert!((4.5..15.0).contains(&seconds), "cut after {seconds} s");
}

#[test]
fn an_app_that_soon_closes_idle_connections_answers_every_request() {
    let space = Namespace::new("keep");
    let container = json!({"image": ACTOR, "env": [{"name": "ACTOR_KEEP", "value": "50"}]});
    let host = actor(&space, &json!({"containers": [container]}));
    let mut kept = Connection::open(&space.cluster.gateway).expect("it listens");
    // Gaps around the time at which the app closes, where a request meets the end of its connection; and a request
    // that must not be sent twice, long after that end.
    for (method, gap) in [("GET", 45), ("GET", 50), ("GET", 55), ("POST", 100)] {
        for round in 0..50 {
            kept.send(&host, method, "/", &[], if method == "POST" { "x" } else { "" }).expect("it is sent");
            let answer = kept.answer().expect("it answers");
            assert_eq!((answer.status, answer.body.as_str()), (200, "actor \n"), "{method} {round} each {gap} ms");
            thread::sleep(Duration::from_millis(gap));
        }
    }
}

#[test]
fn a_client_that_does_not_read_gives_its_place_back_when_its_time_is_up() {
    let space = Namespace::new("lazy");
    let host = actor(&space, &json!({"containerConcurrency": 1, "timeoutSeconds": 3}));
    let mut lazy = Connection::open(&space.cluster.gateway).expect("it listens");
    lazy.send(&host, "GET", "/endless", &[], "").expect("it is sent");
    assert_eq!(lazy.head().expect("the head comes").status, 200);
    // The only place is taken, and free again after three seconds though nobody reads.
    until("the place is free", || {
        let answer = get(&space.cluster.gateway, &host, "/").expect("it answers");
        (answer.status == 200).then_some(())
    });
    drop(lazy);
}

#[test]
fn headers_and_bodies_pass() {
    let space = Namespace::new("pass");
    let host = actor(&space, &json!({}));
    let body = "x".repeat(3 << 20);
    let answer = request(&space.cluster.gateway, &host, "POST", "/", &[("x-word", "kept")], &body).expect("it answers");
    assert_eq!((answer.status, answer.body.as_str()), (200, "actor \n"));
    // Many requests on one connection.
    let mut kept = Connection::open(&space.cluster.gateway).expect("it listens");
    for _ in 0..50 {
        kept.send(&host, "GET", "/", &[], "").expect("it is sent");
        assert_eq!(kept.answer().expect("it answers").body, "actor \n");
    }
}

#[test]
fn a_cluster_local_service_is_for_pods_alone() {
    let space = Namespace::new("local");
    let service = json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service",
        "metadata": {"name": "inner", "labels": {"networking.knative.dev/visibility": "cluster-local"}},
        "spec": {"template": {"spec": {"containers": [{"image": ACTOR, "env": [{"name": "TARGET", "value": "inside"}]}]}}},
    });
    space.apply(&service.to_string());
    let url = space.ready("inner")["status"]["url"].as_str().expect("it has a URL").to_owned();
    let host = host_of(&url);
    assert_eq!(host, format!("inner.{}.svc.cluster.local", space.name));
    assert_eq!(get(&space.cluster.gateway, &host, "/").expect("it answers").status, 404, "not from outside");
    let outer = actor(&space, &json!({}));
    let answer = get(&space.cluster.gateway, &outer, &format!("/fetch?http://{host}/")).expect("it answers");
    assert_eq!((answer.status, answer.body.as_str()), (200, "200\nactor inside\n"));
}

#[test]
fn requests_under_way_are_finished_before_their_instance_goes() {
    let space = Namespace::new("drain");
    let host = actor(&space, &json!({"timeoutSeconds": 30}));
    let old = space.pods("actor")[0]["metadata"]["name"].as_str().expect("it has a name").to_owned();
    thread::scope(|scope| {
        let held = scope.spawn(|| get(&space.cluster.gateway, &host, "/busy?6000"));
        until("it has the request", || {
            // Counts the one that is held and this one.
            let most = get(&space.cluster.gateway, &host, "/busy?0").expect("it answers").body;
            (most == "2\n").then_some(())
        });
        space.kubectl(&["delete", "pod", &old, "--wait=false"]);
        // New requests find another instance meanwhile.
        let answer = get(&space.cluster.gateway, &host, "/").expect("it answers");
        assert_eq!(answer.status, 200, "{}", answer.body);
        let held = held.join().expect("the client ends").expect("it answers");
        assert_eq!((held.status, held.body.as_str()), (200, "2\n"));
    });
    until("the old instance goes", || space.object("pods", &old).is_null().then_some(()));
}

#[test]
fn a_pod_reaches_the_api_with_its_token() {
    let space = Namespace::new("token");
    let subject = format!("--serviceaccount={}:default", space.name);
    space.kubectl(&["create", "rolebinding", "viewer", "--clusterrole=view", &subject]);
    let run = |name: &str, words: &[&str]| {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "localhost:5000/e2e/kubectl:1", "args": words}]},
        });
        space.apply(&pod.to_string());
        until(&format!("pod {name} ends"), || {
            let phase = space.object("pods", name)["status"]["phase"].as_str().unwrap_or_default().to_owned();
            ["Succeeded", "Failed"].contains(&phase.as_str()).then_some(phase)
        })
    };
    assert_eq!(
        run("reads", &["get", "configmaps", "-o", "name"]),
        "Succeeded",
        "{}",
        space.kubectl(&["logs", "reads"])
    );
    assert_eq!(space.kubectl(&["logs", "reads"]), "configmap/kube-root-ca.crt\n");
    assert_eq!(run("who", &["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]), "Succeeded");
    assert_eq!(space.kubectl(&["logs", "who"]).trim(), format!("system:serviceaccount:{}:default", space.name));
    assert_eq!(run("writes", &["delete", "configmap", "kube-root-ca.crt"]), "Failed");
    assert!(space.kubectl(&["logs", "writes"]).contains("Forbidden"));
}
