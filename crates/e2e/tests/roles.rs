//! The roles as processes of their own, over TLS and sockets: they serve as one process does, and each may be killed.

use knoll_e2e::{Namespace, Split, condition, until};
use serde_json::{Value, json};

fn pods_go(space: &Namespace, service: &str) {
    until("the pods go away", || space.pods(service).is_empty().then_some(()));
}

/// What tells a running container from a new one.
fn containers(space: &Namespace, service: &str) -> Vec<Value> {
    let pods = space.pods(service);
    pods.iter().map(|pod| pod["status"]["containerStatuses"][0]["containerID"].clone()).collect()
}

/// A new Service becomes ready and answers: every role has done its part.
fn serves_anew(space: &Namespace, name: &str) {
    let service = json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"template": {"spec": {"containers": [{"image": "localhost:5000/e2e/actor:1"}]}}},
    });
    space.apply(&service.to_string());
    space.ready(name);
    assert_eq!(space.ask(name).status, 200);
}

fn splits_traffic(space: &Namespace) {
    space.apply_example("hello.yaml");
    let change = json!({"spec": {
        "template": {"spec": {"containers": [{
            "image": "localhost:5000/helloworld-go:160e4dc8", "env": [{"name": "TARGET", "value": "second"}],
        }]}},
        "traffic": [
            {"revisionName": "hello-00001", "percent": 50}, {"revisionName": "hello-00002", "percent": 50},
        ],
    }});
    space.kubectl(&["patch", "ksvc", "hello", "--type=merge", "-p", &change.to_string()]);
    until("both revisions answer", || {
        let bodies: std::collections::BTreeSet<String> = (0..20).map(|_| space.ask("hello").body).collect();
        (bodies.len() == 2).then_some(())
    });
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn roles_in_processes_of_their_own_serve_and_each_may_be_killed() {
    let mut split = Split::up("split");
    let _short = split
        .cluster
        .configure("config-autoscaler", json!({"stable-window": "6s", "scale-to-zero-grace-period": "6s"}));
    let space = Namespace::within(split.cluster.clone(), "split");
    space.apply_example("hello.yaml");
    space.ready("hello");
    assert_eq!(space.ask("hello").body, "Hello World!\n");
    pods_go(&space, "hello");
    assert_eq!(space.ask("hello").body, "Hello World!\n", "a request brings an instance back");
    splits_traffic(&space);

    // Logs and commands go through the node's socket.
    let host = space.actor();
    let pod = space.pods("actor")[0]["metadata"]["name"].as_str().expect("it has a name").to_owned();
    let said = "actor: start";
    assert!(space.kubectl(&["logs", &pod, "-c", "user-container"]).contains(said));
    // Its port is taken: it says hello, and leaves with 1.
    let words = ["-n", &space.name, "exec", &pod, "-c", "user-container", "--", "/actor"];
    let output = space.cluster.try_kubectl(&words, "");
    assert!(String::from_utf8_lossy(&output.stdout).contains(said) && output.status.code() == Some(1), "{output:?}");

    // Each counts, and says so.
    for role in Split::ROLES {
        let metrics = split.metrics(role);
        assert!(metrics.contains("knoll_task_restarts"), "{role}: {metrics}");
    }
    assert!(split.metrics("gateway").contains("knoll_gateway_requests"), "{}", split.metrics("gateway"));

    let before = containers(&space, "actor");
    for (at, role) in Split::ROLES.into_iter().enumerate() {
        split.kill(role);
        if role != "gateway" {
            let answer = knoll_e2e::get(&split.cluster.gateway, &host, "/").expect("it answers");
            assert_eq!(answer.status, 200, "requests go on without the {role}");
        }
        split.start(role);
        until("it is reached", || {
            let answer = knoll_e2e::get(&split.cluster.gateway, &host, "/").ok()?;
            (answer.status == 200).then_some(())
        });
        let name = format!("after-{at}");
        serves_anew(&space, &name);
        pods_go(&space, &name);
        assert_eq!(space.ask(&name).status, 200, "after the {role} came back, a request brings an instance back");
    }
    until("the pod is ready", || {
        let pods = space.pods("actor");
        pods.iter().all(|pod| condition(pod, "Ready")["status"] == "True").then_some(())
    });
    assert_eq!(containers(&space, "actor"), before, "containers are adopted, not started again");
}
