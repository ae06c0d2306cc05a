//! Where kinds differ in what happens to a write: defaults, admission, validation and companions, put together by
//! resource. What a kind is called, and what of it is shown, stands in its row ([`crate::resources`]).
//!
//! Adding a kind that needs more than the generic behaviour adds a line to the table.

mod chain;
mod rehearsal;

use futures_util::future::BoxFuture;
use serde_json::Value;

pub(crate) use self::chain::admit;
use crate::{
    admission::{self, Admission, Companion},
    defaults,
    resources::Resource,
    status::{Cause, Status},
    validation,
    view::View,
};

/// How a kind changes or refuses a write with knowledge of the server's state.
#[derive(Clone, Copy)]
pub(crate) enum Admit {
    /// At once.
    Now(fn(&mut Admission<'_>, &mut Value) -> Result<(), Status>),
    /// After an answer that has to be waited for. No lock is held meanwhile: the future goes between threads.
    Waits(for<'a, 'b> fn(&'a mut Admission<'b>, &'a mut Value) -> BoxFuture<'a, Result<(), Status>>),
}

/// What is special about the writes of a kind. Each defaults to nothing.
#[derive(Clone, Copy)]
pub(crate) struct Hooks {
    /// Fills in what the writer left out; knows only the object.
    pub(crate) default: fn(&mut Value),
    /// Changes or refuses the write.
    admit: Option<Admit>,
    /// Findings about a new object (`old` is what it replaces).
    validate: fn(new: &Value, old: Option<&Value>) -> Vec<Cause>,
    /// Findings about a new status (`old` is the object with the one that it replaces).
    pub(crate) validate_status: fn(new: &Value, old: &Value) -> Vec<Cause>,
    /// Objects that come into being in the same transaction as a new one.
    pub(crate) companions: Option<fn(View<'_>, &Value) -> Vec<Companion>>,
}

/// Nothing special.
const NONE: Hooks = Hooks {
    default: |_| {},
    admit: None,
    validate: |_, _| Vec::new(),
    validate_status: |_, _| Vec::new(),
    companions: None,
};

impl Hooks {
    const fn default(self, default: fn(&mut Value)) -> Self {
        Self { default, ..self }
    }

    const fn admit(self, admit: fn(&mut Admission<'_>, &mut Value) -> Result<(), Status>) -> Self {
        Self { admit: Some(Admit::Now(admit)), ..self }
    }

    const fn admit_waiting(
        self,
        admit: for<'a, 'b> fn(&'a mut Admission<'b>, &'a mut Value) -> BoxFuture<'a, Result<(), Status>>,
    ) -> Self {
        Self { admit: Some(Admit::Waits(admit)), ..self }
    }

    const fn validate(self, validate: fn(&Value, Option<&Value>) -> Vec<Cause>) -> Self {
        Self { validate, ..self }
    }

    const fn validate_status(self, validate_status: fn(&Value, &Value) -> Vec<Cause>) -> Self {
        Self { validate_status, ..self }
    }

    const fn companions(self, companions: fn(View<'_>, &Value) -> Vec<Companion>) -> Self {
        Self { companions: Some(companions), ..self }
    }
}

/// The hooks of a resource.
pub(crate) fn of(resource: &Resource) -> Hooks {
    let row = (resource.group.as_str(), resource.plural.as_str());
    let found = TABLE.iter().find(|(group, plural, _)| (*group, *plural) == row);
    // A definition of the same name is another resource.
    found.filter(|_| !resource.is_custom()).map_or(NONE, |(.., hooks)| *hooks)
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// By group and plural.
#[rustfmt::skip]
const TABLE: &[(&str, &str, Hooks)] = &[
    ("", "pods", NONE
        .default(defaults::pod::default)
        .admit(admission::pod::admit)
        .validate(validation::pod::validate)),
    ("", "events", NONE.validate(validation::core::event)),
    ("events.k8s.io", "events", NONE.validate(validation::core::event)),
    ("", "endpoints", NONE
        .default(defaults::endpoints::default)
        .admit_waiting(admission::endpoints::endpoints)
        .validate(validation::endpoints::endpoints)),
    ("discovery.k8s.io", "endpointslices", NONE
        .default(defaults::endpoints::slice)
        .admit_waiting(admission::endpoints::slice)
        .validate(validation::endpoints::slice)),
    ("coordination.k8s.io", "leases", NONE.validate(validation::coordination::lease)),
    ("apps", "replicasets", NONE
        .default(defaults::replica_set::default)
        .validate(validation::apps::with_selector)),
    ("apps", "deployments", NONE
        .default(defaults::deployment::default)
        .validate(validation::apps::deployment)),
    ("", "services", NONE
        .default(defaults::service::default)
        .admit_waiting(admission::service::admit)
        .validate(validation::service::service)),
    ("", "configmaps", NONE
        .admit(admission::config_map::admit)
        .validate(validation::core::config_map)),
    ("", "secrets", NONE
        .default(defaults::secret::default)
        .admit(admission::secret::admit)
        .validate(validation::core::secret)),
    ("", "namespaces", NONE
        .default(defaults::namespace::default)
        .admit(admission::pod_security::namespace)
        .companions(admission::namespace::companions)),
    ("", "nodes", NONE.admit(admission::node::admit)),
    ("", "persistentvolumeclaims", NONE
        .default(defaults::storage::claim)
        .admit(admission::limit_range::claim)),
    ("", "persistentvolumes", NONE.default(defaults::storage::volume)),
    ("", "replicationcontrollers", NONE
        .default(defaults::replication_controller::default)
        .validate(validation::apps::replication_controller)),
    ("", "podtemplates", NONE
        .default(defaults::pod::template_object)
        .validate(validation::pod::template_object)),
    ("", "limitranges", NONE.validate(validation::limits::limit_range)),
    ("", "resourcequotas", NONE.validate(validation::limits::resource_quota)),
    ("apps", "statefulsets", NONE
        .default(defaults::stateful_set::default)
        .validate(validation::apps::with_selector)),
    ("apps", "daemonsets", NONE
        .default(defaults::daemon_set::default)
        .validate(validation::apps::with_selector)),
    ("batch", "jobs", NONE
        .default(defaults::job::default)
        .admit(admission::job::admit)
        .validate(validation::batch::job)
        .validate_status(validation::batch::job_status)),
    ("batch", "cronjobs", NONE
        .default(defaults::cron_job::default)
        .validate(validation::batch::cron_job)),
    ("autoscaling", "horizontalpodautoscalers", NONE.default(defaults::horizontal_pod_autoscaler::default)),
    ("networking.k8s.io", "networkpolicies", NONE.default(defaults::network_policy::default)),
    ("storage.k8s.io", "storageclasses", NONE.default(defaults::storage::class)),
    ("scheduling.k8s.io", "priorityclasses", NONE.default(defaults::priority_class::default)),
    (RBAC, "roles", NONE
        .admit(admission::rbac::role)
        .validate(validation::rbac::role)),
    (RBAC, "clusterroles", NONE
        .admit(admission::rbac::role)
        .validate(validation::rbac::cluster_role)),
    (RBAC, "rolebindings", NONE
        .default(defaults::rbac::binding)
        .admit(admission::rbac::binding)
        .validate(validation::rbac::binding)),
    (RBAC, "clusterrolebindings", NONE
        .default(defaults::rbac::binding)
        .admit(admission::rbac::binding)
        .validate(validation::rbac::binding)),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", NONE.default(defaults::webhook::mutating)),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", NONE.default(defaults::webhook::validating)),
    ("apiextensions.k8s.io", "customresourcedefinitions", NONE
        .default(defaults::custom_resource_definition::default)
        .validate(validation::extensions::definition)),
];

#[cfg(test)]
mod findings_tests;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::resources::ResourceRegistry;

    #[test]
    fn each_line_of_the_table_is_of_one_served_resource() {
        let registry = ResourceRegistry::built_in();
        let mut seen = BTreeSet::new();
        for (group, plural, _) in TABLE {
            assert!(registry.any_version(group, plural).is_some_and(|row| !row.is_custom()), "{plural}.{group}");
            assert!(seen.insert((group, plural)), "{plural}.{group} is there twice");
        }
    }
}
