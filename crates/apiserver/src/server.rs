//! The server: its state, and the way of a request.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use knoll_api::config::Bundle;
use knoll_store::Store;
use serde_json::Value;

use crate::{
    addresses::Addresses,
    attributes::{Attributes, Decision, Identity},
    authority::Authority,
    body::Body,
    call::Call,
    discovery,
    node_backend::NodeBackend,
    object,
    objects::Trees,
    query::Query,
    quota::Quotas,
    resources::{self, Registry},
    respond,
    route::{self, Route},
    status::Status,
    verbs,
};

/// The namespace of Knative's own ConfigMaps.
pub(crate) const SYSTEM_NAMESPACE: &str = "knative-serving";

/// What a server needs besides its store.
pub struct Config {
    /// Who is asking, and what they may do.
    pub authority: Arc<dyn Authority>,
    /// The machine that runs pods.
    pub node: Arc<dyn NodeBackend>,
    /// Certificate of the authority that signs the server's certificate, PEM; goes into every namespace.
    pub root_ca: String,
    /// Where pods reach the server: the endpoint of `default/kubernetes`. Its address is the gateway's.
    pub advertise: SocketAddr,
    /// The machine's own addresses at this moment: users lead no traffic to them.
    pub machine: Arc<dyn Fn() -> Vec<IpAddr> + Send + Sync>,
    /// The pods' network: its first address, and how many bits are the same in all.
    pub pod_network: (Ipv4Addr, u8),
}

/// A Kubernetes API server.
pub struct ApiServer {
    pub(crate) store: Store,
    pub(crate) config: Config,
    pub(crate) trees: Trees,
    pub(crate) addresses: Addresses,
    pub(crate) quotas: Quotas,
    pub(crate) documents: discovery::Documents,
    registry: RwLock<Arc<Registry>>,
    knative: RwLock<Arc<Bundle>>,
}

impl ApiServer {
    /// A server over what `store` holds. Call [`ApiServer::bootstrap`] before serving.
    pub fn new(store: Store, config: Config) -> Arc<Self> {
        let server = Self {
            trees: Trees::default(),
            addresses: Addresses::default(),
            quotas: Quotas::default(),
            documents: discovery::Documents::default(),
            registry: RwLock::new(Arc::new(Registry::built_in())),
            knative: RwLock::default(),
            store,
            config,
        };
        server.load();
        Arc::new(server)
    }

    /// Takes up what the store says: definitions, addresses in use, configuration.
    fn load(&self) {
        let snapshot = self.store.snapshot();
        let objects = |prefix: &str| -> Vec<Value> {
            let bytes = snapshot.range(prefix, None).map(|e| serde_json::from_slice(&e.value));
            bytes.filter_map(Result::ok).collect()
        };
        for definition in objects("/apiextensions.k8s.io/customresourcedefinitions/") {
            resources::serve(self, &definition);
        }
        for service in objects("/core/services/") {
            self.addresses.take(&service);
        }
        self.reload_knative();
    }

    /// The rows served at this moment.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the rows.
    pub(crate) fn update_registry(&self, change: impl FnOnce(&mut Registry)) {
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut registry));
    }

    /// Knative's configuration in force.
    pub(crate) fn knative(&self) -> Arc<Bundle> {
        self.knative.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads Knative's ConfigMaps again.
    pub(crate) fn reload_knative(&self) {
        let snapshot = self.store.snapshot();
        let mut maps = BTreeMap::new();
        for entry in snapshot.range(&format!("/core/configmaps/{SYSTEM_NAMESPACE}/"), None) {
            let Ok(map) = serde_json::from_slice::<Value>(&entry.value) else { continue };
            let data = map["data"].as_object().into_iter().flatten();
            let data = data.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect();
            maps.insert(object::name(&map).to_owned(), data);
        }
        let mut bundle = self.knative.write().unwrap_or_else(PoisonError::into_inner);
        *bundle = Arc::new(bundle.updated(&maps));
    }

    /// Answers a request. Never fails: failures are answers, too.
    pub async fn handle(self: &Arc<Self>, request: Request<Body>, identity: Identity) -> Response<Body> {
        // Boxed, so that callers' futures stay small.
        let answer: BoxFuture<'static, _> = Box::pin(self.clone().answer(request, identity));
        match answer.await {
            Ok(response) => response,
            Err(status) => respond::failure(&status),
        }
    }

    /// Finds what is asked for, asks whether it may be, and does it.
    async fn answer(self: Arc<Self>, request: Request<Body>, identity: Identity) -> Result<Response<Body>, Status> {
        let query = Query::parse(request.uri().query());
        let path = request.uri().path();
        match route::route(&self.registry(), request.method(), path, &query)? {
            Route::Unknown => Ok(respond::text(404, "404 page not found\n")),
            Route::Path(path) => {
                let verb = request.method().as_str().to_lowercase();
                self.authorize(&identity, &Attributes { verb, path, ..Attributes::default() })?;
                discovery::answer(&self, &request, &query)
            }
            Route::Objects(target) => {
                let call = Call::new(target, request, query, identity)?;
                self.authorize(&call.identity, &call.attributes())?;
                verbs::run(&self, call).await
            }
        }
    }

    /// 403 unless `identity` may do that.
    pub(crate) fn authorize(&self, identity: &Identity, attributes: &Attributes) -> Result<(), Status> {
        match self.config.authority.authorize(identity, attributes) {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } => {
                let why = attributes.refusal(identity, &reason);
                Err(Status::forbidden(&attributes.group, &attributes.resource, &attributes.name, &why))
            }
        }
    }

    /// Whether a namespace is there (`Some(true)`), on its way out (`Some(false)`), or missing.
    pub(crate) fn namespace_state(&self, namespace: &str) -> Option<bool> {
        let entry = self.store.get(&format!("/core/namespaces//{namespace}"))?;
        let tree = self.trees.of(&entry.value, entry.revision).ok()?;
        Some(!object::is_deleting(&tree))
    }

    /// A stored object of the core group, as it is.
    pub(crate) fn core_object(&self, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let entry = self.store.get(&format!("/core/{plural}/{namespace}/{name}"))?;
        self.trees.of(&entry.value, entry.revision).ok()
    }
}
