//! DomainMapping: a domain name of the user's for an addressable object.

use serde::{Deserialize, Serialize};

use crate::{duck::KReference, object::resource, status};

/// The user's own certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretTls {
    /// Secret of type `kubernetes.io/tls` in the same namespace.
    pub secret_name: String,
}

/// Desired state of a DomainMapping.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DomainMappingSpec {
    /// What answers.
    #[serde(default, rename = "ref")]
    pub ref_: KReference,
    /// Certificate to present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<SecretTls>,
}

/// Observed state of a DomainMapping.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DomainMappingStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: status::DuckStatus,
    /// URL of the mapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Address of the mapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<status::Addressable>,
}

resource!(
    /// `serving.knative.dev/v1beta1` DomainMapping.
    DomainMapping, DomainMappingSpec, DomainMappingStatus
);
