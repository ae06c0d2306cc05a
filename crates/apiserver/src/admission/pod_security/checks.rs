//! The rules of the Pod Security Standards, in the words of Kubernetes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::policy::{Level, Standard};
use crate::object;

/// Capabilities that `baseline` lets a container add.
const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Sources of volumes that `restricted` allows.
const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// Kernel parameters that `baseline` allows, and since which version.
const SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// A rule that a pod breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// What is broken.
    pub(super) reason: String,
    /// By what, and how it can be mended.
    pub(super) detail: String,
}

/// All of a pod's violations in one line.
pub(super) fn shown(violations: &[Violation]) -> String {
    let each: Vec<String> = violations.iter().map(|v| format!("{} ({})", v.reason, v.detail)).collect();
    each.join(", ")
}

/// A pod or template as the rules see it.
struct Subject<'a> {
    annotations: &'a Value,
    spec: &'a Value,
    containers: Vec<&'a Value>,
    version: u32,
}

type Found = Option<Violation>;
type Check = fn(&Subject<'_>) -> Found;

/// Where a pod, or what a template would make, breaks a standard.
pub(super) fn check(metadata: &Value, spec: &Value, standard: Standard) -> Vec<Violation> {
    let lists = ["/initContainers", "/containers", "/ephemeralContainers"];
    let subject = Subject {
        annotations: &metadata["annotations"],
        spec,
        containers: lists.iter().flat_map(|list| object::list(spec, list)).collect(),
        version: standard.version(),
    };
    let restricted = standard.level == Level::Restricted;
    // No node here runs Windows: what a pod calls itself lifts none of the rules that are for Linux.
    // Ordered as Kubernetes reports them: what `baseline` asks first.
    let rules: &[(bool, Check)] = &[
        (true, app_armor),
        (!restricted, added_capabilities),
        (true, host_namespaces),
        (!restricted, host_paths),
        (true, host_ports),
        (subject.version >= 34, probe_hosts),
        (true, privileged),
        (!restricted || subject.version < 35, unmasked),
        (true, se_linux),
        (!restricted, seccomp_lifted),
        (true, sysctls),
        (true, windows_host),
        (restricted, escalation),
        (restricted, kept_capabilities),
        (restricted && subject.version >= 35, unmasked_anyway),
        (restricted, volumes),
        (restricted, non_root),
        (restricted, root_user),
        (restricted, seccomp_missing),
    ];
    if standard.level == Level::Privileged {
        return Vec::new();
    }
    rules.iter().filter(|(applies, _)| *applies).filter_map(|(_, rule)| rule(&subject)).collect()
}

fn violation(reason: impl Into<String>, detail: impl Into<String>) -> Found {
    Some(Violation { reason: reason.into(), detail: detail.into() })
}

fn one_or_many<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn quoted<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| format!("\"{item}\"")).collect();
    items.join(", ")
}

/// `container "a"`, `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!("{} {}", one_or_many("container", "containers", names.len()), quoted(names.iter().copied()))
}

impl<'a> Subject<'a> {
    /// The names of the containers that are `bad`.
    fn bad(&self, bad: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers.iter().filter(|one| bad(one)).map(|one| object::name_of(one)).collect()
    }

    /// The pod and the containers whose security context is `bad`: `pod and container "a"`.
    fn setters(&self, bad: impl Fn(&Value) -> bool) -> Option<String> {
        let pod = bad(&self.spec["securityContext"]).then(|| "pod".to_owned());
        let named = self.bad(|one| bad(&one["securityContext"]));
        let parts: Vec<String> = pod.into_iter().chain((!named.is_empty()).then(|| containers(&named))).collect();
        (!parts.is_empty()).then(|| parts.join(" and "))
    }

    /// What the security contexts say at a pointer, once each, where `bad`.
    fn values(&self, pointer: &str, bad: impl Fn(&str) -> bool) -> BTreeSet<&'a str> {
        let pod = std::iter::once(&self.spec["securityContext"]);
        let all = pod.chain(self.containers.iter().map(|one| &one["securityContext"]));
        all.filter_map(|context| context.pointer(pointer)?.as_str()).filter(|value| bad(value)).collect()
    }

    /// Whether its root is nobody on the machine, and the version makes something of that.
    fn in_user_namespace(&self) -> bool {
        self.version >= 35 && self.spec["hostUsers"] == false
    }
}

fn is_default_profile(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}

fn app_armor(subject: &Subject<'_>) -> Found {
    let bad_kind = |context: &Value| {
        context["appArmorProfile"].is_object() && !is_default_profile(object::text(context, "/appArmorProfile/type"))
    };
    let mut setters: Vec<String> = subject.setters(bad_kind).into_iter().collect();
    let kinds = subject.values("/appArmorProfile/type", |kind| !is_default_profile(kind));
    let mut values: Vec<String> = kinds.into_iter().map(str::to_owned).collect();
    let mut annotations: Vec<String> = subject
        .annotations
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            key.starts_with(APP_ARMOR)
                && !(value.is_empty() || value == "runtime/default" || value.starts_with("localhost/"))
        })
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    annotations.sort();
    if !annotations.is_empty() {
        setters.push(one_or_many("annotation", "annotations", annotations.len()).to_owned());
        values.extend(annotations);
    }
    if setters.is_empty() {
        return None;
    }
    let reason = one_or_many("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    let values = quoted(values.iter().map(String::as_str));
    violation(reason, format!("{} must not set AppArmor profile type to {values}", setters.join(" and ")))
}

/// The capabilities that a container adds beyond `allowed`.
fn added<'a>(one: &'a Value, allowed: &[&str]) -> impl Iterator<Item = &'a str> {
    let list = object::list(one, "/securityContext/capabilities/add").iter().filter_map(Value::as_str);
    list.filter(|name| !allowed.contains(name))
}

fn added_capabilities(subject: &Subject<'_>) -> Found {
    let bad = subject.bad(|one| added(one, CAPABILITIES).next().is_some());
    let names: BTreeSet<&str> = subject.containers.iter().flat_map(|one| added(one, CAPABILITIES)).collect();
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must not include {} in securityContext.capabilities.add", containers(&bad), quoted(names));
    violation("non-default capabilities", detail)
}

fn kept_capabilities(subject: &Subject<'_>) -> Found {
    let drops_all = |one: &Value| object::list(one, "/securityContext/capabilities/drop").iter().any(|c| c == "ALL");
    let kept = subject.bad(|one| !drops_all(one));
    let allowed = ["NET_BIND_SERVICE"];
    let adding = subject.bad(|one| added(one, &allowed).next().is_some());
    let mut details = Vec::new();
    if !kept.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&kept)));
    }
    if !adding.is_empty() {
        let names: BTreeSet<&str> = subject.containers.iter().flat_map(|one| added(one, &allowed)).collect();
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&adding),
            quoted(names)
        ));
    }
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

fn host_namespaces(subject: &Subject<'_>) -> Found {
    let shared = ["hostNetwork", "hostPID", "hostIPC"];
    let set: Vec<String> =
        shared.iter().filter(|field| subject.spec[**field] == true).map(|field| format!("{field}=true")).collect();
    if set.is_empty() { None } else { violation("host namespaces", set.join(", ")) }
}

fn host_paths(subject: &Subject<'_>) -> Found {
    let volumes = object::list(subject.spec, "/volumes").iter().filter(|volume| volume["hostPath"].is_object());
    let names: Vec<&str> = volumes.map(object::name_of).collect();
    if names.is_empty() {
        return None;
    }
    let what = one_or_many("volume", "volumes", names.len());
    violation("hostPath volumes", format!("{what} {}", quoted(names)))
}

fn host_ports(subject: &Subject<'_>) -> Found {
    let of = |one: &Value| -> Vec<i64> {
        object::list(one, "/ports").iter().filter_map(|port| port["hostPort"].as_i64()).filter(|n| *n != 0).collect()
    };
    let bad = subject.bad(|one| !of(one).is_empty());
    if bad.is_empty() {
        return None;
    }
    let ports: BTreeSet<String> = subject.containers.iter().flat_map(|one| of(one)).map(|n| n.to_string()).collect();
    let list: Vec<&str> = ports.iter().map(String::as_str).collect();
    let detail = format!(
        "{} {} {} {}",
        containers(&bad),
        one_or_many("uses", "use", bad.len()),
        one_or_many("hostPort", "hostPorts", list.len()),
        list.join(", ")
    );
    violation("hostPort", detail)
}

fn probe_hosts(subject: &Subject<'_>) -> Found {
    const AT: &[&str] =
        &["livenessProbe", "readinessProbe", "startupProbe", "lifecycle/postStart", "lifecycle/preStop"];
    fn of(one: &Value) -> Vec<&str> {
        let hosts = AT.iter().flat_map(|at| ["httpGet", "tcpSocket"].map(|kind| format!("/{at}/{kind}/host")));
        hosts.filter_map(|pointer| one.pointer(&pointer)?.as_str()).filter(|host| !host.is_empty()).collect()
    }
    let bad: BTreeSet<&str> = subject.bad(|one| !of(one).is_empty()).into_iter().collect();
    if bad.is_empty() {
        return None;
    }
    let hosts: BTreeSet<&str> = subject.containers.iter().flat_map(|one| of(one)).collect();
    let bad: Vec<&str> = bad.into_iter().collect();
    let detail = format!(
        "{} {} {} {}",
        containers(&bad),
        one_or_many("uses", "use", bad.len()),
        one_or_many("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
        quoted(hosts)
    );
    violation("probe or lifecycle host", detail)
}

fn privileged(subject: &Subject<'_>) -> Found {
    let bad = subject.bad(|one| one["securityContext"]["privileged"] == true);
    if bad.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", containers(&bad)))
}

fn unmasked(subject: &Subject<'_>) -> Found {
    if subject.in_user_namespace() { None } else { unmasked_anyway(subject) }
}

fn unmasked_anyway(subject: &Subject<'_>) -> Found {
    let bad = subject.bad(|one| !matches!(object::text(one, "/securityContext/procMount"), "" | "Default"));
    if bad.is_empty() {
        return None;
    }
    let kinds: BTreeSet<&str> = subject
        .containers
        .iter()
        .map(|one| object::text(one, "/securityContext/procMount"))
        .filter(|kind| !matches!(*kind, "" | "Default"))
        .collect();
    violation("procMount", format!("{} must not set securityContext.procMount to {}", containers(&bad), quoted(kinds)))
}

fn se_linux(subject: &Subject<'_>) -> Found {
    let version = subject.version;
    let good_kind = move |kind: &str| {
        matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (version >= 31 && kind == "container_engine_t")
    };
    let bad = |context: &Value| {
        let text = |field: &str| object::text(context, &format!("/seLinuxOptions/{field}"));
        !good_kind(text("type")) || !text("user").is_empty() || !text("role").is_empty()
    };
    let setters = subject.setters(bad)?;
    let mut data = Vec::new();
    let kinds = subject.values("/seLinuxOptions/type", |kind| !good_kind(kind));
    if !kinds.is_empty() {
        data.push(format!("{} {}", one_or_many("type", "types", kinds.len()), quoted(kinds)));
    }
    for field in ["user", "role"] {
        if !subject.values(&format!("/seLinuxOptions/{field}"), |value| !value.is_empty()).is_empty() {
            data.push(format!("{field} may not be set"));
        }
    }
    violation("seLinuxOptions", format!("{setters} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")))
}

fn lifts_seccomp(context: &Value) -> bool {
    context["seccompProfile"].is_object() && !is_default_profile(object::text(context, "/seccompProfile/type"))
}

fn seccomp_lifted(subject: &Subject<'_>) -> Found {
    let setters = subject.setters(lifts_seccomp)?;
    let kinds = subject.values("/seccompProfile/type", |kind| !is_default_profile(kind));
    violation(
        "seccompProfile",
        format!("{setters} must not set securityContext.seccompProfile.type to {}", quoted(kinds)),
    )
}

fn seccomp_missing(subject: &Subject<'_>) -> Found {
    if let Some(lifted) = seccomp_lifted(subject) {
        return Some(lifted);
    }
    if subject.spec["securityContext"]["seccompProfile"].is_object() {
        return None;
    }
    let bad = subject.bad(|one| !one["securityContext"]["seccompProfile"].is_object());
    if bad.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        containers(&bad)
    );
    violation("seccompProfile", detail)
}

fn sysctls(subject: &Subject<'_>) -> Found {
    let allowed = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && *since <= subject.version);
    let set = object::list(subject.spec, "/securityContext/sysctls").iter().map(object::name_of);
    let bad: Vec<&str> = set.filter(|name| !allowed(name)).collect();
    if bad.is_empty() { None } else { violation("forbidden sysctls", bad.join(", ")) }
}

fn windows_host(subject: &Subject<'_>) -> Found {
    let setters = subject.setters(|context| context["windowsOptions"]["hostProcess"] == true)?;
    violation("hostProcess", format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"))
}

fn escalation(subject: &Subject<'_>) -> Found {
    let bad = subject.bad(|one| one["securityContext"]["allowPrivilegeEscalation"] != false);
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad));
    violation("allowPrivilegeEscalation != false", detail)
}

fn volumes(subject: &Subject<'_>) -> Found {
    let mut names = Vec::new();
    let mut kinds = BTreeSet::new();
    for volume in object::list(subject.spec, "/volumes") {
        let sources = volume.as_object().into_iter().flatten();
        let kind =
            sources.filter(|(key, value)| *key != "name" && !value.is_null()).map(|(key, _)| key.as_str()).next();
        match kind {
            Some(kind) if VOLUMES.contains(&kind) => {}
            other => {
                names.push(object::name_of(volume));
                kinds.insert(other.unwrap_or("unknown"));
            }
        }
    }
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {} {}",
        one_or_many("volume", "volumes", names.len()),
        quoted(names.iter().copied()),
        one_or_many("uses", "use", names.len()),
        one_or_many("restricted volume type", "restricted volume types", kinds.len()),
        quoted(kinds)
    );
    violation("restricted volume types", detail)
}

fn non_root(subject: &Subject<'_>) -> Found {
    const REASON: &str = "runAsNonRoot != true";
    if subject.in_user_namespace() {
        return None;
    }
    if let Some(setters) = subject.setters(|context| context["runAsNonRoot"] == false) {
        return violation(REASON, format!("{setters} must not set securityContext.runAsNonRoot=false"));
    }
    if subject.spec["securityContext"]["runAsNonRoot"] == true {
        return None;
    }
    let bad = subject.bad(|one| one["securityContext"]["runAsNonRoot"] != true);
    if bad.is_empty() {
        return None;
    }
    violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&bad)))
}

fn root_user(subject: &Subject<'_>) -> Found {
    if subject.in_user_namespace() {
        return None;
    }
    let setters = subject.setters(|context| context["runAsUser"] == 0)?;
    violation("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn violations(level: Level, minor: Option<u32>, spec: Value) -> String {
        shown(&check(&json!({}), &spec, Standard { level, minor }))
    }

    #[test]
    fn a_plain_pod_is_told_all_that_restricted_asks() {
        let plain = json!({"containers": [{"name": "c"}]});
        assert_eq!(violations(Level::Privileged, None, plain.clone()), "");
        assert_eq!(violations(Level::Baseline, None, plain.clone()), "");
        assert_eq!(
            violations(Level::Restricted, None, plain),
            "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
             unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), \
             runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
             seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
        let careful = json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            }}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        });
        assert_eq!(violations(Level::Restricted, None, careful), "");
    }

    #[test]
    fn a_pod_that_calls_itself_windows_is_held_to_every_rule() {
        let spec = json!({
            "os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true},
            "containers": [{"name": "c", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}],
        });
        for minor in [None, Some(25), Some(35)] {
            let told = violations(Level::Restricted, minor, spec.clone());
            for rule in ["allowPrivilegeEscalation != false", "unrestricted capabilities", "seccompProfile"] {
                assert!(told.contains(rule), "{rule}: {told}");
            }
        }
    }

    #[test]
    fn baseline_refuses_what_reaches_the_machine() {
        let bad = json!({
            "hostNetwork": true, "hostPID": true,
            "volumes": [{"name": "root", "hostPath": {"path": "/"}}],
            "initContainers": [{"name": "i", "securityContext": {"capabilities": {"add": ["SYS_ADMIN", "NET_RAW", "KILL"]}}}],
            "containers": [
                {"name": "a", "securityContext": {"privileged": true}, "ports": [{"hostPort": 80}]},
                {"name": "b", "securityContext": {"procMount": "Unmasked", "seLinuxOptions": {"type": "spc_t", "user": "u"}}},
            ],
            "securityContext": {"sysctls": [{"name": "kernel.msgmax"}], "seccompProfile": {"type": "Unconfined"}},
        });
        assert_eq!(
            violations(Level::Baseline, None, bad.clone()),
            "non-default capabilities (container \"i\" must not include \"NET_RAW\", \"SYS_ADMIN\" in securityContext.capabilities.add), \
             host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volume \"root\"), \
             hostPort (container \"a\" uses hostPort 80), privileged (container \"a\" must not set securityContext.privileged=true), \
             procMount (container \"b\" must not set securityContext.procMount to \"Unmasked\"), \
             seLinuxOptions (container \"b\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set), \
             seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\"), \
             forbidden sysctls (kernel.msgmax)"
        );
        let restricted = violations(Level::Restricted, None, bad);
        assert!(
            restricted.contains("restricted volume types (volume \"root\" uses restricted volume type \"hostPath\")")
        );
        assert!(!restricted.contains("hostPath volumes"), "{restricted}");
        assert_eq!(restricted.matches("procMount (").count(), 1, "{restricted}");
    }

    #[test]
    fn rules_hold_as_of_their_version() {
        let probed = json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}]});
        assert_eq!(violations(Level::Baseline, Some(33), probed.clone()), "");
        assert_eq!(
            violations(Level::Baseline, Some(34), probed),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"10.0.0.1\")"
        );
        let tuned = json!({"containers": [], "securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}});
        assert_eq!(violations(Level::Baseline, Some(31), tuned.clone()), "forbidden sysctls (net.ipv4.tcp_rmem)");
        assert_eq!(violations(Level::Baseline, None, tuned), "");
        let own_users =
            json!({"hostUsers": false, "containers": [{"name": "c", "securityContext": {"procMount": "Unmasked"}}]});
        assert_eq!(violations(Level::Baseline, None, own_users.clone()), "");
        assert!(violations(Level::Baseline, Some(34), own_users.clone()).contains("procMount"));
        assert!(violations(Level::Restricted, None, own_users).contains("procMount"));
    }

    #[test]
    fn annotations_lift_no_profile() {
        let annotations = json!({"annotations": {format!("{APP_ARMOR}c"): "unconfined"}});
        let found = check(&annotations, &json!({"containers": []}), Standard { level: Level::Baseline, minor: None });
        assert_eq!(
            shown(&found),
            "forbidden AppArmor profile (annotation must not set AppArmor profile type to \
             \"container.apparmor.security.beta.kubernetes.io/c=\"unconfined\"\")"
        );
    }
}
