//! The way of a request: what is asked for, whether it may be, and who does it.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{Request, Response};

use crate::{
    ApiServer,
    attributes::{Attributes, Identity},
    body::Body,
    call::Call,
    discovery,
    panics::Asked,
    query::Query,
    respond, reviews,
    route::{self, Route, Verb},
    status::Status,
    subresources,
    verbs::{create, delete, delete_collection, get, list, patch, update, watch},
};

impl ApiServer {
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
            return run(&self, call).await;
        }
        match tokio::spawn(async move { run(&self, call).await }).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Status::unavailable("the server is stopping")),
        }
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
