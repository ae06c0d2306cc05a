//! Asks the API server for a token of a ServiceAccount.

use http::Method;
use jiff::Timestamp;
use knoll_api::{Key, Kind};
use knoll_plan::TokenSecret;
use serde::Deserialize;
use serde_json::json;

use crate::{
    api::{Api, ApiError},
    execute::within,
};

#[derive(Deserialize)]
struct Issued {
    status: IssuedStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IssuedStatus {
    token: String,
    expiration_timestamp: Timestamp,
}

/// A token that is made out to this audience, and when it ends.
///
/// # Errors
/// When the API server issues none, or does not answer.
pub(crate) async fn issue(api: &Api, account: &Key, audience: &str) -> Result<(String, Timestamp), ApiError> {
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [audience], "expirationSeconds": TokenSecret::SECONDS},
    });
    let path = Kind::ServiceAccount.object_path(account) + "/token";
    let Issued { status } = within(api.send(Method::POST, &path, Some(("application/json", &request)))).await?;
    Ok((status.token, status.expiration_timestamp))
}
