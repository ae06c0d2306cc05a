//! Requests to the API server, as far as carrying out plans needs them.

use std::collections::BTreeMap;

use http::Method;
use knoll_api::{Key, Kind, Object};
use knoll_client::{Client, Error, JSON, MERGE_PATCH, METADATA};
use knoll_plan::MetadataList;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// What is served, in one document.
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A refusal or a broken connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The server answered, and said no.
    #[error("{reason}: {message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// One word.
        reason: String,
        /// For people.
        message: String,
        /// Name of the object that it is about; empty where it is about none, because its kind is not served for example.
        about: String,
    },
    /// There was no answer, or none that can be read.
    #[error("no usable answer")]
    Broken(#[source] Box<Error>),
}

impl ApiError {
    /// Whether what was asked for does not exist, or nothing of its kind can be asked for now.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, ApiError::Refused { code: 404, .. })
    }

    /// Whether the object that was asked for does not exist, its kind being served.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, ApiError::Refused { code: 404, about, .. } if !about.is_empty())
    }

    /// Whether the object had changed, or existed already.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, ApiError::Refused { code: 409, .. })
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(status) => ApiError::Refused {
                code: status.code,
                reason: status.reason.clone(),
                message: status.message.clone(),
                about: status.details.map(|details| details.name).unwrap_or_default(),
            },
            other => ApiError::Broken(Box::new(other)),
        }
    }
}

/// What every answer about an object begins with; the rest is not read.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Answer {
    #[serde(default)]
    pub(crate) metadata: AnswerMeta,
}

/// The part of the metadata that is read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AnswerMeta {
    #[serde(default)]
    pub(crate) uid: String,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) resource_version: String,
    #[serde(default)]
    pub(crate) owner_references: Vec<Value>,
    #[serde(default)]
    pub(crate) finalizers: Vec<Value>,
}

impl AnswerMeta {
    /// The entries of a list.
    pub(crate) fn list(&self, list: MetadataList) -> &[Value] {
        match list {
            MetadataList::OwnerReferences => &self.owner_references,
            MetadataList::Finalizers => &self.finalizers,
        }
    }
}

/// A revision as a number; 0 when there is none.
pub(crate) fn revision(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

/// The API server.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
}

impl Api {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The client beneath, for what streams.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<T, ApiError> {
        self.call(method, path, JSON, body).await
    }

    /// What the server has below `/api` or `/apis`.
    pub(crate) async fn discover<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.call(Method::GET, path, DISCOVERY, None).await
    }

    /// As [`Api::send`], for what is answered with an object of which only the metadata is read.
    async fn answer(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Answer, ApiError> {
        self.call(method, path, METADATA, body).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<T, ApiError> {
        let body = body.map(|(media_type, value)| (media_type, value.to_string().into_bytes()));
        let answer = self.client.call(method, path, accept, body).await?;
        Ok(serde_json::from_slice(&answer).map_err(Error::Answer)?)
    }

    pub(crate) async fn get(&self, kind: Kind, key: &Key) -> Result<Answer, ApiError> {
        self.look_up(&kind.object_path(key)).await
    }

    /// The object at a path.
    pub(crate) async fn look_up(&self, path: &str) -> Result<Answer, ApiError> {
        self.answer(Method::GET, path, None).await
    }

    pub(crate) async fn create(&self, object: &Object) -> Result<Answer, ApiError> {
        let path = object.kind().collection_path(Some(&object.key().namespace));
        self.post(&path, &object.to_json()).await
    }

    pub(crate) async fn post(&self, path: &str, value: &Value) -> Result<Answer, ApiError> {
        self.answer(Method::POST, path, Some((JSON, value))).await
    }

    /// Replaces an object or, by its name, a subresource.
    pub(crate) async fn put(
        &self,
        kind: Kind,
        key: &Key,
        subresource: &str,
        value: &Value,
    ) -> Result<Answer, ApiError> {
        let path = kind.object_path(key) + subresource;
        self.answer(Method::PUT, &path, Some((JSON, value))).await
    }

    pub(crate) async fn merge(&self, path: &str, value: &Value) -> Result<Answer, ApiError> {
        self.answer(Method::PATCH, path, Some((MERGE_PATCH, value))).await
    }

    /// Deletes the object at a path. `options` are those of `DeleteOptions`.
    pub(crate) async fn delete(&self, path: &str, mut options: Value) -> Result<Answer, ApiError> {
        options["apiVersion"] = "v1".into();
        options["kind"] = "DeleteOptions".into();
        self.answer(Method::DELETE, path, Some((JSON, &options))).await
    }
}
