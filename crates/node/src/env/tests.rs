use serde_json::{Value, json};

use super::*;

fn pod(containers: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "x", "b": "two \"q\"\n"}},
        "spec": {"serviceAccountName": "sa", "containers": containers}
    }))
    .expect("a pod")
}

fn services() -> Vec<Arc<Service>> {
    let list: Vec<Service> = serde_json::from_value(json!([
        {"metadata": {"name": "kubernetes", "namespace": "default"},
         "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}},
        {"metadata": {"name": "my-db", "namespace": "ns"}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 5432}]}},
        {"metadata": {"name": "headless", "namespace": "ns"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
        {"metadata": {"name": "other", "namespace": "elsewhere"}, "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 1}]}}
    ]))
    .expect("services");
    list.into_iter().map(Arc::new).collect()
}

fn sources() -> Sources {
    let mut sources = Sources::default();
    let map = json!({"metadata": {"name": "cm"}, "data": {"a": "1", "b.c": "2"}});
    sources.config_maps.insert("cm".into(), Some(Arc::new(serde_json::from_value(map).expect("a map"))));
    let secret = json!({"metadata": {"name": "s"}, "data": {"token": "c2VjcmV0"}});
    sources.secrets.insert("s".into(), Some(Arc::new(serde_json::from_value(secret).expect("a secret"))));
    sources
}

fn resolve_json(container: Value) -> Result<BTreeMap<String, String>, String> {
    let pod = pod(json!([container]));
    let (sources, services) = (sources(), services());
    let inputs = Inputs {
        pod: &pod,
        host_ip: "192.0.2.1",
        pod_ip: "10.244.0.5",
        allocatable: Allocatable { cpu_milli: 2000, memory_bytes: 4 << 30, ephemeral_storage_bytes: 0 },
        sources: &sources,
        services: &services,
        node_name: "n1",
    };
    let container = &pod.spec.as_ref().expect("spec").containers[0];
    resolve(container, &inputs).map(|list| list.into_iter().collect()).map_err(|e| e.to_string())
}

#[test]
fn references_see_what_stands_before_them() {
    let env = resolve_json(json!({"name": "c", "env": [
        {"name": "A", "value": "x"}, {"name": "B", "value": "$(A)-$(LATER)-$$(A)-$(MY_DB_SERVICE_HOST)"},
        {"name": "LATER", "value": "y"}, {"name": "A", "value": "$(A)z"}, {"name": "C", "value": "$( $(A"}]}))
    .expect("resolves");
    assert_eq!(env["B"], "x-$(LATER)-$(A)-10.96.0.9");
    assert_eq!((env["A"].as_str(), env["C"].as_str()), ("xz", "$( $(A"));
}

#[test]
fn whole_maps_come_first_and_single_keys_overrule_them() {
    let env = resolve_json(json!({"name": "c",
        "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "P_"}, {"secretRef": {"name": "s"}},
            {"configMapRef": {"name": "absent", "optional": true}}],
        "env": [{"name": "P_a", "value": "own"},
            {"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
            {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "zz", "optional": true}}}]}))
    .expect("resolves");
    assert_eq!((env["P_a"].as_str(), env["P_b.c"].as_str()), ("own", "2"));
    assert_eq!((env["token"].as_str(), env["T"].as_str()), ("secret", "secret"));
    assert!(!env.contains_key("NONE"));
}

#[test]
fn missing_sources_are_named_as_users_know_it() {
    let of = |source: Value| resolve_json(json!({"name": "c", "env": [{"name": "X", "valueFrom": source}]}));
    for (source, text) in [
        (json!({"configMapKeyRef": {"name": "nope", "key": "k"}}), "configmap \"nope\" not found"),
        (json!({"configMapKeyRef": {"name": "cm", "key": "k"}}), "couldn't find key k in ConfigMap ns/cm"),
        (json!({"secretKeyRef": {"name": "nope", "key": "k"}}), "secret \"nope\" not found"),
        (json!({"secretKeyRef": {"name": "s", "key": "k"}}), "couldn't find key k in Secret ns/s"),
        (json!({"fieldRef": {"fieldPath": "spec.magic"}}), "unsupported fieldPath: spec.magic"),
        (json!({"resourceFieldRef": {"resource": "limits.gold"}}), "unsupported container resource : limits.gold"),
    ] {
        assert_eq!(of(source), Err(text.to_owned()));
    }
}

#[test]
fn fields_of_the_pod_are_told() {
    let env = resolve_json(json!({"name": "c", "resources": {"limits": {"memory": "64Mi"}}, "env": [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "ALL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}},
        {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "REQ", "valueFrom": {"resourceFieldRef": {"resource": "requests.memory"}}}]}))
    .expect("resolves");
    let told: Vec<_> =
        ["NAME", "NODE", "IP", "APP", "ALL", "MEM", "CPU", "REQ"].iter().map(|k| env[*k].as_str()).collect();
    assert_eq!(told, ["p", "n1", "10.244.0.5", "x", "app=\"x\"\nb=\"two \\\"q\\\"\\n\"", "64", "2", "67108864"]);
}

#[test]
fn services_are_told_unless_links_are_off() {
    let mut pod = pod(json!([{"name": "c"}]));
    let env = service_variables(&services(), &pod);
    assert_eq!(env["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
    assert_eq!(env["KUBERNETES_SERVICE_PORT_HTTPS"], "443");
    assert_eq!(env["KUBERNETES_PORT"], "tcp://10.96.0.1:443");
    assert_eq!(env["MY_DB_PORT_5432_TCP_ADDR"], "10.96.0.9");
    assert!(!env.keys().any(|k| k.starts_with("HEADLESS") || k.starts_with("OTHER")));
    pod.spec.as_mut().expect("spec").enable_service_links = Some(false);
    let env = service_variables(&services(), &pod);
    assert!(env.contains_key("KUBERNETES_SERVICE_HOST") && !env.contains_key("MY_DB_PORT"));
}

#[test]
fn command_lines_are_filled_in_from_the_environment() {
    let environment = [("A".to_owned(), "1".to_owned())];
    let words = ["run".to_owned(), "--a=$(A)".to_owned(), "$(B) $$(A)".to_owned()];
    assert_eq!(command_line(&words, &environment).expect("short"), ["run", "--a=1", "$(B) $(A)"]);
}

#[test]
fn references_that_grow_without_end_are_refused_by_name() {
    let mut env = vec![json!({"name": "V0", "value": "0123456789"})];
    env.extend((1..40).map(|n| json!({"name": format!("V{n}"), "value": format!("$(V{0})$(V{0})", n - 1)})));
    let why = resolve_json(json!({"name": "c", "env": env})).expect_err("too long");
    assert_eq!(why, "environment variable V14 becomes longer than 128 KiB when its references are filled in");
    let long = vec![("A".to_owned(), "x".repeat(100_000))];
    let words = vec!["$(A)$(A)".to_owned()];
    assert!(matches!(command_line(&words, &long), Err(EnvError::LongWord)));
    assert!(matches!(command_line(&vec!["$(A)".to_owned(); 100], &long), Err(EnvError::LongCommand)));
}

#[test]
fn an_environment_that_no_program_takes_is_refused() {
    let env: Vec<_> = (0..100).map(|n| json!({"name": format!("V{n}"), "value": "x".repeat(100_000)})).collect();
    assert_eq!(
        resolve_json(json!({"name": "c", "env": env})).expect_err("too long"),
        "the environment is longer than 8 MiB"
    );
}
