//! Blobs on their way in: whole, in chunks, or taken over from another repository.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::BodyExt as _;

use super::{Answer, Body, Refusal, Registry, empty, query};
use crate::{Digest, blobs::Incoming};

/// Uploads that may be open at once.
const OPEN: usize = 128;
/// An upload nobody touched for this long is dropped when room is needed.
const IDLE: Duration = Duration::from_secs(600);
/// Longest blob, bytes.
const BLOB_BYTES: u64 = 32 << 30;

/// Uploads between their requests.
#[derive(Default)]
pub(super) struct Uploads {
    open: BTreeMap<String, (Instant, Incoming)>,
}

impl Uploads {
    fn put(&mut self, id: String, incoming: Incoming) -> Result<(), Refusal> {
        if self.open.len() >= OPEN {
            self.open.retain(|_, (touched, _)| touched.elapsed() < IDLE);
        }
        if self.open.len() >= OPEN {
            return Err(Refusal::too_many());
        }
        self.open.insert(id, (Instant::now(), incoming));
        Ok(())
    }

    fn take(&mut self, id: &str) -> Result<Incoming, Refusal> {
        self.open.remove(id).map(|(_, incoming)| incoming).ok_or_else(Refusal::upload_unknown)
    }
}

async fn append<B>(incoming: &mut Incoming, mut body: B) -> Result<(), Refusal>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin,
    B::Error: std::fmt::Display,
{
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Refusal::upload_invalid(e.to_string()))?;
        if let Ok(chunk) = frame.into_data() {
            if incoming.length() + chunk.len() as u64 > BLOB_BYTES {
                return Err(Refusal::too_large(BLOB_BYTES));
            }
            incoming.append(&chunk).map_err(|e| Refusal::storage(&e))?;
        }
    }
    Ok(())
}

fn progress(status: StatusCode, name: &str, id: &str, length: u64) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(header::LOCATION, format!("/v2/{name}/blobs/uploads/{id}"))
        .header(header::RANGE, format!("0-{}", length.saturating_sub(1)))
        .header("docker-upload-uuid", id)
        .header(header::CONTENT_LENGTH, 0)
        .body(empty())
        .expect("checked repository names and ids are valid header values")
}

fn created(name: &str, digest: &Digest) -> Response<Body> {
    Response::builder()
        .status(StatusCode::CREATED)
        .header(header::LOCATION, format!("/v2/{name}/blobs/{digest}"))
        .header("docker-content-digest", digest.to_string())
        .header(header::CONTENT_LENGTH, 0)
        .body(empty())
        .expect("checked repository names and digests are valid header values")
}

fn parse(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|e| Refusal::digest_invalid(format!("{e}")))
}

impl Registry {
    pub(super) async fn upload_begin<B>(&self, name: &str, parameters: &str, body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        self.repository(name)?;
        if let Some(mount) = query(parameters, "mount") {
            let digest = parse(&mount)?;
            if self.store.blobs().has(&digest) {
                return Ok(created(name, &digest));
            }
        }
        let mut incoming = self.store.blobs().begin().map_err(|e| Refusal::storage(&e))?;
        if let Some(digest) = query(parameters, "digest") {
            let digest = parse(&digest)?;
            append(&mut incoming, body).await?;
            return self.finish(name, incoming, digest).await;
        }
        let id = uuid::Uuid::new_v4().to_string();
        self.uploads().put(id.clone(), incoming)?;
        Ok(progress(StatusCode::ACCEPTED, name, &id, 0))
    }

    pub(super) async fn upload_chunk<B>(&self, name: &str, id: &str, headers: &HeaderMap, body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let mut incoming = self.uploads().take(id)?;
        let range = headers.get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let start = range.and_then(|range| range.split_once('-')?.0.parse::<u64>().ok());
        if start.is_some_and(|start| start != incoming.length()) {
            let at = incoming.length();
            self.uploads().put(id.to_owned(), incoming)?;
            return Err(Refusal::out_of_order(at));
        }
        append(&mut incoming, body).await?;
        let length = incoming.length();
        self.uploads().put(id.to_owned(), incoming)?;
        Ok(progress(StatusCode::ACCEPTED, name, id, length))
    }

    pub(super) async fn upload_finish<B>(&self, name: &str, id: &str, parameters: &str, body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let digest = query(parameters, "digest").ok_or_else(|| Refusal::digest_invalid("digest is missing"))?;
        let digest = parse(&digest)?;
        let mut incoming = self.uploads().take(id)?;
        append(&mut incoming, body).await?;
        self.finish(name, incoming, digest).await
    }

    async fn finish(&self, name: &str, incoming: Incoming, digest: Digest) -> Answer {
        let answer = created(name, &digest);
        let committed = tokio::task::spawn_blocking(move || incoming.commit(&digest)).await;
        committed.map_err(std::io::Error::other).and_then(|done| done).map_err(|e| Refusal::storage(&e))?;
        Ok(answer)
    }

    pub(super) fn upload_status(&self, name: &str, id: &str) -> Answer {
        let uploads = self.uploads();
        let (_, incoming) = uploads.open.get(id).ok_or_else(Refusal::upload_unknown)?;
        Ok(progress(StatusCode::NO_CONTENT, name, id, incoming.length()))
    }

    pub(super) fn upload_cancel(&self, id: &str) -> Answer {
        self.uploads().take(id)?;
        Ok(Response::builder().status(StatusCode::NO_CONTENT).body(empty()).expect("a constant response is valid"))
    }
}
