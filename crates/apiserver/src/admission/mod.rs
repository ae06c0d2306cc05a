//! What single kinds change or refuse with knowledge of the server's state, one file a theme. [`crate::hooks`] says which
//! kind has which.

pub(crate) mod config_map;
pub(crate) mod endpoints;
pub(crate) mod job;
pub(crate) mod knative;
pub(crate) mod limit_range;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod pod;
pub(crate) mod pod_security;
pub(crate) mod promises;
pub(crate) mod rbac;
pub(crate) mod secret;
pub(crate) mod service;
mod sink_binding;

use serde_json::Value;

use crate::{
    addresses::Allocation,
    attributes::UserInfo,
    claims::Claim,
    resources::{Resource, Subresource},
    view::View,
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
pub(crate) struct Admission<'a> {
    /// What may be known of the server.
    pub(crate) view: View<'a>,
    /// The row.
    pub(crate) resource: &'a Resource,
    /// Who writes.
    pub(crate) identity: &'a UserInfo,
    /// Namespace of the request.
    pub(crate) namespace: &'a str,
    /// The part of the object that is written; `None` for the object itself.
    pub(crate) subresource: Option<Subresource>,
    /// What is done.
    pub(crate) operation: Operation,
    /// What it replaces.
    pub(crate) old: Option<&'a Value>,
    /// Whether nothing will be written.
    pub(crate) dry_run: bool,
    /// For the client.
    pub(crate) warnings: &'a mut Vec<String>,
    /// Addresses and ports that the write will use.
    pub(crate) allocations: Vec<Allocation>,
    /// What the object will use of its namespace's quotas.
    pub(crate) claim: Option<Claim>,
}

/// An object that is made together with another.
pub(crate) struct Companion {
    /// Plural of its resource in the core group.
    pub(crate) plural: &'static str,
    /// The object.
    pub(crate) object: Value,
}
