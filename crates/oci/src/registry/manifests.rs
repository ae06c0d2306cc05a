//! Manifests, tags and the catalog.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::json;

use super::{Answer, Body, Refusal, Registry, empty, full, json as json_response};
use crate::{
    Digest, ImageStore, LimitError,
    manifest::{Manifest, parse_manifest},
    pins::{Origin, Pin},
};

/// How long a manifest may take to come.
const WAIT: Duration = Duration::from_secs(60);

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
        let pins = self.store.pins();
        let names: BTreeSet<&str> = pins
            .under(&prefix)
            .filter_map(|(rest, _)| rest.rsplit_once(':').map(|(repository, _)| repository))
            .collect();
        Ok(json_response(StatusCode::OK, json!({ "repositories": names }).to_string()))
    }

    pub(super) fn tags(&self, name: &str) -> Answer {
        let prefix = format!("{}:", self.repository(name)?);
        let pins = self.store.pins();
        let tags: Vec<&str> = pins.under(&prefix).map(|(tag, _)| tag).collect();
        if tags.is_empty() {
            return Err(Refusal::manifest_unknown(name));
        }
        Ok(json_response(StatusCode::OK, json!({"name": name, "tags": tags}).to_string()))
    }

    /// The digest and media type that a tag or digest of a repository stands for.
    fn find(&self, name: &str, reference: &str) -> Result<(Digest, Option<String>), Refusal> {
        let unknown = || Refusal::manifest_unknown(reference);
        let repository = self.repository(name)?;
        if let Ok(digest) = reference.parse::<Digest>() {
            // What was pulled for somebody is not for whoever knows its digest.
            return if self.store.is_for(&digest, &repository, &[]) { Ok((digest, None)) } else { Err(unknown()) };
        }
        let pins = self.store.pins();
        let pin = pins.get(&format!("{repository}:{reference}")).ok_or_else(unknown)?;
        Ok((pin.digest.parse().map_err(|_| unknown())?, Some(pin.media_type.clone())))
    }

    pub(super) async fn manifest_get(&self, name: &str, reference: &str) -> Answer {
        let (digest, media_type) = self.find(name, reference)?;
        let (store, wanted) = (self.store.clone(), digest.clone());
        let read = move || store.blobs().read(&wanted, "bytes of a manifest", store.limits().manifest_bytes);
        let bytes = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other).and_then(|read| read);
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
        let bytes = self.manifest_body(body).await?;
        let manifest = parse_manifest(&bytes).map_err(Refusal::manifest_invalid)?;
        let sent = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let media_type = manifest.media_type.clone().or(sent).unwrap_or_else(|| media_type_of(&bytes));
        let (store, reference) = (self.store.clone(), reference.to_owned());
        let keep = move || keep_manifest(&store, &repository, &reference, &manifest, &bytes, media_type);
        let kept = tokio::task::spawn_blocking(keep).await;
        let digest = kept.map_err(|e| Refusal::storage(&std::io::Error::other(e)))??;
        let response = Response::builder()
            .status(StatusCode::CREATED)
            .header(header::LOCATION, format!("/v2/{name}/manifests/{digest}"))
            .header("docker-content-digest", digest.to_string());
        response.body(empty()).map_err(|_| Refusal::name_invalid(name))
    }

    async fn manifest_body<B>(&self, body: B) -> Result<Bytes, Refusal>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let limit = LimitError { what: "bytes of a manifest", limit: self.store.limits().manifest_bytes };
        let most = usize::try_from(limit.limit).unwrap_or(usize::MAX);
        let collected = Limited::new(body.map_err(|e| e.to_string()), most).collect();
        let collected = tokio::time::timeout(WAIT, collected).await;
        let collected = collected.map_err(|_| Refusal::manifest_invalid("it did not come in time"))?;
        let collected = collected.map_err(|e| match e.downcast_ref::<http_body_util::LengthLimitError>() {
            Some(_) => Refusal::too_large(&limit),
            None => Refusal::manifest_invalid(e.to_string()),
        })?;
        Ok(collected.to_bytes())
    }

    pub(super) async fn manifest_delete(&self, name: &str, reference: &str) -> Answer {
        let repository = self.repository(name)?;
        let prefix = format!("{repository}:");
        let names: Vec<String> = match reference.parse::<Digest>() {
            Err(_) => vec![format!("{prefix}{reference}")],
            Ok(digest) => {
                let pins = self.store.pins();
                let of_digest = pins.under(&prefix).filter(|(_, pin)| pin.digest == digest.to_string());
                of_digest.map(|(tag, _)| format!("{prefix}{tag}")).collect()
            }
        };
        let store = self.store.clone();
        let remove = move || names.iter().filter(|name| store.unpin(name).is_ok()).count();
        let removed = tokio::task::spawn_blocking(remove).await.unwrap_or_default();
        if removed == 0 {
            return Err(Refusal::manifest_unknown(reference));
        }
        Ok(json_response(StatusCode::ACCEPTED, ""))
    }
}

/// Stores a manifest whose blobs are here and for everybody, and names it.
fn keep_manifest(
    store: &ImageStore,
    repository: &str,
    reference: &str,
    manifest: &Manifest,
    bytes: &[u8],
    media_type: String,
) -> Result<Digest, Refusal> {
    let (named, limit) = (manifest.layers.len(), store.limits().layers);
    if named > limit {
        return Err(Refusal::manifest_invalid(format!("{named} layers: more than the {limit} allowed")));
    }
    let digest = Digest::of(bytes);
    if reference.parse::<Digest>().is_ok_and(|expected| expected != digest) {
        return Err(Refusal::digest_invalid(format!("the manifest has digest {digest}")));
    }
    let mut hold = store.inner.holds.hold([digest.clone()]);
    let access = &store.inner.access;
    for descriptor in manifest.config.iter().chain(&manifest.layers) {
        let blob: Option<Digest> = descriptor.digest.parse().ok();
        hold.add(blob.clone());
        if !blob.is_some_and(|blob| store.blobs().has(&blob) && access.is_open(&blob)) {
            return Err(Refusal::manifest_blob_unknown(&descriptor.digest));
        }
    }
    for child in &manifest.manifests {
        // Naming the manifest of an image that was pulled for somebody must not open it up.
        let child: Option<Digest> = child.digest.parse().ok();
        hold.add(child.clone());
        if child.is_some_and(|child| store.blobs().has(&child) && !store.is_for(&child, repository, &[])) {
            return Err(Refusal::manifest_invalid("it names a manifest that was not pushed"));
        }
    }
    let kept = store.blobs().put(bytes).and_then(|_| store.give([&digest], repository));
    kept.map_err(|e| Refusal::storage(&e))?;
    // A manifest pushed by digest alone is kept by a name of its own, so that it is not collected.
    let tag = reference.replace(':', "-");
    let pin = Pin { digest: digest.to_string(), origin: Origin::Given, media_type };
    store.pin(repository, &tag, pin).map_err(|e| Refusal::storage(&e))?;
    Ok(digest)
}

fn media_type_of(bytes: &[u8]) -> String {
    let parsed: Option<Manifest> = serde_json::from_slice(bytes).ok();
    match parsed {
        Some(Manifest { media_type: Some(media_type), .. }) => media_type,
        Some(Manifest { manifests, .. }) if !manifests.is_empty() => OCI_INDEX.into(),
        _ => OCI_MANIFEST.into(),
    }
}
