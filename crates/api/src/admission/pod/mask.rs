//! Fields of Kubernetes' pods that revisions do not have, or have only where the administrator allows.

use serde_json::Value;

use super::json;
use crate::{
    config::{Features, Flag, SecurePodDefaults},
    field_error::{FieldError, FieldErrors},
};

/// A field that must not be set: by its mere presence, or when its value differs from what an absent one means.
enum Never {
    Present(&'static str),
    NotZero(&'static str),
}
use Never::{NotZero, Present};

fn check(value: &Value, never: &[Never]) -> FieldErrors {
    let is_set = |field: &&Never| match field {
        Present(key) => json::has(value, key),
        NotZero(key) => {
            let member = json::member(value, key);
            // A list or object that is there counts, even when it is empty.
            member.is_array() || member.is_object() || !json::is_zero(member)
        }
    };
    let set = never.iter().filter(is_set);
    set.map(|(Present(key) | NotZero(key))| FieldError::disallowed(&[key])).collect()
}

/// The pod's own fields.
pub(super) fn pod_spec(spec: &Value, features: &Features) -> FieldErrors {
    const NEVER: [Never; 20] = [
        NotZero("restartPolicy"),
        Present("terminationGracePeriodSeconds"),
        Present("activeDeadlineSeconds"),
        NotZero("serviceAccount"),
        NotZero("nodeName"),
        NotZero("hostname"),
        NotZero("subdomain"),
        Present("setHostnameAsFQDN"),
        Present("hostnameOverride"),
        Present("priority"),
        NotZero("readinessGates"),
        Present("preemptionPolicy"),
        NotZero("overhead"),
        NotZero("ephemeralContainers"),
        Present("os"),
        Present("resources"),
        NotZero("resourceClaims"),
        NotZero("schedulingGates"),
        Present("hostUsers"),
        Present("workloadRef"),
    ];
    let mut errors = check(spec, &NEVER);
    if json::truth(spec, "automountServiceAccountToken") {
        errors.push(FieldError::disallowed(&["automountServiceAccountToken"]));
    }
    if features.pod_spec_security_context.is_disabled()
        && features.secure_pod_defaults == SecurePodDefaults::Disabled
        && json::has(spec, "securityContext")
    {
        errors.push(FieldError::disallowed(&["securityContext"]));
    }
    let gated = [
        (features.pod_spec_affinity, Present("affinity")),
        (features.pod_spec_topology_spread_constraints, NotZero("topologySpreadConstraints")),
        (features.pod_spec_host_aliases, NotZero("hostAliases")),
        (features.pod_spec_node_selector, NotZero("nodeSelector")),
        (features.pod_spec_runtime_class_name, Present("runtimeClassName")),
        (features.pod_spec_tolerations, NotZero("tolerations")),
        (features.pod_spec_share_process_namespace, Present("shareProcessNamespace")),
        (features.pod_spec_priority_class_name, NotZero("priorityClassName")),
        (features.pod_spec_scheduler_name, NotZero("schedulerName")),
        (features.pod_spec_init_containers, NotZero("initContainers")),
        (features.pod_spec_dns_policy, NotZero("dnsPolicy")),
        (features.pod_spec_dns_config, Present("dnsConfig")),
        (features.pod_spec_host_ipc, NotZero("hostIPC")),
        (features.pod_spec_host_pid, NotZero("hostPID")),
        (features.pod_spec_host_network, NotZero("hostNetwork")),
    ];
    for (flag, field) in gated {
        errors.also(check_gated(spec, flag, field));
    }
    errors
}

fn check_gated(value: &Value, flag: Flag, field: Never) -> FieldErrors {
    if flag.is_disabled() { check(value, &[field]) } else { FieldErrors::none() }
}

/// A container's fields.
pub(super) fn container(container: &Value) -> FieldErrors {
    const NEVER: [Never; 8] = [
        Present("lifecycle"),
        NotZero("stdin"),
        NotZero("stdinOnce"),
        NotZero("tty"),
        NotZero("volumeDevices"),
        NotZero("resizePolicy"),
        Present("restartPolicy"),
        NotZero("restartPolicyRules"),
    ];
    let mut errors = check(container, &NEVER);
    let claims = check(json::member(container, "resources"), &[NotZero("claims")]);
    errors.also(claims.via_field("resources"));
    errors
}

/// A port's fields.
pub(super) fn port(port: &Value) -> FieldErrors {
    check(port, &[NotZero("hostIP"), NotZero("hostPort")])
}

/// A mount's fields.
pub(super) fn mount(mount: &Value, features: &Features) -> FieldErrors {
    let mut errors = check(mount, &[NotZero("subPathExpr"), Present("recursiveReadOnly")]);
    errors.also(check_gated(mount, features.pod_spec_volumes_mount_propagation, Present("mountPropagation")));
    errors
}

/// Where a variable's value comes from.
pub(super) fn env_source(source: &Value, features: &Features) -> FieldErrors {
    let mut errors = check(source, &[Present("fileKeyRef")]);
    for field in [Present("fieldRef"), Present("resourceFieldRef")] {
        errors.also(check_gated(source, features.pod_spec_field_ref, field));
    }
    errors
}

/// What a volume holds.
pub(super) fn volume_source(volume: &Value, features: &Features) -> FieldErrors {
    const NEVER: [Never; 22] = [
        Present("awsElasticBlockStore"),
        Present("azureDisk"),
        Present("azureFile"),
        Present("cephfs"),
        Present("cinder"),
        Present("downwardAPI"),
        Present("fc"),
        Present("flexVolume"),
        Present("flocker"),
        Present("gcePersistentDisk"),
        Present("gitRepo"),
        Present("glusterfs"),
        Present("iscsi"),
        Present("nfs"),
        Present("photonPersistentDisk"),
        Present("portworxVolume"),
        Present("quobyte"),
        Present("rbd"),
        Present("scaleIO"),
        Present("storageos"),
        Present("vsphereVolume"),
        Present("podCertificate"),
    ];
    let mut errors = check(volume, &NEVER);
    for (flag, field) in [
        (features.pod_spec_volumes_empty_dir, Present("emptyDir")),
        (features.pod_spec_persistent_volume_claim, Present("persistentVolumeClaim")),
        (features.pod_spec_volumes_host_path, Present("hostPath")),
        (features.pod_spec_volumes_csi, Present("csi")),
        (features.pod_spec_volumes_ephemeral, Present("ephemeral")),
        (features.pod_spec_volumes_image, Present("image")),
    ] {
        errors.also(check_gated(volume, flag, field));
    }
    errors
}

/// What a projection holds.
pub(super) fn projection(source: &Value) -> FieldErrors {
    check(source, &[Present("clusterTrustBundle"), Present("podCertificate")])
}

/// A container's security settings.
pub(super) fn security_context(security: &Value, features: &Features) -> FieldErrors {
    const NEVER: [Never; 4] =
        [Present("seLinuxOptions"), Present("windowsOptions"), Present("procMount"), Present("appArmorProfile")];
    let mut errors = check(security, &NEVER);
    if json::truth(security, "privileged") {
        errors.push(FieldError::disallowed(&["privileged"]));
    }
    let capabilities = json::member(security, "capabilities");
    let added = json::list(capabilities, "add");
    // Secure defaults drop everything, so the one capability that servers need may be asked back.
    let is_low_port_only = features.secure_pod_defaults != SecurePodDefaults::Disabled
        && matches!(added, [only] if only == "NET_BIND_SERVICE");
    if json::has(capabilities, "add") && !features.container_spec_add_capabilities.is_enabled() && !is_low_port_only {
        errors.push(FieldError::disallowed(&["capabilities.add"]));
    }
    errors
}

/// The pod's security settings.
pub(super) fn pod_security_context(security: &Value, features: &Features) -> FieldErrors {
    const NEVER: [Never; 7] = [
        Present("seLinuxOptions"),
        Present("windowsOptions"),
        NotZero("sysctls"),
        Present("fsGroupChangePolicy"),
        Present("appArmorProfile"),
        Present("supplementalGroupsPolicy"),
        Present("seLinuxChangePolicy"),
    ];
    const GATED: [Never; 5] = [
        Present("runAsUser"),
        Present("runAsGroup"),
        Present("runAsNonRoot"),
        Present("fsGroup"),
        NotZero("supplementalGroups"),
    ];
    let mut errors = check(security, &NEVER);
    if !features.pod_spec_security_context.is_disabled() {
        return errors;
    }
    errors.also(check(security, &GATED));
    let profile = json::member(security, "seccompProfile");
    let is_simple = matches!(json::text(profile, "type"), "RuntimeDefault" | "Unconfined")
        && json::text(profile, "localhostProfile").is_empty();
    // Whoever gets secure defaults may opt out of this one.
    let is_opting_out = features.secure_pod_defaults != SecurePodDefaults::Disabled && is_simple;
    if !profile.is_null() && !is_opting_out {
        errors.push(FieldError::disallowed(&["seccompProfile"]));
    }
    errors
}

/// A probe that must not be set at all: each of its parts is named.
pub(super) fn no_probe(probe: &Value) -> FieldErrors {
    const NEVER: [Never; 6] = [
        NotZero("initialDelaySeconds"),
        NotZero("timeoutSeconds"),
        NotZero("periodSeconds"),
        NotZero("successThreshold"),
        NotZero("failureThreshold"),
        Present("terminationGracePeriodSeconds"),
    ];
    let mut errors = check(probe, &NEVER);
    if ["httpGet", "tcpSocket", "exec", "grpc"].iter().any(|handler| json::has(probe, handler)) {
        errors.push(FieldError::disallowed(&[crate::field_error::HERE]));
    }
    errors
}
