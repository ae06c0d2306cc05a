use std::collections::BTreeSet;

use super::*;

fn deployments() -> Served<'static> {
    Served {
        kind: "Deployment",
        plural: "deployments",
        namespaced: true,
        subresources: &["status", "scale"],
        schema: None,
        list_kind: "DeploymentList",
    }
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            for (name, inner) in entries {
                match inner.as_str().and_then(|text| text.strip_prefix("#/components/schemas/")) {
                    Some(target) if name == "$ref" => drop(found.insert(target.to_owned())),
                    _ => references(inner, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|inner| references(inner, found)),
        _ => {}
    }
}

fn assert_whole(document: &Value) {
    let mut found = BTreeSet::new();
    references(document, &mut found);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in found {
        assert!(schemas.get(&name).is_some_and(Value::is_object), "{name} is not defined");
    }
}

#[test]
fn a_document_defines_all_it_refers_to() {
    let document = document("apps", "v1", &[deployments()]);
    assert_whole(&document);
    let schemas = &document["components"]["schemas"];
    let kind = json!([{"group": "apps", "version": "v1", "kind": "Deployment"}]);
    assert_eq!(schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"], kind);
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let strategy = &schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert_eq!(strategy["x-kubernetes-patch-strategy"], "retainKeys");
}

#[test]
fn patching_a_built_in_kind_offers_a_strategic_merge_and_validation() {
    let document = document("apps", "v1", &[deployments()]);
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    assert!(patch["parameters"].as_array().unwrap().iter().any(|parameter| parameter["name"] == "fieldValidation"));
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["patch"];
    assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"], "Scale");
}

#[test]
fn kinds_of_definitions_offer_no_strategic_merge() {
    let schema =
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}}});
    let served = Served {
        kind: "Widget",
        plural: "widgets",
        namespaced: false,
        subresources: &[],
        schema: Some(&schema),
        list_kind: "WidgetList",
    };
    let document = document("example.com", "v1", &[served]);
    assert_whole(&document);
    let widget = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(widget["properties"]["spec"]["properties"]["n"]["type"], "integer");
    let content = &document["paths"]["/apis/example.com/v1/widgets/{name}"]["patch"]["requestBody"]["content"];
    assert!(content["application/merge-patch+json"].is_object());
    assert!(content["application/strategic-merge-patch+json"].is_null());
}

#[test]
fn kinds_of_knative_are_described_like_those_of_definitions() {
    let served = Served {
        kind: "Service",
        plural: "services",
        namespaced: true,
        subresources: &["status"],
        schema: None,
        list_kind: "ServiceList",
    };
    let document = document("serving.knative.dev", "v1", &[served]);
    assert_whole(&document);
    let service = &document["components"]["schemas"]["dev.knative.serving.v1.Service"];
    assert_eq!(service["x-kubernetes-group-version-kind"][0]["group"], "serving.knative.dev");
    let patch = &document["paths"]["/apis/serving.knative.dev/v1/namespaces/{namespace}/services/{name}"]["patch"];
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_null());
}

#[test]
fn every_built_in_kind_can_be_described() {
    for (group, version) in
        [("", "v1"), ("apiextensions.k8s.io", "v1"), ("networking.k8s.io", "v1"), ("autoscaling", "v2")]
    {
        let kinds: Vec<String> = builtin::kinds(group, version).map(|ty| ty.name.to_string()).collect();
        let served: Vec<Served<'_>> = kinds
            .iter()
            .map(|kind| Served {
                kind,
                plural: kind,
                namespaced: true,
                subresources: &[],
                schema: None,
                list_kind: kind,
            })
            .collect();
        assert!(!served.is_empty());
        assert_whole(&document(group, version, &served));
    }
}

#[test]
fn the_index_points_at_each_document_by_its_content() {
    let hash = hash(b"{}");
    assert_eq!(hash.len(), 64);
    let index = index([("api/v1", hash.as_str())]);
    assert_eq!(index["paths"]["api/v1"]["serverRelativeURL"], format!("/openapi/v3/api/v1?hash={hash}"));
    assert_eq!(location("", "v1"), "api/v1");
    assert_eq!(location("apps", "v1"), "apis/apps/v1");
}
