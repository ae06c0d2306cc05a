//! A client of the API: requests go to a server in this process or over the network, and what comes back is the bytes of its
//! answer, or what it refused. It knows no types: who asks reads the bytes.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{
    Method, Request, Response,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};

use crate::error::{BoxError, Error, Result, Status};

/// What most is asked for and sent as.
pub const JSON: &str = "application/json";
/// How a change is sent that names what changes alone.
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// Asks for objects without all but their metadata, where the server knows how: for answers of which no more is read.
pub const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json";

/// The body of a request or of an answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A whole body.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer on its way.
type Answering = BoxFuture<'static, std::result::Result<Response<Body>, BoxError>>;

/// Asks one server as one user. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<dyn Fn(Request<Body>) -> Answering + Send + Sync>);

impl Client {
    /// A client of the server that answers what `service` is called with.
    pub fn new<A, E>(service: impl Fn(Request<Body>) -> A + Send + Sync + 'static) -> Client
    where
        A: Future<Output = std::result::Result<Response<Body>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Client(Arc::new(move |request| -> Answering {
            let answer = service(request);
            Box::pin(async move { answer.await.map_err(Into::into) })
        }))
    }

    /// Sends a request as it is, and returns the answer as it is.
    ///
    /// # Errors
    /// [`Error::Service`] when there is none.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>> {
        (self.0)(request).await.map_err(Error::Service)
    }

    /// Sends a request, with a body and its media type where there is one, and returns the whole answer in one of the forms
    /// that `accept` names.
    ///
    /// # Errors
    /// [`Error::Api`] when the server refuses, and the others when there is no answer.
    pub fn call<'a>(
        &'a self,
        method: Method,
        path: &'a str,
        accept: &'a str,
        body: Option<(&'a str, Vec<u8>)>,
    ) -> BoxFuture<'a, Result<Bytes>> {
        // Boxed, it is compiled here, once for everybody.
        Box::pin(self.ask(method, path, accept, body))
    }

    async fn ask(&self, method: Method, path: &str, accept: &str, body: Option<(&str, Vec<u8>)>) -> Result<Bytes> {
        let mut request = Request::builder().method(method).uri(path).header(ACCEPT, accept);
        let mut bytes = Vec::new();
        if let Some((media_type, content)) = body {
            request = request.header(CONTENT_TYPE, media_type);
            bytes = content;
        }
        let request = request.body(whole(bytes)).map_err(Error::Request)?;
        collect(self.accepted(request).await?).await
    }

    /// Gets what is at a path, as JSON; `None` when there is nothing.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        match self.call(Method::GET, path, JSON, None).await {
            Err(Error::Api(status)) if status.code == 404 => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Gets what is at a path, as it comes, in one of the forms that `accept` names.
    pub(crate) async fn stream(&self, path: &str, accept: &str) -> Result<Body> {
        let request = Request::get(path).header(ACCEPT, accept).body(whole(Bytes::new()));
        self.accepted(request.map_err(Error::Request)?).await
    }

    /// The body of an answer that is none of a refusal.
    async fn accepted(&self, request: Request<Body>) -> Result<Body> {
        let (head, body) = self.send(request).await?.into_parts();
        if !head.status.is_client_error() && !head.status.is_server_error() {
            return Ok(body);
        }
        let status = Status::read(&collect(body).await?, head.status);
        tracing::debug!(?status, "refused");
        Err(Error::Api(Box::new(status)))
    }
}

async fn collect(body: Body) -> Result<Bytes> {
    body.collect().await.map(|collected| collected.to_bytes()).map_err(Error::Service)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    /// Asks a server that answers everything so.
    async fn asked(code: u16, text: &'static str) -> Result<Option<Bytes>> {
        let client = Client::new(move |_| async move {
            let mut response = Response::new(whole(text));
            *response.status_mut() = StatusCode::from_u16(code).expect("a status");
            Ok::<_, std::convert::Infallible>(response)
        });
        client.get("/api/v1/namespaces/a").await
    }

    #[tokio::test]
    async fn an_answer_comes_whole_and_a_refusal_says_why() {
        assert_eq!(asked(200, "{}").await.expect("an answer").as_deref(), Some(&b"{}"[..]));
        let gone =
            r#"{"kind": "Status", "code": 404, "reason": "NotFound", "message": "no a", "details": {"name": "a"}}"#;
        assert!(asked(404, gone).await.expect("no failure").is_none());
        let full = r#"{"kind": "Status", "code": 429, "reason": "TooManyRequests", "message": "later"}"#;
        assert_eq!(asked(429, full).await.expect_err("refused").to_string(), "TooManyRequests: later");
        let Error::Api(status) = asked(502, " <html> ").await.expect_err("refused") else { panic!("it answered") };
        assert_eq!((status.code, status.message.as_str()), (502, "<html>"));
    }

    #[tokio::test]
    async fn who_does_not_answer_is_told_from_who_refuses() {
        let client = Client::new(|_| async { Err::<Response<Body>, _>(std::io::Error::other("it is off")) });
        let error = client.get("/api").await.expect_err("no answer");
        assert!(matches!(error, Error::Service(_)));
        assert_eq!(error.to_string(), "ask the API server: it is off");
        let odd = client.get("/a path").await.expect_err("no path");
        assert!(matches!(odd, Error::Request(_)));
    }
}
