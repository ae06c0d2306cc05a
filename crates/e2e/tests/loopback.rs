//! Programs that listen on 127.0.0.1 alone, as many frameworks do by default.

use knoll_e2e::Namespace;
use serde_json::{Value, json};

/// A service of the shell's image, listening where `listen` says.
fn service(name: &str, listen: &str, probe: &Value) -> String {
    let mut container = json!({
        "image": "localhost:5000/e2e/shell:1", "command": ["/bin/sh", "-c"],
        "args": [format!("trap 'exit 0' TERM; httpd -f -p {listen} -h /www & wait")],
    });
    if !probe.is_null() {
        container["readinessProbe"] = probe.clone();
    }
    json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"template": {"spec": {"containers": [container]}}}})
    .to_string()
}

#[test]
fn an_app_on_127_0_0_1_becomes_ready_and_serves() {
    let space = Namespace::new("loopback");
    let archive = space.cluster.images.join("shell.tar").display().to_string();
    space.cluster.succeed(&space.cluster.knoll, &["image", "load", &archive], "");
    let get = json!({"httpGet": {"path": "/index.html"}});
    for (name, probe) in [("by-default", Value::Null), ("by-http", get)] {
        space.apply(&service(name, "127.0.0.1:$PORT", &probe));
        space.ready(name);
        for _ in 0..20 {
            let answer = space.ask_for(name, "/index.html");
            assert_eq!((answer.status, answer.body.as_str()), (200, "from the shell\n"), "{name}");
        }
    }
}
