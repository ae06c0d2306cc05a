//! The fields of a pod's spec that are about the pod as a whole.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use super::{containers, named, one_of, os, placement, present, resources, security, volumes, within};
use crate::{
    object,
    status::Cause,
    validation::{metadata, names},
};

/// Longest deadline and grace period, seconds: 68 years. A node adds them to times.
const LONGEST: i64 = i32::MAX as i64;
const NAME_SERVERS: usize = 3;
const SEARCHES: usize = 32;
const SEARCH_LENGTH: usize = 2048;

/// What `spec` of a pod or template must hold.
pub(crate) fn spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let names = volumes::check(object::list(spec, "/volumes"), &format!("{path}.volumes"), causes);
    containers::check(spec, path, &names, causes);
    one_of(spec, path, "restartPolicy", &["Always", "OnFailure", "Never"], causes);
    one_of(spec, path, "dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], causes);
    one_of(spec, path, "preemptionPolicy", &["Never", "PreemptLowerPriority"], causes);
    within(spec, path, "activeDeadlineSeconds", 1, LONGEST, causes);
    within(spec, path, "terminationGracePeriodSeconds", 0, LONGEST, causes);
    for (field, form) in [
        ("hostname", names::label as fn(&str) -> Result<(), String>),
        ("subdomain", names::label),
        ("serviceAccountName", names::subdomain),
        ("nodeName", names::subdomain),
        ("priorityClassName", names::subdomain),
        ("runtimeClassName", names::subdomain),
        ("schedulerName", names::subdomain),
    ] {
        named(spec, path, field, form, causes);
    }
    metadata::labels(&spec["nodeSelector"], &format!("{path}.nodeSelector"), causes);
    for (at, secret) in object::list(spec, "/imagePullSecrets").iter().enumerate() {
        present(secret, &format!("{path}.imagePullSecrets[{at}]"), "name", causes);
    }
    host_aliases(spec, path, causes);
    dns(spec, path, causes);
    security::of_pod(spec, path, causes);
    placement::check(spec, path, causes);
    gates(spec, path, causes);
    os::check(spec, path, causes);
    resources::amounts(&spec["overhead"], &format!("{path}.overhead"), causes);
    if let Some(own) = spec.get("resources") {
        resources::check(own, &format!("{path}.resources"), causes);
    }
}

fn host_aliases(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (at, alias) in object::list(spec, "/hostAliases").iter().enumerate() {
        let field = format!("{path}.hostAliases[{at}]");
        let ip = object::text(alias, "/ip");
        if ip.parse::<IpAddr>().is_err() {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            causes.push(Cause::invalid(format!("{field}.ip"), &ip.into(), why));
        }
        for (n, host) in object::list(alias, "/hostnames").iter().enumerate() {
            if let Err(why) = names::subdomain(host.as_str().unwrap_or_default()) {
                causes.push(Cause::invalid(format!("{field}.hostnames[{n}]"), host, &why));
            }
        }
    }
}

fn dns(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let config = &spec["dnsConfig"];
    let field = format!("{path}.dnsConfig");
    let servers = object::list(config, "/nameservers");
    if spec["dnsPolicy"] == "None" && servers.is_empty() {
        let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        let at = if config.is_null() { field } else { format!("{field}.nameservers") };
        causes.push(Cause::required(at, why));
        return;
    }
    if servers.len() > NAME_SERVERS {
        let why = format!("must not have more than {NAME_SERVERS} nameservers");
        causes.push(Cause::invalid(format!("{field}.nameservers"), &config["nameservers"], &why));
    }
    for (at, server) in servers.iter().enumerate() {
        if server.as_str().is_none_or(|text| text.parse::<IpAddr>().is_err()) {
            let why = "must be valid IP address";
            causes.push(Cause::invalid(format!("{field}.nameservers[{at}]"), server, why));
        }
    }
    let searches = object::list(config, "/searches");
    let length: usize = searches.iter().filter_map(Value::as_str).map(|text| text.len() + 1).sum();
    if searches.len() > SEARCHES {
        let why = format!("must not have more than {SEARCHES} search paths");
        causes.push(Cause::invalid(format!("{field}.searches"), &config["searches"], &why));
    } else if length > SEARCH_LENGTH + 1 {
        let why = format!("must not have more than {SEARCH_LENGTH} characters (including spaces) in the search list");
        causes.push(Cause::invalid(format!("{field}.searches"), &config["searches"], &why));
    }
    for (at, search) in searches.iter().enumerate() {
        let text = search.as_str().unwrap_or_default();
        let bare = text.strip_suffix('.').unwrap_or(text).replace('_', "-");
        if text != "."
            && let Err(why) = names::subdomain(bare.trim_matches('-'))
        {
            causes.push(Cause::invalid(format!("{field}.searches[{at}]"), search, &why));
        }
    }
    for (at, option) in object::list(config, "/options").iter().enumerate() {
        present(option, &format!("{field}.options[{at}]"), "name", causes);
    }
}

fn gates(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (at, gate) in object::list(spec, "/readinessGates").iter().enumerate() {
        let kind = object::text(gate, "/conditionType");
        if let Err(why) = names::key(kind) {
            let field = format!("{path}.readinessGates[{at}].conditionType");
            causes.push(Cause::invalid(field, &kind.into(), &why));
        }
    }
    let mut seen = BTreeSet::new();
    for (at, gate) in object::list(spec, "/schedulingGates").iter().enumerate() {
        let name = object::name_of(gate);
        let field = format!("{path}.schedulingGates[{at}]");
        if let Err(why) = names::key(name) {
            causes.push(Cause::invalid(format!("{field}.name"), &name.into(), &why));
        }
        if !seen.insert(name) {
            causes.push(Cause::duplicate(format!("{field}.name"), &name.into()));
        }
    }
}
