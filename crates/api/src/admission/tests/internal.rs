use expect_test::expect;

use super::*;

#[test]
fn a_pod_autoscaler_names_what_it_scales() {
    let with = |spec: Value| Check::new().errors(Kind::PodAutoscaler, json!({"metadata": {"name": "r"}, "spec": spec}));
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "r-deployment"});
    assert_eq!(with(json!({"scaleTargetRef": target, "protocolType": "http1"})), "");
    expect!["missing field(s): spec"].assert_eq(&with(json!({})));
    expect![[r#"
        expected 0 <= -1 <= 1000: spec.containerConcurrency
        invalid value: gopher: spec.protocolType
        missing field(s): spec.scaleTargetRef.apiVersion, spec.scaleTargetRef.kind, spec.scaleTargetRef.name
        must not set the field(s): spec.scaleTargetRef.namespace"#]]
    .assert_eq(&with(json!({
        "containerConcurrency": -1, "protocolType": "gopher", "scaleTargetRef": {"namespace": "x"},
    })));
}

#[test]
fn a_serverless_service_has_a_mode() {
    let with = |spec: Value| Check::new().errors(Kind::ServerlessService, json!({"spec": spec}));
    let reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    assert_eq!(with(json!({"mode": "Serve", "objectRef": reference, "protocolType": "h2c"})), "");
    expect![[r#"
        invalid value: -1: spec.numActivators
        invalid value: Guess: spec.mode
        missing field(s): spec.protocolType"#]]
    .assert_eq(&with(json!({"mode": "Guess", "objectRef": reference, "numActivators": -1})));
    expect!["missing field(s): spec"].assert_eq(&with(json!({})));
}

#[test]
fn the_splits_of_an_ingress_add_up() {
    let with = |splits: Value| {
        let spec = json!({"rules": [{"hosts": ["a"], "http": {"paths": [{"splits": splits}]}}]});
        Check::new().errors(Kind::Ingress, json!({"metadata": {"name": "i", "namespace": "ns"}, "spec": spec}))
    };
    let split =
        |percent: i64| json!({"serviceName": "s", "serviceNamespace": "ns", "servicePort": 80, "percent": percent});
    assert_eq!(with(json!([split(0)])), "");
    expect!["traffic split percentage must total to 100, but was 90: spec.rules[0].http.paths[0].splits"]
        .assert_eq(&with(json!([split(40), split(50)])));
    expect!["missing field(s): spec.rules[0].http.paths[0]"].assert_eq(&with(json!([])));
    let mut foreign = split(100);
    foreign["serviceNamespace"] = json!("other");
    expect!["service namespace must match ingress namespace: spec.rules[0].http.paths[0].splits[0].serviceNamespace"]
        .assert_eq(&with(json!([foreign])));
    let spec = |spec: Value| Check::new().errors(Kind::Ingress, json!({"spec": spec}));
    expect!["missing field(s): spec"].assert_eq(&spec(json!({})));
    expect![[r#"
        invalid value: Maybe: spec.httpOption
        missing field(s): spec.rules, spec.tls[0].secretNamespace"#]]
    .assert_eq(&spec(json!({"httpOption": "Maybe", "tls": [{"secretName": "s"}]})));
}

#[test]
fn a_certificate_covers_names_of_its_domain() {
    let with = |spec: Value| Check::new().errors(Kind::Certificate, json!({"spec": spec}));
    assert_eq!(with(json!({"dnsNames": ["a.example.com"], "secretName": "s", "domain": "example.com"})), "");
    expect!["missing field(s): spec.dnsNames, spec.secretName"].assert_eq(&with(json!({})));
    expect!["invalid value: domain: spec.domain must be a suffix of, or match exactly, at least one entry in dnsNames"]
        .assert_eq(&with(json!({"dnsNames": ["aexample.com"], "secretName": "s", "domain": "example.com"})));
}

#[test]
fn a_metric_has_a_spec() {
    expect!["missing field(s): spec"].assert_eq(&Check::new().errors(Kind::Metric, json!({"metadata": {"name": "m"}})));
}
