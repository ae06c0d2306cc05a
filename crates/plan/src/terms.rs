//! What an object is found by, beside its key: a [`Term`] names an index and a place in it.

use std::collections::BTreeMap;

use knoll_api::{
    Key, Kind, Resource,
    autoscaling::{Metric, PodAutoscaler},
    caching::Image,
    flows::{Parallel, Sequence},
    k8s_openapi::{
        api::{
            apps::v1::{Deployment, ReplicaSet},
            batch::v1::{CronJob, Job},
            core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Secret, Service as CoreService, ServiceAccount},
            discovery::v1::EndpointSlice,
            rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
        },
        apimachinery::pkg::apis::meta::v1::LabelSelector,
    },
    labels::{self, batch},
    networking::{Certificate, ClusterDomainClaim, Ingress, ServerlessService},
    serving::{Configuration, DomainMapping, Revision, Route, Service},
    sinks::{IntegrationSink, JobSink},
    sources::ContainerSource,
};

use crate::{access::bound_role, untyped::owner_terms};

/// Labels by whose values objects of every kind are found.
pub(crate) const INDEXED: &[&str] = &[
    labels::serving::SERVICE,
    labels::serving::CONFIGURATION,
    labels::serving::REVISION,
    labels::serving::REVISION_UID,
    labels::serving::ROUTE,
    labels::networking::SERVERLESS_SERVICE,
    labels::eventing::TRUST_BUNDLE,
    "kubernetes.io/service-name",
];

/// A place in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Term<'a> {
    /// Objects with an owner reference to this uid.
    Owner(&'a str),
    /// Objects with an owner of a kind that controllers do not know.
    OwnerKind {
        /// Its API group.
        group: &'a str,
        /// Its kind.
        kind: &'a str,
    },
    /// Objects that carry a label.
    Label {
        /// Their namespace.
        namespace: &'a str,
        /// The label.
        label: &'a str,
        /// Its value.
        value: &'a str,
    },
    /// Objects that nothing controls.
    Uncontrolled {
        /// Their namespace.
        namespace: &'a str,
    },
    /// Objects whose selector asks for this label among others; each is found by one of the labels it asks for.
    Selects {
        /// Their namespace.
        namespace: &'a str,
        /// The label.
        label: &'a str,
        /// Its value.
        value: &'a str,
    },
    /// Objects whose selector asks for no label by value.
    SelectsOtherwise {
        /// Their namespace.
        namespace: &'a str,
    },
    /// Objects of this name in any namespace.
    Named(&'a str),
    /// Objects that refer to one of a kind that no controller knows; to any of it where the name is empty, and to those that
    /// they choose of a namespace where it is `*`.
    Duck {
        /// Its `group/version`.
        api_version: &'a str,
        /// Its kind.
        kind: &'a str,
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// Objects that lead to another by its name.
    LeadsTo {
        /// Kind of the other.
        kind: Kind,
        /// Namespace of the other.
        namespace: &'a str,
        /// Name of the other.
        name: &'a str,
    },
    /// Objects that a Route has marked as its own.
    Marked {
        /// Namespace of both.
        namespace: &'a str,
        /// The Route.
        route: &'a str,
    },
    /// Pods that wait for a node.
    Unbound,
}

/// A kind with its indexes.
pub trait Indexed: Resource {
    /// Whether every label is an index, not only the usual ones.
    const ALL_LABELS: bool = false;

    /// The terms of this kind alone.
    fn own_terms(&self, _add: &mut dyn FnMut(Term<'_>)) {}

    /// Every term that the object is found by.
    fn every_term(&self, add: &mut dyn FnMut(Term<'_>)) {
        let namespace = self.namespace();
        for owner in self.meta().owner_references.iter().flatten() {
            owner_terms(&owner.api_version, &owner.kind, &owner.uid, add);
        }
        if self.controller().is_none() {
            add(Term::Uncontrolled { namespace });
        }
        for (label, value) in self.meta().labels.iter().flatten() {
            if Self::ALL_LABELS || INDEXED.contains(&label.as_str()) {
                add(Term::Label { namespace, label, value });
            }
        }
        self.own_terms(add);
    }
}

macro_rules! plain {
    ($($ty:ty),* $(,)?) => { $(impl Indexed for $ty {})* };
}
plain!(
    Service,
    PodAutoscaler,
    Metric,
    Ingress,
    ServerlessService,
    Certificate,
    ClusterDomainClaim,
    Image,
    ContainerSource,
    Parallel,
    Sequence,
    JobSink,
    IntegrationSink,
    Node,
    ServiceAccount,
    ConfigMap,
    Secret,
    Endpoints,
    EndpointSlice,
    CronJob,
    Role,
    ClusterRole,
);

impl Indexed for Namespace {
    const ALL_LABELS: bool = true;
}

impl Indexed for RoleBinding {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        bound_role(&self.role_ref.kind, &self.role_ref.name, self.namespace(), add);
    }
}

impl Indexed for ClusterRoleBinding {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        bound_role(&self.role_ref.kind, &self.role_ref.name, "", add);
    }
}

impl Indexed for Configuration {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        marks(self, add);
    }
}

impl Indexed for Revision {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        marks(self, add);
    }
}

fn marks<R: Resource>(object: &R, add: &mut dyn FnMut(Term<'_>)) {
    let routes = object.annotation(labels::serving::ROUTES).into_iter().flat_map(|list| list.split(','));
    routes
        .filter(|route| !route.is_empty())
        .for_each(|route| add(Term::Marked { namespace: object.namespace(), route }));
}

impl Indexed for Route {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        let namespace = self.namespace();
        for target in &self.spec.traffic {
            let named = [(Kind::Revision, &target.revision_name), (Kind::Configuration, &target.configuration_name)];
            for (kind, name) in named.into_iter().filter(|(_, name)| !name.is_empty()) {
                add(Term::LeadsTo { kind, namespace, name });
            }
        }
    }
}

impl Indexed for DomainMapping {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        add(Term::Named(self.name()));
        let target = &self.spec.ref_;
        if let Some(kind) = Kind::from_api(&target.api_version, &target.kind) {
            add(Term::LeadsTo { kind, namespace: self.namespace(), name: &target.name });
        }
    }
}

impl Indexed for Pod {
    const ALL_LABELS: bool = true;

    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        let phase = self.status.as_ref().and_then(|status| status.phase.as_deref());
        if let Some(job) =
            job_of(self).filter(|_| phase != Some("Succeeded") || has_finalizer(self, batch::JOB_TRACKING))
        {
            add(Term::LeadsTo { kind: Kind::Job, namespace: self.namespace(), name: job });
        }
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return;
        }
        let node = self.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
        if node.is_none() {
            add(Term::Unbound);
        }
    }
}

/// The Job that controls a pod.
fn job_of(pod: &Pod) -> Option<&str> {
    let owner = pod.controller()?;
    (Kind::from_api(&owner.api_version, &owner.kind) == Some(Kind::Job)).then_some(owner.name.as_str())
}

fn has_finalizer(pod: &Pod, finalizer: &str) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|one| one == finalizer)
}

impl Indexed for Job {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        select(self.namespace(), self.spec.as_ref().and_then(|spec| spec.selector.as_ref()), add);
    }
}

impl Indexed for CoreService {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        let selector = self.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selects(self.namespace(), selector, add);
    }
}

impl Indexed for Deployment {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        select(self.namespace(), self.spec.as_ref().map(|spec| &spec.selector), add);
    }
}

impl Indexed for ReplicaSet {
    fn own_terms(&self, add: &mut dyn FnMut(Term<'_>)) {
        select(self.namespace(), self.spec.as_ref().map(|spec| &spec.selector), add);
    }
}

/// What an object is found by that selects others in a namespace by their labels.
pub(crate) fn select(namespace: &str, selector: Option<&LabelSelector>, add: &mut dyn FnMut(Term<'_>)) {
    let Some(selector) = selector else { return };
    let by_value = selector.match_labels.as_ref().filter(|labels| !labels.is_empty());
    match by_value {
        Some(_) => selects(namespace, by_value, add),
        None => add(Term::SelectsOtherwise { namespace }),
    }
}

/// One label is enough to be found by: what is picked carries all of them. The last sorts most telling: `revisionUID`
/// comes after `app`.
fn selects(namespace: &str, selector: Option<&BTreeMap<String, String>>, add: &mut dyn FnMut(Term<'_>)) {
    if let Some((label, value)) = selector.and_then(BTreeMap::last_key_value) {
        add(Term::Selects { namespace, label, value });
    }
}

/// What selectors that may pick an object with these labels are found by.
pub(crate) fn selectors_of<'a>(
    namespace: &'a str,
    labels: Option<&'a BTreeMap<String, String>>,
) -> impl Iterator<Item = Term<'a>> {
    let by_value = labels.into_iter().flatten().map(move |(label, value)| Term::Selects { namespace, label, value });
    by_value.chain([Term::SelectsOtherwise { namespace }])
}

/// Objects of a kind that are to be found by what they lead to.
pub(crate) fn leads_to(kind: Kind, key: &Key) -> Term<'_> {
    Term::LeadsTo { kind, namespace: &key.namespace, name: &key.name }
}
