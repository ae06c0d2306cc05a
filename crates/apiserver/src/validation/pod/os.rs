//! The operating system a pod says it is for, and that it asks for nothing of another.

use serde_json::Value;

use super::one_of;
use crate::{object, status::Cause};

/// What `spec` of a pod for Windows must not hold.
const OF_LINUX: &[&str] = &["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
/// What the security context of a pod for Windows must not hold.
const OF_LINUX_POD: &[&str] = &[
    "appArmorProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "runAsGroup",
    "runAsUser",
    "seLinuxOptions",
    "seccompProfile",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "sysctls",
];
/// What the security context of a container for Windows must not hold.
const OF_LINUX_CONTAINER: &[&str] = &[
    "allowPrivilegeEscalation",
    "appArmorProfile",
    "capabilities",
    "privileged",
    "procMount",
    "readOnlyRootFilesystem",
    "runAsGroup",
    "runAsUser",
    "seLinuxOptions",
    "seccompProfile",
];
/// What only a pod for Windows may hold.
const OF_WINDOWS: &[&str] = &["windowsOptions"];

pub(super) fn check(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    one_of(&spec["os"], &format!("{path}.os"), "name", &["linux", "windows"], causes);
    let (of_spec, of_pod, of_container, name) = match object::text(spec, "/os/name") {
        "windows" => (OF_LINUX, OF_LINUX_POD, OF_LINUX_CONTAINER, "windows"),
        "linux" => (&[] as &[_], OF_WINDOWS, OF_WINDOWS, "linux"),
        _ => return,
    };
    let why = format!("cannot be set for a {name} pod");
    let mut forbid = |object: &Value, path: &str, fields: &[&str]| {
        for field in fields.iter().filter(|field| !object[**field].is_null()) {
            causes.push(Cause::forbidden(format!("{path}.{field}"), &why));
        }
    };
    // False asks for nothing, but for users: theirs are a namespace's then.
    let asked: Vec<&str> = of_spec.iter().copied().filter(|f| *f == "hostUsers" || spec[*f] == true).collect();
    forbid(spec, path, &asked);
    forbid(&spec["securityContext"], &format!("{path}.securityContext"), of_pod);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (at, one) in object::list(spec, &format!("/{list}")).iter().enumerate() {
            forbid(&one["securityContext"], &format!("{path}.{list}[{at}].securityContext"), of_container);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(spec: &Value) -> Vec<String> {
        let mut causes = Vec::new();
        check(spec, "spec", &mut causes);
        causes.into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn a_pod_for_one_system_asks_for_nothing_of_another() {
        let context = json!({"runAsUser": 0, "runAsNonRoot": true, "windowsOptions": {"runAsUserName": "u"}});
        let spec = |os: &str| {
            json!({"os": {"name": os}, "hostPID": true, "hostIPC": false, "securityContext": {"fsGroup": 1},
            "containers": [{"name": "c", "securityContext": context}]})
        };
        assert_eq!(
            fields(&spec("windows")),
            ["spec.hostPID", "spec.securityContext.fsGroup", "spec.containers[0].securityContext.runAsUser"]
        );
        assert_eq!(fields(&spec("linux")), ["spec.containers[0].securityContext.windowsOptions"]);
        assert_eq!(fields(&spec("plan9")), ["spec.os.name"]);
    }
}
