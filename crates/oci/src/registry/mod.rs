//! The embedded registry: the OCI distribution API over the image store.
//!
//! What is pushed is at once an image of this machine, and an image of this machine can be pulled from it. Reading is
//! open to this machine and its pods; whoever changes something says who they are ([`RegistryPolicy`]).

mod access;
mod blobs;
mod commands;
mod connection;
mod counts;
mod error;
mod login;
mod manifests;
mod uploads;

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio_util::io::ReaderStream;

use crate::ImageStore;
pub use access::{Action, Authorize, Locality, RegistryPolicy, Verdict};
use counts::Counters;
pub use counts::RegistryCounts;
use error::Refusal;
pub use login::machine_login;
use uploads::Uploads;

type Body = UnsyncBoxBody<Bytes, io::Error>;
type Answer = Result<Response<Body>, Refusal>;

/// The embedded registry. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    store: ImageStore,
    policy: Arc<RegistryPolicy>,
    uploads: Arc<Mutex<Uploads>>,
    counters: Arc<Counters>,
}

/// What a path below `/v2/` names.
#[derive(Clone, Copy)]
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
    pub fn new(store: ImageStore, policy: RegistryPolicy) -> Self {
        Self { store, policy: Arc::new(policy), uploads: Arc::default(), counters: Arc::default() }
    }

    /// What it did so far.
    pub fn counts(&self) -> RegistryCounts {
        self.counters.read()
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
    pub async fn handle<B>(&self, request: Request<B>, side: Locality) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let asked = request.headers().contains_key(header::AUTHORIZATION);
        let answer = match self.route(request, side).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(),
        };
        self.counters.note(&method, place(&path), asked, answer.status());
        if method != Method::HEAD {
            return answer;
        }
        let (parts, _) = answer.into_parts();
        Response::from_parts(parts, empty())
    }

    async fn route<B>(&self, request: Request<B>, side: Locality) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let (parts, body) = request.into_parts();
        self.check_sender(&parts)?;
        let path = parts.uri.path();
        let read = parts.method == Method::GET || parts.method == Method::HEAD;
        if path == "/token" {
            return if parts.method == Method::GET { self.token(&parts) } else { Err(Refusal::unsupported()) };
        }
        let place = place(path).ok_or_else(Refusal::not_found)?;
        match place {
            Place::Root if read => self.root(&parts, side),
            place if read && !matches!(place, Place::Upload { .. }) => {
                self.may_read(&parts, side)?;
                self.read(place).await
            }
            place => self.change(place, &parts, body).await,
        }
    }

    async fn read(&self, place: Place<'_>) -> Answer {
        match place {
            Place::Catalog => self.catalog(),
            Place::Tags { name } => self.tags(name),
            Place::Referrers => Ok(manifests::no_referrers()),
            Place::Manifest { name, reference } => self.manifest_get(name, reference).await,
            Place::Blob { digest } => self.blob_get(digest).await,
            Place::Root | Place::NewUpload { .. } | Place::Upload { .. } => Err(Refusal::unsupported()),
        }
    }

    async fn change<B>(&self, place: Place<'_>, parts: &Parts, body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let name = match place {
            Place::Manifest { name, .. } | Place::NewUpload { name } | Place::Upload { name, .. } => name,
            _ => return Err(Refusal::unsupported()),
        };
        self.repository(name)?;
        let deletes = parts.method == Method::DELETE && matches!(place, Place::Manifest { .. });
        self.may(parts, if deletes { Action::Delete } else { Action::Push }, name)?;
        let query = parts.uri.query().unwrap_or("");
        match (place, &parts.method) {
            (Place::Manifest { reference, .. }, &Method::PUT) => {
                self.manifest_put(name, reference, &parts.headers, body).await
            }
            (Place::Manifest { reference, .. }, &Method::DELETE) => self.manifest_delete(name, reference).await,
            (Place::NewUpload { .. }, &Method::POST) => self.upload_begin(name, query, body).await,
            (Place::Upload { id, .. }, &Method::PATCH) => self.upload_chunk(name, id, &parts.headers, body).await,
            (Place::Upload { id, .. }, &Method::PUT) => self.upload_finish(name, id, query, body).await,
            (Place::Upload { id, .. }, &Method::GET) => self.upload_status(name, id),
            (Place::Upload { id, .. }, &Method::DELETE) => self.upload_cancel(name, id),
            _ => Err(Refusal::unsupported()),
        }
    }

    fn uploads(&self) -> std::sync::MutexGuard<'_, Uploads> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn empty() -> Body {
    full(Bytes::new())
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A file as a body, counted as it is handed over.
fn file(file: tokio::fs::File, counters: Arc<Counters>) -> Body {
    let chunks = ReaderStream::with_capacity(file, 128 << 10).map(move |chunk| {
        chunk.map(|bytes| {
            counters.sent.add(bytes.len() as u64);
            Frame::data(bytes)
        })
    });
    StreamBody::new(chunks).boxed_unsync()
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
