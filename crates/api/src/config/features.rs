//! `config-features`.

use super::{Data, read::Reader};

/// Whether something may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// No.
    Disabled,
    /// Where the object asks for it.
    Allowed,
    /// Yes.
    Enabled,
}

impl Flag {
    /// Whether it is on.
    pub fn is_enabled(self) -> bool {
        self == Flag::Enabled
    }

    /// Whether it is off; `Allowed` is not.
    pub fn is_disabled(self) -> bool {
        self == Flag::Disabled
    }

    /// Reads a flag in any case.
    fn parse(raw: &str) -> Option<Flag> {
        [("enabled", Flag::Enabled), ("allowed", Flag::Allowed), ("disabled", Flag::Disabled)]
            .into_iter()
            .find(|(name, _)| raw.eq_ignore_ascii_case(name))
            .map(|(_, flag)| flag)
    }
}

/// How much of the restricted pod security standard is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurePodDefaults {
    /// Nothing.
    Disabled,
    /// All but `runAsNonRoot`.
    AllowRootBounded,
    /// All.
    Enabled,
}

macro_rules! features {
    ($($field:ident $key:literal $default:ident $doc:literal;)*) => {
        /// What users may use. Values that are not known leave the default, silently.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Features {
            $(#[doc = $doc] pub $field: Flag,)*
            /// Whether containers get secure defaults.
            pub secure_pod_defaults: SecurePodDefaults,
        }

        impl Default for Features {
            fn default() -> Self {
                Features { $($field: Flag::$default,)* secure_pod_defaults: SecurePodDefaults::Disabled }
            }
        }

        impl Features {
            /// Parses the map. Nothing in it can be wrong.
            pub fn parse(data: &Data) -> Features {
                let read = Reader(data);
                let mut features = Features::default();
                $(
                    if let Some(flag) = read.raw(&[$key]).and_then(Flag::parse) {
                        features.$field = flag;
                    }
                )*
                if let Some(mode) = read.raw(&["secure-pod-defaults"]).and_then(secure_pod_defaults) {
                    features.secure_pod_defaults = mode;
                }
                features
            }
        }
    };
}

fn secure_pod_defaults(raw: &str) -> Option<SecurePodDefaults> {
    [
        ("disabled", SecurePodDefaults::Disabled),
        ("allowrootbounded", SecurePodDefaults::AllowRootBounded),
        ("enabled", SecurePodDefaults::Enabled),
    ]
    .into_iter()
    .find(|(name, _)| raw.eq_ignore_ascii_case(name))
    .map(|(_, mode)| mode)
}

features! {
    multi_container "multi-container" Enabled "More than one container.";
    multi_container_probing "multi-container-probing" Disabled "Probes on sidecars.";
    pod_spec_affinity "kubernetes.podspec-affinity" Disabled "`affinity`.";
    pod_spec_topology_spread_constraints "kubernetes.podspec-topologyspreadconstraints" Disabled "`topologySpreadConstraints`.";
    pod_spec_host_aliases "kubernetes.podspec-hostaliases" Disabled "`hostAliases`.";
    pod_spec_field_ref "kubernetes.podspec-fieldref" Disabled "`fieldRef` and `resourceFieldRef` of variables.";
    pod_spec_node_selector "kubernetes.podspec-nodeselector" Disabled "`nodeSelector`.";
    pod_spec_runtime_class_name "kubernetes.podspec-runtimeclassname" Disabled "`runtimeClassName`.";
    pod_spec_security_context "kubernetes.podspec-securitycontext" Disabled "The pod's `securityContext`.";
    pod_spec_share_process_namespace "kubernetes.podspec-shareprocessnamespace" Disabled "`shareProcessNamespace`.";
    pod_spec_host_ipc "kubernetes.podspec-hostipc" Disabled "`hostIPC`.";
    pod_spec_host_pid "kubernetes.podspec-hostpid" Disabled "`hostPID`.";
    pod_spec_host_network "kubernetes.podspec-hostnetwork" Disabled "`hostNetwork`.";
    pod_spec_priority_class_name "kubernetes.podspec-priorityclassname" Disabled "`priorityClassName`.";
    pod_spec_scheduler_name "kubernetes.podspec-schedulername" Disabled "`schedulerName`.";
    pod_spec_tolerations "kubernetes.podspec-tolerations" Disabled "`tolerations`.";
    pod_spec_init_containers "kubernetes.podspec-init-containers" Disabled "`initContainers`.";
    pod_spec_dns_policy "kubernetes.podspec-dnspolicy" Disabled "`dnsPolicy`.";
    pod_spec_dns_config "kubernetes.podspec-dnsconfig" Disabled "`dnsConfig`.";
    pod_spec_volumes_empty_dir "kubernetes.podspec-volumes-emptydir" Enabled "`emptyDir` volumes.";
    pod_spec_volumes_host_path "kubernetes.podspec-volumes-hostpath" Disabled "`hostPath` volumes.";
    pod_spec_volumes_csi "kubernetes.podspec-volumes-csi" Disabled "`csi` volumes.";
    pod_spec_volumes_ephemeral "kubernetes.podspec-volumes-ephemeral" Disabled "`ephemeral` volumes.";
    pod_spec_volumes_image "kubernetes.podspec-volumes-image" Disabled "`image` volumes.";
    pod_spec_volumes_mount_propagation "kubernetes.podspec-volumes-mount-propagation" Disabled "`mountPropagation`.";
    pod_spec_persistent_volume_claim "kubernetes.podspec-persistent-volume-claim" Disabled "`persistentVolumeClaim` volumes.";
    pod_spec_persistent_volume_write "kubernetes.podspec-persistent-volume-write" Disabled "Writing to `persistentVolumeClaim` volumes.";
    container_spec_add_capabilities "kubernetes.containerspec-addcapabilities" Disabled "`capabilities.add`.";
    queue_proxy_mount_pod_info "queueproxy.mount-podinfo" Disabled "The pod's labels and annotations for the queue: `Allowed` lets the revision's annotation decide.";
    queue_proxy_resource_defaults "queueproxy.resource-defaults" Disabled "Default requests and limits of the queue.";
    tag_header_based_routing "tag-header-based-routing" Disabled "Choosing a tag by header.";
    auto_detect_http2 "autodetect-http2" Disabled "Finding out whether the container speaks HTTP/2.";
}
