//! Where events are sent.

use serde::{Deserialize, Serialize};

use super::KReference;

/// An addressable object, a URI, or a URI relative to the object's address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// The object.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub ref_: Option<KReference>,
    /// An absolute URI, or one relative to the object's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// PEM bundle to trust; goes before what the object's address says.
    #[serde(default, rename = "CACerts", skip_serializing_if = "Option::is_none")]
    pub ca_certs: Option<String>,
    /// OIDC audience; goes before what the object's address says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
}
