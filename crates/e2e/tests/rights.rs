//! Who may do what, as users meet it with an unmodified `kubectl`: nobody gives themselves more than they have, pods keep
//! to their namespace's standard, and what is not carried out says so.

use knoll_e2e::Namespace;
use serde_json::json;

/// `kubectl` with a ServiceAccount's token alone: the complaint, or what it prints.
fn with_token(space: &Namespace, token: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    // Without a kubeconfig: its client certificate would speak louder than the token.
    let server = space.cluster.kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let token = format!("--token={token}");
    let server = format!("--server={server}");
    let mut words = vec!["--kubeconfig=/dev/null", "--insecure-skip-tls-verify", &server, &token, "-n", &space.name];
    words.extend(arguments);
    let output = space.cluster.run("kubectl", &words, input);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn the_administrator_of_a_namespace_does_not_become_that_of_the_cluster() {
    let space = Namespace::new("rights");
    space.kubectl(&["create", "serviceaccount", "boss"]);
    let account = format!("--serviceaccount={}:boss", space.name);
    space.kubectl(&["create", "rolebinding", "boss", "--clusterrole=admin", &account]);
    let token = space.kubectl(&["create", "token", "boss"]).trim().to_owned();
    let as_boss = |arguments: &[&str]| with_token(&space, &token, arguments, "");

    assert_eq!(as_boss(&["auth", "can-i", "create", "rolebindings"]).expect("may ask").trim(), "yes");
    for wanted in [
        &["auth", "can-i", "create", "clusterrolebindings"][..],
        &["auth", "can-i", "get", "secrets", "-n", "knative-serving"],
        &["auth", "can-i", "create", "ingresses.networking.internal.knative.dev"],
        &["auth", "can-i", "create", "endpoints"],
        &["auth", "can-i", "escalate", "roles"],
    ] {
        let refused = as_boss(wanted).expect_err("kubectl ends with 1 for no");
        assert!(!refused.contains("yes"), "{wanted:?}");
    }
    as_boss(&["create", "role", "reader", "--verb=get,list", "--resource=pods,secrets"]).expect("holds it");
    let refused = as_boss(&["create", "role", "more", "--verb=get", "--resource=nodes"]).expect_err("does not hold it");
    assert!(refused.contains("is attempting to grant RBAC permissions not currently held"), "{refused}");
    assert!(refused.contains(r#"{APIGroups:[""], Resources:["nodes"], Verbs:["get"]}"#), "{refused}");
    let bind = ["create", "rolebinding", "up", "--clusterrole=cluster-admin", &account];
    assert!(as_boss(&bind).expect_err("does not hold it").contains("not currently held"));
    let masters = ["--as=joe", "--as-group=system:masters", "get", "nodes"];
    assert!(as_boss(&masters).expect_err("may be nobody else").contains("cannot impersonate"));
    let other = ["--as=system:serviceaccount:kube-system:default", "get", "pods"];
    assert!(as_boss(&other).expect_err("of another namespace").contains("cannot impersonate"));
    let own = format!("--as=system:serviceaccount:{}:default", space.name);
    as_boss(&[&own, "auth", "whoami"]).expect("of its own namespace");
    // The token ends with its account.
    space.kubectl(&["delete", "serviceaccount", "boss"]);
    let refused = as_boss(&["get", "pods"]).expect_err("the account is gone");
    assert!(refused.contains("Unauthorized") || refused.contains("must be logged in"), "{refused}");
}

#[test]
fn pods_keep_to_the_standard_of_their_namespace() {
    let space = Namespace::new("standard");
    let label = "pod-security.kubernetes.io/enforce=baseline";
    space.cluster.kubectl(&["label", "namespace", &space.name, label]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "hostPID": true, "containers": [{"name": "c", "image": "localhost:5000/e2e/actor:1", "securityContext": {"privileged": true}}],
    }});
    let refused = space.kubectl_refused(&["apply", "-f", "-"], &pod.to_string());
    assert!(
        refused.contains(
            "violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true), \
             privileged (container \"c\" must not set securityContext.privileged=true)"
        ),
        "{refused}"
    );
}

#[test]
fn what_is_not_carried_out_says_so_and_what_cannot_be_is_refused() {
    let space = Namespace::new("promises");
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}});
    let output = space.cluster.try_kubectl(&["-n", &space.name, "apply", "-f", "-"], &policy.to_string());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("Warning: NetworkPolicy is kept, but not acted on: traffic is not filtered"), "{told}");
    assert!(output.status.success(), "{told}");

    let container = json!({"image": "localhost:5000/e2e/actor:1", "resources": {"limits": {"cpu": "500m"}, "requests": {"cpu": "540m"}}});
    let service = json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"template": {"spec": {"containers": [container]}}}});
    let refused = space.kubectl_refused(&["apply", "-f", "-"], &service.to_string());
    assert!(refused.contains("Invalid value: \"540m\": must be less than or equal to cpu limit of 500m"), "{refused}");

    for ip in ["127.0.0.1", "169.254.169.254"] {
        let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "e"},
            "subsets": [{"addresses": [{"ip": ip}], "ports": [{"port": 6443}]}]});
        let refused = space.kubectl_refused(&["apply", "-f", "-"], &endpoints.to_string());
        assert!(refused.contains("may not be in the"), "{refused}");
    }
}
