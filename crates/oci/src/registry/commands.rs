//! What only this machine's own command line asks: taking in a tarball, and what is here. It comes by a socket of its
//! own: what is loaded goes by any name, and outranks every registry.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::{Answer, Body, Refusal, Registry, json as json_response, query};
use knoll_faults::chain;

use crate::{LimitError, durable::private_file, limits::has_room, pace::Pace};

impl Registry {
    /// Answers one request of the command line.
    pub async fn command<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let (parts, body) = request.into_parts();
        let answer = match (&parts.method, parts.uri.path()) {
            (&Method::GET, "/images") => Ok(self.list()),
            (&Method::POST, "/images") => self.load(query(parts.uri.query().unwrap_or(""), "tag"), body).await,
            (_, "/images") => Err(Refusal::unsupported()),
            _ => Err(Refusal::not_found()),
        };
        answer.unwrap_or_else(Refusal::into_response)
    }

    fn list(&self) -> Response<Body> {
        let references = self.store.references().into_iter();
        let lines: Vec<String> = references.map(|(name, digest)| format!("{name} {digest}")).collect();
        json_response(StatusCode::OK, json!({ "images": lines }).to_string())
    }

    async fn load<B>(&self, tag: Option<String>, body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let path = self.store.inner.root.join("incoming").join(uuid::Uuid::new_v4().to_string());
        let file = RemovedAfter(path.clone());
        save(&path, self.store.limits().image_bytes, body).await?;
        let loaded = self.store.load_tar(&path, tag.as_deref()).await;
        drop(file);
        let names = loaded.map_err(|error| {
            Refusal::manifest_invalid(chain(&error).replace(&path.display().to_string(), "the archive"))
        })?;
        Ok(json_response(StatusCode::CREATED, json!({ "images": names }).to_string()))
    }
}

/// A file that goes even when whoever sent it goes first.
struct RemovedAfter(PathBuf);

impl Drop for RemovedAfter {
    fn drop(&mut self) {
        // What stays is found at the next start.
        std::fs::remove_file(&self.0).ok();
    }
}

async fn save<B>(path: &Path, limit: u64, mut body: B) -> Result<(), Refusal>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin,
    B::Error: std::fmt::Display,
{
    let mut file = tokio::fs::File::from_std(private_file(path).map_err(|e| Refusal::storage(&e))?);
    let (mut pace, mut length, mut since_look) = (Pace::new(), 0, u64::MAX);
    while let Some(frame) = pace.wait(body.frame()).await.map_err(|e| Refusal::upload_invalid(e.to_string()))? {
        let frame = frame.map_err(|e| Refusal::upload_invalid(e.to_string()))?;
        let Ok(chunk) = frame.into_data() else { continue };
        length += chunk.len() as u64;
        since_look = since_look.saturating_add(chunk.len() as u64);
        LimitError::check("bytes of a tarball", length, limit).map_err(|e| Refusal::too_large(&e))?;
        if since_look >= 16 << 20 {
            since_look = 0;
            has_room(path.parent().unwrap_or(path)).map_err(|e| Refusal::storage(&e))?;
        }
        file.write_all(&chunk).await.map_err(|e| Refusal::storage(&e))?;
        pace.moved(chunk.len() as u64);
    }
    file.flush().await.map_err(|e| Refusal::storage(&e))
}
