//! Label and annotation keys.

/// Namespace of the control plane's own objects and configuration.
pub const SYSTEM_NAMESPACE: &str = "knative-serving";

/// Namespace of Eventing's own objects and configuration.
pub const EVENTING_SYSTEM_NAMESPACE: &str = "knative-eventing";

/// Keys that Eventing uses.
pub mod eventing {
    /// Label: name of the Broker.
    pub const BROKER: &str = "eventing.knative.dev/broker";
    /// Annotation: class of a Broker.
    pub const BROKER_CLASS: &str = "eventing.knative.dev/broker.class";
    /// Annotation: the object a Trigger waits for, JSON.
    pub const DEPENDENCY: &str = "knative.dev/dependency";
    /// Annotation: `enabled` has the Trigger's Broker made.
    pub const INJECTION: &str = "eventing.knative.dev/injection";
    /// Annotation of a Trigger or a channel: `key` has events of one `partitionkey` delivered in order.
    pub const ORDERING: &str = "knoll.dev/ordering";
    /// Annotation: `cluster` or `namespace`, where a channel is served from.
    pub const SCOPE: &str = "eventing.knative.dev/scope";
    /// Label: `true` marks a ConfigMap of certificates that senders of events trust.
    pub const TRUST_BUNDLE: &str = "networking.knative.dev/trust-bundle";
    /// Annotation: version of the form in which a channel holds its subscribers.
    pub const SUBSCRIBABLE: &str = "messaging.knative.dev/subscribable";
}

/// Keys under `serving.knative.dev/`.
pub mod serving {
    /// Prefix of the group's keys.
    pub const PREFIX: &str = "serving.knative.dev/";
    /// Label: name of the Service.
    pub const SERVICE: &str = "serving.knative.dev/service";
    /// Label: uid of the Service.
    pub const SERVICE_UID: &str = "serving.knative.dev/serviceUID";
    /// Label: name of the Configuration.
    pub const CONFIGURATION: &str = "serving.knative.dev/configuration";
    /// Label: uid of the Configuration.
    pub const CONFIGURATION_UID: &str = "serving.knative.dev/configurationUID";
    /// Label: generation of the Configuration a Revision was stamped from.
    pub const CONFIGURATION_GENERATION: &str = "serving.knative.dev/configurationGeneration";
    /// Label: name of the Revision.
    pub const REVISION: &str = "serving.knative.dev/revision";
    /// Label: uid of the Revision.
    pub const REVISION_UID: &str = "serving.knative.dev/revisionUID";
    /// Label: name of the Route.
    pub const ROUTE: &str = "serving.knative.dev/route";
    /// Label: namespace of the Route.
    pub const ROUTE_NAMESPACE: &str = "serving.knative.dev/routeNamespace";
    /// Label: `pending`, `active` or `reserve`.
    pub const ROUTING_STATE: &str = "serving.knative.dev/routingState";
    /// Label: hash of the Deployment as it was last made.
    pub const DEPLOYMENT_HASH: &str = "serving.knative.dev/deployment-hash";
    /// Annotation: who created it.
    pub const CREATOR: &str = "serving.knative.dev/creator";
    /// Annotation: who last changed its spec.
    pub const LAST_MODIFIER: &str = "serving.knative.dev/lastModifier";
    /// Annotation: names of the Routes that reach it, sorted, comma-separated.
    pub const ROUTES: &str = "serving.knative.dev/routes";
    /// Annotation: when the routing state last changed, RFC 3339.
    pub const ROUTING_STATE_MODIFIED: &str = "serving.knative.dev/routingStateModified";
    /// Annotation: legacy time of last use.
    pub const LAST_PINNED: &str = "serving.knative.dev/lastPinned";
    /// Annotation: `true` keeps a Revision from collection.
    pub const NO_GC: &str = "serving.knative.dev/no-gc";
    /// Annotation: how long a rollout takes.
    pub const ROLLOUT_DURATION: &str = "serving.knative.dev/rollout-duration";
    /// Annotation: how long a Deployment may take.
    pub const PROGRESS_DEADLINE: &str = "serving.knative.dev/progress-deadline";
}

/// Keys under `networking.knative.dev/` and `networking.internal.knative.dev/`.
pub mod networking {
    /// Prefix of the public keys.
    pub const PREFIX: &str = "networking.knative.dev/";
    /// Label: `cluster-local` hides from outside.
    pub const VISIBILITY: &str = "networking.knative.dev/visibility";
    /// Annotation: which data plane an Ingress is for.
    pub const INGRESS_CLASS: &str = "networking.knative.dev/ingress.class";
    /// Label: the ServerlessService a Service belongs to.
    pub const SERVERLESS_SERVICE: &str = "networking.internal.knative.dev/serverlessservice";
    /// Label: `Public` or `Private`.
    pub const SERVICE_TYPE: &str = "networking.internal.knative.dev/serviceType";
    /// Annotation: gradual rollout state, JSON.
    pub const ROLLOUT: &str = "networking.internal.knative.dev/rollout";
    /// Annotation: hosts by tag, JSON.
    pub const TAG_TO_HOST: &str = "networking.internal.knative.dev/tag-to-host";
}

/// Keys under `batch.kubernetes.io/`.
pub mod batch {
    /// Finalizer: keeps a pod until its Job has counted it.
    pub const JOB_TRACKING: &str = "batch.kubernetes.io/job-tracking";
    /// Label and annotation: which completion of its Job a pod works on.
    pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
    /// Annotation: how many pods before this one failed for the same index.
    pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
    /// Annotation: how many more failed and were not to be counted.
    pub const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
    /// Annotation: the time for which a CronJob made a Job, RFC 3339.
    pub const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
    /// Name by which a Job says that the built-in controller is the one to look after it.
    pub const JOB_CONTROLLER: &str = "kubernetes.io/job-controller";
}

/// Annotation that holds what `kubectl apply` sent last.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
