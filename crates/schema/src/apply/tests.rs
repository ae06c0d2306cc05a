use serde_json::json;

use super::*;
use crate::lookup;

struct Cluster {
    group: &'static str,
    kind: &'static str,
    live: Option<Value>,
    /// Seconds; every write is one later than the one before.
    now: i64,
}

impl Cluster {
    fn new(group: &'static str, kind: &'static str) -> Self {
        Self { group, kind, live: None, now: 1_700_000_000 }
    }

    fn api_version(&self) -> String {
        if self.group.is_empty() { "v1".into() } else { format!("{}/v1", self.group) }
    }

    fn with<T>(&mut self, manager: &str, subresource: &str, write: impl FnOnce(&Writer<'_>, Option<&Value>) -> T) -> T {
        self.now += 1;
        let api_version = self.api_version();
        let ignored: &[&[&str]] = if subresource == "status" { &[&["spec"], &["metadata"]] } else { &[&["status"]] };
        let writer = Writer {
            ty: lookup(self.group, "v1", self.kind).unwrap(),
            api_version: &api_version,
            kind: self.kind,
            manager,
            subresource,
            ignored,
            now: Timestamp::from_second(self.now).unwrap(),
        };
        write(&writer, self.live.as_ref())
    }

    fn object(&self, rest: Value) -> Value {
        let mut object =
            json!({"apiVersion": self.api_version(), "kind": self.kind, "metadata": {"name": "o", "namespace": "n"}});
        for (name, value) in rest.as_object().unwrap() {
            match (name.as_str(), value) {
                ("metadata", Value::Object(metadata)) => {
                    metadata.iter().for_each(|(name, value)| object["metadata"][name] = value.clone());
                }
                _ => object[name] = value.clone(),
            }
        }
        object
    }

    fn try_apply(&mut self, manager: &str, rest: Value, force: bool) -> Result<(), ApplyError> {
        let config = self.object(rest);
        let after = self.with(manager, "", |writer, live| apply(writer, live, &config, force))?;
        self.live = Some(after);
        Ok(())
    }

    fn apply(&mut self, manager: &str, rest: Value) {
        self.try_apply(manager, rest, false).unwrap();
    }

    fn update(&mut self, manager: &str, change: impl FnOnce(&mut Value)) {
        let mut new = self.live.clone().unwrap();
        change(&mut new);
        self.live = Some(self.with(manager, "", |writer, live| track(writer, live, new)));
    }

    fn create(&mut self, manager: &str, rest: Value) {
        let new = self.object(rest);
        self.live = Some(self.with(manager, "", |writer, live| track(writer, live, new)));
    }

    fn live(&self) -> &Value {
        self.live.as_ref().unwrap()
    }

    /// What a manager owns.
    fn fields(&self, manager: &str) -> Value {
        let entries = self.live()["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        entries
            .into_iter()
            .find(|entry| entry["manager"] == manager)
            .map_or(Value::Null, |entry| entry["fieldsV1"].clone())
    }
}

fn config_map() -> Cluster {
    Cluster::new("", "ConfigMap")
}

#[test]
fn applying_creates_and_records_what_was_said() {
    let mut cluster = config_map();
    cluster.apply("m1", json!({"metadata": {"labels": {"l": "1"}}, "data": {"a": "1"}}));
    let wanted = json!([{
        "manager": "m1",
        "operation": "Apply",
        "apiVersion": "v1",
        "time": "2023-11-14T22:13:21Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:a": {}}, "f:metadata": {"f:labels": {"f:l": {}}}},
    }]);
    assert_eq!(cluster.live()["metadata"]["managedFields"], wanted);
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let mut cluster = config_map();
    cluster.apply("m1", json!({"data": {"a": "1"}}));
    let before = cluster.live().clone();
    cluster.apply("m1", json!({"data": {"a": "1"}}));
    assert_eq!(cluster.live(), &before);
}

#[test]
fn what_is_no_longer_said_goes_unless_another_owns_it() {
    let mut cluster = config_map();
    cluster.apply("m1", json!({"data": {"a": "1", "b": "2", "c": "3"}}));
    cluster.apply("m2", json!({"data": {"b": "2"}}));
    cluster.apply("m1", json!({"data": {"a": "1"}}));
    assert_eq!(cluster.live()["data"], json!({"a": "1", "b": "2"}));
    cluster.apply("m1", json!({}));
    assert_eq!(cluster.live()["data"], json!({"b": "2"}));
    cluster.apply("m2", json!({}));
    assert!(cluster.live().get("data").is_none());
}

#[test]
fn another_value_conflicts_and_force_takes_the_field() {
    let mut cluster = config_map();
    cluster.apply("m1", json!({"data": {"a": "1"}}));
    let error = cluster.try_apply("m2", json!({"data": {"a": "2"}}), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"m1\": .data.a");
    cluster.try_apply("m2", json!({"data": {"a": "2"}}), true).unwrap();
    assert_eq!(cluster.live()["data"], json!({"a": "2"}));
    assert_eq!(cluster.fields("m1"), Value::Null);
    assert_eq!(cluster.fields("m2"), json!({"f:data": {"f:a": {}}}));
}

#[test]
fn the_same_value_is_shared() {
    let mut cluster = config_map();
    cluster.apply("m1", json!({"data": {"a": "1"}}));
    cluster.apply("m2", json!({"data": {"a": "1"}}));
    assert_eq!(cluster.fields("m1"), cluster.fields("m2"));
}

fn deployment(replicas: i64, image: &str) -> Value {
    json!({"spec": {
        "replicas": replicas,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
    }})
}

#[test]
fn conflicts_name_their_fields_by_key() {
    let mut cluster = Cluster::new("apps", "Deployment");
    cluster.apply("m1", deployment(1, "i:1"));
    let error = cluster.try_apply("m2", deployment(2, "i:2"), false).unwrap_err();
    let wanted = "Apply failed with 2 conflicts: conflicts with \"m1\":\n\
        - .spec.replicas\n\
        - .spec.template.spec.containers[name=\"c\"].image";
    assert_eq!(error.to_string(), wanted);
    let ApplyError::Conflicts(conflicts) = error else { panic!("these are conflicts") };
    assert_eq!(conflicts[0].message(), "conflict with \"m1\"");
}

#[test]
fn an_update_is_recorded_and_conflicts_by_version() {
    let mut cluster = Cluster::new("apps", "Deployment");
    cluster.apply("m1", deployment(1, "i:1"));
    cluster.update("kubectl-scale", |object| object["spec"]["replicas"] = json!(5));
    assert_eq!(cluster.fields("kubectl-scale"), json!({"f:spec": {"f:replicas": {}}}));
    let error = cluster.try_apply("m1", deployment(2, "i:1"), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-scale\" using apps/v1: .spec.replicas"
    );
}

#[test]
fn a_create_is_recorded_down_to_its_leaves() {
    let mut cluster = Cluster::new("apps", "Deployment");
    cluster.create("kubectl-create", deployment(1, "i"));
    let wanted = json!({"f:spec": {
        "f:replicas": {},
        "f:selector": {},
        "f:template": {
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}}}},
        },
    }});
    assert_eq!(cluster.fields("kubectl-create"), wanted);
    let entry = &cluster.live()["metadata"]["managedFields"][0];
    assert_eq!((&entry["operation"], &entry["apiVersion"]), (&json!("Update"), &json!("apps/v1")));
}

#[test]
fn items_merge_by_key_and_keep_what_others_put_in() {
    let mut cluster = Cluster::new("apps", "Deployment");
    cluster.apply("m1", deployment(1, "i"));
    cluster.update("injector", |object| {
        let containers = object["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap();
        containers.insert(0, json!({"name": "sidecar", "image": "s"}));
        containers[1]["imagePullPolicy"] = json!("Always");
    });
    cluster.apply("m1", deployment(1, "i:2"));
    let wanted = json!([
        {"name": "sidecar", "image": "s"},
        {"name": "c", "image": "i:2", "imagePullPolicy": "Always"},
    ]);
    assert_eq!(cluster.live()["spec"]["template"]["spec"]["containers"], wanted);
}

#[test]
fn an_item_goes_with_all_in_it_unless_another_owns_it_too() {
    let two = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "a"}, {"name": "b", "image": "b"}]}}}});
    let one = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "a"}]}}}});
    let mut cluster = Cluster::new("apps", "Deployment");
    cluster.apply("m1", two.clone());
    // A default, as the server fills it in: nobody owns it.
    cluster.live.as_mut().unwrap()["spec"]["template"]["spec"]["containers"][1]["imagePullPolicy"] = json!("Always");
    cluster.apply("m1", one.clone());
    assert_eq!(cluster.live()["spec"]["template"]["spec"]["containers"], json!([{"name": "a", "image": "a"}]));

    cluster.apply("m1", two.clone());
    cluster.update("other", |object| object["spec"]["template"]["spec"]["containers"][1]["tty"] = json!(true));
    cluster.apply("m1", one.clone());
    assert_eq!(cluster.live()["spec"]["template"]["spec"]["containers"], json!([{"name": "a", "image": "a"}]));
    assert_eq!(cluster.fields("other"), Value::Null);

    cluster.apply("m1", two);
    let part = json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "tty": true}]}}}});
    cluster.apply("m2", part);
    cluster.apply("m1", one);
    let wanted = json!([{"name": "a", "image": "a"}, {"name": "b", "tty": true}]);
    assert_eq!(cluster.live()["spec"]["template"]["spec"]["containers"], wanted);
}

#[test]
fn ports_without_a_protocol_are_tcp() {
    let mut cluster = Cluster::new("", "Service");
    cluster.apply("m1", json!({"spec": {"ports": [{"port": 80}]}}));
    let wanted = json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}});
    assert_eq!(cluster.fields("m1"), wanted);
    cluster.live.as_mut().unwrap()["spec"]["ports"][0]["protocol"] = json!("TCP");
    cluster.apply("m1", json!({"spec": {"ports": [{"port": 80, "name": "http"}]}}));
    assert_eq!(cluster.live()["spec"]["ports"], json!([{"port": 80, "protocol": "TCP", "name": "http"}]));
}

#[test]
fn applied_items_keep_the_applied_order_and_others_their_neighbours() {
    let list = |names: &[&str]| {
        let env: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "env": env}]}}}})
    };
    let mut cluster = Cluster::new("apps", "Deployment");
    cluster.apply("m1", list(&["a", "b", "c"]));
    cluster.apply("m2", list(&["x", "c", "a", "y"]));
    let env = cluster.live()["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
    let names: Vec<&str> = env.iter().map(|item| item["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["b", "x", "c", "a", "y"]);
}

#[test]
fn sets_hold_values_and_atomic_parts_are_one_field() {
    let mut cluster = config_map();
    cluster.apply("m1", json!({"metadata": {"finalizers": ["a/b"]}}));
    cluster.apply("m2", json!({"metadata": {"finalizers": ["c/d"]}}));
    assert_eq!(cluster.live()["metadata"]["finalizers"], json!(["a/b", "c/d"]));
    assert_eq!(cluster.fields("m1"), json!({"f:metadata": {"f:finalizers": {"v:\"a/b\"": {}}}}));
    cluster.apply("m1", json!({}));
    assert_eq!(cluster.live()["metadata"]["finalizers"], json!(["c/d"]));

    let mut cluster = Cluster::new("", "Service");
    cluster.apply("m1", json!({"spec": {"selector": {"a": "1"}}}));
    assert_eq!(cluster.fields("m1"), json!({"f:spec": {"f:selector": {}}}));
}

#[test]
fn what_is_not_of_its_type_is_refused() {
    let mut cluster = Cluster::new("apps", "Deployment");
    let error = cluster.try_apply("m", json!({"spec": {"foo": 1}}), false).unwrap_err().to_string();
    let head = "failed to create typed patch object (n/o; apps/v1, Kind=Deployment): ";
    assert_eq!(error, format!("{head}.spec.foo: field not declared in schema"));
    let twice = json!({"spec": {"template": {"spec": {"containers": [{"name": "c"}, {"name": "c"}]}}}});
    let error = cluster.try_apply("m", twice, false).unwrap_err().to_string();
    assert_eq!(error, format!("{head}.spec.template.spec.containers: duplicate entries for key [name=\"c\"]"));
    let error = cluster.try_apply("m", json!({"spec": {"replicas": "1"}}), false).unwrap_err().to_string();
    assert_eq!(error, format!("{head}.spec.replicas: expected numeric (int or float), got string"));
    let error = cluster.try_apply("m", json!({"metadata": {"managedFields": []}}), false).unwrap_err();
    assert_eq!(error, ApplyError::ManagedFields);
}

#[test]
fn managers_can_be_edited_and_cleared_by_a_write() {
    let mut cluster = config_map();
    cluster.create("a", json!({"data": {"a": "1"}}));
    cluster.update("b", |object| object["metadata"]["managedFields"] = json!([{}]));
    assert!(cluster.live()["metadata"].get("managedFields").is_none());
    cluster.update("b", |object| object["data"]["b"] = json!("2"));
    assert!(cluster.live()["metadata"].get("managedFields").is_none());
    cluster.apply("m", json!({"data": {"c": "3"}}));
    assert_eq!(cluster.fields("before-first-apply"), json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}}));
    // A client that knows nothing of the record does not lose it.
    cluster.update("b", |object| drop(object["metadata"].as_object_mut().unwrap().remove("managedFields")));
    assert_eq!(cluster.fields("m"), json!({"f:data": {"f:c": {}}}));
}

#[test]
fn the_oldest_of_many_updaters_become_one() {
    let mut cluster = config_map();
    cluster.create("u00", json!({"data": {"k00": "x"}}));
    for at in 1..13 {
        cluster.update(&format!("u{at:02}"), |object| object["data"][format!("k{at:02}")] = json!("x"));
    }
    assert_eq!(cluster.live()["metadata"]["managedFields"].as_array().unwrap().len(), 10);
    let ancient = json!({"f:data": {".": {}, "f:k00": {}, "f:k01": {}, "f:k02": {}, "f:k03": {}}});
    assert_eq!(cluster.fields("ancient-changes"), ancient);
}

#[test]
fn the_status_has_its_own_managers() {
    let mut cluster = Cluster::new("apps", "Deployment");
    cluster.apply("m1", deployment(1, "i"));
    let mut new = cluster.live().clone();
    new["status"] = json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    cluster.live = Some(cluster.with("controller", "status", |writer, live| track(writer, live, new)));
    let entries = cluster.live()["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!((&entries[1]["subresource"], &entries[1]["manager"]), (&json!("status"), &json!("controller")));
    let condition = &entries[1]["fieldsV1"]["f:status"]["f:conditions"]["k:{\"type\":\"Available\"}"];
    assert_eq!(*condition, json!({".": {}, "f:type": {}, "f:status": {}}));
}

#[test]
fn kubectl_takes_over_what_it_wrote_from_the_client_side() {
    let mut cluster = config_map();
    let written =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "o"}, "data": {"a": "1", "b": "1"}});
    let annotations = json!({LAST_APPLIED: written.to_string()});
    let created = json!({"metadata": {"annotations": annotations}, "data": {"a": "1", "b": "1"}});
    cluster.create("kubectl-client-side-apply", created);
    let error = cluster.try_apply("other", json!({"data": {"a": "2"}}), false).unwrap_err();
    assert!(error.to_string().ends_with("conflict with \"kubectl-client-side-apply\" using v1: .data.a"), "{error}");
    cluster.apply("kubectl", json!({"data": {"a": "2", "b": "1"}}));
    assert_eq!(cluster.live()["data"], json!({"a": "2", "b": "1"}));
    let annotation = cluster.live()["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(annotation).unwrap()["data"], json!({"a": "2", "b": "1"}));
}

#[test]
fn kinds_of_knative_are_applied_by_their_schema() {
    let service = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"image": image, "env": [{"name": "A", "value": "1"}]}]}}}});
    let mut cluster = Cluster::new("serving.knative.dev", "Service");
    cluster.apply("m1", service("i"));
    // The containers are no map here: they are one field.
    assert_eq!(cluster.fields("m1"), json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {}}}}}));
    let error = cluster.try_apply("m2", service("j"), false).unwrap_err();
    assert!(error.to_string().ends_with("conflict with \"m1\": .spec.template.spec.containers"), "{error}");
}

#[test]
fn field_sets_survive_being_written() {
    let fields = json!({"f:spec": {".": {}, "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}, "f:x": {"v:\"a\"": {}, "i:3": {}}});
    assert_eq!(FieldSet::from_fields_v1(&fields).unwrap().to_fields_v1(), fields);
    assert!(FieldSet::from_fields_v1(&json!({"x": {}})).is_none());
}
