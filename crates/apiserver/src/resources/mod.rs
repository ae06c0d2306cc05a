//! What is served: a `Resource` each, with its names, verbs, subresources, columns and fields.
//!
//! Adding a kind adds one in the file of its group. Where the generic behaviour of writes is not enough, `hooks` says
//! what else happens to them.

mod admission;
mod apps;
mod authentication;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
mod core;
mod custom;
mod discovery;
mod events;
mod extensions;
pub(crate) mod knative;
mod networking;
mod policy;
mod rbac;
mod registry;
mod scheduling;
mod storage;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use knoll_store::Durability;
use serde_json::Value;

pub(crate) use self::registry::names;
pub use self::{
    custom::{Custom, from_definition},
    knative::portable_definitions,
    registry::ResourceRegistry,
};
use crate::{
    status::{Cause, Status},
    tables::{Printer, metadata},
};

/// A part of an object with its own path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// Observed state, written apart from the rest.
    Status,
    /// `autoscaling/v1` Scale.
    Scale,
    /// Puts a pod on a node.
    Binding,
    /// Deletes a pod if disruption budgets allow.
    Eviction,
    /// A container's output.
    Log,
    /// A command in a container.
    Exec,
    /// A container's own streams.
    Attach,
    /// TCP connections to a pod.
    PortForward,
    /// A namespace's own finalizers.
    Finalize,
    /// A ServiceAccount's tokens.
    Token,
    /// Containers added to a running pod.
    EphemeralContainers,
    /// Resources of a running pod.
    Resize,
    /// Approval of a certificate request.
    Approval,
}

impl Subresource {
    /// Its path segment.
    pub fn path(self) -> &'static str {
        match self {
            Subresource::Status => "status",
            Subresource::Scale => "scale",
            Subresource::Binding => "binding",
            Subresource::Eviction => "eviction",
            Subresource::Log => "log",
            Subresource::Exec => "exec",
            Subresource::Attach => "attach",
            Subresource::PortForward => "portforward",
            Subresource::Finalize => "finalize",
            Subresource::Token => "token",
            Subresource::EphemeralContainers => "ephemeralcontainers",
            Subresource::Resize => "resize",
            Subresource::Approval => "approval",
        }
    }

    /// Whether its connection carries more than a request and an answer.
    pub(crate) fn streams(self) -> bool {
        matches!(self, Subresource::Log | Subresource::Exec | Subresource::Attach | Subresource::PortForward)
    }

    /// The verbs it has.
    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Subresource::Status
            | Subresource::Scale
            | Subresource::EphemeralContainers
            | Subresource::Resize
            | Subresource::Approval => &["get", "patch", "update"],
            Subresource::Binding | Subresource::Eviction | Subresource::Token => &["create"],
            Subresource::Log => &["get"],
            Subresource::Exec | Subresource::Attach | Subresource::PortForward => &["create", "get"],
            Subresource::Finalize => &["update"],
        }
    }

    /// Group, version and kind of what it reads and writes, where that is not the object itself.
    pub fn speaks(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Subresource::Scale => Some(("autoscaling", "v1", "Scale")),
            Subresource::Binding => Some(("", "v1", "Binding")),
            Subresource::Eviction => Some(("policy", "v1", "Eviction")),
            Subresource::Exec => Some(("", "v1", "PodExecOptions")),
            Subresource::Attach => Some(("", "v1", "PodAttachOptions")),
            Subresource::PortForward => Some(("", "v1", "PodPortForwardOptions")),
            Subresource::Token => Some(("authentication.k8s.io", "v1", "TokenRequest")),
            _ => None,
        }
    }
}

/// Where the numbers of a Scale stand, as JSON pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// Wanted count.
    pub spec: String,
    /// Observed count.
    pub status: String,
    /// The selector: a LabelSelector, a plain map, or its string form.
    pub selector: String,
}

/// A field that field selectors know: its label, where it is, and what it counts as when absent.
pub type SelectableField = (&'static str, &'static str, &'static str);

/// Changes an object from one form to another; it may have to be waited for.
pub type Convert = for<'a> fn(&'a mut Value) -> BoxFuture<'a, Result<(), Status>>;

/// How a store's form and a group's form of the same objects become each other. No lock is held meanwhile: the future
/// goes between threads.
#[derive(Clone, Copy)]
pub struct Conversion {
    /// From the form in the store.
    pub read: Convert,
    /// To the form in the store.
    pub write: Convert,
}

/// One resource.
#[derive(Clone)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Name in URLs.
    pub plural: String,
    /// Name of one, in lower case.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Kind of its lists.
    pub list_kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Short names for command lines.
    pub short_names: Vec<String>,
    /// Groups of resources it is listed with.
    pub categories: Vec<String>,
    /// Subresources: each has a path of its own.
    pub subresources: Vec<Subresource>,
    /// Where a Scale's numbers are, if it has that subresource.
    pub scale: Option<ScalePaths>,
    /// Group and plural under which it is stored.
    pub stored_as: (String, String),
    /// How its main writes are kept.
    pub durability: Durability,
    /// Verbs of the object itself.
    pub verbs: &'static [&'static str],
    /// Whether `metadata.generation` counts changes of what is wanted.
    pub has_generation: bool,
    /// Whether a PUT may come without a resourceVersion.
    pub unconditional_update: bool,
    /// Whether a PUT of an absent object makes it.
    pub create_on_update: bool,
    /// Whether an immediate deletion is answered with the object instead of a `Status`.
    pub delete_returns_object: bool,
    /// How rows are printed.
    pub printer: Printer,
    /// What custom resources (Knative's kinds are among them) know beyond that.
    pub custom: Option<Arc<Custom>>,
    /// Fields for selectors, besides name and namespace.
    pub fields: &'static [SelectableField],
    /// Between the stored form and this group's.
    pub conversion: Option<Conversion>,
}

const ALL_VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

impl Resource {
    /// A durable, namespaced resource with a generation and nothing special.
    fn new(group: &str, version: &str, plural: &str, kind: &str) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            plural: plural.into(),
            singular: kind.to_lowercase(),
            kind: kind.into(),
            list_kind: format!("{kind}List"),
            namespaced: true,
            short_names: Vec::new(),
            categories: Vec::new(),
            subresources: Vec::new(),
            scale: None,
            stored_as: (group.into(), plural.into()),
            durability: Durability::Durable,
            verbs: ALL_VERBS,
            has_generation: true,
            unconditional_update: true,
            create_on_update: false,
            delete_returns_object: false,
            printer: Printer::Built(&metadata::NAME_AGE),
            custom: None,
            fields: &[],
            conversion: None,
        }
    }

    fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }

    fn short(mut self, names: &[&str]) -> Self {
        self.short_names = names.iter().map(|n| (*n).to_owned()).collect();
        self
    }

    fn category(mut self, names: &[&str]) -> Self {
        self.categories = names.iter().map(|n| (*n).to_owned()).collect();
        self
    }

    fn sub(mut self, parts: &[Subresource]) -> Self {
        self.subresources = parts.to_vec();
        self
    }

    fn status(mut self) -> Self {
        self.subresources.push(Subresource::Status);
        self
    }

    fn scaled(mut self, selector: &str) -> Self {
        self.subresources.push(Subresource::Scale);
        self.scale = Some(ScalePaths {
            spec: "/spec/replicas".into(),
            status: "/status/replicas".into(),
            selector: selector.into(),
        });
        self
    }

    fn relaxed(mut self) -> Self {
        self.durability = Durability::Relaxed;
        self
    }

    fn no_generation(mut self) -> Self {
        self.has_generation = false;
        self
    }

    fn conditional(mut self) -> Self {
        self.unconditional_update = false;
        self
    }

    fn create_on_update(mut self) -> Self {
        self.create_on_update = true;
        self
    }

    fn answers_with_object(mut self) -> Self {
        self.delete_returns_object = true;
        self
    }

    fn table(mut self, table: &'static crate::tables::Table) -> Self {
        self.printer = Printer::Built(table);
        self
    }

    fn fields(mut self, fields: &'static [SelectableField]) -> Self {
        self.fields = fields;
        self
    }

    fn computed(mut self) -> Self {
        self.verbs = &["create"];
        self
    }

    /// `group/version`, or the bare version in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether it has this part.
    pub fn has(&self, part: Subresource) -> bool {
        self.subresources.contains(&part)
    }

    /// Whether it is answered from computation and never stored.
    pub fn is_computed(&self) -> bool {
        self.verbs.len() == 1
    }

    /// Whether it behaves as a custom resource does.
    pub fn is_custom(&self) -> bool {
        self.custom.is_some()
    }

    /// 404 for one of its objects.
    pub fn not_found(&self, name: &str) -> Status {
        Status::not_found(&self.group, &self.plural, name)
    }

    /// 403 about one of its objects.
    pub fn forbidden(&self, name: &str, why: &str) -> Status {
        Status::forbidden(&self.group, &self.plural, name, why)
    }

    /// 422 about one of its objects.
    pub fn invalid(&self, name: &str, causes: Vec<Cause>) -> Status {
        Status::invalid(&self.group, &self.kind, name, causes)
    }

    /// The key of an object in the store.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        let namespace = if self.namespaced { namespace } else { "" };
        format!("{}{namespace}/{name}", self.prefix())
    }

    /// The prefix of all its keys.
    pub fn prefix(&self) -> String {
        let group = if self.stored_as.0.is_empty() { "core" } else { &self.stored_as.0 };
        format!("/{group}/{}/", self.stored_as.1)
    }

    /// The prefix of a namespace's keys; of all keys for an empty namespace.
    pub fn prefix_in(&self, namespace: &str) -> String {
        match (self.namespaced, namespace) {
            (true, "") => self.prefix(),
            (true, namespace) => format!("{}{namespace}/", self.prefix()),
            (false, _) => format!("{}/", self.prefix()),
        }
    }
}
