//! The core group, except pods.

use serde_json::Value;

use crate::{object, status::Cause};

/// Largest ConfigMap or Secret, in bytes of values.
const LARGEST: usize = 1024 * 1024;

/// Namespaces.
pub(crate) fn namespace(_new: &Value, _old: Option<&Value>) -> Vec<Cause> {
    Vec::new()
}

/// Services.
pub(crate) fn service(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let kind = object::text(new, "/spec/type");
    let headless = object::text(new, "/spec/clusterIP") == "None";
    if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName") {
        let known = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
        causes.push(Cause::not_supported("spec.type", &kind.into(), &known));
    }
    let ports = object::list(new, "/spec/ports");
    if kind == "ExternalName" {
        if object::text(new, "/spec/externalName").is_empty() {
            causes.push(Cause::required("spec.externalName", ""));
        }
    } else if ports.is_empty() && !headless {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (at, port) in ports.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{at}].{name}");
        port_number(&port["port"], field("port"), &mut causes);
        if ports.len() > 1 && object::is_empty(port.get("name")) {
            causes.push(Cause::required(field("name"), ""));
        }
        if ports[..at].iter().any(|o| !object::is_empty(o.get("name")) && o["name"] == port["name"]) {
            causes.push(Cause::duplicate(field("name"), &port["name"]));
        }
        if ports[..at].iter().any(|o| o["port"] == port["port"] && o["protocol"] == port["protocol"]) {
            let shown = serde_json::json!({"port": port["port"], "protocol": port["protocol"]});
            causes.push(Cause::duplicate(format!("spec.ports[{at}]"), &shown));
        }
    }
    if let Some(old) = old {
        let (was, is) = (object::text(old, "/spec/clusterIP"), object::text(new, "/spec/clusterIP"));
        if !was.is_empty() && kind != "ExternalName" && object::text(old, "/spec/type") != "ExternalName" && was != is {
            causes.push(Cause::invalid("spec.clusterIPs[0]", &is.into(), "may not change once set"));
        }
    }
    causes
}

fn port_number(port: &Value, field: String, causes: &mut Vec<Cause>) {
    if port.is_null() {
        causes.push(Cause::invalid(field, &0.into(), "must be between 1 and 65535, inclusive"));
    } else if !port.as_i64().is_some_and(|n| (1..=65535).contains(&n)) {
        causes.push(Cause::invalid(field, port, "must be between 1 and 65535, inclusive"));
    }
}

/// ConfigMaps.
pub(crate) fn config_map(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = keys(new, &["data", "binaryData"]);
    immutable(new, old, &["data", "binaryData"], &mut causes);
    causes
}

/// Secrets.
pub(crate) fn secret(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = keys(new, &["data"]);
    if let Some(old) = old
        && old["type"] != new["type"]
    {
        causes.push(Cause::invalid("type", &new["type"], "field is immutable"));
    }
    let needs: &[&str] = match object::text(new, "/type") {
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needs {
        if new["data"].get(*key).is_none() {
            causes.push(Cause::required(format!("data[{key}]"), ""));
        }
    }
    immutable(new, old, &["data"], &mut causes);
    causes
}

fn keys(object: &Value, fields: &[&str]) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut total = 0;
    for field in fields {
        for (key, value) in object[*field].as_object().into_iter().flatten() {
            total += value.as_str().map_or(0, str::len);
            let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if key.is_empty() || key.len() > 253 || !key.chars().all(fine) || key == "." || key == ".." {
                let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
                causes.push(Cause::invalid(format!("{field}[{key}]"), &key.as_str().into(), why));
            }
        }
    }
    // Values of Secrets are a third longer as they are stored.
    if total > LARGEST * 4 / 3 {
        causes.push(Cause::too_long("", LARGEST));
    }
    causes
}

fn immutable(new: &Value, old: Option<&Value>, fields: &[&str], causes: &mut Vec<Cause>) {
    let Some(old) = old.filter(|o| o["immutable"] == true) else { return };
    if new["immutable"] != true {
        causes.push(Cause::forbidden("immutable", "field is immutable when `immutable` is set"));
    }
    for field in fields.iter().filter(|f| old.get(**f) != new.get(**f)) {
        causes.push(Cause::forbidden(*field, "field is immutable when `immutable` is set"));
    }
}

/// Events, in either form.
pub(crate) fn event(new: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let (field, regarding) = match new.get("regarding") {
        Some(regarding) => ("regarding", regarding),
        None => ("involvedObject", &new["involvedObject"]),
    };
    let (own, other) = (object::namespace(new), object::text(regarding, "/namespace"));
    let cluster_scoped = other.is_empty() && matches!(own, "default" | "kube-system");
    if own != other && !cluster_scoped {
        return vec![Cause::invalid(format!("{field}.namespace"), &other.into(), "does not match event.namespace")];
    }
    Vec::new()
}
