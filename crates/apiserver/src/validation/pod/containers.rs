//! Containers: their names, images, ports, mounts and hooks.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{below, environment, one_of, present, probes, resources, security, set_of};
use crate::{
    object,
    status::Cause,
    validation::{core::port_number, names},
};

/// Which list a container stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    Init,
    Main,
    Ephemeral,
}

/// Every container of a pod.
pub(super) fn check(spec: &Value, path: &str, volumes: &BTreeMap<&str, &Value>, causes: &mut Vec<Cause>) {
    if object::list(spec, "/containers").is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let host_network = spec["hostNetwork"] == true;
    let mut names = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    let lists = [("initContainers", List::Init), ("containers", List::Main), ("ephemeralContainers", List::Ephemeral)];
    for (list, which) in lists {
        for (at, one) in object::list(spec, &format!("/{list}")).iter().enumerate() {
            let field = format!("{path}.{list}[{at}]");
            let name = object::name_of(one);
            if !name.is_empty() && !names.insert(name) {
                causes.push(Cause::duplicate(format!("{field}.name"), &name.into()));
            }
            container(one, &field, which, volumes, causes);
            ports(one, &field, host_network, causes);
            if which == List::Main {
                taken_host_ports(one, &field, &mut host_ports, causes);
            }
        }
    }
}

fn container(one: &Value, field: &str, which: List, volumes: &BTreeMap<&str, &Value>, causes: &mut Vec<Cause>) {
    let name = object::name_of(one);
    if name.is_empty() {
        causes.push(Cause::required(format!("{field}.name"), ""));
    } else if let Err(why) = names::label(name) {
        causes.push(Cause::invalid(format!("{field}.name"), &name.into(), &why));
    }
    let image = object::text(one, "/image");
    if image.is_empty() {
        causes.push(Cause::required(format!("{field}.image"), ""));
    } else if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        causes.push(Cause::invalid(format!("{field}.image"), &image.into(), why));
    }
    one_of(one, field, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], causes);
    one_of(one, field, "terminationMessagePolicy", &["FallbackToLogsOnError", "File"], causes);
    if which == List::Init {
        one_of(one, field, "restartPolicy", &["Always", "OnFailure", "Never"], causes);
    }
    environment::check(one, field, causes);
    mounts(one, field, volumes, causes);
    resources::check(&one["resources"], &format!("{field}.resources"), causes);
    security::of_container(&one["securityContext"], &format!("{field}.securityContext"), causes);
    once(one, field, which, causes);
}

/// Probes and hooks: a container that only runs before the others has none, nor has one added later.
fn once(one: &Value, field: &str, which: List, causes: &mut Vec<Cause>) {
    let runs_on = match which {
        List::Main => true,
        List::Init => one["restartPolicy"] == "Always",
        List::Ephemeral => false,
    };
    let hooks = ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"];
    if !runs_on {
        for hook in set_of(one, &hooks) {
            let why = match which {
                List::Ephemeral => "cannot be set for an Ephemeral Container",
                _ => "may not be set for init containers without restartPolicy=Always",
            };
            causes.push(Cause::forbidden(format!("{field}.{hook}"), why));
        }
        if which == List::Ephemeral && !object::is_empty(one.get("ports")) {
            causes.push(Cause::forbidden(format!("{field}.ports"), "cannot be set for an Ephemeral Container"));
        }
        return;
    }
    probes::check(one, field, causes);
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = one["lifecycle"].get(hook).filter(|handler| !handler.is_null()) {
            probes::handler(handler, &format!("{field}.lifecycle.{hook}"), &probes::HOOKS, causes);
        }
    }
}

fn ports(one: &Value, parent: &str, host_network: bool, causes: &mut Vec<Cause>) {
    let mut seen = BTreeSet::new();
    for (at, port) in object::list(one, "/ports").iter().enumerate() {
        let field = |name: &str| format!("{parent}.ports[{at}].{name}");
        let name = object::name_of(port);
        if !name.is_empty() {
            if let Err(why) = names::port_name(name) {
                causes.push(Cause::invalid(field("name"), &name.into(), &why));
            } else if !seen.insert(name) {
                causes.push(Cause::duplicate(field("name"), &name.into()));
            }
        }
        let number = &port["containerPort"];
        if number.is_null() || *number == 0 {
            causes.push(Cause::required(field("containerPort"), ""));
        } else {
            port_number(number, field("containerPort"), causes);
        }
        let host = port["hostPort"].as_i64().unwrap_or(0);
        if host != 0 {
            port_number(&port["hostPort"], field("hostPort"), causes);
        }
        if host_network && host != 0 && port["hostPort"] != *number {
            let why = "must match `containerPort` when `hostNetwork` is true";
            causes.push(Cause::invalid(field("hostPort"), &host.into(), why));
        }
        one_of(port, &format!("{parent}.ports[{at}]"), "protocol", &["SCTP", "TCP", "UDP"], causes);
    }
}

fn taken_host_ports<'a>(
    one: &'a Value,
    parent: &str,
    taken: &mut BTreeSet<(&'a str, &'a str, i64)>,
    causes: &mut Vec<Cause>,
) {
    for (at, port) in object::list(one, "/ports").iter().enumerate() {
        let number = port["hostPort"].as_i64().unwrap_or(0);
        let (protocol, ip) = (object::text(port, "/protocol"), object::text(port, "/hostIP"));
        if number != 0 && !taken.insert((protocol, ip, number)) {
            let shown = format!("{protocol}/{ip}/{number}");
            causes.push(Cause::duplicate(format!("{parent}.ports[{at}].hostPort"), &shown.into()));
        }
    }
}

fn mounts(one: &Value, parent: &str, volumes: &BTreeMap<&str, &Value>, causes: &mut Vec<Cause>) {
    let mut paths = BTreeSet::new();
    for (at, mount) in object::list(one, "/volumeMounts").iter().enumerate() {
        let field = format!("{parent}.volumeMounts[{at}]");
        let name = object::name_of(mount);
        if name.is_empty() {
            causes.push(Cause::required(format!("{field}.name"), ""));
        } else if !volumes.contains_key(name) {
            causes.push(Cause::not_found(format!("{field}.name"), &name.into()));
        }
        present(mount, &field, "mountPath", causes);
        let path = object::text(mount, "/mountPath");
        if !path.is_empty() && !paths.insert(path) {
            causes.push(Cause::invalid(format!("{field}.mountPath"), &path.into(), "must be unique"));
        }
        let (part, computed) = (object::text(mount, "/subPath"), object::text(mount, "/subPathExpr"));
        if !part.is_empty() && !computed.is_empty() {
            let why = "subPathExpr and subPath are mutually exclusive";
            causes.push(Cause::invalid(format!("{field}.subPathExpr"), &computed.into(), why));
        }
        below(part, format!("{field}.subPath"), causes);
        below(computed, format!("{field}.subPathExpr"), causes);
        let kinds = ["Bidirectional", "HostToContainer", "None"];
        one_of(mount, &field, "mountPropagation", &kinds, causes);
        if mount["mountPropagation"] == "Bidirectional" && one["securityContext"]["privileged"] != true {
            let why = "Bidirectional mount propagation is available only to privileged containers";
            causes.push(Cause::forbidden(format!("{field}.mountPropagation"), why));
        }
    }
}
