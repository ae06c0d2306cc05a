//! Tokens of ServiceAccounts (`authentication.k8s.io/v1` TokenRequest), as they are asked for and answered.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

/// A request for a token that is made out to an audience, the API server's own where that is empty, and holds for so long.
pub fn request(audience: &str, seconds: i64) -> Value {
    let audiences: Vec<&str> = Some(audience).filter(|audience| !audience.is_empty()).into_iter().collect();
    json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": audiences, "expirationSeconds": seconds},
    })
}

/// What is read of the answer.
#[derive(Debug, Deserialize)]
pub struct Issued {
    /// What was issued.
    pub status: Token,
}

/// A token, and when it ends.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// As it is sent after `Bearer`.
    pub token: String,
    /// Not to be used from then on.
    pub expiration_timestamp: Timestamp,
}
