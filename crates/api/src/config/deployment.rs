//! `config-deployment`.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Deserialize;

use super::{ConfigError, Data, ensure, read::Reader};
use crate::{duration, quantity::Quantity, syntax};

/// Whether instances of a revision avoid each other's nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// They may share a node.
    None,
    /// They rather do not.
    #[default]
    PreferSpreadRevisionOverNodes,
}

/// How revisions become Deployments.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentConfig {
    /// Image of the queue container; empty only in the default.
    pub queue_sidecar_image: String,
    /// Registries whose tags are kept.
    pub registries_skipping_tag_resolving: BTreeSet<String>,
    /// Most time for one digest.
    pub digest_resolution_timeout: Duration,
    /// Most time until a Deployment is available, whole seconds.
    pub progress_deadline: Duration,
    /// Requests of the queue container by resource name.
    pub queue_sidecar_requests: BTreeMap<&'static str, Quantity>,
    /// Limits of the queue container by resource name.
    pub queue_sidecar_limits: BTreeMap<&'static str, Quantity>,
    /// Audiences of the tokens the queue container gets; without the empty one.
    pub queue_sidecar_token_audiences: BTreeSet<String>,
    /// Certificate authority the queue container trusts.
    pub queue_sidecar_root_ca: String,
    /// Least TLS version of the queue container.
    pub queue_sidecar_tls_min_version: String,
    /// Greatest TLS version of the queue container.
    pub queue_sidecar_tls_max_version: String,
    /// Cipher suites of the queue container, comma-separated.
    pub queue_sidecar_tls_cipher_suites: String,
    /// Curves of the queue container, comma-separated.
    pub queue_sidecar_tls_curve_preferences: String,
    /// Default affinity of instances.
    pub default_affinity: Affinity,
    /// Labels that a revision's pods need for a runtime class, by class.
    pub runtime_class_names: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether a pod that cannot be scheduled is waited for.
    pub pod_is_always_schedulable: bool,
}

impl Default for DeploymentConfig {
    fn default() -> Self {
        DeploymentConfig {
            queue_sidecar_image: String::new(),
            registries_skipping_tag_resolving: ["kind.local", "ko.local", "dev.local"].map(str::to_owned).into(),
            digest_resolution_timeout: Duration::from_secs(10),
            progress_deadline: Duration::from_secs(600),
            queue_sidecar_requests: BTreeMap::from([("cpu", cpu_request())]),
            queue_sidecar_limits: BTreeMap::new(),
            queue_sidecar_token_audiences: BTreeSet::new(),
            queue_sidecar_root_ca: String::new(),
            queue_sidecar_tls_min_version: String::new(),
            queue_sidecar_tls_max_version: String::new(),
            queue_sidecar_tls_cipher_suites: String::new(),
            queue_sidecar_tls_curve_preferences: String::new(),
            default_affinity: Affinity::default(),
            runtime_class_names: BTreeMap::new(),
            pod_is_always_schedulable: false,
        }
    }
}

fn cpu_request() -> Quantity {
    Quantity::parse("25m").expect("25m is a quantity")
}

#[derive(Deserialize)]
struct RuntimeClass {
    #[serde(default)]
    selector: Option<BTreeMap<String, String>>,
}

impl DeploymentConfig {
    /// Parses the map.
    ///
    /// # Errors
    /// When a value cannot be read or breaks a rule.
    pub fn parse(data: &Data) -> Result<DeploymentConfig, ConfigError> {
        let read = Reader(data);
        let config = DeploymentConfig {
            queue_sidecar_image: read.text(&["queueSidecarImage", "queue-sidecar-image"], ""),
            registries_skipping_tag_resolving: read.set(
                &["registriesSkippingTagResolving", "registries-skipping-tag-resolving"],
                &["kind.local", "ko.local", "dev.local"],
            ),
            digest_resolution_timeout: positive(
                &read,
                &["digestResolutionTimeout", "digest-resolution-timeout"],
                10 * duration::SECOND,
            )?,
            progress_deadline: positive(&read, &["progressDeadline", "progress-deadline"], 600 * duration::SECOND)?,
            queue_sidecar_requests: resources(&read, "Request", Some(cpu_request()))?,
            queue_sidecar_limits: resources(&read, "Limit", None)?,
            queue_sidecar_token_audiences: read
                .set(&["queue-sidecar-token-audiences"], &[])
                .into_iter()
                .filter(|audience| !audience.is_empty())
                .collect(),
            queue_sidecar_root_ca: read.text(&["queue-sidecar-rootca"], ""),
            queue_sidecar_tls_min_version: read.text(&["queue-sidecar-tls-min-version"], ""),
            queue_sidecar_tls_max_version: read.text(&["queue-sidecar-tls-max-version"], ""),
            queue_sidecar_tls_cipher_suites: read.text(&["queue-sidecar-tls-cipher-suites"], ""),
            queue_sidecar_tls_curve_preferences: read.text(&["queue-sidecar-tls-curve-preferences"], ""),
            default_affinity: affinity(&read)?,
            runtime_class_names: runtime_classes(&read)?,
            pod_is_always_schedulable: read.bool(&["pod-is-always-schedulable"], false)?,
        };
        ensure!(!config.queue_sidecar_image.is_empty(), "queue-sidecar-image cannot be empty or unset");
        ensure!(
            config.progress_deadline.subsec_nanos() == 0,
            "progress-deadline must be rounded to a whole second, was: {}",
            duration::format_std(config.progress_deadline)
        );
        Ok(config)
    }

    /// The runtime class of pods with these labels: the one with the largest selector, the first by name among equals.
    pub fn runtime_class(&self, labels: &BTreeMap<String, String>) -> Option<&str> {
        self.runtime_class_names
            .iter()
            .filter(|(_, selector)| selector.iter().all(|(key, value)| labels.get(key) == Some(value)))
            .min_by_key(|(_, selector)| Reverse(selector.len()))
            .map(|(class, _)| class.as_str())
    }
}

fn positive(read: &Reader<'_>, keys: &[&str; 2], default: i64) -> Result<Duration, ConfigError> {
    let value = read.nanoseconds(keys, default)?;
    ensure!(value > 0, "{} cannot be a non-positive duration, was {}", keys[1], duration::format(value));
    Ok(duration::to_std(value))
}

fn resources(
    read: &Reader<'_>,
    what: &str,
    cpu_default: Option<Quantity>,
) -> Result<BTreeMap<&'static str, Quantity>, ConfigError> {
    let mut amounts = BTreeMap::new();
    for (resource, legacy, default) in
        [("cpu", "CPU", cpu_default), ("memory", "Memory", None), ("ephemeral-storage", "EphemeralStorage", None)]
    {
        let kebab = format!("queue-sidecar-{resource}-{}", what.to_ascii_lowercase());
        let legacy = format!("queueSidecar{legacy}{what}");
        if let Some(amount) = read.quantity(&[&legacy, &kebab], default)? {
            amounts.insert(resource, amount);
        }
    }
    Ok(amounts)
}

fn affinity(read: &Reader<'_>) -> Result<Affinity, ConfigError> {
    match read.raw(&["default-affinity-type"]) {
        None | Some("prefer-spread-revision-over-nodes") => Ok(Affinity::PreferSpreadRevisionOverNodes),
        Some("none") => Ok(Affinity::None),
        Some(other) => Err(ConfigError::Rule(format!("unsupported default-affinity-type value: {other:?}"))),
    }
}

fn runtime_classes(read: &Reader<'_>) -> Result<BTreeMap<String, BTreeMap<String, String>>, ConfigError> {
    let written: BTreeMap<String, Option<RuntimeClass>> = read.yaml("runtime-class-name")?.unwrap_or_default();
    let mut classes = BTreeMap::new();
    for (class, rule) in written {
        let problems = syntax::dns1123_subdomain(&class);
        ensure!(
            problems.is_empty(),
            "runtime-class-name {class} selector not valid DNSSubdomain: [{}]",
            problems.join(" ")
        );
        let selector = rule.and_then(|rule| rule.selector).unwrap_or_default();
        for (key, value) in &selector {
            let problems = [syntax::qualified_name(key), syntax::label_value(value)].concat();
            ensure!(problems.is_empty(), "runtime-class-name {class} selector invalid: {}", problems.join("; "));
        }
        classes.insert(class, selector);
    }
    Ok(classes)
}
