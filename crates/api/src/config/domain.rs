//! `config-domain`.

use std::{cmp::Reverse, collections::BTreeMap};

use serde::Deserialize;

use super::{ConfigError, Data, example::EXAMPLE_KEY, read};
use crate::labels::networking;

/// The domain under which a cluster's own names live, without `svc.`.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// Domains, and which routes they are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainConfig {
    /// Rules by domain.
    pub domains: BTreeMap<String, DomainRule>,
    /// Whether no rule for every route was written, so that the one there is stands in.
    pub stands_in: bool,
}

/// Which routes get a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainRule {
    /// Labels a route must have; empty takes every route.
    pub selector: BTreeMap<String, String>,
    /// Whether the domain may have wildcard certificates.
    pub wildcard: bool,
}

impl DomainRule {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

#[derive(Deserialize, Default)]
struct Written {
    #[serde(default)]
    selector: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "type")]
    type_: Option<String>,
}

impl Default for DomainConfig {
    fn default() -> Self {
        let rule = DomainRule { wildcard: true, ..DomainRule::default() };
        DomainConfig { domains: BTreeMap::from([(cluster_local(), rule)]), stands_in: true }
    }
}

fn cluster_local() -> String {
    format!("svc.{CLUSTER_DOMAIN}")
}

impl DomainConfig {
    /// Parses the map. Without a rule for every route, `svc.cluster.local` takes what is left.
    ///
    /// # Errors
    /// When a value is not YAML of the right form.
    pub fn parse(data: &Data) -> Result<DomainConfig, ConfigError> {
        let mut domains = BTreeMap::new();
        for (name, raw) in data.iter().filter(|(name, _)| *name != EXAMPLE_KEY) {
            let written: Written = read::yaml(name, raw)?.unwrap_or_default();
            let selector = written.selector.unwrap_or_default();
            let wildcard = selector.is_empty() || written.type_.as_deref() == Some("wildcard");
            domains.insert(name.clone(), DomainRule { selector, wildcard });
        }
        let stands_in = !domains.values().any(|rule| rule.selector.is_empty());
        if stands_in {
            domains.extend(DomainConfig::default().domains);
        }
        Ok(DomainConfig { domains, stands_in })
    }

    /// Lets `domain` stand in, instead of `svc.cluster.local`, where no rule for every route was written.
    #[must_use]
    pub fn or_else(mut self, domain: &str) -> DomainConfig {
        if self.stands_in {
            self.domains.remove(&cluster_local());
            self.domains.insert(domain.to_owned(), DomainRule { wildcard: true, ..DomainRule::default() });
        }
        self
    }

    /// The domain of a route with these labels: `svc.cluster.local` when it is cluster-local, else the matching domain
    /// with the largest selector, the first by name among equals.
    pub fn lookup(&self, labels: &BTreeMap<String, String>) -> String {
        if labels.get(networking::VISIBILITY).is_some_and(|value| value == "cluster-local") {
            return cluster_local();
        }
        self.domains
            .iter()
            .filter(|(_, rule)| rule.matches(labels))
            .min_by_key(|(_, rule)| Reverse(rule.selector.len()))
            .map(|(name, _)| name.clone())
            .unwrap_or_default()
    }
}
