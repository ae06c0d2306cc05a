use expect_test::expect;

use super::*;
use crate::labels::SYSTEM_NAMESPACE;

#[test]
fn a_plain_service_is_fine_and_warns_of_open_security() {
    let check = Check::new();
    let object = check.defaulted(Kind::Service, service());
    let (errors, warnings) = validate(Kind::Service, Operation::Create, &object, None, &check.context());
    assert!(errors.is_empty(), "{errors}");
    expect![[r#"
        Kubernetes default value is insecure, Knative may default this to secure in a future release: spec.template.spec.containers[0].securityContext.allowPrivilegeEscalation, spec.template.spec.containers[0].securityContext.capabilities, spec.template.spec.containers[0].securityContext.runAsNonRoot, spec.template.spec.containers[0].securityContext.seccompProfile"#]]
    .assert_eq(&warnings.to_string());
}

#[test]
fn names_are_dns_labels() {
    let with_meta = |metadata: Value| {
        let mut object = service();
        object["metadata"] = metadata;
        Check::new().errors(Kind::Service, object)
    };
    expect![[r#"
        not a DNS 1035 label: [a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')]: metadata.name"#]]
    .assert_eq(&with_meta(json!({"name": "do.not.use.dots"})));
    expect!["name or generateName is required: metadata.name"].assert_eq(&with_meta(json!({})));
    assert_eq!(with_meta(json!({"generateName": "hello-"})), "");
}

#[test]
fn autoscaling_annotations_belong_to_the_template() {
    let mut object = service();
    object["metadata"]["annotations"] = json!({"autoscaling.knative.dev/min-scale": "1"});
    expect![[r#"
        invalid key name "autoscaling.knative.dev/min-scale": metadata.annotations
        autoscaling annotations must be put under "spec.template.metadata.annotations" to work"#]]
    .assert_eq(&Check::new().errors(Kind::Service, object));
}

#[test]
fn rollouts_last_whole_seconds() {
    let with = |value: &str| {
        let mut object = service();
        object["metadata"]["annotations"] = json!({"serving.knative.dev/rollout-duration": value});
        Check::new().errors(Kind::Service, object)
    };
    let path = "metadata.annotations.serving.knative.dev/rollout-duration";
    assert_eq!(with("0s"), "");
    assert_eq!(with("1.5s"), format!("rollout-duration=1.5s is not at second precision: {path}"));
    assert_eq!(with("-2s"), format!("rollout-duration=-2s must be positive: {path}"));
    assert_eq!(with("soon"), format!("invalid value: soon: {path}"));
}

#[test]
fn a_revision_is_named_after_its_parent() {
    let with = |name: &str| {
        let mut object = service();
        object["spec"]["template"]["metadata"] = json!({"name": name});
        object
    };
    let check = Check::new();
    assert_eq!(check.errors(Kind::Service, with("hello-v1")), "");
    expect![[r#"invalid value: "other-v1" must have prefix "hello-": spec.template.metadata.name"#]]
        .assert_eq(&check.errors(Kind::Service, with("other-v1")));
    let mut generated = with("hello-v1");
    generated["metadata"] = json!({"generateName": "hello-"});
    expect!["must not set the field(s): spec.template.metadata.name"]
        .assert_eq(&check.errors(Kind::Service, generated));
}

#[test]
fn a_named_revision_changes_only_with_its_name() {
    let check = Check::new();
    let with = |name: &str, image: &str| {
        let mut object = service();
        object["spec"]["template"]["metadata"] = json!({"name": name});
        object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        check.defaulted(Kind::Service, object)
    };
    let old = with("hello-v1", "helloworld:bar");
    assert_eq!(check.update_errors(Kind::Service, &old, with("hello-v2", "helloworld:foo")), "");
    assert_eq!(check.update_errors(Kind::Service, &old, with("hello-v1", "helloworld:bar")), "");
    let path = "{*v1.RevisionTemplateSpec}.Spec.PodSpec.Containers[0].Image";
    let expected = format!(
        "Saw the following changes without a name change (-old +new): spec.template.metadata.name\n\
         {path}:\n\t-: \"helloworld:bar\"\n\t+: \"helloworld:foo\"\n"
    );
    assert_eq!(check.update_errors(Kind::Service, &old, with("hello-v1", "helloworld:foo")), expected);
}

#[test]
fn the_creator_stays() {
    let check = Check::new();
    let old = check.defaulted(Kind::Service, service());
    let mut new = old.clone();
    new["metadata"]["annotations"]["serving.knative.dev/creator"] = json!("mallory");
    new["metadata"]["annotations"]["serving.knative.dev/lastModifier"] = json!("mallory");
    expect![[r#"
        annotation value is immutable: metadata.annotations.serving.knative.dev/creator
        invalid value: mallory: metadata.annotations.serving.knative.dev/lastModifier"#]]
    .assert_eq(&check.update_errors(Kind::Service, &old, new));
}

#[test]
fn writes_of_status_are_not_checked() {
    let check = Check::new();
    let found = validate(Kind::Service, Operation::UpdateStatus, &json!({}), Some(&json!({})), &check.context());
    assert_eq!(found, Default::default());
}

#[test]
fn revisions_are_immutable() {
    let check = Check::new();
    let revision = |image: &str| json!({"metadata": {"name": "r"}, "spec": {"containers": [{"image": image}]}});
    let old = check.defaulted(Kind::Revision, revision("a1"));
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({"x": "y"});
    assert_eq!(check.update_errors(Kind::Revision, &old, new.clone()), "");
    new["spec"]["containers"][0]["image"] = json!("b1");
    let expected = "Immutable fields changed (-old +new): spec\n\
                    {v1.RevisionSpec}.PodSpec.Containers[0].Image:\n\t-: \"a1\"\n\t+: \"b1\"\n";
    assert_eq!(check.update_errors(Kind::Revision, &old, new), expected);
}

#[test]
fn labels_of_owners_tell_the_truth() {
    let check = Check::new();
    let labels = json!({"serving.knative.dev/service": "hello"});
    let mut object = json!({"metadata": {"name": "c", "labels": labels}, "spec": service()["spec"]});
    expect!["missing field(s): metadata.labels.serving.knative.dev/service"]
        .assert_eq(&check.errors(Kind::Configuration, object.clone()));
    object["metadata"]["ownerReferences"] = json!([{"kind": "Service", "name": "hello"}]);
    assert_eq!(check.errors(Kind::Configuration, object), "");
    let labels = json!({"serving.knative.dev/configuration": "hello"});
    let revision = json!({"metadata": {"name": "r", "labels": labels}, "spec": {"containers": [{"image": "a1"}]}});
    expect!["missing field(s): metadata.labels.serving.knative.dev/configuration"]
        .assert_eq(&check.errors(Kind::Revision, revision));
}

#[test]
fn networking_annotations_of_a_template_are_known_ones() {
    let mut object = service();
    object["spec"]["template"]["metadata"] =
        json!({"annotations": {"networking.knative.dev/ingress.class": "x", "networking.knative.dev/nope": "x"}});
    expect![[r#"invalid key name "networking.knative.dev/nope": spec.template.metadata.annotations"#]]
        .assert_eq(&Check::new().errors(Kind::Service, object));
}

#[test]
fn the_sizes_of_the_queue_are_amounts() {
    let mut object = service();
    object["spec"]["template"]["metadata"] = json!({"annotations": {
        "queue.sidecar.serving.knative.dev/cpu-resource-limit": "much",
        "queue.sidecar.serving.knative.dev/resource-percentage": "0.01",
        "serving.knative.dev/progress-deadline": "1ms",
    }});
    expect![[r#"
        expected 0.1 <= 0.01 <= 100: spec.template.metadata.annotations.[queue.sidecar.serving.knative.dev/resource-percentage]
        invalid value: much: spec.template.metadata.annotations.[queue.sidecar.serving.knative.dev/cpu-resource-limit]
        progress-deadline=1ms is not at second precision: spec.template.metadata.annotations.serving.knative.dev/progress-deadline"#]]
    .assert_eq(&Check::new().errors(Kind::Service, object));
}

#[test]
fn limits_of_requests_stay_within_the_cluster() {
    let mut object = service();
    object["spec"]["template"]["spec"]["timeoutSeconds"] = json!(601);
    object["spec"]["template"]["spec"]["containerConcurrency"] = json!(1001);
    expect![[r#"
        expected 0 <= 1001 <= 1000: spec.template.spec.containerConcurrency
        expected 0 <= 601 <= 600: spec.template.spec.timeoutSeconds"#]]
    .assert_eq(&Check::new().errors(Kind::Service, object));
}

#[test]
fn traffic_of_a_service_adds_up() {
    let with = |traffic: Value| {
        let mut object = service();
        object["spec"]["traffic"] = traffic;
        Check::new().errors(Kind::Service, object)
    };
    assert_eq!(with(json!([{"percent": 60}, {"revisionName": "hello-1", "percent": 40, "tag": "old"}])), "");
    expect!["Traffic targets sum to 99, want 100: spec.traffic"].assert_eq(&with(json!([{"percent": 99}])));
    expect![[r#"may not set revisionName "hello-1" when latestRevision is true: spec.traffic[0].latestRevision"#]]
        .assert_eq(&with(json!([{"percent": 100, "revisionName": "hello-1", "latestRevision": true}])));
    expect![[r#"may not set revisionName "" when latestRevision is false: spec.traffic[0].latestRevision"#]]
        .assert_eq(&with(json!([{"percent": 100, "latestRevision": false}])));
    expect![[r#"
        Multiple definitions for "a": spec.traffic[0].tag, spec.traffic[1].tag
        expected 0 <= -1 <= 100: spec.traffic[1].percent
        expected 0 <= 101 <= 100: spec.traffic[0].percent
        must not set the field(s): spec.traffic[0].configurationName, spec.traffic[1].url"#]]
    .assert_eq(&with(json!([
        {"percent": 101, "tag": "a", "configurationName": "c"},
        {"percent": -1, "tag": "a", "url": "http://x"},
    ])));
    assert!(with(json!([{"percent": 100, "tag": "No"}])).ends_with(": spec.traffic.tag[0]"));
}

#[test]
fn a_route_names_what_it_routes_to() {
    let with = |traffic: Value| {
        let object = json!({"metadata": {"name": "r"}, "spec": {"traffic": traffic}});
        Check::new().errors(Kind::Route, object)
    };
    assert_eq!(with(json!([{"configurationName": "c", "percent": 100}])), "");
    expect!["Traffic targets sum to 0, want 100: spec.traffic"].assert_eq(&with(json!([])));
    expect!["expected exactly one, got neither: spec.traffic[0].configurationName, spec.traffic[0].revisionName"]
        .assert_eq(&with(json!([{"percent": 100}])));
    expect!["expected exactly one, got both: spec.traffic[0].configurationName, spec.traffic[0].revisionName"]
        .assert_eq(&with(json!([{"percent": 100, "configurationName": "c", "revisionName": "r"}])));
    let refused = with(json!([{"percent": 100, "revisionName": "b ad"}]));
    assert!(
        refused.starts_with("invalid key name \"b ad\": spec.traffic[0].revisionName\nname part must"),
        "{refused}"
    );
}

#[test]
fn a_domain_is_mapped_by_its_full_name() {
    let with = |name: &str, reference: Value| {
        let object = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"ref": reference}});
        Check::new().errors(Kind::DomainMapping, object)
    };
    let service = json!({"name": "s", "kind": "Service", "apiVersion": "serving.knative.dev/v1"});
    assert_eq!(with("example.com", service.clone()), "");
    expect![[r#"invalid name "example": name: Invalid value: "example": should be a domain with at least two segments separated by dots: metadata.name"#]]
    .assert_eq(&with("example", service.clone()));
    expect![[r#"invalid name "a.svc.cluster.local": must not be a subdomain of cluster local domain "cluster.local": metadata.name"#]]
    .assert_eq(&with("a.svc.cluster.local", service));
    expect![[r#"
        mismatched namespaces: spec.ref.namespace
        parent namespace: "ns" does not match ref: "other"
        missing field(s): spec.ref.apiVersion, spec.ref.kind, spec.ref.name
        must not set the field(s): spec.ref.group"#]]
    .assert_eq(&with("example.com", json!({"namespace": "other", "group": "g"})));
}

#[test]
fn config_maps_are_checked_with_their_example() {
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
    let none = crate::config::Data::new();
    assert_eq!(validate_config_map(SYSTEM_NAMESPACE, "config-other", &map(&[("a", "b")]), &none), Ok(()));
    let refused =
        validate_config_map(SYSTEM_NAMESPACE, "config-gc", &map(&[("min-non-active-revisions", "-1")]), &none);
    expect![[r#"admission webhook "config.webhook.serving.knative.dev" denied the request: validation failed: min-non-active-revisions must be non-negative, was: -1"#]]
    .assert_eq(&config_map_denial(SYSTEM_NAMESPACE, &refused.expect_err("a negative count")));
    let checksum = [("knative.dev/example-checksum", "00000000")];
    let edited = validate_config_map(SYSTEM_NAMESPACE, "config-gc", &map(&[("_example", "x: y")]), &map(&checksum));
    expect![[r#"the update modifies a key in "_example" which is probably not what you want. Instead, copy the respective setting to the top-level of the ConfigMap, directly below "data""#]]
    .assert_eq(&edited.expect_err("another checksum").to_string());
}
