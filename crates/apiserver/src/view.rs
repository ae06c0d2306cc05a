//! What hooks may know of the server: objects as they are, the configuration in force, what is handed out, who may do
//! what. They write nothing through it.

use std::{net::IpAddr, sync::Arc};

use knoll_api::config::{ConfigBundle, eventing::EventingBundle};
use knoll_store::{Entry, Snapshot, Store, Watch};
use serde_json::Value;

use crate::{
    addresses::Addresses, authority::Authority, bindings::Bindings, claims::Claims, config::Config, derived::Derived,
    object, objects::Trees, resources::ResourceRegistry, status::Status,
};

/// The server as hooks see it.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    store: &'a Store,
    trees: &'a Trees,
    derived: &'a Derived,
    claims: &'a Claims,
    config: &'a Config,
}

impl<'a> View<'a> {
    /// What is to be seen of these.
    pub(crate) fn new(
        store: &'a Store,
        trees: &'a Trees,
        derived: &'a Derived,
        claims: &'a Claims,
        config: &'a Config,
    ) -> Self {
        Self { store, trees, derived, claims, config }
    }

    /// Everything that is stored at this moment.
    pub(crate) fn snapshot(self) -> Snapshot {
        self.store.snapshot()
    }

    /// The tree of a stored object, as it is; `None` when it cannot be read.
    pub(crate) fn tree(self, entry: &Entry) -> Option<Arc<Value>> {
        self.trees.of(&entry.value, entry.revision).ok()
    }

    /// Trees of what is stored.
    pub(crate) fn trees(self) -> &'a Trees {
        self.trees
    }

    /// What is written under a key from now on; nothing when the store cannot tell.
    pub(crate) fn changes(self, key: &str) -> Option<Watch> {
        self.store.watch(key, self.store.revision()).ok()
    }

    /// Whether there is an object under a key.
    pub(crate) fn has(self, key: &str) -> bool {
        self.snapshot().contains(key)
    }

    /// The object under a key.
    pub(crate) fn object(self, key: &str) -> Option<Arc<Value>> {
        self.tree(&self.store.get(key)?)
    }

    /// An object of the core group.
    pub(crate) fn core_object(self, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.object(&format!("/core/{plural}/{namespace}/{name}"))
    }

    /// Whether a namespace is there (`Some(true)`), on its way out (`Some(false)`), or missing.
    pub(crate) fn namespace_state(self, namespace: &str) -> Option<bool> {
        Some(!object::is_deleting(&*self.core_object("namespaces", "", namespace)?))
    }

    /// The rows served at this moment.
    pub(crate) fn registry(self) -> Arc<ResourceRegistry> {
        self.derived.registry()
    }

    /// Serving's configuration in force.
    pub(crate) fn knative(self) -> Arc<ConfigBundle> {
        self.derived.knative()
    }

    /// Eventing's configuration in force.
    pub(crate) fn eventing(self) -> Arc<EventingBundle> {
        self.derived.eventing()
    }

    /// Addresses and ports of Services, to hand out.
    pub(crate) fn addresses(self) -> &'a Addresses {
        self.derived.addresses()
    }

    /// SinkBindings by whom they mean, and certificates to trust.
    pub(crate) fn bindings(self) -> &'a Bindings {
        self.derived.bindings()
    }

    /// What writes on their way will use of quotas.
    pub(crate) fn claims(self) -> &'a Claims {
        self.claims
    }

    /// Who may do what.
    pub(crate) fn authority(self) -> &'a dyn Authority {
        &*self.config.authority
    }

    /// The certificate that pods trust, PEM.
    pub(crate) fn root_ca(self) -> &'a str {
        &self.config.root_ca
    }

    /// Whether an address is the gateway's.
    pub(crate) fn is_gateway(self, address: IpAddr) -> bool {
        self.config.advertise.ip() == address
    }

    /// The machine's own addresses at this moment. The kernel lists them, one a pod and more, off the threads that
    /// answer.
    ///
    /// # Errors
    /// 500 when it does not: who may lead traffic where is then not known.
    pub(crate) async fn machine(self) -> Result<Vec<IpAddr>, Status> {
        let list = self.config.machine.clone();
        match tokio::task::spawn_blocking(move || list()).await {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(Status::internal(format!("list the machine's own addresses: {error}"))),
            Err(error) => Err(Status::internal(format!("list the machine's own addresses: {error}"))),
        }
    }

    /// Whether an address is of the pods' network.
    pub(crate) fn is_pods(self, address: std::net::Ipv4Addr) -> bool {
        let (network, bits) = self.config.pod_network;
        let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
        u32::from(address) & mask == u32::from(network) & mask
    }
}
