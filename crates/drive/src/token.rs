//! Asks the API server for a token of a ServiceAccount.

use http::Method;
use jiff::Timestamp;
use knoll_api::{Key, Kind};
use knoll_client::{
    JSON,
    token::{self, Issued},
};
use knoll_plan::TokenSecret;

use crate::{
    api::{Api, ApiError},
    execute::within,
};

/// A token that is made out to this audience, and when it ends.
///
/// # Errors
/// When the API server issues none, or does not answer.
pub(crate) async fn issue(api: &Api, account: &Key, audience: &str) -> Result<(String, Timestamp), ApiError> {
    let request = token::request(audience, TokenSecret::SECONDS.into());
    let path = Kind::ServiceAccount.object_path(account) + "/token";
    let Issued { status } = within(api.send(Method::POST, &path, Some((JSON, &request)))).await?;
    Ok((status.token, status.expiration_timestamp))
}
