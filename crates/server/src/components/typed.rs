//! Objects of the API by their types.

use http::Method;
use knoll_api::{Key, Resource, json, object::to_json};
use knoll_client::{Client, Error, JSON, MERGE_PATCH, Result};
use serde_json::Value;

/// Gets an object; `None` when there is none.
pub(super) async fn find<R: Resource>(client: &Client, namespace: &str, name: &str) -> Result<Option<R>> {
    let answer = client.get(&R::KIND.object_path(&Key::new(namespace, name))).await?;
    answer.map(|bytes| R::from_bytes(&bytes).map_err(Error::Answer)).transpose()
}

/// Creates an object in a namespace.
pub(super) async fn create<R: Resource>(client: &Client, namespace: &str, object: &R) -> Result<R> {
    let path = R::KIND.collection_path(Some(namespace));
    write(client, Method::POST, &path, object).await
}

/// Replaces an object, if it is still at the version that it says.
pub(super) async fn replace<R: Resource>(client: &Client, namespace: &str, object: &R) -> Result<R> {
    let path = R::KIND.object_path(&Key::new(namespace, object.name()));
    write(client, Method::PUT, &path, object).await
}

async fn write<R: Resource>(client: &Client, method: Method, path: &str, object: &R) -> Result<R> {
    let body = Some((JSON, json::bytes_of(&to_json(object))));
    R::from_bytes(&client.call(method, path, JSON, body).await?).map_err(Error::Answer)
}

/// Creates what is no object of a known kind, or not of one that is kept.
pub(super) async fn post(client: &Client, path: &str, object: &Value) -> Result<Value> {
    send(client, Method::POST, path, JSON, object).await
}

/// Changes fields of an object.
pub(super) async fn merge(client: &Client, path: &str, patch: &Value) -> Result<Value> {
    send(client, Method::PATCH, path, MERGE_PATCH, patch).await
}

async fn send(client: &Client, method: Method, path: &str, media_type: &str, body: &Value) -> Result<Value> {
    let body = Some((media_type, json::bytes_of(body)));
    serde_json::from_slice(&client.call(method, path, JSON, body).await?).map_err(Error::Answer)
}
