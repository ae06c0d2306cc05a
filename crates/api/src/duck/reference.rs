//! References to objects of any kind.

use serde::{Deserialize, Serialize};

/// Names an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KReference {
    /// Kind.
    #[serde(default)]
    pub kind: String,
    /// Namespace; that of the object which refers when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    #[serde(default)]
    pub name: String,
    /// `group/version`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// The group alone, in place of `apiVersion`; only with the feature `kreference-group`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Which of the object's named addresses is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}
