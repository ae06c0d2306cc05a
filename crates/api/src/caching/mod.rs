//! `caching.internal.knative.dev`: images worth having on the node before they are needed.

use k8s_openapi::api::core::v1::LocalObjectReference;
use serde::{Deserialize, Serialize};

use crate::{object::resource, status};

/// Desired state of an Image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageSpec {
    /// Image reference.
    #[serde(default)]
    pub image: String,
    /// Whose pull secrets to use.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
    /// Further pull secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

/// Observed state of an Image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: status::DuckStatus,
}

resource!(
    /// `caching.internal.knative.dev/v1alpha1` Image.
    Image, ImageSpec, ImageStatus
);
