//! The way of a request: what is asked for, whether it may be, and who does it.

use std::{net::Ipv4Addr, panic::AssertUnwindSafe, sync::Arc};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{Request, Response};

use crate::{
    ApiServer,
    attributes::{Attributes, UserInfo},
    body::Body,
    call::Call,
    discovery, flow,
    panics::Asked,
    query::Query,
    resources::Subresource,
    respond, reviews,
    route::{self, RequestInfo, Verb},
    status::Status,
    subresources,
    verbs::{create, delete, delete_collection, get, list, patch, update, watch},
};

impl ApiServer {
    /// Answers a request. Never fails: failures are answers, too, and a panic is one.
    pub async fn handle(self: &Arc<Self>, request: Request<Body>, identity: UserInfo) -> Response<Body> {
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
    async fn answer(self: Arc<Self>, request: Request<Body>, identity: UserInfo) -> Result<Response<Body>, Status> {
        let query = Query::parse(request.uri().query());
        let path = request.uri().path();
        match route::route(&self.registry(), request.method(), path, &query)? {
            RequestInfo::Unknown => Ok(respond::text(404, "404 page not found\n")),
            RequestInfo::Path(path) => {
                let verb = request.method().as_str().to_lowercase();
                self.authorize(&identity, &Attributes { verb, path, ..Attributes::default() })?;
                discovery::answer(&self, &request, &query)
            }
            RequestInfo::Objects(target) => {
                let call = Call::new(target, request, query, identity)?;
                self.authorize(&call.identity, &call.attributes())?;
                let custom = call.resource.custom.clone();
                let mut response = self.perform(call).await?;
                respond::warn(&mut response, custom.iter().find_map(|custom| custom.deprecation.clone()).as_slice());
                Ok(response)
            }
        }
    }

    /// Does what an authorized request asks. A write comes to its end even where its caller goes away: nothing is
    /// left half done.
    async fn perform(self: Arc<Self>, call: Call) -> Result<Response<Body>, Status> {
        if !call.verb.writes() {
            return run(&self, call).await;
        }
        let mut call = call;
        let work = if self.is_heavy(&mut call).await? {
            // Waits for its turn here, where it holds nothing up.
            let turn = self.flow.turn(&flow::who(&call.identity, Ipv4Addr::LOCALHOST.into())).await;
            let runtime = tokio::runtime::Handle::current();
            tokio::task::spawn_blocking(move || {
                let _turn = turn;
                runtime.block_on(run(&self, call))
            })
        } else {
            tokio::spawn(async move { run(&self, call).await })
        };
        match work.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Status::unavailable("the server is stopping")),
        }
    }
}

/// From how many bytes on, of a body or of the object it changes, a write is computed off the threads that carry
/// everybody's requests: it takes milliseconds and more.
const HEAVY: usize = 64 * 1024;

impl ApiServer {
    /// Bytes that are read beside the object: every budget of its namespace may be about a pod that is to be evicted.
    fn read_beside(&self, call: &Call) -> usize {
        if call.subresource != Some(Subresource::Eviction) {
            return 0;
        }
        let budgets = format!("{}{}/", subresources::BUDGETS, call.namespace);
        self.store.snapshot().lengths(&budgets, None).fold(0, usize::saturating_add)
    }

    /// Whether a write is one to compute apart. Reads its body.
    async fn is_heavy(&self, call: &mut Call) -> Result<bool, Status> {
        if call.subresource.is_some_and(Subresource::streams) {
            return Ok(false);
        }
        let sent = call.gather().await?;
        let stored = || self.store.get(&call.key()).map_or(0, |entry| entry.value.len());
        // Rights are compared with all that their writer holds.
        let compares = call.resource.group == "rbac.authorization.k8s.io";
        Ok(compares || sent >= HEAVY || stored() >= HEAVY || self.read_beside(call) >= HEAVY)
    }
}

/// Does what an authorized request asks.
async fn run(server: &Arc<ApiServer>, mut call: Call) -> Result<Response<Body>, Status> {
    if call.resource.is_computed() {
        return reviews::run(server, call).await;
    }
    if call.subresource.is_some() {
        return subresources::run(server, call).await;
    }
    match call.verb {
        Verb::Create => create::create(server, &mut call).await,
        Verb::Get => get::get(server, &call).await,
        Verb::List => list::list(server, &call).await,
        Verb::Watch => watch::watch(server, &call).await,
        Verb::Update => update::update(server, &mut call).await,
        Verb::Patch => patch::patch(server, &mut call).await,
        Verb::Delete => delete::delete(server, &mut call).await,
        Verb::DeleteCollection => delete_collection::delete_collection(server, &mut call).await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;
    use jiff::Timestamp;
    use knoll_store::{Options, Store};
    use serde_json::json;

    use super::*;
    use crate::{auth::Pki, body, derived::tests::server};

    #[tokio::test]
    async fn large_writes_take_turns_and_keep_nobody_from_small_ones() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), Options::default()).unwrap();
        let pki = Pki::open(&directory.path().join("pki"), Timestamp::now()).unwrap();
        let server = server(&store, &pki);
        server.bootstrap().await.unwrap();
        let send = |method: &str, name: &str, body: serde_json::Value| {
            let path = format!("/api/v1/namespaces/default/configmaps{name}");
            let request = Request::builder().method(method).uri(path);
            let media_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            let request = request.header("content-type", media_type).body(body::full(body.to_string())).unwrap();
            let server = server.clone();
            tokio::spawn(async move { server.handle(request, UserInfo::admin()).await.status().as_u16() })
        };
        let mut turns = Vec::new();
        let who = flow::who(&UserInfo::admin(), Ipv4Addr::LOCALHOST.into());
        while let Ok(turn) = tokio::time::timeout(Duration::ZERO, server.flow.turn(&who)).await {
            turns.push(turn);
        }
        let large = json!({"metadata": {"name": "large"}, "data": {"k": "x".repeat(HEAVY)}});
        let mut waiting = send("POST", "", large);
        let small = |name: &str| json!({"metadata": {"name": name}, "data": {"k": "v"}});
        assert_eq!(send("POST", "", small("a")).await.unwrap(), 201);
        assert_eq!(send("PATCH", "/a", json!({"data": {"k": "w"}})).await.unwrap(), 200);
        assert!(tokio::time::timeout(Duration::ZERO, &mut waiting).await.is_err(), "it waits for its turn");
        drop(turns);
        assert_eq!(waiting.await.unwrap(), 201);
        // A small change of something large is large, too.
        let request = Request::builder().uri("/").body(body::empty()).unwrap();
        let path = "/api/v1/namespaces/default/configmaps/large";
        let Ok(RequestInfo::Objects(target)) =
            route::route(&server.registry(), &Method::PATCH, path, &Query::default())
        else {
            panic!("{path} names an object")
        };
        let mut call = Call::new(target, request, Query::default(), UserInfo::admin()).unwrap();
        assert!(server.is_heavy(&mut call).await.unwrap());
    }
}
