//! The server: its state, and who may do what to it. What it does with requests stands in `dispatch`.

use std::sync::Arc;

use knoll_store::Store;
use serde_json::Value;

use crate::{
    attributes::{Attributes, Decision, UserInfo},
    claims::Claims,
    config::Config,
    counters::Counters,
    derived::Derived,
    documents::Documents,
    flow::Flow,
    objects::Trees,
    resources::ResourceRegistry,
    status::Status,
    view::View,
};

/// A Kubernetes API server.
pub struct ApiServer {
    pub(crate) store: Store,
    pub(crate) config: Config,
    pub(crate) trees: Trees,
    pub(crate) claims: Claims,
    pub(crate) documents: Documents,
    pub(crate) derived: Derived,
    pub(crate) counters: Arc<Counters>,
    pub(crate) flow: Flow,
}

impl ApiServer {
    /// A server over what `store` holds. Call [`ApiServer::bootstrap`] before serving.
    pub fn new(store: Store, config: Config) -> Arc<Self> {
        let (trees, counters) = (Trees::default(), Arc::<Counters>::default());
        let server = Self {
            claims: Claims::default(),
            documents: Documents::default(),
            derived: Derived::new(&store, &trees, &counters),
            counters,
            flow: Flow::default(),
            trees,
            store,
            config,
        };
        server.catch_up();
        Arc::new(server)
    }

    /// The rows served at this moment.
    pub(crate) fn registry(&self) -> Arc<ResourceRegistry> {
        self.derived.registry()
    }

    /// Takes in what was written up to now.
    pub(crate) fn catch_up(&self) {
        self.derived.catch_up();
    }

    /// The server as hooks see it.
    pub(crate) fn view(&self) -> View<'_> {
        View::new(&self.store, &self.trees, &self.derived, &self.claims, &self.config)
    }

    /// What happened so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// 403 unless `identity` may do that.
    pub(crate) fn authorize(&self, identity: &UserInfo, attributes: &Attributes) -> Result<(), Status> {
        match self.config.authority.authorize(identity, attributes) {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } => {
                let why = attributes.refusal(identity, &reason);
                Err(Status::forbidden(&attributes.group, &attributes.resource, &attributes.name, &why))
            }
        }
    }

    /// A stored object of the core group, as it is.
    pub(crate) fn core_object(&self, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.view().core_object(plural, namespace, name)
    }
}
