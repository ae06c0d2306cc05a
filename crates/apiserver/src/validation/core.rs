//! The core group, except pods.

use serde_json::Value;

use super::names;
use crate::{object, status::Cause};

/// Largest ConfigMap or Secret, in bytes of values.
const LARGEST: usize = 1024 * 1024;

/// Type of Secrets that hold a token of a ServiceAccount, and the annotation that names it.
pub(crate) const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";
/// Which account's token a Secret holds.
pub(crate) const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

/// A port.
pub(super) fn port_number(port: &Value, field: String, causes: &mut Vec<Cause>) {
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
    if new["type"] == TOKEN_TYPE && object::annotation(new, ACCOUNT_NAME).is_none_or(str::is_empty) {
        causes.push(Cause::required(format!("metadata.annotations[{ACCOUNT_NAME}]"), ""));
    }
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
            if let Err(why) = names::config_key(key) {
                causes.push(Cause::invalid(format!("{field}[{key}]"), &key.as_str().into(), &why));
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
