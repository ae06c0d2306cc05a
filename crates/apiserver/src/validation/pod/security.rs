//! Whom containers run as, and what they may do.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{one_of, within};
use crate::{object, status::Cause};

/// Largest user or group id.
const IDS: i64 = i32::MAX as i64;

/// What a pod says for all its containers, and what it shares with the machine.
pub(super) fn of_pod(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let shared = ["hostNetwork", "hostPID", "hostIPC"];
    if spec["hostUsers"] == false {
        for field in shared.iter().filter(|field| spec[**field] == true) {
            causes.push(Cause::forbidden(format!("{path}.{field}"), "when `hostUsers` is false"));
        }
    }
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        causes.push(Cause::invalid(format!("{path}.shareProcessNamespace"), &true.into(), why));
    }
    let context = &spec["securityContext"];
    let field = format!("{path}.securityContext");
    ids(context, &field, &["runAsUser", "runAsGroup", "fsGroup"], causes);
    for (at, group) in object::list(context, "/supplementalGroups").iter().enumerate() {
        if !group.as_i64().is_some_and(|id| (0..=IDS).contains(&id)) {
            let why = format!("must be between 0 and {IDS}, inclusive");
            causes.push(Cause::invalid(format!("{field}.supplementalGroups[{at}]"), group, &why));
        }
    }
    one_of(context, &field, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], causes);
    one_of(context, &field, "supplementalGroupsPolicy", &["Merge", "Strict"], causes);
    profiles(context, &field, causes);
    sysctls(spec, context, &field, causes);
    unmasked(spec, path, causes);
}

/// What one container says.
pub(super) fn of_container(context: &Value, field: &str, causes: &mut Vec<Cause>) {
    ids(context, field, &["runAsUser", "runAsGroup"], causes);
    profiles(context, field, causes);
    one_of(context, field, "procMount", &["Default", "Unmasked"], causes);
    if context["allowPrivilegeEscalation"] != false {
        return;
    }
    if context["privileged"] == true {
        let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        causes.push(Cause::invalid(field, context, why));
    }
    let added = object::list(context, "/capabilities/add");
    if added.iter().any(|one| one == "CAP_SYS_ADMIN" || one == "SYS_ADMIN") {
        let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        causes.push(Cause::invalid(field, context, why));
    }
}

fn ids(context: &Value, field: &str, names: &[&str], causes: &mut Vec<Cause>) {
    for name in names {
        within(context, field, name, 0, IDS, causes);
    }
}

/// seccomp and AppArmor: a profile of the machine is named, and only then.
fn profiles(context: &Value, parent: &str, causes: &mut Vec<Cause>) {
    for kind in ["seccompProfile", "appArmorProfile"] {
        let Some(profile) = context.get(kind).filter(|profile| !profile.is_null()) else { continue };
        let field = format!("{parent}.{kind}");
        if object::text(profile, "/type").is_empty() {
            causes.push(Cause::required(format!("{field}.type"), "type is required when the profile is set"));
        }
        one_of(profile, &field, "type", &["Localhost", "RuntimeDefault", "Unconfined"], causes);
        let named = object::text(profile, "/localhostProfile");
        match (profile["type"] == "Localhost", named.is_empty()) {
            (true, true) => {
                let why = "must be set when type is Localhost";
                causes.push(Cause::required(format!("{field}.localhostProfile"), why));
            }
            (false, false) => {
                let why = "can only be set when type is Localhost";
                causes.push(Cause::invalid(format!("{field}.localhostProfile"), &named.into(), why));
            }
            _ => {}
        }
        if kind == "seccompProfile" {
            super::below(named, format!("{field}.localhostProfile"), causes);
        }
    }
}

fn sysctls(spec: &Value, context: &Value, parent: &str, causes: &mut Vec<Cause>) {
    let mut seen = BTreeSet::new();
    for (at, sysctl) in object::list(context, "/sysctls").iter().enumerate() {
        let field = format!("{parent}.sysctls[{at}].name");
        let name = object::name_of(sysctl);
        if name.is_empty() {
            causes.push(Cause::required(field, ""));
            continue;
        }
        if !is_sysctl(name) {
            let why = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            causes.push(Cause::invalid(field, &name.into(), why));
            continue;
        }
        let dotted = name.replace('/', ".");
        if (dotted.starts_with("net.") && spec["hostNetwork"] == true)
            || ((dotted.starts_with("kernel.") || dotted.starts_with("fs.mqueue.")) && spec["hostIPC"] == true)
        {
            let shared = if dotted.starts_with("net.") { "hostNetwork" } else { "hostIPC" };
            let why = format!("may not be specified when '{shared}' is true");
            causes.push(Cause::invalid(&field, &name.into(), &why));
        }
        if !seen.insert(dotted) {
            causes.push(Cause::duplicate(field, &name.into()));
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part = |part: &str| {
        part.starts_with(ends) && part.ends_with(ends) && part.chars().all(|c| ends(c) || c == '-' || c == '_')
    };
    name.len() <= 253 && name.split(['.', '/']).all(part)
}

/// An unmasked `/proc` is for pods whose root is nobody on the machine.
fn unmasked(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    if spec["hostUsers"] == false {
        return;
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (at, one) in object::list(spec, &format!("/{list}")).iter().enumerate() {
            if one["securityContext"]["procMount"] == "Unmasked" {
                let field = format!("{path}.{list}[{at}].securityContext.procMount");
                causes.push(Cause::invalid(field, &"Unmasked".into(), "`hostUsers` must be false to use `Unmasked`"));
            }
        }
    }
}
