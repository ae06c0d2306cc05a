//! What a node asks of the API server, beside watching.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use knoll_api::json;
use kube::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::env::Sources;

/// An answer of which nothing but the version is read: as little of it as the server can send.
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json";

/// A token and until when to use it.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) expires: Timestamp,
}

/// What is read of an answer to a change.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    metadata: Version,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Version {
    resource_version: Option<String>,
}

/// The API, as a node uses it.
#[derive(Clone)]
pub(crate) struct Api(pub(crate) Client);

impl Api {
    /// Gets an object; `None` when there is none.
    pub(crate) async fn get<K: DeserializeOwned>(&self, path: String) -> kube::Result<Option<K>> {
        let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        match self.0.request_text(request).await {
            Ok(text) => read(&text).map(Some),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends JSON and reads JSON.
    pub(crate) async fn send(&self, method: http::Method, path: &str, kind: &str, body: &Value) -> kube::Result<Value> {
        self.call(method, path, ("application/json", kind), body).await
    }

    async fn call<K: DeserializeOwned>(
        &self,
        method: http::Method,
        path: &str,
        (accept, kind): (&str, &str),
        body: &Value,
    ) -> kube::Result<K> {
        let bytes = serde_json::to_vec(body).map_err(kube::Error::SerdeError)?;
        let request = http::Request::builder().method(method).uri(path);
        let request = request.header("accept", accept).header("content-type", kind).body(bytes);
        read(&self.0.request_text(request.map_err(kube::Error::HttpError)?).await?)
    }

    /// Creates an object.
    pub(crate) async fn create(&self, collection: &str, object: &Value) -> kube::Result<Value> {
        self.send(http::Method::POST, collection, "application/json", object).await
    }

    /// Changes fields of an object by JSON merge patch. Its version from then on.
    pub(crate) async fn merge(&self, path: &str, patch: &Value) -> kube::Result<Option<String>> {
        let forms = (METADATA, "application/merge-patch+json");
        let answer: Answer = self.call(http::Method::PATCH, path, forms, patch).await?;
        Ok(answer.metadata.resource_version)
    }

    /// The ConfigMaps and Secrets of a namespace by these names; those that do not exist are `None`.
    pub(crate) async fn sources(&self, namespace: &str, names: &(Vec<String>, Vec<String>)) -> kube::Result<Sources> {
        let maps = names.0.iter().map(|name| async move {
            let found: Option<ConfigMap> =
                self.get(format!("/api/v1/namespaces/{namespace}/configmaps/{name}")).await?;
            Ok::<_, kube::Error>((name.clone(), found.map(Arc::new)))
        });
        let secrets = names.1.iter().map(|name| async move {
            let found: Option<Secret> = self.get(format!("/api/v1/namespaces/{namespace}/secrets/{name}")).await?;
            Ok::<_, kube::Error>((name.clone(), found.map(Arc::new)))
        });
        let (maps, secrets) =
            tokio::try_join!(futures_util::future::try_join_all(maps), futures_util::future::try_join_all(secrets))?;
        Ok(Sources { config_maps: maps.into_iter().collect(), secrets: secrets.into_iter().collect() })
    }

    /// A token of the pod's service account, bound to the pod.
    pub(crate) async fn token(&self, pod: &Pod, audience: &str, seconds: i64) -> kube::Result<Token> {
        let meta = &pod.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or("default");
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let audiences: Vec<&str> = Some(audience).filter(|a| !a.is_empty()).into_iter().collect();
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef":
                {"kind": "Pod", "apiVersion": "v1", "name": meta.name, "uid": meta.uid}},
        });
        let answer: TokenRequest = json::typed(&self.create(&path, &body).await?).map_err(kube::Error::SerdeError)?;
        let status = answer
            .status
            .ok_or_else(|| kube::Error::SerdeError(serde::de::Error::custom("the server's answer holds no token")))?;
        Ok(Token { text: status.token, expires: status.expiration_timestamp.0 })
    }

    /// Lets a pod go that has stopped. A pod of another uid, or none, is fine.
    pub(crate) async fn forget(&self, pod: &Pod) -> kube::Result<()> {
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
            "preconditions": {"uid": pod.metadata.uid}});
        match self.send(http::Method::DELETE, &pod_path(pod), "application/json", &body).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Reads an answer: from bytes, like all that is read of these types.
fn read<K: DeserializeOwned>(answer: &str) -> kube::Result<K> {
    serde_json::from_slice(answer.as_bytes()).map_err(kube::Error::SerdeError)
}

/// Path of a pod.
pub(crate) fn pod_path(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!(
        "/api/v1/namespaces/{}/pods/{}",
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default()
    )
}
