//! The kinds that controllers read and write, each a row: variant, group, version, plural, kind, scope, type.
//!
//! The API server serves more kinds than these; a kind is here when a plan needs it typed.

/// Whether objects of a kind live in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One name space for the whole cluster.
    Cluster,
    /// One name space a namespace.
    Namespaced,
}

/// Calls `$then!` with the list of kinds, so that the list exists once. A row is
/// `Variant, field, "group", "version", "plural", "Kind", Scope, type;`.
#[macro_export]
macro_rules! for_each_kind {
    ($then:ident) => {
        $then! {
            Service, services, "serving.knative.dev", "v1", "services", "Service", Namespaced, $crate::serving::Service;
            Configuration, configurations, "serving.knative.dev", "v1", "configurations", "Configuration", Namespaced, $crate::serving::Configuration;
            Revision, revisions, "serving.knative.dev", "v1", "revisions", "Revision", Namespaced, $crate::serving::Revision;
            Route, routes, "serving.knative.dev", "v1", "routes", "Route", Namespaced, $crate::serving::Route;
            DomainMapping, domain_mappings, "serving.knative.dev", "v1beta1", "domainmappings", "DomainMapping", Namespaced, $crate::serving::DomainMapping;
            PodAutoscaler, pod_autoscalers, "autoscaling.internal.knative.dev", "v1alpha1", "podautoscalers", "PodAutoscaler", Namespaced, $crate::autoscaling::PodAutoscaler;
            Metric, metrics, "autoscaling.internal.knative.dev", "v1alpha1", "metrics", "Metric", Namespaced, $crate::autoscaling::Metric;
            Ingress, ingresses, "networking.internal.knative.dev", "v1alpha1", "ingresses", "Ingress", Namespaced, $crate::networking::Ingress;
            ServerlessService, serverless_services, "networking.internal.knative.dev", "v1alpha1", "serverlessservices", "ServerlessService", Namespaced, $crate::networking::ServerlessService;
            Certificate, certificates, "networking.internal.knative.dev", "v1alpha1", "certificates", "Certificate", Namespaced, $crate::networking::Certificate;
            ClusterDomainClaim, cluster_domain_claims, "networking.internal.knative.dev", "v1alpha1", "clusterdomainclaims", "ClusterDomainClaim", Cluster, $crate::networking::ClusterDomainClaim;
            Image, images, "caching.internal.knative.dev", "v1alpha1", "images", "Image", Namespaced, $crate::caching::Image;
            Broker, brokers, "eventing.knative.dev", "v1", "brokers", "Broker", Namespaced, $crate::eventing::Broker;
            Trigger, triggers, "eventing.knative.dev", "v1", "triggers", "Trigger", Namespaced, $crate::eventing::Trigger;
            EventPolicy, event_policies, "eventing.knative.dev", "v1alpha1", "eventpolicies", "EventPolicy", Namespaced, $crate::eventing::EventPolicy;
            EventTransform, event_transforms, "eventing.knative.dev", "v1alpha1", "eventtransforms", "EventTransform", Namespaced, $crate::eventing::EventTransform;
            EventType, event_types, "eventing.knative.dev", "v1beta2", "eventtypes", "EventType", Namespaced, $crate::eventing::EventType;
            RequestReply, request_replies, "eventing.knative.dev", "v1alpha1", "requestreplies", "RequestReply", Namespaced, $crate::eventing::RequestReply;
            Channel, channels, "messaging.knative.dev", "v1", "channels", "Channel", Namespaced, $crate::messaging::Channel;
            InMemoryChannel, in_memory_channels, "messaging.knative.dev", "v1", "inmemorychannels", "InMemoryChannel", Namespaced, $crate::messaging::InMemoryChannel;
            Subscription, subscriptions, "messaging.knative.dev", "v1", "subscriptions", "Subscription", Namespaced, $crate::messaging::Subscription;
            Sequence, sequences, "flows.knative.dev", "v1", "sequences", "Sequence", Namespaced, $crate::flows::Sequence;
            Parallel, parallels, "flows.knative.dev", "v1", "parallels", "Parallel", Namespaced, $crate::flows::Parallel;
            ApiServerSource, api_server_sources, "sources.knative.dev", "v1", "apiserversources", "ApiServerSource", Namespaced, $crate::sources::ApiServerSource;
            ContainerSource, container_sources, "sources.knative.dev", "v1", "containersources", "ContainerSource", Namespaced, $crate::sources::ContainerSource;
            PingSource, ping_sources, "sources.knative.dev", "v1", "pingsources", "PingSource", Namespaced, $crate::sources::PingSource;
            SinkBinding, sink_bindings, "sources.knative.dev", "v1", "sinkbindings", "SinkBinding", Namespaced, $crate::sources::SinkBinding;
            IntegrationSource, integration_sources, "sources.knative.dev", "v1alpha1", "integrationsources", "IntegrationSource", Namespaced, $crate::sources::IntegrationSource;
            JobSink, job_sinks, "sinks.knative.dev", "v1alpha1", "jobsinks", "JobSink", Namespaced, $crate::sinks::JobSink;
            IntegrationSink, integration_sinks, "sinks.knative.dev", "v1alpha1", "integrationsinks", "IntegrationSink", Namespaced, $crate::sinks::IntegrationSink;
            Namespace, namespaces, "", "v1", "namespaces", "Namespace", Cluster, $crate::k8s_openapi::api::core::v1::Namespace;
            Node, nodes, "", "v1", "nodes", "Node", Cluster, $crate::k8s_openapi::api::core::v1::Node;
            ServiceAccount, service_accounts, "", "v1", "serviceaccounts", "ServiceAccount", Namespaced, $crate::k8s_openapi::api::core::v1::ServiceAccount;
            ConfigMap, config_maps, "", "v1", "configmaps", "ConfigMap", Namespaced, $crate::k8s_openapi::api::core::v1::ConfigMap;
            Secret, secrets, "", "v1", "secrets", "Secret", Namespaced, $crate::k8s_openapi::api::core::v1::Secret;
            Pod, pods, "", "v1", "pods", "Pod", Namespaced, $crate::k8s_openapi::api::core::v1::Pod;
            CoreService, core_services, "", "v1", "services", "Service", Namespaced, $crate::k8s_openapi::api::core::v1::Service;
            Endpoints, endpoints, "", "v1", "endpoints", "Endpoints", Namespaced, $crate::k8s_openapi::api::core::v1::Endpoints;
            EndpointSlice, endpoint_slices, "discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", Namespaced, $crate::k8s_openapi::api::discovery::v1::EndpointSlice;
            Role, roles, "rbac.authorization.k8s.io", "v1", "roles", "Role", Namespaced, $crate::k8s_openapi::api::rbac::v1::Role;
            RoleBinding, role_bindings, "rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", Namespaced, $crate::k8s_openapi::api::rbac::v1::RoleBinding;
            ClusterRole, cluster_roles, "rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", Cluster, $crate::k8s_openapi::api::rbac::v1::ClusterRole;
            ClusterRoleBinding, cluster_role_bindings, "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", Cluster, $crate::k8s_openapi::api::rbac::v1::ClusterRoleBinding;
            Deployment, deployments, "apps", "v1", "deployments", "Deployment", Namespaced, $crate::k8s_openapi::api::apps::v1::Deployment;
            ReplicaSet, replica_sets, "apps", "v1", "replicasets", "ReplicaSet", Namespaced, $crate::k8s_openapi::api::apps::v1::ReplicaSet;
            Job, jobs, "batch", "v1", "jobs", "Job", Namespaced, $crate::k8s_openapi::api::batch::v1::Job;
            CronJob, cron_jobs, "batch", "v1", "cronjobs", "CronJob", Namespaced, $crate::k8s_openapi::api::batch::v1::CronJob;
        }
    };
}

macro_rules! kind_enum {
    ($($variant:ident, $field:ident, $group:literal, $version:literal, $plural:literal, $kind:literal, $scope:ident, $ty:ty;)*) => {
        /// A kind that controllers know as a type.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(
                #[doc = concat!("`", $kind, "` of `", $group, "/", $version, "`.")]
                $variant,
            )*
        }

        impl Kind {
            /// Every kind, in declaration order.
            pub const ALL: &[Kind] = &[$(Kind::$variant),*];

            /// API group; empty for the core group.
            pub fn group(self) -> &'static str { match self { $(Kind::$variant => $group),* } }
            /// API version, without the group.
            pub fn version(self) -> &'static str { match self { $(Kind::$variant => $version),* } }
            /// Resource name as it stands in URLs.
            pub fn plural(self) -> &'static str { match self { $(Kind::$variant => $plural),* } }
            /// Kind as it stands in objects.
            pub fn kind(self) -> &'static str { match self { $(Kind::$variant => $kind),* } }
            /// Whether its objects live in namespaces.
            pub fn scope(self) -> Scope { match self { $(Kind::$variant => Scope::$scope),* } }
        }
    };
}
for_each_kind!(kind_enum);

impl Kind {
    /// `group/version`, or the bare version for the core group.
    pub fn api_version(self) -> String {
        if self.group().is_empty() { self.version().to_owned() } else { format!("{}/{}", self.group(), self.version()) }
    }

    /// The kind that an object with this `apiVersion` and `kind` has, if controllers know it.
    pub fn from_api(api_version: &str, kind: &str) -> Option<Kind> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        Kind::ALL.iter().copied().find(|k| k.group() == group && k.version() == version && k.kind() == kind)
    }

    /// The kind of this name and group, whichever of its versions is meant.
    pub fn in_any_version(group: &str, kind: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|k| k.group() == group && k.kind() == kind)
    }

    /// Path of the collection (`namespace: None` spans all namespaces), without a leading host.
    pub fn collection_path(self, namespace: Option<&str>) -> String {
        let root = if self.group().is_empty() {
            format!("/api/{}", self.version())
        } else {
            format!("/apis/{}/{}", self.group(), self.version())
        };
        match namespace {
            Some(ns) if self.scope() == Scope::Namespaced => format!("{root}/namespaces/{ns}/{}", self.plural()),
            _ => format!("{root}/{}", self.plural()),
        }
    }

    /// Path of one object.
    pub fn object_path(self, key: &crate::Key) -> String {
        format!("{}/{}", self.collection_path(Some(&key.namespace)), key.name)
    }
}
