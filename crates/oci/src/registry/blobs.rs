//! Reading blobs.

use http::{Response, StatusCode, header};

use super::{Answer, Refusal, Registry, file};
use crate::Digest;

impl Registry {
    pub(super) async fn blob_get(&self, digest: &str) -> Answer {
        let parsed: Digest = digest.parse().map_err(|e| Refusal::digest_invalid(format!("{e}")))?;
        // What was pulled for somebody is not for whoever knows its digest.
        if !self.store.inner.access.is_open(&parsed) {
            return Err(Refusal::blob_unknown(digest));
        }
        let length = self.store.blobs().length(&parsed).ok_or_else(|| Refusal::blob_unknown(digest))?;
        let opened = tokio::fs::File::open(self.store.blobs().path(&parsed)).await;
        let opened = opened.map_err(|_| Refusal::blob_unknown(digest))?;
        let response = Response::builder()
            .status(StatusCode::OK)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, length)
            .header("docker-content-digest", digest);
        Ok(response.body(file(opened, self.counters.clone())).expect("a digest is a valid header value"))
    }
}
