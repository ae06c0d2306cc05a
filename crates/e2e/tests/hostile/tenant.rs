//! Who administers one namespace, and nothing else.

use std::process::Output;

use knoll_e2e::Namespace;
use serde_json::{Value, json};

use crate::Watchman;

/// A namespace and a token of its administrator.
struct Tenant {
    space: Namespace,
    token: String,
    server: String,
}

impl Tenant {
    fn new(prefix: &str) -> Self {
        let space = Namespace::new(prefix);
        space.kubectl(&["create", "serviceaccount", "tenant"]);
        let account = format!("{}:tenant", space.name);
        space.kubectl(&["create", "rolebinding", "tenant", "--clusterrole=admin", "--serviceaccount", &account]);
        let token = space.kubectl(&["create", "token", "tenant"]).trim().to_owned();
        let server = space.cluster.instance()["api"].as_str().expect("it has one").to_owned();
        Self { space, token, server }
    }

    fn kubectl(&self, words: &[&str], input: &str) -> Output {
        // No kubeconfig: the administrator's certificate must not speak for the tenant.
        let ca = self.space.cluster.kubectl(&[
            "config",
            "view",
            "--raw",
            "-o",
            "jsonpath={.clusters[0].cluster.certificate-authority-data}",
        ]);
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "tenant",
            "clusters": [{"name": "knoll", "cluster": {"server": self.server, "certificate-authority-data": ca.trim()}}],
            "users": [{"name": "tenant", "user": {"token": self.token}}],
            "contexts": [{"name": "tenant", "context": {"cluster": "knoll", "user": "tenant", "namespace": self.space.name}}],
        });
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), kubeconfig.to_string()).expect("it is written");
        let path = file.path().display().to_string();
        let mut all = vec!["--kubeconfig", path.as_str()];
        all.extend(words);
        self.space.cluster.try_kubectl(&all, input)
    }

    /// The tenant may do this.
    fn may(&self, words: &[&str], input: &str) -> String {
        let output = self.kubectl(words, input);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the tenant may not {}: {said}", words.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The tenant may not do this; the refusal has these words.
    fn may_not(&self, words: &[&str], input: &str, why: &str) {
        let output = self.kubectl(words, input);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "the tenant may {}", words.join(" "));
        assert!(said.contains(why), "{}: {why:?} is missing in {said}", words.join(" "));
    }

    fn creates(&self, object: &Value) {
        self.may(&["create", "-f", "-"], &object.to_string());
    }

    fn cannot_create(&self, object: &Value, why: &str) {
        self.may_not(&["create", "-f", "-"], &object.to_string(), why);
    }
}

#[test]
fn no_role_grants_more_than_its_author_has() {
    let tenant = Tenant::new("escalate");
    let _watchman = Watchman::new(&tenant.space);
    tenant.may(&["create", "role", "reader", "--verb=get", "--resource=secrets"], "");
    let everything = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "king"}, "rules": everything});
    tenant.cannot_create(&role, "is attempting to grant RBAC permissions not currently held");
    let king = ["create", "rolebinding", "king", "--clusterrole=cluster-admin", "--serviceaccount=default:default"];
    tenant.may_not(&king, "", "is attempting to grant RBAC permissions not currently held");
    let patch = json!({"rules": everything}).to_string();
    let grow = ["patch", "role", "reader", "--type=merge", "-p", &patch];
    tenant.may_not(&grow, "", "is attempting to grant RBAC permissions not currently held");
    tenant.may_not(
        &["create", "clusterrolebinding", "king", "--clusterrole=cluster-admin", "--user=tenant"],
        "",
        "forbidden",
    );
    for who in ["--as=kubernetes-admin", "--as=system:serviceaccount:kube-system:default"] {
        tenant.may_not(&["get", "secrets", who], "", "cannot impersonate");
    }
    tenant.may_not(&["get", "secrets", "--as=tenant", "--as-group=system:masters"], "", "cannot impersonate");
}

#[test]
fn other_namespaces_and_what_controllers_own_stay_out_of_reach() {
    let tenant = Tenant::new("reach");
    let _watchman = Watchman::new(&tenant.space);
    for words in [
        &["get", "secrets", "-n", "knative-serving"][..],
        &["get", "secrets", "-A"],
        &["get", "nodes"],
        &["delete", "namespace", "default"],
        &["patch", "configmap", "config-network", "-n", "knative-serving", "--type=merge", "-p", "{}"],
        &["create", "token", "controller", "-n", "knative-serving"],
    ] {
        tenant.may_not(words, "", "orbidden");
    }
    let ingress = json!({
        "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress", "metadata": {"name": "mine"}, "spec": {},
    });
    tenant.cannot_create(&ingress, "orbidden");
}

#[test]
fn no_service_leads_to_the_machine_itself() {
    let tenant = Tenant::new("loopback");
    let _watchman = Watchman::new(&tenant.space);
    let service =
        |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "way"}, "spec": spec});
    let ports = json!([{"port": 6443}]);
    // The role of an administrator has no right to write them; whoever has it leads nobody here, either.
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "way"},
        "subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": ports}],
    });
    tenant.cannot_create(&endpoints, "orbidden");
    let account = format!("{}:tenant", tenant.space.name);
    tenant.space.kubectl(&["create", "role", "leads", "--verb=create", "--resource=endpoints,endpointslices"]);
    tenant.space.kubectl(&["create", "rolebinding", "leads", "--role=leads", "--serviceaccount", &account]);
    tenant.creates(&endpoints);
    for address in ["127.0.0.1", "169.254.77.1", "0.0.0.0", "224.0.0.1"] {
        tenant.cannot_create(&service(json!({"ports": ports, "externalIPs": [address]})), "externalIPs");
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "other"},
            "subsets": [{"addresses": [{"ip": address}], "ports": ports}],
        });
        tenant.cannot_create(&endpoints, address);
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "way"}, "addressType": "IPv4",
            "endpoints": [{"addresses": [address]}], "ports": [{"port": 6443, "name": "x", "protocol": "TCP"}],
        });
        tenant.cannot_create(&slice, address);
    }
}

#[test]
fn objects_that_once_ended_the_server_are_refused_or_carried_out() {
    let tenant = Tenant::new("bombs");
    let _watchman = Watchman::new(&tenant.space);
    let pod = |name: &str, spec: Value| {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "main", "image": "localhost:5000/e2e/actor:1"}]);
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    };
    tenant.cannot_create(&pod("accents", json!({"hostname": "é".repeat(40)})), "spec.hostname");
    tenant.cannot_create(
        &pod("endless", json!({"terminationGracePeriodSeconds": i64::MIN})),
        "terminationGracePeriodSeconds",
    );
    tenant.cannot_create(
        &pod("endless", json!({"terminationGracePeriodSeconds": i64::MAX})),
        "terminationGracePeriodSeconds",
    );
    tenant.creates(&pod("patient", json!({"terminationGracePeriodSeconds": i32::MAX})));
    tenant.may(&["delete", "pod", "patient", "--wait=false"], "");
    tenant.may(&["delete", "pod", "patient", "--force", "--grace-period=0"], "");
    tenant.creates(&pod("junk", json!({})));
    let junk = json!({"status": {"phase": 7, "containerStatuses": "none", "podIP": "é".repeat(40)}}).to_string();
    // No tenant may write one. Whoever may, writes no junk.
    let write = ["patch", "pod", "junk", "--subresource=status", "--type=merge", "-p", &junk];
    tenant.may_not(&write, "", "orbidden");
    let refused = tenant.space.kubectl_refused(&write, "");
    assert!(refused.contains("status.containerStatuses: must be a list"), "{refused}");
}

#[test]
fn patches_and_bodies_have_budgets() {
    let tenant = Tenant::new("budget");
    let _watchman = Watchman::new(&tenant.space);
    tenant.may(&["create", "configmap", "seed", &format!("--from-literal=a={}", "x".repeat(1 << 10))], "");
    let mut operations =
        vec![json!({"op": "add", "path": "/metadata/annotations", "value": {"a": "x".repeat(1 << 10)}})];
    for round in 0..20 {
        let to = format!("/metadata/annotations/n{round}");
        operations.push(json!({"op": "copy", "from": "/metadata/annotations", "path": to}));
    }
    let patch = Value::from(operations).to_string();
    let double = ["patch", "configmap", "seed", "--type=json", "-p", &patch];
    tenant.may_not(&double, "", "what the copies of a JSON patch make together is limited");
    let deep = "[".repeat(20_000) + &"]".repeat(20_000);
    let body = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"deep"}},"data":{deep}}}"#);
    // As it is: kubectl itself does not read what is so deep.
    let path = format!("/api/v1/namespaces/{}/configmaps", tenant.space.name);
    tenant.may_not(&["create", "--raw", &path, "-f", "-"], &body, "nests deeper than 100 levels");
    let big = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"a": "x".repeat(2 << 20)}});
    tenant.may_not(&["create", "-f", "-"], &big.to_string(), "Too long: may not be more than 1048576 bytes");
}

/// A pod that stays, and runs commands.
fn shell(name: &str) -> Value {
    let container =
        json!({"name": "main", "image": "localhost:5000/e2e/shell:1", "command": ["/bin/sh", "-c", "sleep 1000"]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 0, "containers": [container]}})
}

#[test]
fn commands_run_in_pods_of_the_own_namespace_only() {
    let tenant = Tenant::new("exec");
    let _watchman = Watchman::new(&tenant.space);
    let victim = Namespace::within(tenant.space.cluster.clone(), "exec-victim");
    let archive = victim.cluster.images.join("shell.tar").display().to_string();
    victim.cluster.succeed(&victim.cluster.knoll, &["image", "load", &archive], "");
    tenant.creates(&shell("own"));
    victim.apply(&shell("theirs").to_string());
    for (space, name) in [(&tenant.space, "pod/own"), (&victim, "pod/theirs")] {
        space.kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", name]);
    }
    assert_eq!(tenant.may(&["exec", "own", "--", "/bin/sh", "-c", "echo in"], ""), "in\n");
    let theirs = ["-n", &victim.name];
    for words in [
        &["exec", "theirs", "--", "/bin/sh", "-c", "echo in"][..],
        &["attach", "theirs"],
        &["logs", "theirs"],
        &["port-forward", "theirs", ":80"],
        &["debug", "theirs", "--image=localhost:5000/e2e/shell:1"],
        &["delete", "pod", "theirs"],
    ] {
        tenant.may_not(&[&theirs[..], words].concat(), "", "orbidden");
    }
}

#[test]
fn nobody_answers_to_anothers_name() {
    let tenant = Tenant::new("names");
    let _watchman = Watchman::new(&tenant.space);
    let victim = Namespace::within(tenant.space.cluster.clone(), "names-victim");
    let archive = victim.cluster.images.join("shell.tar").display().to_string();
    victim.cluster.succeed(&victim.cluster.knoll, &["image", "load", &archive], "");
    victim.actor();
    let name = format!("actor.{}.svc.cluster.local", victim.name);
    let address = || {
        let service = victim.object("services", "actor")["spec"].clone();
        service["externalName"].as_str().or(service["clusterIP"].as_str()).unwrap_or_default().to_owned()
    };
    let before = address();
    let mapping = |domain: &str| {
        json!({
            "apiVersion": "serving.knative.dev/v1beta1", "kind": "DomainMapping", "metadata": {"name": domain},
            "spec": {"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "mine"}},
        })
    };
    for domain in [name.as_str(), "kubernetes.default.svc.cluster.local", "evil.svc.cluster.local"] {
        tenant.cannot_create(&mapping(domain), "must not be a subdomain of cluster local domain");
    }
    let service = |name: &str| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    tenant.cannot_create(&service(&format!("actor.{}", victim.name)), "metadata.name");
    let mut foreign = service("actor");
    foreign["metadata"]["namespace"] = victim.name.as_str().into();
    tenant.cannot_create(&foreign, "orbidden");
    // One of the same name in the own namespace is the own one's.
    tenant.creates(&service("actor"));
    let look_up = format!("wget -q -O - http://{name}/");
    let container = json!({"image": "localhost:5000/e2e/shell:1", "command": ["/bin/sh", "-c", look_up]});
    assert_eq!(tenant.space.run_pod("asks", container), "actor \n");
    assert_eq!(address(), before);
}
