//! What only this machine's own command line asks: taking in a tarball, and what is here.

use bytes::Bytes;
use http::{Method, StatusCode, request::Parts};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::{Answer, Refusal, Registry, json as json_response, query};

impl Registry {
    pub(super) async fn images<B>(&self, parts: &Parts, body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        match parts.method {
            Method::GET => {
                let references = self.store.references().map_err(|e| Refusal::storage(&e))?;
                let lines: Vec<String> =
                    references.into_iter().map(|(name, digest)| format!("{name} {digest}")).collect();
                Ok(json_response(StatusCode::OK, json!({ "images": lines }).to_string()))
            }
            Method::POST => {
                let tag = query(parts.uri.query().unwrap_or(""), "tag");
                let path = self.store.inner.root.join("incoming").join(uuid::Uuid::new_v4().to_string());
                let saved = save(&path, body).await;
                let loaded = match saved {
                    Ok(()) => self.store.load_tar(&path, tag.as_deref()).await,
                    Err(error) => return Err(Refusal::storage(&error)),
                };
                // The collector would find it at the next start, too.
                tokio::fs::remove_file(&path).await.ok();
                let names = loaded.map_err(|error| {
                    use std::error::Error as _;
                    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                    let archive = path.display().to_string();
                    Refusal::manifest_invalid(format!("{error}{cause}").replace(&archive, "the archive"))
                })?;
                Ok(json_response(StatusCode::CREATED, json!({ "images": names }).to_string()))
            }
            _ => Err(Refusal::unsupported()),
        }
    }
}

async fn save<B>(path: &std::path::Path, mut body: B) -> std::io::Result<()>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin,
    B::Error: std::fmt::Display,
{
    let mut file = tokio::fs::File::create_new(path).await?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| std::io::Error::other(e.to_string()))?;
        if let Ok(chunk) = frame.into_data() {
            file.write_all(&chunk).await?;
        }
    }
    file.flush().await
}
