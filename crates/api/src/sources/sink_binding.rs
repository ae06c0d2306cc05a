//! SinkBinding: tells the containers of other objects where events go.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

use crate::{
    duck::{SourceSpec, SourceStatus},
    object::resource,
};

/// Objects with a template of pods: one by its name, or several by their labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BindingSubject {
    /// `group/version`.
    #[serde(default)]
    pub api_version: String,
    /// Kind.
    #[serde(default)]
    pub kind: String,
    /// Namespace; the binding's own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Which labels; instead of `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Desired state of a SinkBinding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SinkBindingSpec {
    /// Sink and changes to events.
    #[serde(flatten)]
    pub source: SourceSpec,
    /// Whose containers are told.
    #[serde(default)]
    pub subject: BindingSubject,
}

/// Observed state of a SinkBinding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SinkBindingStatus {
    /// What every source reports.
    #[serde(flatten)]
    pub source: SourceStatus,
    /// Secret with the token that the containers send.
    #[serde(default, rename = "oidcTokenSecretName", skip_serializing_if = "Option::is_none")]
    pub oidc_token_secret_name: Option<String>,
}

resource!(
    /// `sources.knative.dev/v1` SinkBinding.
    SinkBinding, SinkBindingSpec, SinkBindingStatus
);
