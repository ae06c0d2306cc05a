//! Probes and lifecycle hooks: one way to ask, and numbers that make sense.

use serde_json::Value;

use super::{one_of, present, set_of, within};
use crate::{
    object,
    status::Cause,
    validation::{core::port_number, names},
};

/// Ways of a probe.
const PROBES: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
/// Ways of a hook.
pub(super) const HOOKS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];
/// Largest number of a probe: they are 32 bits wide.
const MOST: i64 = i32::MAX as i64;

/// The probes of a container.
pub(super) fn check(container: &Value, parent: &str, causes: &mut Vec<Cause>) {
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get(kind).filter(|probe| !probe.is_null()) else { continue };
        let field = format!("{parent}.{kind}");
        handler(probe, &field, &PROBES, causes);
        for number in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            if probe[number].as_i64().is_some_and(|n| n < 0) {
                let why = "must be greater than or equal to 0";
                causes.push(Cause::invalid(format!("{field}.{number}"), &probe[number], why));
            }
            within(probe, &field, number, i64::MIN, MOST, causes);
        }
        let once = probe["successThreshold"].as_i64().is_some_and(|n| n != 1);
        if kind != "readinessProbe" && once {
            causes.push(Cause::invalid(format!("{field}.successThreshold"), &probe["successThreshold"], "must be 1"));
        }
        if !probe["terminationGracePeriodSeconds"].is_null() {
            if kind == "readinessProbe" {
                let why = "must not be set for readinessProbes";
                let value = &probe["terminationGracePeriodSeconds"];
                causes.push(Cause::invalid(format!("{field}.terminationGracePeriodSeconds"), value, why));
            }
            within(probe, &field, "terminationGracePeriodSeconds", 1, MOST, causes);
        }
    }
}

/// One of several ways to ask or tell.
pub(super) fn handler(handler: &Value, field: &str, known: &[&str], causes: &mut Vec<Cause>) {
    let set = set_of(handler, known);
    if set.is_empty() {
        causes.push(Cause::required(field, "must specify a handler type"));
    }
    for surplus in set.iter().skip(1) {
        let why = "may not specify more than 1 handler type";
        causes.push(Cause::forbidden(format!("{field}.{surplus}"), why));
    }
    let Some(kind) = set.first() else { return };
    let (action, path) = (&handler[kind], format!("{field}.{kind}"));
    match *kind {
        "exec" if object::is_empty(action.get("command")) => {
            causes.push(Cause::required(format!("{path}.command"), ""));
        }
        "httpGet" => http(action, &path, causes),
        "tcpSocket" => port(&action["port"], format!("{path}.port"), causes),
        "grpc" => port_number(&action["port"], format!("{path}.port"), causes),
        "sleep" => within(action, &path, "seconds", 0, MOST, causes),
        _ => {}
    }
}

fn http(action: &Value, field: &str, causes: &mut Vec<Cause>) {
    present(action, field, "path", causes);
    port(&action["port"], format!("{field}.port"), causes);
    one_of(action, field, "scheme", &["HTTP", "HTTPS"], causes);
    for (at, header) in object::list(action, "/httpHeaders").iter().enumerate() {
        let name = object::name_of(header);
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || !name.chars().all(fine) {
            let why = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            causes.push(Cause::invalid(format!("{field}.httpHeaders[{at}].name"), &name.into(), why));
        }
    }
}

/// A port by number or by the name it has in the container.
fn port(port: &Value, field: String, causes: &mut Vec<Cause>) {
    match port {
        Value::String(name) => {
            if let Err(why) = names::port_name(name) {
                causes.push(Cause::invalid(field, port, &why));
            }
        }
        _ => port_number(port, field, causes),
    }
}
