//! The server: its state, and the way of a request.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::{Arc, PoisonError, RwLock},
};

use futures_util::{FutureExt as _, future::BoxFuture};
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
    counters::Counters,
    derived::Derived,
    discovery,
    node_backend::NodeBackend,
    object,
    objects::Trees,
    panics::Asked,
    query::Query,
    quota::Quotas,
    resources::Registry,
    respond,
    route::{self, Route},
    serve::Flow,
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
    pub(crate) derived: Derived,
    pub(crate) counters: Arc<Counters>,
    pub(crate) flow: Flow,
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
            derived: Derived::new(&store),
            counters: Arc::default(),
            flow: Flow::default(),
            store,
            config,
        };
        server.catch_up();
        Arc::new(server)
    }

    /// The rows served at this moment.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.catch_up();
        self.registry.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the rows.
    pub(crate) fn update_registry(&self, change: impl FnOnce(&mut Registry)) {
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut registry));
    }

    /// Knative's configuration in force.
    pub(crate) fn knative(&self) -> Arc<Bundle> {
        self.catch_up();
        self.knative.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes up Knative's ConfigMaps.
    pub(crate) fn update_knative(&self, maps: &BTreeMap<String, BTreeMap<String, String>>) {
        let mut bundle = self.knative.write().unwrap_or_else(PoisonError::into_inner);
        *bundle = Arc::new(bundle.updated(maps));
    }

    /// What happened so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Answers a request. Never fails: failures are answers, too, and a panic is one.
    pub async fn handle(self: &Arc<Self>, request: Request<Body>, identity: Identity) -> Response<Body> {
        let asked = Asked::of(&request);
        // Boxed, so that callers' futures stay small.
        let answer: BoxFuture<'static, _> = Box::pin(self.clone().answer(request, identity));
        match AssertUnwindSafe(answer).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => respond::failure(&status),
            Err(panic) => asked.panicked(&self.counters, &*panic),
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
                self.perform(call).await
            }
        }
    }

    /// Does what an authorized request asks. A write comes to its end even where its caller goes away: nothing is
    /// left half done.
    async fn perform(self: Arc<Self>, call: Call) -> Result<Response<Body>, Status> {
        if !call.verb.writes() {
            return verbs::run(&self, call).await;
        }
        match tokio::spawn(async move { verbs::run(&self, call).await }).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Status::unavailable("the server is stopping")),
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
