//! Who a container runs as and what it may do, from its pod's and its own security context and its image.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext};
use knoll_container::protocol::{Capabilities, Seccomp, Security, User};

/// Why a container must not run as it is configured; its status shows `CreateContainerConfigError` with this text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// It must not be root, and its image would make it so.
    #[error("container has runAsNonRoot and image will run as root (pod: {pod}, container: {container})")]
    ImageIsRoot {
        /// Which pod.
        pod: String,
        /// Which container.
        container: String,
    },
    /// It must not be root, and asks for it.
    #[error("container's runAsUser breaks non-root policy (pod: {pod}, container: {container})")]
    AsksForRoot {
        /// Which pod.
        pod: String,
        /// Which container.
        container: String,
    },
    /// It must not be root, and a name does not say whether it is.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: {pod}, container: {container})"
    )]
    NonNumericUser {
        /// The image's user.
        user: String,
        /// Which pod.
        pod: String,
        /// Which container.
        container: String,
    },
    /// A seccomp profile that this machine cannot load.
    #[error("seccomp profile {0:?} is not supported: use RuntimeDefault or Unconfined")]
    Seccomp(String),
    /// Nothing of `/proc` may be hidden, and root is the machine's.
    #[error("procMount: Unmasked needs a user namespace: set hostUsers: false in the pod's spec")]
    UnmaskedProc,
    /// An AppArmor profile that nobody enforces here.
    #[error(
        "cannot enforce AppArmor profile {0:?}: containers are not put under profiles; use type Unconfined, or none"
    )]
    AppArmor(String),
    /// SELinux options that nobody enforces here.
    #[error("cannot enforce seLinuxOptions: containers are not labelled; leave them out")]
    SeLinux,
    /// A kernel setting that reaches beyond the pod.
    #[error("forbidden sysctl: {0:?} not allowlisted")]
    Sysctl(String),
    /// A kernel setting of a namespace that is the machine's.
    #[error("forbidden sysctl: {0:?} not allowed with host {1} enabled")]
    HostSysctl(String, &'static str),
    /// A user namespace beside a namespace of the machine.
    #[error("hostUsers: false cannot go with hostNetwork, hostPID or hostIPC")]
    HostUsers,
    /// A number that is no user or group id.
    #[error("{0} is no user or group id")]
    Id(i64),
}

/// The security of one container. `image_user` is what its image says, as in an image's configuration.
///
/// # Errors
/// When the configuration forbids to run it.
pub fn security(pod: &Pod, container: &Container, image_user: &str) -> Result<Security, SecurityError> {
    let empty_pod = PodSecurityContext::default();
    let empty = SecurityContext::default();
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).unwrap_or(&empty_pod);
    let own = container.security_context.as_ref().unwrap_or(&empty);
    let user = own.run_as_user.or(of_pod.run_as_user);
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        refuse_root(pod, container, user, image_user)?;
    }
    let privileged = own.privileged.unwrap_or(false);
    let unmasked_proc = own.proc_mount.as_deref() == Some("Unmasked");
    if unmasked_proc && !has_user_namespace(pod) {
        return Err(SecurityError::UnmaskedProc);
    }
    refuse_labels(pod, container, of_pod, own)?;
    let seccomp = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    Ok(Security {
        user: User {
            name: match user {
                Some(id) => numeric_user(id, image_user)?,
                None => image_user.to_owned(),
            },
            gid: own.run_as_group.or(of_pod.run_as_group).map(id).transpose()?,
            groups: groups(of_pod)?,
        },
        capabilities: Capabilities {
            add: own.capabilities.as_ref().and_then(|c| c.add.clone()).unwrap_or_default(),
            drop: own.capabilities.as_ref().and_then(|c| c.drop.clone()).unwrap_or_default(),
        },
        privileged,
        no_new_privileges: no_new_privileges(own, privileged),
        seccomp: if privileged { Seccomp::Unconfined } else { seccomp_of(seccomp)? },
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        unmasked_proc,
    })
}

/// Whether the pod's users are none of the machine's.
pub(crate) fn has_user_namespace(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_users) == Some(false)
}

/// Whether the pod has a user namespace of its own.
///
/// # Errors
/// When it also asks for a namespace of the machine.
pub(crate) fn user_namespace(pod: &Pod) -> Result<bool, SecurityError> {
    let own = has_user_namespace(pod);
    let host = pod.spec.as_ref().is_some_and(|s| [s.host_network, s.host_pid, s.host_ipc].contains(&Some(true)));
    if own && host { Err(SecurityError::HostUsers) } else { Ok(own) }
}

/// What a pod may set without reaching beyond itself: the list of kubelet.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// The kernel settings of a pod.
///
/// # Errors
/// When one could reach beyond the pod.
pub(crate) fn sysctls(pod: &Pod) -> Result<BTreeMap<String, String>, SecurityError> {
    let Some(spec) = pod.spec.as_ref() else { return Ok(BTreeMap::new()) };
    let asked = spec.security_context.as_ref().and_then(|c| c.sysctls.as_ref()).into_iter().flatten();
    let mut all = BTreeMap::new();
    for sysctl in asked {
        // Either way of writing means the same.
        let name = sysctl.name.replace('/', ".");
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            return Err(SecurityError::Sysctl(name));
        }
        if name.starts_with("net.") && spec.host_network == Some(true) {
            return Err(SecurityError::HostSysctl(name, "net"));
        }
        if name.starts_with("kernel.") && spec.host_ipc == Some(true) {
            return Err(SecurityError::HostSysctl(name, "ipc"));
        }
        all.insert(name, sysctl.value.clone());
    }
    Ok(all)
}

/// Before profiles had a field they were written here, with the container's name behind.
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Labels of Linux security modules are a promise that nobody here keeps.
fn refuse_labels(
    pod: &Pod,
    container: &Container,
    of_pod: &PodSecurityContext,
    own: &SecurityContext,
) -> Result<(), SecurityError> {
    let annotation = || {
        let annotations = pod.metadata.annotations.as_ref()?;
        annotations.get(&format!("{APPARMOR_ANNOTATION}{}", container.name)).map(String::as_str)
    };
    let field = own.app_armor_profile.as_ref().or(of_pod.app_armor_profile.as_ref());
    let profile = field.map(|p| p.localhost_profile.as_deref().unwrap_or(&p.type_)).or_else(annotation);
    match profile {
        None | Some("Unconfined" | "unconfined") => {}
        Some(profile) => return Err(SecurityError::AppArmor(profile.to_owned())),
    }
    let options = own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref());
    match options {
        Some(options) if *options != SELinuxOptions::default() => Err(SecurityError::SeLinux),
        _ => Ok(()),
    }
}

/// The group that owns the pod's volumes.
///
/// # Errors
/// When it is no group id.
pub fn fs_group(pod: &Pod) -> Result<Option<u32>, SecurityError> {
    let context = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    context.and_then(|c| c.fs_group).map(id).transpose()
}

fn refuse_root(pod: &Pod, container: &Container, user: Option<i64>, image_user: &str) -> Result<(), SecurityError> {
    let pod = crate::pod::describe(pod);
    let container = container.name.clone();
    let image_user = image_user.split(':').next().unwrap_or_default();
    match user {
        Some(0) => Err(SecurityError::AsksForRoot { pod, container }),
        Some(user) => id(user).map(drop),
        None => match image_user.parse::<i64>() {
            Ok(0) => Err(SecurityError::ImageIsRoot { pod, container }),
            Ok(user) => id(user).map(drop),
            Err(_) if image_user.is_empty() => Err(SecurityError::ImageIsRoot { pod, container }),
            Err(_) => Err(SecurityError::NonNumericUser { user: image_user.to_owned(), pod, container }),
        },
    }
}

/// A user by number; when it is the one the image names too, the image's group stays.
fn numeric_user(user: i64, image_user: &str) -> Result<String, SecurityError> {
    let user = id(user)?;
    match image_user.split_once(':') {
        Some((name, _)) if name.parse() == Ok(user) => Ok(image_user.to_owned()),
        _ => Ok(user.to_string()),
    }
}

fn groups(pod: &PodSecurityContext) -> Result<Vec<u32>, SecurityError> {
    let list = pod.supplemental_groups.iter().flatten().copied().chain(pod.fs_group);
    let mut list = list.map(id).collect::<Result<Vec<_>, _>>()?;
    list.sort_unstable();
    list.dedup();
    Ok(list)
}

/// Privileged containers and those that ask for CAP_SYS_ADMIN always may gain privileges; others unless they say no.
fn no_new_privileges(own: &SecurityContext, privileged: bool) -> bool {
    let add = own.capabilities.as_ref().and_then(|c| c.add.as_ref());
    let admin = add.is_some_and(|list| list.iter().any(|c| c == "CAP_SYS_ADMIN"));
    !privileged && !admin && own.allow_privilege_escalation == Some(false)
}

fn seccomp_of(profile: Option<&SeccompProfile>) -> Result<Seccomp, SecurityError> {
    match profile.map(|p| p.type_.as_str()) {
        // Without a profile the default one applies: a container that needs more must say so.
        None | Some("RuntimeDefault") => Ok(Seccomp::Default),
        Some("Unconfined") => Ok(Seccomp::Unconfined),
        Some(other) => Err(SecurityError::Seccomp(other.to_owned())),
    }
}

fn id(number: i64) -> Result<u32, SecurityError> {
    let id = u32::try_from(number).ok().filter(|id| *id <= i32::MAX.cast_unsigned());
    id.ok_or(SecurityError::Id(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(pod: Value, own: Value, image_user: &str) -> Result<Security, String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"securityContext": pod, "containers": [{"name": "c", "securityContext": own}]}}))
        .expect("a pod");
        security(&pod, &pod.spec.as_ref().expect("spec").containers[0], image_user).map_err(|e| e.to_string())
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let non_root = || json!({"runAsNonRoot": true});
        assert_eq!(
            of(non_root(), json!({}), ""),
            Err("container has runAsNonRoot and image will run as root (pod: p_ns(u), container: c)".into())
        );
        assert!(of(non_root(), json!({}), "0:5").is_err());
        assert!(of(non_root(), json!({}), "app").expect_err("a name").contains("non-numeric user (app)"));
        assert!(of(non_root(), json!({"runAsUser": 0}), "5").expect_err("root").contains("breaks non-root policy"));
        assert!(of(non_root(), json!({}), "65532").is_ok());
        // What is no id would be looked for among the names of the image.
        for none in ["-1", "4294967296", "2147483648:5"] {
            assert!(of(non_root(), json!({}), none).expect_err(none).ends_with("is no user or group id"), "{none}");
        }
        assert!(of(non_root(), json!({}), "99999999999999999999").expect_err("no number").contains("non-numeric"));
        assert!(of(json!({}), json!({"runAsUser": 4_294_967_296_i64}), "").is_err());
        assert!(of(non_root(), json!({"runAsUser": 7}), "").is_ok());
        assert!(of(non_root(), json!({"runAsNonRoot": false}), "").is_ok());
    }

    #[test]
    fn the_container_overrules_its_pod_and_both_the_image() {
        let pod = json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 9, "supplementalGroups": [9, 8]});
        let security = of(pod, json!({"runAsUser": 5}), "app").expect("allowed");
        assert_eq!(security.user, User { name: "5".into(), gid: Some(2), groups: vec![8, 9] });
        assert_eq!(of(json!({}), json!({}), "app:grp").expect("allowed").user.name, "app:grp");
        assert_eq!(of(json!({}), json!({"runAsUser": 5}), "5:7").expect("allowed").user.name, "5:7");
    }

    #[test]
    fn privileges_may_grow_unless_they_must_not() {
        let no_new = |own: Value| of(json!({}), own, "").expect("allowed").no_new_privileges;
        assert!(!no_new(json!({})));
        assert!(no_new(json!({"allowPrivilegeEscalation": false})));
        assert!(!no_new(json!({"privileged": true})));
    }

    #[test]
    fn what_nobody_enforces_is_refused_by_name() {
        let error = |pod: Value, own: Value| of(pod, own, "").expect_err("refused");
        assert_eq!(
            error(json!({}), json!({"procMount": "Unmasked"})),
            "procMount: Unmasked needs a user namespace: set hostUsers: false in the pod's spec"
        );
        let profile = json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "mine"}});
        assert!(error(json!({}), profile.clone()).starts_with("cannot enforce AppArmor profile \"mine\": "));
        assert!(error(profile, json!({})).contains("AppArmor"));
        assert!(error(json!({}), json!({"appArmorProfile": {"type": "RuntimeDefault"}})).contains("RuntimeDefault"));
        assert!(error(json!({"seLinuxOptions": {"level": "s0:c1"}}), json!({})).contains("seLinuxOptions"));
        let accepted = json!({"appArmorProfile": {"type": "Unconfined"}, "seLinuxOptions": {}, "procMount": "Default"});
        assert!(of(json!({}), accepted, "").is_ok());
    }

    fn with_sysctl(name: &str, more: Value) -> Result<BTreeMap<String, String>, String> {
        let mut spec = json!({"containers": [], "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a pod");
        sysctls(&pod).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_that_reach_beyond_the_pod_are_refused() {
        let safe = with_sysctl("net/ipv4/tcp_syncookies", json!({})).expect("safe");
        assert_eq!(safe, BTreeMap::from([("net.ipv4.tcp_syncookies".to_owned(), "1".to_owned())]));
        for unsafe_one in ["kernel.shmmax", "net.core.somaxconn", "net.ipv4.ip_forward", "vm.swappiness"] {
            let error = with_sysctl(unsafe_one, json!({})).expect_err("unsafe");
            assert_eq!(error, format!("forbidden sysctl: {unsafe_one:?} not allowlisted"));
        }
        assert_eq!(
            with_sysctl("net.ipv4.tcp_syncookies", json!({"hostNetwork": true})).expect_err("the machine's"),
            "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled"
        );
    }

    #[test]
    fn users_of_ones_own_go_with_no_namespace_of_the_machine() {
        let of = |spec: Value| {
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a pod");
            user_namespace(&pod)
        };
        assert_eq!(of(json!({"containers": [], "hostUsers": false})), Ok(true));
        assert_eq!(of(json!({"containers": [], "hostUsers": true})), Ok(false));
        assert_eq!(of(json!({"containers": [], "hostUsers": false, "hostPID": true})), Err(SecurityError::HostUsers));
    }

    #[test]
    fn profiles_that_cannot_be_loaded_are_refused() {
        let with = |kind: &str| of(json!({}), json!({"seccompProfile": {"type": kind}}), "").map(|s| s.seccomp);
        assert_eq!(with("RuntimeDefault"), Ok(Seccomp::Default));
        assert_eq!(with("Unconfined"), Ok(Seccomp::Unconfined));
        assert!(with("Localhost").is_err());
    }
}
