//! Events over https, as the feature `transport-encryption` says. The feature is everybody's, so each test has an instance of
//! its own.

use std::fs;

use knoll_e2e::{Namespace, Own, Place, Sink, scratch, until};
use serde_json::{Value, json};

const HOST: &str = "broker-ingress.knative-eventing.svc.cluster.local";

fn object(api: &str, kind: &str, name: &str, spec: &Value) -> String {
    json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}).to_string()
}

fn encrypt(own: &Own, mode: &str) {
    let patch = json!({"data": {"transport-encryption": mode}}).to_string();
    let words = ["-n", "knative-eventing", "patch", "configmap", "config-features", "--type=merge", "-p", &patch];
    own.cluster.kubectl(&words);
}

/// What a broker's status says of its addresses, once it says so.
fn addresses(space: &Namespace, what: &str, right: impl Fn(&Value) -> bool) -> Value {
    until(what, || {
        let status = space.object("brokers", "default")["status"].clone();
        right(&status).then_some(status)
    })
}

/// Posts an event to the broker over https, trusting this file alone; the status, 000 where there is no handshake.
fn post(space: &Namespace, service: &str, trusted: &str, id: &str) -> String {
    let to = format!("{HOST}:443:{service}");
    let url = format!("https://{HOST}/{}/default", space.name);
    let id = format!("ce-id: {id}");
    let words = [
        "--silent",
        "--cacert",
        trusted,
        "--resolve",
        &to,
        "--request",
        "POST",
        "--header",
        "ce-specversion: 1.0",
        "--header",
        &id,
        "--header",
        "ce-source: /e2e",
        "--header",
        "ce-type: t",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        &url,
    ];
    let output = space.cluster.run("curl", &words, "");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn events_travel_as_the_feature_says_and_reach_their_subscribers() {
    let own = Own::up("encryption");
    let space = Namespace::within(own.cluster.clone(), "encryption");
    let sink = Sink::open();
    space.apply(&object("eventing.knative.dev/v1", "Broker", "default", &json!({})));
    let plain = Place::of(&space, "broker", "default");
    let to = json!({"broker": "default", "subscriber": {"uri": sink.url()}});
    space.apply(&object("eventing.knative.dev/v1", "Trigger", "all", &to));
    space.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "trigger/all"]);
    plain.take("disabled", "t");
    let secrets = || own.cluster.kubectl(&["-n", "knative-eventing", "get", "secrets", "-o", "name"]);
    assert!(!secrets().contains("mt-broker-ingress-server-tls"), "nobody asked for a certificate");

    encrypt(&own, "permissive");
    let status = addresses(&space, "the broker has both addresses", |status| {
        status["addresses"].as_array().is_some_and(|all| all.len() == 2)
    });
    assert_eq!(status["address"]["url"], format!("http://{HOST}/{}/default", space.name));
    assert_eq!(status["addresses"][0]["name"], "https");
    let trusted = scratch("encryption.pem");
    fs::write(&trusted, status["addresses"][0]["CACerts"].as_str().expect("they are told")).expect("a file");
    let trusted = trusted.display().to_string();
    let words = ["-n", "knative-eventing", "get", "service", "broker-ingress", "-o", "jsonpath={.spec.clusterIP}"];
    let service = own.cluster.kubectl(&words);
    let over_https = |id: &str| post(&space, &service, &trusted, id);
    until("https is answered", || (over_https("permissive") == "202").then_some(()));
    plain.take("plain", "t");

    encrypt(&own, "strict");
    let status = addresses(&space, "https is all there is", |status| status["address"]["name"] == "https");
    assert_eq!(status["addresses"].as_array().map(Vec::len), Some(1), "{status}");
    until("http is refused", || (plain.send("refused", "t", "").status == 404).then_some(()));
    assert_eq!(over_https("strict"), "202");
    let ids = until("all have come", || {
        let mut ids: Vec<String> = sink.received().iter().map(|one| one.attribute("id").to_owned()).collect();
        // Until the feature is in force everywhere, http may be answered.
        ids.retain(|id| id != "refused");
        ids.sort();
        ids.dedup();
        (ids.len() == 4).then_some(ids)
    });
    assert_eq!(ids, ["disabled", "permissive", "plain", "strict"]);

    // A certificate that is lost is made anew, and one of the user's own stays.
    let secret = ["-n", "knative-eventing", "get", "secret", "mt-broker-ingress-server-tls", "-o", "jsonpath={.data}"];
    let before = own.cluster.kubectl(&secret);
    own.cluster.kubectl(&["-n", "knative-eventing", "delete", "secret", "mt-broker-ingress-server-tls"]);
    until("there is another", || {
        let output = own.cluster.try_kubectl(&secret, "");
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success() && !found.is_empty() && found != before).then_some(())
    });
    until("it is presented, and trusted", || (over_https("renewed") == "202").then_some(()));

    // What everybody is to trust comes to where SinkBindings are.
    let bundle = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"a.pem": fs::read_to_string(&trusted).expect("a file")},
        "metadata": {
            "name": "ours", "namespace": "knative-eventing", "labels": {"networking.knative.dev/trust-bundle": "true"},
        },
    });
    own.cluster.kubectl_with(&["apply", "-f", "-"], &bundle.to_string());
    let template = json!({
        "metadata": {"labels": {"app": "d"}},
        "spec": {"containers": [{"name": "c", "image": "localhost:5000/e2e/actor:1"}]},
    });
    let deployment = json!({"selector": {"matchLabels": {"app": "d"}}, "template": template});
    space.apply(&object("apps/v1", "Deployment", "d", &deployment));
    let subject = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let to = json!({"ref": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "default"}});
    space.apply(&object("sources.knative.dev/v1", "SinkBinding", "b", &json!({"subject": subject, "sink": to})));
    space.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "sinkbinding/b"]);
    let pod = space.object("deployments", "d")["spec"]["template"]["spec"].clone();
    let env = pod["containers"][0]["env"].to_string();
    assert!(env.contains("K_CA_CERTS") && env.contains(&format!("https://{HOST}/{}/default", space.name)), "{env}");
    assert!(pod["volumes"].to_string().contains("ourskne-bundle"), "{}", pod["volumes"]);
    space.kubectl(&["rollout", "status", "deployment/d", "--timeout=120s"]);
}
