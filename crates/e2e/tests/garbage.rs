//! What objects of a user's own kinds own is collected as `kubectl delete --cascade` says.

use std::{process::Output, thread, time::Duration};

use knoll_e2e::{Namespace, until};
use serde_json::{Value, json};

/// A kind of custom resources of a test's own, which goes with it.
struct Widgets {
    space: Namespace,
    group: String,
}

impl Widgets {
    fn new(prefix: &str) -> Self {
        let space = Namespace::new(prefix);
        let group = format!("{}.example.com", space.name);
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("widgets.{group}")},
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
                "versions": [{"name": "v1", "served": true, "storage": true,
                              "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
            },
        });
        space.apply(&definition.to_string());
        let name = format!("crd/widgets.{group}");
        space.cluster.kubectl(&["wait", "--for=condition=Established", &name, "--timeout=60s"]);
        Self { space, group }
    }

    fn get(&self, name: &str) -> Option<Value> {
        let path = format!("/apis/{}/v1/namespaces/{}/widgets/{name}", self.group, self.space.name);
        Some(self.space.cluster.read(&path)).filter(|widget| !widget.is_null())
    }

    fn has_map(&self, name: &str) -> bool {
        !self.space.object("configmaps", name).is_null()
    }

    /// Makes an object that these own, by name and uid, and returns its uid.
    fn make(&self, mut object: Value, name: &str, owners: &[(&str, &str)], finalizers: &[&str]) -> String {
        let reference = |(name, uid): &(&str, &str)| {
            json!({"apiVersion": format!("{}/v1", self.group), "kind": "Widget", "name": name, "uid": uid,
                   "blockOwnerDeletion": true})
        };
        let owners: Vec<Value> = owners.iter().map(reference).collect();
        object["metadata"] = json!({"name": name, "ownerReferences": owners, "finalizers": finalizers});
        self.space.apply(&object.to_string());
        let made = match object["kind"].as_str() {
            Some("Widget") => self.get(name).expect("it was made"),
            _ => self.space.object("configmaps", name),
        };
        made["metadata"]["uid"].as_str().expect("a uid").to_owned()
    }

    fn widget(&self, name: &str, owners: &[(&str, &str)], finalizers: &[&str]) -> String {
        let widget = json!({"apiVersion": format!("{}/v1", self.group), "kind": "Widget"});
        self.make(widget, name, owners, finalizers)
    }

    fn map(&self, name: &str, owners: &[(&str, &str)]) -> String {
        self.make(json!({"apiVersion": "v1", "kind": "ConfigMap"}), name, owners, &[])
    }

    fn delete(&self, name: &str, cascade: &str, more: &[&str]) -> Output {
        let (kind, cascade) = (format!("widgets.{}", self.group), format!("--cascade={cascade}"));
        let mut words = vec!["-n", &self.space.name, "delete", &kind, name, &cascade];
        words.extend(more);
        let output = self.space.cluster.try_kubectl(&words, "");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !complaint.contains("Warning"), "{complaint}");
        output
    }
}

impl Drop for Widgets {
    fn drop(&mut self) {
        let name = format!("widgets.{}", self.group);
        drop(self.space.cluster.try_kubectl(&["delete", "crd", &name, "--wait=false"], ""));
    }
}

#[test]
fn what_a_custom_resource_owns_goes_after_it() {
    let widgets = Widgets::new("background");
    let owner = widgets.widget("owner", &[], &[]);
    let other = widgets.widget("other", &[], &[]);
    let child = widgets.widget("child", &[("owner", &owner)], &[]);
    widgets.map("grandchild", &[("child", &child)]);
    widgets.map("shared", &[("owner", &owner), ("other", &other)]);
    widgets.delete("owner", "background", &[]);
    until("what it owned is gone", || (widgets.get("child").is_none() && !widgets.has_map("grandchild")).then_some(()));
    until("what another owns is left with that", || {
        let owners = widgets.space.object("configmaps", "shared")["metadata"]["ownerReferences"].clone();
        let owners = owners.as_array().expect("it stays");
        (owners.len() == 1 && owners[0]["uid"] == other.as_str()).then_some(())
    });
}

#[test]
fn a_custom_resource_stays_until_what_it_owns_is_gone() {
    let widgets = Widgets::new("foreground");
    let owner = widgets.widget("owner", &[], &[]);
    let child = widgets.widget("child", &[("owner", &owner)], &["example.com/held"]);
    widgets.map("grandchild", &[("child", &child)]);
    widgets.delete("owner", "foreground", &["--wait=false"]);
    until("the child goes, after its own", || {
        let child = widgets.get("child").expect("it is held");
        (child["metadata"]["deletionTimestamp"].is_string() && !widgets.has_map("grandchild")).then_some(())
    });
    // The owner is not to go: there is no state to wait for.
    thread::sleep(Duration::from_secs(2));
    let held = widgets.get("owner").expect("it waits");
    assert_eq!(held["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let kind = format!("widgets.{}", widgets.group);
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    widgets.space.kubectl(&["patch", &kind, "child", "--type=merge", "-p", patch]);
    until("all is gone", || (widgets.get("owner").is_none() && widgets.get("child").is_none()).then_some(()));
}

#[test]
fn what_is_orphaned_stays() {
    let widgets = Widgets::new("orphan");
    let owner = widgets.widget("owner", &[], &[]);
    widgets.widget("child", &[("owner", &owner)], &[]);
    widgets.map("map", &[("owner", &owner)]);
    widgets.delete("owner", "orphan", &["--timeout=60s"]);
    assert!(widgets.get("owner").is_none(), "kubectl waited for that");
    let child = widgets.get("child").expect("it stays");
    let map = widgets.space.object("configmaps", "map");
    for left in [child, map] {
        let owners = left["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len);
        assert_eq!(owners, 0, "{left}");
    }
}

#[test]
fn an_owner_of_another_namespace_is_none_and_that_is_told() {
    let (widgets, elsewhere) = (Widgets::new("here"), Namespace::new("elsewhere"));
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}});
    elsewhere.apply(&owner.to_string());
    let uid = elsewhere.object("configmaps", "owner")["metadata"]["uid"].clone();
    let widget = json!({
        "apiVersion": format!("{}/v1", widgets.group), "kind": "Widget",
        "metadata": {"name": "owned", "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]},
    });
    widgets.space.apply(&widget.to_string());
    until("it is gone", || widgets.get("owned").is_none().then_some(()));
    until("that is told", || {
        let events = widgets.space.list("events");
        events.iter().any(|event| event["reason"] == "OwnerRefInvalidNamespace").then_some(())
    });
}
