//! What happens to an object between its writer and the store: defaults, changes, checks.

pub(crate) mod config_map;
pub(crate) mod endpoints;
pub(crate) mod job;
mod knative;
pub(crate) mod limit_range;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod pod;
pub(crate) mod pod_security;
mod promises;
pub(crate) mod rbac;
mod rehearsal;
pub(crate) mod secret;
pub(crate) mod service;

use serde_json::Value;

use crate::{
    ApiServer, Identity,
    addresses::Hold,
    fields, object,
    quota::{self, Claim},
    resources::{Resource, Subresource},
    status::Status,
    validation,
};

/// What is done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// It is new.
    Create,
    /// It changes.
    Update,
}

/// A write on its way.
pub struct Admission<'a> {
    /// The server.
    pub(crate) server: &'a ApiServer,
    /// The row.
    pub(crate) resource: &'a Resource,
    /// Who writes.
    pub(crate) identity: &'a Identity,
    /// Namespace of the request.
    pub(crate) namespace: &'a str,
    /// The part of the object that is written; `None` for the object itself.
    pub(crate) part: Option<Subresource>,
    /// What is done.
    pub(crate) operation: Operation,
    /// What it replaces.
    pub(crate) old: Option<&'a Value>,
    /// Whether nothing will be written.
    pub(crate) dry_run: bool,
    /// For the client.
    pub(crate) warnings: &'a mut Vec<String>,
    /// Addresses and ports that the write will use.
    pub(crate) held: Vec<Hold>,
    /// What the object will use of its namespace's quotas.
    pub(crate) claim: Option<Claim>,
}

/// Default, mutate, validate.
///
/// # Errors
/// The answer to the writer, when it may not be.
pub(crate) fn admit(admission: &mut Admission<'_>, object: &mut Value) -> Result<(), Status> {
    let hooks = admission.resource.hooks.clone();
    (hooks.default)(object);
    fields::fill_defaults(admission.resource, object);
    if admission.operation == Operation::Create {
        namespace::lifecycle(admission, object)?;
    }
    (hooks.admit)(admission, object)?;
    // What a hook added has defaults, too.
    (hooks.default)(object);
    knative::default(admission, object);
    let mut causes = validation::metadata::check(admission.resource, object);
    causes.extend(fields::misfits(admission.resource, object));
    causes.extend((hooks.validate)(object, admission.old));
    if !causes.is_empty() {
        return Err(admission.resource.invalid(object::name(object), causes));
    }
    knative::validate(admission, object)?;
    pod_security::admit(admission, object)?;
    promises::warn(admission, object);
    if admission.resource.namespaced {
        let Admission { server, resource, namespace, old, .. } = admission;
        admission.claim = quota::check(server, resource, namespace, *old, object)?;
    }
    Ok(())
}
