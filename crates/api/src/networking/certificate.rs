//! Certificate: names that want a TLS certificate, and the Secret it goes to.

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString};
use serde::{Deserialize, Serialize};

use crate::{object::resource, status};

/// Desired state of a Certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSpec {
    /// Names the certificate covers.
    #[serde(default)]
    pub dns_names: Vec<String>,
    /// Top-level domain of the names.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Secret to write.
    #[serde(default)]
    pub secret_name: String,
}

/// An ACME challenge that must be answered over http.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Http01Challenge {
    /// URL the authority asks.
    pub url: String,
    /// Service that answers.
    pub service_name: String,
    /// Its namespace.
    pub service_namespace: String,
    /// Its port.
    pub service_port: IntOrString,
}

/// Observed state of a Certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: status::DuckStatus,
    /// Expiry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// Challenges to route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http01_challenges: Vec<Http01Challenge>,
}

resource!(
    /// `networking.internal.knative.dev/v1alpha1` Certificate.
    Certificate, CertificateSpec, CertificateStatus
);
