//! What a revision's spec gets where it says nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Context, json};
use crate::{
    config::{ConfigBundle, Features, SecurePodDefaults, meta_data},
    names,
    quantity::Quantity,
    template::Template,
};

/// Fills in the template of a Service or Configuration. `previous` is the stored object, filled in: while a revision
/// keeps the name its user gave it, its template is left alone, or a new default would look like a change.
pub(super) fn apply_to_template(object: &mut Value, previous: Option<&Value>, creating: bool, context: &Context<'_>) {
    const NAME: [&str; 4] = ["spec", "template", "metadata", "name"];
    let name = json::at(object, &NAME).as_str().unwrap_or_default();
    if !name.is_empty() && previous.is_some_and(|previous| json::at(previous, &NAME).as_str() == Some(name)) {
        return;
    }
    let parent = json::member(object, "metadata").clone();
    let spec = ["spec", "template", "spec"].iter().try_fold(object, |value, key| json::object_mut(value, key));
    if let Some(spec) = spec {
        apply(spec, &parent, creating, context.config);
    }
}

/// Fills in a revision's spec. `parent` is the metadata that names of containers are made from.
pub(super) fn apply(spec: &mut Value, parent: &Value, creating: bool, config: &ConfigBundle) {
    apply_timeouts(spec, config);
    json::set_absent(spec, "containerConcurrency", config.defaults.container_concurrency);
    apply_names(spec, parent, config);

    let kind = ContainersKind {
        is_single: json::list(spec, "containers").len() == 1,
        writable: json::list(spec, "volumes")
            .iter()
            .filter(|volume| ["emptyDir", "persistentVolumeClaim", "ephemeral"].iter().any(|k| json::has(volume, k)))
            .map(|volume| json::text(volume, "name").to_owned())
            .collect(),
    };
    let pod_security = json::member(spec, "securityContext").clone();
    for container in items_mut(spec, "containers") {
        apply_container(container, &kind, config);
        apply_security(container, &pod_security, &config.features);
    }
    for container in items_mut(spec, "initContainers") {
        canonicalize_resources(container);
        apply_security(container, &pod_security, &config.features);
    }
    for volume in items_mut(spec, "volumes") {
        if let Some(limit) = volume.get_mut("emptyDir").and_then(|dir| dir.get_mut("sizeLimit")) {
            json::canonicalize_amount(limit);
        }
    }
    if creating
        && !json::list(spec, "containers").is_empty()
        && let Some(enable) = config.defaults.enable_service_links
    {
        json::set_absent(spec, "enableServiceLinks", enable);
    }
}

/// What a container's defaults depend on beside itself.
struct ContainersKind {
    is_single: bool,
    /// Volumes that may be written to.
    writable: BTreeSet<String>,
}

fn items_mut<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter(|item| item.is_object())
}

fn apply_timeouts(spec: &mut Value, config: &ConfigBundle) {
    let defaults = &config.defaults;
    if json::is_zero(json::member(spec, "timeoutSeconds")) {
        json::set(spec, "timeoutSeconds", defaults.revision_timeout_seconds);
    }
    let timeout = json::int(spec, "timeoutSeconds");
    for (key, seconds) in [
        ("idleTimeoutSeconds", defaults.revision_idle_timeout_seconds),
        ("responseStartTimeoutSeconds", defaults.revision_response_start_timeout_seconds),
    ] {
        // Zero switches the timer off, and one that is no shorter than the whole request's never fires.
        if seconds != 0 && seconds < timeout {
            json::set_absent(spec, key, seconds);
        }
    }
}

fn apply_names(spec: &mut Value, parent: &Value, config: &ConfigBundle) {
    let mut taken = BTreeSet::new();
    for key in ["containers", "initContainers"] {
        taken.extend(json::list(spec, key).iter().map(|container| json::text(container, "name").to_owned()));
    }
    let parent = meta_data(parent);
    let render = |template: &Template| template.render(&parent).unwrap_or_default();
    for (key, template) in [
        ("containers", &config.defaults.container_name_template),
        ("initContainers", &config.defaults.init_container_name_template),
    ] {
        let base = render(template);
        let is_alone = json::list(spec, key).len() <= 1;
        let mut next = 0_usize;
        for container in items_mut(spec, key).filter(|container| json::text(container, "name").is_empty()) {
            let mut name = base.clone();
            if !is_alone || taken.contains(&name) {
                // Every number is tried once, and there are only so many names taken.
                loop {
                    name = names::child(&base, &format!("-{next}"));
                    next += 1;
                    if !taken.contains(&name) {
                        break;
                    }
                }
            }
            json::set(container, "name", name);
        }
    }
}

fn apply_container(container: &mut Value, kind: &ContainersKind, config: &ConfigBundle) {
    canonicalize_resources(container);
    if let Some(resources) = json::object_mut(container, "resources") {
        apply_amounts(resources, "requests", &config.defaults.requests);
        apply_amounts(resources, "limits", &config.defaults.limits);
    }
    if kind.is_single || !json::list(container, "ports").is_empty() {
        apply_probe(container);
    }
    apply_probe_thresholds(container);
    for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
        if let Some(grpc) = container.get_mut(probe).and_then(|probe| probe.get_mut("grpc")) {
            json::set_absent(grpc, "service", "");
        }
    }
    for mount in items_mut(container, "volumeMounts") {
        if !kind.writable.contains(json::text(mount, "name")) {
            json::set(mount, "readOnly", true);
        }
    }
}

fn canonicalize_resources(container: &mut Value) {
    for key in ["requests", "limits"] {
        if let Some(amounts) = container.get_mut("resources").and_then(|resources| resources.get_mut(key)) {
            json::canonicalize_amounts(amounts);
        }
    }
}

fn apply_amounts(resources: &mut Value, key: &str, defaults: &BTreeMap<&'static str, Quantity>) {
    if defaults.is_empty() {
        return;
    }
    if let Some(amounts) = json::object_mut(resources, key) {
        for (resource, amount) in defaults {
            json::set_absent(amounts, resource, amount.to_string());
        }
    }
}

/// The container that serves is probed by connecting, unless it says otherwise.
fn apply_probe(container: &mut Value) {
    let Some(probe) = json::object_mut(container, "readinessProbe") else { return };
    if !["tcpSocket", "httpGet", "exec", "grpc"].iter().any(|handler| json::has(probe, handler)) {
        json::set(probe, "tcpSocket", json!({"port": 0}));
    }
}

fn apply_probe_thresholds(container: &mut Value) {
    let Some(probe) = container.get_mut("readinessProbe").filter(|probe| probe.is_object()) else { return };
    let mut set_zero = |key: &str, to: i64| {
        if json::is_zero(json::member(probe, key)) {
            json::set(probe, key, to);
        }
    };
    set_zero("successThreshold", 1);
    // Without a period the probe runs in its aggressive mode, which has no thresholds.
    if json::int(probe, "periodSeconds") != 0 {
        let mut set_zero = |key: &str, to: i64| {
            if json::is_zero(json::member(probe, key)) {
                json::set(probe, key, to);
            }
        };
        set_zero("failureThreshold", 3);
        set_zero("timeoutSeconds", 1);
    }
}

/// Fills in what the restricted pod security standard asks for, where that is switched on.
fn apply_security(container: &mut Value, pod: &Value, features: &Features) {
    if features.secure_pod_defaults == SecurePodDefaults::Disabled {
        return;
    }
    let needs_low_port = json::list(container, "ports").iter().any(|port| json::int(port, "containerPort") < 1024);
    let Some(security) = json::object_mut(container, "securityContext") else { return };
    json::set_absent(security, "allowPrivilegeEscalation", false);
    if json::at(pod, &["seccompProfile", "type"]).as_str().unwrap_or_default().is_empty()
        && let Some(profile) = json::object_mut(security, "seccompProfile")
        && json::text(profile, "type").is_empty()
    {
        json::set(profile, "type", "RuntimeDefault");
    }
    if !json::has(security, "capabilities") {
        let capabilities = if needs_low_port {
            json!({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]})
        } else {
            json!({"drop": ["ALL"]})
        };
        json::set(security, "capabilities", capabilities);
    }
    if features.secure_pod_defaults == SecurePodDefaults::Enabled && !json::has(pod, "runAsNonRoot") {
        json::set_absent(security, "runAsNonRoot", true);
    }
}
