//! `config-network`.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{ConfigError, Data, ensure, read::Reader};
use crate::template::{self, Template, TemplateError};

/// What plain http gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpProtocol {
    /// An answer.
    Enabled,
    /// Nothing (deprecated; treated as enabled by data planes).
    Disabled,
    /// 301 to https.
    Redirected,
}

/// Whether instances are reached by their own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeshCompatibility {
    /// Found out by trying.
    Auto,
    /// Only through their Service.
    Enabled,
    /// Always directly.
    Disabled,
}

/// How routes become names and get certificates.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfig {
    /// Class of an Ingress without one.
    pub ingress_class: String,
    /// Class of a Certificate without one.
    pub certificate_class: String,
    /// Namespaces with wildcard certificates; `None` is none, an empty selector is all.
    pub namespace_wildcard_cert_selector: Option<LabelSelector>,
    /// Host of a route.
    pub domain_template: Template,
    /// First part of the host of a tag.
    pub tag_template: Template,
    /// Whether public hosts get certificates.
    pub external_domain_tls: bool,
    /// Whether cluster-local hosts get certificates.
    pub cluster_local_domain_tls: bool,
    /// Whether traffic between our own parts is encrypted.
    pub system_internal_tls: bool,
    /// What plain http gets.
    pub http_protocol: HttpProtocol,
    /// How long a rollout takes; zero is at once.
    pub rollout_duration: Duration,
    /// Whether a DomainMapping makes its own claim.
    pub autocreate_cluster_domain_claims: bool,
    /// Whether instances are reachable by address inside a mesh.
    pub enable_mesh_pod_addressability: bool,
    /// Whether instances are reached by their own addresses.
    pub mesh_compatibility: MeshCompatibility,
    /// Scheme of public URLs where something in front ends TLS.
    pub default_external_scheme: String,
}

const DOMAIN_TEMPLATE: &str = "{{.Name}}.{{.Namespace}}.{{.Domain}}";
const TAG_TEMPLATE: &str = "{{.Tag}}-{{.Name}}";

impl Default for NetworkConfig {
    fn default() -> Self {
        NetworkConfig {
            ingress_class: "istio.ingress.networking.knative.dev".to_owned(),
            certificate_class: "cert-manager.certificate.networking.knative.dev".to_owned(),
            namespace_wildcard_cert_selector: None,
            domain_template: Template::parse(DOMAIN_TEMPLATE).expect("the default template parses"),
            tag_template: Template::parse(TAG_TEMPLATE).expect("the default template parses"),
            external_domain_tls: false,
            cluster_local_domain_tls: false,
            system_internal_tls: false,
            http_protocol: HttpProtocol::Enabled,
            rollout_duration: Duration::ZERO,
            autocreate_cluster_domain_claims: false,
            enable_mesh_pod_addressability: false,
            mesh_compatibility: MeshCompatibility::Auto,
            default_external_scheme: "http".to_owned(),
        }
    }
}

impl NetworkConfig {
    /// Parses the map.
    ///
    /// # Errors
    /// When a value cannot be read or breaks a rule, or a template does not give a host.
    pub fn parse(data: &Data) -> Result<NetworkConfig, ConfigError> {
        let d = NetworkConfig::default();
        let read = Reader(data);
        let rollout = read.int::<i64>(&["rolloutDuration", "rollout-duration"], 0)?;
        ensure!(rollout >= 0, "rollout-duration must be a positive integer, but was {rollout}");
        Ok(NetworkConfig {
            ingress_class: read.text(&["ingress.class", "ingress-class"], &d.ingress_class),
            certificate_class: read.text(&["certificate.class", "certificate-class"], &d.certificate_class),
            namespace_wildcard_cert_selector: read.yaml("namespace-wildcard-cert-selector")?,
            domain_template: domain_template(&read)?,
            tag_template: tag_template(&read)?,
            external_domain_tls: read
                .raw(&["autoTLS", "auto-tls", "external-domain-tls"])
                .is_some_and(|raw| raw.eq_ignore_ascii_case("enabled")),
            cluster_local_domain_tls: switch(&read, "cluster-local-domain-tls")?.unwrap_or(false),
            system_internal_tls: switch(&read, "system-internal-tls")?.unwrap_or(false)
                || legacy_internal_encryption(&read)?,
            http_protocol: http_protocol(&read)?,
            rollout_duration: Duration::from_secs(rollout.unsigned_abs()),
            autocreate_cluster_domain_claims: read
                .bool(&["autocreateClusterDomainClaims", "autocreate-cluster-domain-claims"], false)?,
            enable_mesh_pod_addressability: read.bool(&["enable-mesh-pod-addressability"], false)?,
            mesh_compatibility: match read.raw(&["mesh-compatibility-mode"]).map(str::to_ascii_lowercase).as_deref() {
                Some("enabled") => MeshCompatibility::Enabled,
                Some("disabled") => MeshCompatibility::Disabled,
                _ => MeshCompatibility::Auto,
            },
            default_external_scheme: read
                .text(&["defaultExternalScheme", "default-external-scheme"], &d.default_external_scheme),
        })
    }

    /// The host of a route.
    ///
    /// # Errors
    /// When the template asks for something that is not there.
    pub fn host(
        &self,
        name: &str,
        namespace: &str,
        domain: &str,
        annotations: &BTreeMap<String, String>,
        labels: &BTreeMap<String, String>,
    ) -> Result<String, TemplateError> {
        self.domain_template.render(&domain_data(name, namespace, domain, annotations, labels))
    }

    /// The name under which a tag of a route gets its host; the route's own name for no tag.
    ///
    /// # Errors
    /// When the template asks for something that is not there.
    pub fn tagged_name(&self, name: &str, tag: &str) -> Result<String, TemplateError> {
        if tag.is_empty() { Ok(name.to_owned()) } else { self.tag_template.render(&tag_data(name, tag)) }
    }
}

fn domain_data(
    name: &str,
    namespace: &str,
    domain: &str,
    annotations: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
) -> template::Data {
    template::Data::Fields(BTreeMap::from([
        ("Name", name.into()),
        ("Namespace", namespace.into()),
        ("Domain", domain.into()),
        ("Annotations", template::Data::Map(annotations.clone())),
        ("Labels", template::Data::Map(labels.clone())),
    ]))
}

fn tag_data(name: &str, tag: &str) -> template::Data {
    template::Data::Fields(BTreeMap::from([("Name", name.into()), ("Tag", tag.into())]))
}

fn domain_template(read: &Reader<'_>) -> Result<Template, ConfigError> {
    let key = "domain-template";
    let source = read.text(&["domainTemplate", key], DOMAIN_TEMPLATE);
    let template = Template::parse(&source).map_err(|e| ConfigError::value(key, e))?;
    let none = BTreeMap::new();
    let host =
        template.render(&domain_data("foo", "bar", "baz.com", &none, &none)).map_err(|e| ConfigError::value(key, e))?;
    let end = host.find(['/', '?', '#']).unwrap_or(host.len());
    let (authority, path) = host.split_at(end);
    // What stands before an @ would be a user, not a part of the host.
    let name = authority.rsplit('@').next().unwrap_or_default().split(':').next().unwrap_or_default();
    ensure!(!name.is_empty(), "empty hostname");
    ensure!(
        !name
            .contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | '"' | '\\' | '^' | '`')),
        "invalid character in host name"
    );
    ensure!(path.is_empty() || path == "/", "domain template has url path: {path}");
    Ok(template)
}

fn tag_template(read: &Reader<'_>) -> Result<Template, ConfigError> {
    let key = "tag-template";
    let source = read.text(&["tagTemplate", key], TAG_TEMPLATE);
    let template = Template::parse(&source).map_err(|e| ConfigError::value(key, e))?;
    template.render(&tag_data("foo", "v2")).map_err(|e| ConfigError::value(key, e))?;
    Ok(template)
}

fn http_protocol(read: &Reader<'_>) -> Result<HttpProtocol, ConfigError> {
    let raw = read.raw(&["httpProtocol", "http-protocol"]).unwrap_or_default();
    match raw.to_ascii_lowercase().as_str() {
        "" | "enabled" => Ok(HttpProtocol::Enabled),
        "disabled" => Ok(HttpProtocol::Disabled),
        "redirected" => Ok(HttpProtocol::Redirected),
        _ => Err(ConfigError::Rule(format!("httpProtocol {raw} in config-network ConfigMap is not supported"))),
    }
}

fn switch(read: &Reader<'_>, key: &str) -> Result<Option<bool>, ConfigError> {
    let raw = read.raw(&[key]).unwrap_or_default();
    match raw.to_ascii_lowercase().as_str() {
        "" => Ok(None),
        "enabled" => Ok(Some(true)),
        "disabled" => Ok(Some(false)),
        _ => Err(ConfigError::Rule(format!("{key} with value: {raw:?} in config-network ConfigMap is not supported"))),
    }
}

/// The deprecated spelling of `system-internal-tls`.
fn legacy_internal_encryption(read: &Reader<'_>) -> Result<bool, ConfigError> {
    read.bool(&["internal-encryption"], false)
}
