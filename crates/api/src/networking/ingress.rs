//! Ingress: hosts and paths, and the Services that share their traffic.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

use crate::{object::resource, status};

/// Where a rule's hosts answer: `ExternalIP`.
pub const EXTERNAL_IP: &str = "ExternalIP";
/// Where a rule's hosts answer: `ClusterLocal`.
pub const CLUSTER_LOCAL: &str = "ClusterLocal";

/// Desired state of an Ingress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressSpec {
    /// `Enabled`, or `Redirected` to answer plain http with 301.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub http_option: String,
    /// Rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<IngressRule>,
    /// Certificates by host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls: Vec<IngressTls>,
}

/// Hosts that share their paths.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IngressRule {
    /// Exact host names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// [`EXTERNAL_IP`] or [`CLUSTER_LOCAL`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub visibility: String,
    /// Paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpIngressRule>,
}

/// The paths of a rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HttpIngressRule {
    /// Longest prefix wins; header matches before none.
    #[serde(default)]
    pub paths: Vec<HttpIngressPath>,
}

/// How one header must look.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// The exact value.
    #[serde(default)]
    pub exact: String,
}

/// One path of a rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpIngressPath {
    /// Prefix; empty matches all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Host to send on instead of the one asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rewrite_host: String,
    /// Headers that must match.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, HeaderMatch>,
    /// Headers to set on the request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub append_headers: BTreeMap<String, String>,
    /// Who answers; percents add up to 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub splits: Vec<IngressSplit>,
}

/// A share of a path's traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressSplit {
    /// Namespace of the Service.
    #[serde(default)]
    pub service_namespace: String,
    /// Name of the Service.
    #[serde(default)]
    pub service_name: String,
    /// Port of the Service, by number or name.
    #[serde(default = "port_zero")]
    pub service_port: IntOrString,
    /// Share, 0 to 100; 0 on a single split means 100.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub percent: i64,
    /// Headers to set on requests that take this split.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub append_headers: BTreeMap<String, String>,
}

fn port_zero() -> IntOrString {
    IntOrString::Int(0)
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// A certificate for hosts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressTls {
    /// Hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Secret with the certificate.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub secret_name: String,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub secret_namespace: String,
}

/// Where the data plane takes requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadBalancerStatus {
    /// Entry points.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// One entry point.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerIngress {
    /// By address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// By public name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// By cluster-local name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain_internal: String,
    /// Only reachable inside a mesh.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mesh_only: bool,
}

/// Observed state of an Ingress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: status::DuckStatus,
    /// For [`EXTERNAL_IP`] rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_load_balancer: Option<LoadBalancerStatus>,
    /// For [`CLUSTER_LOCAL`] rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_load_balancer: Option<LoadBalancerStatus>,
}

resource!(
    /// `networking.internal.knative.dev/v1alpha1` Ingress.
    Ingress, IngressSpec, IngressStatus
);
