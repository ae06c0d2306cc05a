//! The embedded registry: the OCI distribution API over the image store.
//!
//! What is pushed is at once an image of this machine, and an image of this machine can be pulled from it. It
//! asks for no credentials: it is meant for loopback and the pods of this machine.

mod blobs;
mod error;
mod local;
mod manifests;
mod uploads;

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::net::TcpListener;
use tokio_util::io::ReaderStream;

use crate::ImageStore;
use error::Refusal;
use uploads::Uploads;

type Body = UnsyncBoxBody<Bytes, io::Error>;
type Answer = Result<Response<Body>, Refusal>;

/// Connections served at once; more wait in the listener's queue.
const CONNECTIONS: usize = 256;

/// The embedded registry. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    store: ImageStore,
    uploads: Arc<Mutex<Uploads>>,
}

/// What a path below `/v2/` names.
enum Place<'a> {
    Root,
    Catalog,
    Tags { name: &'a str },
    Manifest { name: &'a str, reference: &'a str },
    Blob { digest: &'a str },
    NewUpload { name: &'a str },
    Upload { name: &'a str, id: &'a str },
    Referrers,
}

fn place(path: &str) -> Option<Place<'_>> {
    let path = path.strip_prefix("/v2")?;
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() {
        return Some(Place::Root);
    }
    if path == "_catalog" {
        return Some(Place::Catalog);
    }
    if let Some(name) = path.strip_suffix("/tags/list") {
        return Some(Place::Tags { name });
    }
    if let Some(name) = path.strip_suffix("/blobs/uploads/").or_else(|| path.strip_suffix("/blobs/uploads")) {
        return Some(Place::NewUpload { name });
    }
    let (head, last) = path.rsplit_once('/')?;
    if let Some(name) = head.strip_suffix("/blobs/uploads") {
        return Some(Place::Upload { name, id: last });
    }
    if let Some(name) = head.strip_suffix("/manifests") {
        return Some(Place::Manifest { name, reference: last });
    }
    if head.strip_suffix("/referrers").is_some() {
        return Some(Place::Referrers);
    }
    head.strip_suffix("/blobs").map(|_| Place::Blob { digest: last })
}

impl Registry {
    /// A registry over `store`, under the first of the store's registry hosts.
    pub fn new(store: ImageStore) -> Self {
        Self { store, uploads: Arc::default() }
    }

    fn host(&self) -> String {
        self.store.inner.config.registry_hosts.first().cloned().unwrap_or_else(|| "localhost:5000".into())
    }

    /// Full name of a repository.
    fn repository(&self, name: &str) -> Result<String, Refusal> {
        let full = format!("{}/{name}", self.host());
        let parsed: Result<crate::Reference, _> = full.parse();
        match parsed {
            Ok(reference) if reference.name() == full => Ok(full),
            _ => Err(Refusal::name_invalid(name)),
        }
    }

    /// Answers one request.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let head = request.method() == Method::HEAD;
        let answer = match self.route(request).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(),
        };
        if !head {
            return answer;
        }
        let (parts, _) = answer.into_parts();
        Response::from_parts(parts, empty())
    }

    async fn route<B>(&self, request: Request<B>) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        if path == "/knoll/images" {
            return self.images(&parts, body).await;
        }
        let read = parts.method == Method::GET || parts.method == Method::HEAD;
        match place(path).ok_or_else(Refusal::not_found)? {
            Place::Root if read => Ok(json(StatusCode::OK, "{}")),
            Place::Catalog if read => self.catalog(),
            Place::Tags { name } if read => self.tags(name),
            Place::Referrers if read => Ok(manifests::no_referrers()),
            Place::Manifest { name, reference } => match parts.method {
                Method::GET | Method::HEAD => self.manifest_get(name, reference),
                Method::PUT => self.manifest_put(name, reference, &parts.headers, body).await,
                Method::DELETE => self.manifest_delete(name, reference),
                _ => Err(Refusal::unsupported()),
            },
            Place::Blob { digest } if read => self.blob_get(digest).await,
            Place::Blob { .. } if parts.method == Method::DELETE => Err(Refusal::unsupported()),
            Place::NewUpload { name } if parts.method == Method::POST => {
                self.upload_begin(name, parts.uri.query().unwrap_or(""), body).await
            }
            Place::Upload { name, id } => match parts.method {
                Method::PATCH => self.upload_chunk(name, id, &parts.headers, body).await,
                Method::PUT => self.upload_finish(name, id, parts.uri.query().unwrap_or(""), body).await,
                Method::GET => self.upload_status(name, id),
                Method::DELETE => self.upload_cancel(id),
                _ => Err(Refusal::unsupported()),
            },
            _ => Err(Refusal::unsupported()),
        }
    }

    fn uploads(&self) -> std::sync::MutexGuard<'_, Uploads> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves connections until `shutdown` ends, then lets requests under way finish.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve(&self, listener: &TcpListener, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "accept a registry connection");
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        continue;
                    }
                },
                () = &mut shutdown => break,
            };
            let registry = self.clone();
            let service = hyper::service::service_fn(move |request| {
                let registry = registry.clone();
                async move { Ok::<_, Infallible>(registry.handle(request).await) }
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            let watched = graceful.watch(connection);
            tokio::spawn(async move {
                if let Err(error) = watched.await {
                    tracing::debug!(error, "a registry connection ended");
                }
                drop(slot);
            });
        }
        graceful.shutdown().await;
        Ok(())
    }
}

fn empty() -> Body {
    full(Bytes::new())
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn file(file: tokio::fs::File) -> Body {
    StreamBody::new(ReaderStream::with_capacity(file, 128 << 10).map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

fn json(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    response
        .header("docker-distribution-api-version", "registry/2.0")
        .body(full(text.into()))
        .expect("constant header names and values are valid")
}

/// Decodes `%xx` in a query value.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let pair = (byte == b'%').then(|| bytes.clone().take(2).collect::<Vec<_>>());
        match pair.as_deref().and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                bytes.nth(1);
            }
            None => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn query<'a>(query: &'a str, key: &str) -> Option<String> {
    query.split('&').filter_map(|pair: &'a str| pair.split_once('=')).find(|(k, _)| *k == key).map(|(_, v)| unescape(v))
}
