//! Who a container runs as and what it may do, from its pod's and its own security context and its image.

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext};
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
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
    })
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
        Some(_) => Ok(()),
        None => match image_user.parse::<i64>() {
            Ok(0) => Err(SecurityError::ImageIsRoot { pod, container }),
            Ok(_) => Ok(()),
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
    u32::try_from(number).map_err(|_| SecurityError::Id(number))
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
    fn profiles_that_cannot_be_loaded_are_refused() {
        let with = |kind: &str| of(json!({}), json!({"seccompProfile": {"type": kind}}), "").map(|s| s.seccomp);
        assert_eq!(with("RuntimeDefault"), Ok(Seccomp::Default));
        assert_eq!(with("Unconfined"), Ok(Seccomp::Unconfined));
        assert!(with("Localhost").is_err());
    }
}
