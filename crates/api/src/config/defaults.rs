//! `config-defaults`.

use std::collections::BTreeMap;

use super::{ConfigError, Data, ensure, read::Reader};
use crate::{quantity::Quantity, template};

/// What revisions get where they say nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct DefaultsConfig {
    /// `timeoutSeconds`.
    pub revision_timeout_seconds: i64,
    /// Greatest `timeoutSeconds`.
    pub max_revision_timeout_seconds: i64,
    /// `responseStartTimeoutSeconds`, where it is less than the timeout.
    pub revision_response_start_timeout_seconds: i64,
    /// `idleTimeoutSeconds`, where it is less than the timeout.
    pub revision_idle_timeout_seconds: i64,
    /// Name of a container without one, over the parent's metadata.
    pub container_name_template: template::Template,
    /// Name of an init container without one, over the parent's metadata.
    pub init_container_name_template: template::Template,
    /// `containerConcurrency`.
    pub container_concurrency: i64,
    /// Greatest `containerConcurrency`.
    pub container_concurrency_max_limit: i64,
    /// Whether `containerConcurrency` may be 0 (unlimited).
    pub allow_container_concurrency_zero: bool,
    /// `enableServiceLinks`; `None` leaves it to Kubernetes.
    pub enable_service_links: Option<bool>,
    /// Requests by resource name (`cpu`, `memory`, `ephemeral-storage`).
    pub requests: BTreeMap<&'static str, Quantity>,
    /// Limits by resource name.
    pub limits: BTreeMap<&'static str, Quantity>,
}

impl Default for DefaultsConfig {
    fn default() -> Self {
        let literal = |text| template::Template::parse(text).expect("a template without actions");
        DefaultsConfig {
            revision_timeout_seconds: 300,
            max_revision_timeout_seconds: 600,
            revision_response_start_timeout_seconds: 300,
            revision_idle_timeout_seconds: 0,
            container_name_template: literal("user-container"),
            init_container_name_template: literal("init-container"),
            container_concurrency: 0,
            container_concurrency_max_limit: 1000,
            allow_container_concurrency_zero: true,
            enable_service_links: Some(false),
            requests: BTreeMap::new(),
            limits: BTreeMap::new(),
        }
    }
}

impl DefaultsConfig {
    /// Parses the map.
    ///
    /// # Errors
    /// When a value cannot be read or breaks a rule.
    pub fn parse(data: &Data) -> Result<DefaultsConfig, ConfigError> {
        let d = DefaultsConfig::default();
        let read = Reader(data);
        let timeout = read.int(&["revision-timeout-seconds"], d.revision_timeout_seconds)?;
        let config = DefaultsConfig {
            revision_timeout_seconds: timeout,
            max_revision_timeout_seconds: read
                .int(&["max-revision-timeout-seconds"], d.max_revision_timeout_seconds)?,
            revision_response_start_timeout_seconds: read.int(&["revision-response-start-timeout-seconds"], timeout)?,
            revision_idle_timeout_seconds: read
                .int(&["revision-idle-timeout-seconds"], d.revision_idle_timeout_seconds)?,
            container_name_template: name_template(&read, "container-name-template", d.container_name_template)?,
            init_container_name_template: name_template(
                &read,
                "init-container-name-template",
                d.init_container_name_template,
            )?,
            container_concurrency: read.int(&["container-concurrency"], d.container_concurrency)?,
            container_concurrency_max_limit: read
                .int(&["container-concurrency-max-limit"], d.container_concurrency_max_limit)?,
            allow_container_concurrency_zero: read
                .bool(&["allow-container-concurrency-zero"], d.allow_container_concurrency_zero)?,
            enable_service_links: read.raw(&["enable-service-links"]).map_or(d.enable_service_links, |raw| {
                match raw.to_ascii_lowercase().as_str() {
                    "true" => Some(true),
                    "false" => Some(false),
                    _ => None,
                }
            }),
            requests: resources(&read, "request")?,
            limits: resources(&read, "limit")?,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let (timeout, max) = (self.revision_timeout_seconds, self.max_revision_timeout_seconds);
        ensure!(
            timeout <= max,
            "revision-timeout-seconds ({timeout}) cannot be greater than max-revision-timeout-seconds ({max})"
        );
        for (key, value) in [
            ("revision-response-start-timeout-seconds", self.revision_response_start_timeout_seconds),
            ("revision-idle-timeout-seconds", self.revision_idle_timeout_seconds),
        ] {
            ensure!(
                value <= 0 || value <= timeout,
                "{key} ({value}) cannot be greater than revision-timeout-seconds ({timeout})"
            );
        }
        let limit = self.container_concurrency_max_limit;
        ensure!(limit >= 1, "expected 1 <= {limit} <= {}: container-concurrency-max-limit", i32::MAX);
        let concurrency = self.container_concurrency;
        ensure!((0..=limit).contains(&concurrency), "expected 0 <= {concurrency} <= {limit}: container-concurrency");
        Ok(())
    }
}

fn name_template(read: &Reader<'_>, key: &str, default: template::Template) -> Result<template::Template, ConfigError> {
    let Some(raw) = read.raw(&[key]) else { return Ok(default) };
    let template = template::Template::parse(raw).map_err(|e| ConfigError::value(key, e))?;
    template
        .render(&meta_data(&serde_json::Value::Null))
        .map_err(|e| ConfigError::Rule(format!("error executing template: {e}")))?;
    Ok(template)
}

fn resources(read: &Reader<'_>, what: &str) -> Result<BTreeMap<&'static str, Quantity>, ConfigError> {
    let mut amounts = BTreeMap::new();
    for resource in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = read.quantity(&[&format!("revision-{resource}-{what}")], None)? {
            amounts.insert(resource, amount);
        }
    }
    Ok(amounts)
}

/// An object's JSON metadata as name templates see it.
pub fn meta_data(metadata: &serde_json::Value) -> template::Data {
    use template::Data;
    let text = |key: &str| Data::from(metadata[key].as_str().unwrap_or_default());
    let map = |key: &str| {
        let entries = metadata[key].as_object().into_iter().flatten();
        Data::Map(entries.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect())
    };
    Data::Fields(BTreeMap::from([
        ("Name", text("name")),
        ("GenerateName", text("generateName")),
        ("Namespace", text("namespace")),
        ("UID", text("uid")),
        ("ResourceVersion", text("resourceVersion")),
        ("SelfLink", text("selfLink")),
        ("Generation", Data::Int(metadata["generation"].as_i64().unwrap_or_default())),
        ("Labels", map("labels")),
        ("Annotations", map("annotations")),
    ]))
}
