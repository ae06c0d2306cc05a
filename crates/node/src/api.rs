//! What a node asks of the API server, beside watching.

use std::sync::Arc;

use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use knoll_client::{Client, Error, JSON, MERGE_PATCH, METADATA, Result, token};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::env::Sources;

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
    pub(crate) async fn get<K: DeserializeOwned>(&self, path: &str) -> Result<Option<K>> {
        self.0.get(path).await?.map(|answer| read(&answer)).transpose()
    }

    /// Sends JSON and reads JSON.
    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        read(&self.0.call(method, path, JSON, Some((JSON, body.to_string().into_bytes()))).await?)
    }

    /// Creates an object.
    pub(crate) async fn create(&self, collection: &str, object: &Value) -> Result<Value> {
        self.send(Method::POST, collection, object).await
    }

    /// Changes fields of an object by JSON merge patch. Its version from then on.
    pub(crate) async fn merge(&self, path: &str, patch: &Value) -> Result<Option<String>> {
        let patch = Some((MERGE_PATCH, patch.to_string().into_bytes()));
        let answer: Answer = read(&self.0.call(Method::PATCH, path, METADATA, patch).await?)?;
        Ok(answer.metadata.resource_version)
    }

    /// The ConfigMaps and Secrets of a namespace by these names; those that do not exist are `None`.
    pub(crate) async fn sources(&self, namespace: &str, names: &(Vec<String>, Vec<String>)) -> Result<Sources> {
        let maps = names.0.iter().map(|name| async move {
            let found: Option<ConfigMap> =
                self.get(&format!("/api/v1/namespaces/{namespace}/configmaps/{name}")).await?;
            Ok::<_, Error>((name.clone(), found.map(Arc::new)))
        });
        let secrets = names.1.iter().map(|name| async move {
            let found: Option<Secret> = self.get(&format!("/api/v1/namespaces/{namespace}/secrets/{name}")).await?;
            Ok::<_, Error>((name.clone(), found.map(Arc::new)))
        });
        let (maps, secrets) =
            tokio::try_join!(futures_util::future::try_join_all(maps), futures_util::future::try_join_all(secrets))?;
        Ok(Sources { config_maps: maps.into_iter().collect(), secrets: secrets.into_iter().collect() })
    }

    /// A token of the pod's service account, bound to the pod.
    pub(crate) async fn token(&self, pod: &Pod, audience: &str, seconds: i64) -> Result<Token> {
        let meta = &pod.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or("default");
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let mut body = token::request(audience, seconds);
        body["spec"]["boundObjectRef"] = json!({"kind": "Pod", "apiVersion": "v1", "name": meta.name, "uid": meta.uid});
        let body = Some((JSON, body.to_string().into_bytes()));
        let token::Issued { status } = read(&self.0.call(Method::POST, &path, JSON, body).await?)?;
        Ok(Token { text: status.token, expires: status.expiration_timestamp })
    }

    /// Lets a pod go that has stopped. A pod of another uid, or none, is fine.
    pub(crate) async fn forget(&self, pod: &Pod) -> Result<()> {
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
            "preconditions": {"uid": pod.metadata.uid}});
        match self.send(Method::DELETE, &pod_path(pod), &body).await {
            Ok(_) => Ok(()),
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Reads an answer: from bytes, like all that is read of these types.
fn read<K: DeserializeOwned>(answer: &[u8]) -> Result<K> {
    serde_json::from_slice(answer).map_err(Error::Answer)
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
