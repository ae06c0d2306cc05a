//! Manifests, tags and the catalog.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::json;

use super::{Answer, Body, Refusal, Registry, empty, full, json as json_response};
use crate::{
    Digest,
    local::{Manifest, Origin, Pin},
};

/// Longest manifest, bytes.
const MANIFEST_BYTES: usize = 4 << 20;
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(super) fn no_referrers() -> Response<Body> {
    let body = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []});
    let mut response = json_response(StatusCode::OK, body.to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(OCI_INDEX));
    response
}

impl Registry {
    pub(super) fn catalog(&self) -> Answer {
        let prefix = format!("{}/", self.host());
        let pins = self.store.pins().map_err(|e| Refusal::storage(&e))?;
        let names: BTreeSet<&str> = pins
            .keys()
            .filter_map(|name| name.strip_prefix(&prefix)?.rsplit_once(':').map(|(repository, _)| repository))
            .collect();
        Ok(json_response(StatusCode::OK, json!({ "repositories": names }).to_string()))
    }

    pub(super) fn tags(&self, name: &str) -> Answer {
        let prefix = format!("{}:", self.repository(name)?);
        let pins = self.store.pins().map_err(|e| Refusal::storage(&e))?;
        let tags: Vec<&str> = pins.keys().filter_map(|pinned| pinned.strip_prefix(&prefix)).collect();
        if tags.is_empty() {
            return Err(Refusal::manifest_unknown(name));
        }
        Ok(json_response(StatusCode::OK, json!({"name": name, "tags": tags}).to_string()))
    }

    /// The digest and media type that a tag or digest of a repository stands for.
    fn find(&self, name: &str, reference: &str) -> Result<(Digest, Option<String>), Refusal> {
        let unknown = || Refusal::manifest_unknown(reference);
        if let Ok(digest) = reference.parse::<Digest>() {
            return if self.store.blobs().has(&digest) { Ok((digest, None)) } else { Err(unknown()) };
        }
        let pin = self.store.pinned(&self.repository(name)?, reference).ok_or_else(unknown)?;
        Ok((pin.digest.parse().map_err(|_| unknown())?, Some(pin.media_type)))
    }

    pub(super) fn manifest_get(&self, name: &str, reference: &str) -> Answer {
        let (digest, media_type) = self.find(name, reference)?;
        let bytes = self.store.blobs().read(&digest, "bytes of a manifest", self.store.limits().manifest_bytes);
        let bytes = bytes.map_err(|_| Refusal::manifest_unknown(reference))?;
        let media_type = media_type.filter(|t| !t.is_empty()).unwrap_or_else(|| media_type_of(&bytes));
        let response = Response::builder()
            .status(StatusCode::OK)
            .header(header::CONTENT_TYPE, media_type)
            .header(header::CONTENT_LENGTH, bytes.len())
            .header("docker-content-digest", digest.to_string());
        response.body(full(bytes.into())).map_err(|_| Refusal::manifest_invalid("its media type is no header value"))
    }

    pub(super) async fn manifest_put<B>(&self, name: &str, reference: &str, headers: &HeaderMap, body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let repository = self.repository(name)?;
        let body = body.map_err(|e| e.to_string());
        let bytes = Limited::new(body, MANIFEST_BYTES).collect().await;
        let bytes = bytes.map_err(|e| match e.downcast_ref::<http_body_util::LengthLimitError>() {
            Some(_) => Refusal::too_large(MANIFEST_BYTES as u64),
            None => Refusal::manifest_invalid(e.to_string()),
        })?;
        let bytes = bytes.to_bytes();
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|e| Refusal::manifest_invalid(e.to_string()))?;
        let missing = |d: &&crate::local::Descriptor| {
            d.digest.parse::<Digest>().map_or(true, |digest| !self.store.blobs().has(&digest))
        };
        if let Some(descriptor) = manifest.config.iter().chain(&manifest.layers).find(missing) {
            return Err(Refusal::manifest_blob_unknown(&descriptor.digest));
        }
        let _not_collecting = self.store.inner.pins.read().await;
        let digest = self.store.blobs().put(&bytes).map_err(|e| Refusal::storage(&e))?;
        if reference.parse::<Digest>().is_ok_and(|expected| expected != digest) {
            return Err(Refusal::digest_invalid(format!("the manifest has digest {digest}")));
        }
        let sent = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let media_type = manifest.media_type.or(sent).unwrap_or_else(|| media_type_of(&bytes));
        // A manifest pushed by digest alone is kept by a name of its own, so that it is not collected.
        let tag = reference.replace(':', "-");
        let pin = Pin { digest: digest.to_string(), origin: Origin::Given, media_type };
        self.store.pin(&repository, &tag, &pin).map_err(|e| Refusal::storage(&e))?;
        let response = Response::builder()
            .status(StatusCode::CREATED)
            .header(header::LOCATION, format!("/v2/{name}/manifests/{digest}"))
            .header("docker-content-digest", digest.to_string());
        response.body(empty()).map_err(|_| Refusal::name_invalid(name))
    }

    pub(super) fn manifest_delete(&self, name: &str, reference: &str) -> Answer {
        let repository = self.repository(name)?;
        let tags: Vec<String> = match reference.parse::<Digest>() {
            Err(_) => vec![reference.to_owned()],
            Ok(digest) => {
                let prefix = format!("{repository}:");
                let pins = self.store.pins().map_err(|e| Refusal::storage(&e))?;
                let of_digest = pins.iter().filter(|(_, pin)| pin.digest == digest.to_string());
                of_digest.filter_map(|(pinned, _)| pinned.strip_prefix(&prefix).map(str::to_owned)).collect()
            }
        };
        let removed = tags.iter().filter(|tag| self.store.unpin(&repository, tag).is_ok()).count();
        if removed == 0 {
            return Err(Refusal::manifest_unknown(reference));
        }
        Ok(json_response(StatusCode::ACCEPTED, ""))
    }
}

fn media_type_of(bytes: &[u8]) -> String {
    let parsed: Option<Manifest> = serde_json::from_slice(bytes).ok();
    match parsed {
        Some(Manifest { media_type: Some(media_type), .. }) => media_type,
        Some(Manifest { manifests, .. }) if !manifests.is_empty() => OCI_INDEX.into(),
        _ => OCI_MANIFEST.into(),
    }
}
