//! Pods, and the templates of pods.

use serde_json::{Map, Value, json};

use super::{each, inner};
use crate::object::{self, default as set};

/// A pod.
pub(crate) fn default(pod: &mut Value) {
    let spec = super::spec(pod);
    pod_spec(spec);
    set(spec, "enableServiceLinks", true);
    // What is limited is requested as much, unless said otherwise: only in pods, not in templates.
    for list in ["initContainers", "containers"] {
        for container in each(spec, list) {
            requests_from_limits(container);
        }
    }
}

/// A PodTemplate object.
pub(crate) fn template_object(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        template(map);
    }
}

/// The `template` of a workload.
pub(crate) fn template(workload: &mut Map<String, Value>) {
    if let Some(template) = inner(workload, "template")
        && let Some(spec) = inner(template, "spec")
    {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Map<String, Value>) {
    set(spec, "restartPolicy", "Always");
    set(spec, "dnsPolicy", "ClusterFirst");
    set(spec, "schedulerName", "default-scheduler");
    set(spec, "terminationGracePeriodSeconds", 30);
    if spec.get("securityContext").is_none_or(Value::is_null) {
        spec.insert("securityContext".into(), json!({}));
    }
    same_account(spec);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in each(spec, list) {
            self::container(container, host_network);
        }
    }
    for volume in each(spec, "volumes") {
        self::volume(volume);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`.
fn same_account(spec: &mut Map<String, Value>) {
    for (from, to) in [("serviceAccountName", "serviceAccount"), ("serviceAccount", "serviceAccountName")] {
        if let Some(name) = spec.get(from).filter(|n| !object::is_empty(Some(n))).cloned() {
            set(spec, to, name);
        }
    }
}

fn container(container: &mut Map<String, Value>, host_network: bool) {
    set(container, "terminationMessagePath", "/dev/termination-log");
    set(container, "terminationMessagePolicy", "File");
    let policy = pull_policy(container.get("image").and_then(Value::as_str).unwrap_or_default());
    set(container, "imagePullPolicy", policy);
    if container.get("resources").is_none_or(Value::is_null) {
        container.insert("resources".into(), json!({}));
    }
    for port in each(container, "ports") {
        set(port, "protocol", "TCP");
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            set(port, "hostPort", number);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = inner(container, name) {
            self::probe(probe);
        }
    }
    if let Some(lifecycle) = inner(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(get) = inner(lifecycle, hook).and_then(|hook| inner(hook, "httpGet")) {
                http_get(get);
            }
        }
    }
    for variable in each(container, "env") {
        if let Some(field) = inner(variable, "valueFrom").and_then(|from| inner(from, "fieldRef")) {
            set(field, "apiVersion", "v1");
        }
    }
}

/// Always for `latest` and untagged images, which may change under the same name.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or(name);
    let tag = last.split_once(':').map(|(_, tag)| tag);
    match tag {
        Some("latest") => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn probe(probe: &mut Map<String, Value>) {
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if probe.get(field).and_then(Value::as_i64).unwrap_or(0) == 0 {
            probe.insert(field.into(), value.into());
        }
    }
    if let Some(get) = inner(probe, "httpGet") {
        http_get(get);
    }
    if let Some(grpc) = inner(probe, "grpc")
        && !grpc.contains_key("service")
    {
        grpc.insert("service".into(), "".into());
    }
}

fn http_get(get: &mut Map<String, Value>) {
    set(get, "path", "/");
    set(get, "scheme", "HTTP");
}

fn volume(volume: &mut Map<String, Value>) {
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        let Some(source_map) = inner(volume, source) else { continue };
        set(source_map, "defaultMode", 420);
        downward_items(source_map);
        if source == "projected" {
            for projection in each(source_map, "sources") {
                if let Some(token) = inner(projection, "serviceAccountToken") {
                    set(token, "expirationSeconds", 3600);
                }
                if let Some(downward) = inner(projection, "downwardAPI") {
                    downward_items(downward);
                }
            }
        }
    }
    if let Some(path) = inner(volume, "hostPath")
        && !path.contains_key("type")
    {
        path.insert("type".into(), "".into());
    }
    if volume.len() == 1 && volume.contains_key("name") {
        volume.insert("emptyDir".into(), json!({}));
    }
}

fn downward_items(source: &mut Map<String, Value>) {
    for item in each(source, "items") {
        if let Some(field) = inner(item, "fieldRef") {
            set(field, "apiVersion", "v1");
        }
    }
}

fn requests_from_limits(container: &mut Map<String, Value>) {
    let Some(resources) = inner(container, "resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    let Some(requests) = requests.as_object_mut() else { return };
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
    if requests.is_empty() {
        resources.remove("requests");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_pod_is_filled_in_and_stays_so() {
        let mut pod = json!({"spec": {"containers": [{"name": "c", "image": "a:1", "readinessProbe": {"httpGet": {"port": 80}}}]}});
        default(&mut pod);
        let spec = &pod["spec"];
        assert_eq!((&spec["restartPolicy"], &spec["terminationGracePeriodSeconds"]), (&json!("Always"), &json!(30)));
        let container = &spec["containers"][0];
        assert_eq!(container["imagePullPolicy"], "IfNotPresent");
        assert_eq!(container["readinessProbe"]["httpGet"], json!({"port": 80, "path": "/", "scheme": "HTTP"}));
        assert_eq!(container["readinessProbe"]["periodSeconds"], 10);
        let once = pod.clone();
        default(&mut pod);
        assert_eq!(pod, once);
    }

    #[test]
    fn only_images_that_may_change_are_always_pulled() {
        for (image, policy) in [
            ("a", "Always"),
            ("a:latest", "Always"),
            ("host:5000/a", "Always"),
            ("host:5000/a:1", "IfNotPresent"),
            ("a@sha256:0", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
