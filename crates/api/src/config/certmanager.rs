//! `config-certmanager`.

use serde::Deserialize;

use super::{ConfigError, Data, read::Reader};

/// Who issues certificates.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct IssuerRef {
    /// Name of the issuer.
    #[serde(default)]
    pub name: String,
    /// `Issuer` or `ClusterIssuer`.
    #[serde(default)]
    pub kind: String,
    /// API group.
    #[serde(default)]
    pub group: String,
}

impl Default for IssuerRef {
    fn default() -> Self {
        IssuerRef { name: "knative-selfsigned-issuer".into(), kind: "ClusterIssuer".into(), group: String::new() }
    }
}

/// Issuers by what they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertmanagerConfig {
    /// Public hosts.
    pub issuer_ref: IssuerRef,
    /// Cluster-local hosts.
    pub cluster_local_issuer_ref: IssuerRef,
    /// Traffic between our own parts.
    pub system_internal_issuer_ref: IssuerRef,
}

impl CertmanagerConfig {
    /// Parses the map.
    ///
    /// # Errors
    /// When a value is not YAML of the right form.
    pub fn parse(data: &Data) -> Result<CertmanagerConfig, ConfigError> {
        let read = Reader(data);
        let issuer = |key| Ok(read.yaml::<IssuerRef>(key)?.unwrap_or_default());
        Ok(CertmanagerConfig {
            issuer_ref: issuer("issuerRef")?,
            cluster_local_issuer_ref: issuer("clusterLocalIssuerRef")?,
            system_internal_issuer_ref: issuer("systemInternalIssuerRef")?,
        })
    }
}
