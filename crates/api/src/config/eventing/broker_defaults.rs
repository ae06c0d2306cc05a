//! `config-br-defaults`: the class of Brokers that name none, and what Brokers of a class get.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    config::{ConfigError, Data},
    duck::{DeliverySpec, KReference},
};

/// Key of the document.
pub(super) const KEY: &str = "default-br-config";
/// What it says from the start.
pub(super) const SHIPPED: &str = "\
clusterDefault:
  brokerClass: MTChannelBasedBroker
  apiVersion: v1
  kind: ConfigMap
  name: config-br-default-channel
  namespace: knative-eventing
  delivery:
    retry: 10
    backoffPolicy: exponential
    backoffDelay: PT0.2S
";

/// What a Broker gets where it says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrokerConfig {
    /// Its configuration.
    pub config: Option<KReference>,
    /// Its delivery. Only the dead letter sink, the retries and the back-off are taken from here.
    pub delivery: Option<DeliverySpec>,
}

/// The document as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    namespace_defaults: BTreeMap<String, Option<Entry>>,
    cluster_default: Option<Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    broker_class: String,
    api_version: String,
    kind: String,
    name: String,
    namespace: String,
    delivery: Option<DeliverySpec>,
    broker_classes: BTreeMap<String, Option<Entry>>,
    disallow_different_namespace_config: Option<bool>,
}

impl Entry {
    /// What it says of Brokers, if anything.
    fn config(&self) -> Option<BrokerConfig> {
        let reference = KReference {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            ..KReference::default()
        };
        let config = Some(reference).filter(|reference| *reference != KReference::default());
        let found = BrokerConfig { config, delivery: self.delivery.clone() };
        Some(found).filter(|found| *found != BrokerConfig::default())
    }
}

/// The defaults of the cluster or of one namespace.
#[derive(Clone, Debug, Default, PartialEq)]
struct Defaults {
    class: String,
    config: Option<BrokerConfig>,
    classes: BTreeMap<String, BrokerConfig>,
    same_namespace: bool,
}

impl From<Entry> for Defaults {
    fn from(entry: Entry) -> Defaults {
        let config = entry.config();
        let classes = entry.broker_classes.iter();
        let classes = classes
            .filter_map(|(class, entry)| Some((class.clone(), entry.as_ref()?.config().unwrap_or_default())))
            .collect();
        let same_namespace = entry.disallow_different_namespace_config == Some(true);
        Defaults { class: entry.broker_class, config, classes, same_namespace }
    }
}

/// Defaults of Brokers, for the cluster and for namespaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrokerDefaults {
    namespaces: BTreeMap<String, Defaults>,
    cluster: Option<Defaults>,
}

impl BrokerDefaults {
    /// Parses the map.
    ///
    /// # Errors
    /// When the document is missing or cannot be read.
    pub fn parse(data: &Data) -> Result<BrokerDefaults, ConfigError> {
        let document: Document = super::document(data, KEY)?;
        let namespaces = document.namespace_defaults.into_iter();
        Ok(BrokerDefaults {
            namespaces: namespaces.filter_map(|(namespace, entry)| Some((namespace, entry?.into()))).collect(),
            cluster: document.cluster_default.map(Defaults::from),
        })
    }

    /// The class of a namespace's Brokers that name none.
    pub fn class(&self, namespace: &str) -> Option<&str> {
        let classes = self.namespaces.get(namespace).into_iter().chain(&self.cluster);
        classes.map(|defaults| defaults.class.as_str()).find(|class| !class.is_empty())
    }

    /// What a namespace's Brokers of a class get; `class` is empty for those that name none. What the namespace says of
    /// the class goes first, then what it says of its own class, then what the cluster says.
    pub fn config(&self, namespace: &str, class: &str) -> Option<&BrokerConfig> {
        let of_namespace = self.namespaces.get(namespace);
        let class = match (class, of_namespace) {
            ("", Some(defaults)) => &defaults.class,
            _ => class,
        };
        // A namespace without a class of its own says nothing of Brokers without one.
        if let Some(defaults) = of_namespace.filter(|_| !class.is_empty()) {
            let of_class = defaults.classes.get(class);
            let own = || defaults.config.as_ref().filter(|_| defaults.class == class);
            if let Some(found) = of_class.or_else(own) {
                return Some(found);
            }
        }
        let cluster = self.cluster.as_ref()?;
        // Without defaults of its own the cluster has none, whatever it says of classes.
        let own = cluster.config.as_ref()?;
        Some(cluster.classes.get(class).unwrap_or(own))
    }

    /// Whether the configuration of a namespace's Brokers must be in the same namespace.
    pub fn same_namespace(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).into_iter().chain(&self.cluster).any(|defaults| defaults.same_namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(text: &str) -> BrokerDefaults {
        BrokerDefaults::parse(&Data::from([(KEY.to_owned(), text.to_owned())])).expect("a document")
    }

    fn name(defaults: &BrokerDefaults, namespace: &str, class: &str) -> String {
        let config = defaults.config(namespace, class);
        config.and_then(|found| Some(found.config.as_ref()?.name.clone())).unwrap_or_default()
    }

    const LAYERS: &str = "\
clusterDefault:
  brokerClass: A
  apiVersion: v1
  kind: ConfigMap
  name: cluster
  namespace: system
  brokerClasses:
    B: {apiVersion: v1, kind: ConfigMap, name: cluster-b}
namespaceDefaults:
  classy: {brokerClass: B, disallowDifferentNamespaceConfig: true}
  own: {brokerClass: C, apiVersion: v1, kind: ConfigMap, name: own, brokerClasses: {D: {name: own-d}}}
  nothing:
";

    #[test]
    fn what_is_nearest_to_a_broker_counts() {
        let defaults = defaults(LAYERS);
        assert_eq!((defaults.class("x"), defaults.class("own")), (Some("A"), Some("C")));
        assert_eq!(name(&defaults, "x", ""), "cluster");
        assert_eq!(name(&defaults, "x", "B"), "cluster-b");
        assert_eq!(name(&defaults, "x", "Z"), "cluster");
        assert_eq!(name(&defaults, "classy", ""), "cluster-b", "its class is looked up with the cluster");
        assert_eq!(name(&defaults, "own", ""), "own");
        assert_eq!(name(&defaults, "own", "D"), "own-d");
        assert_eq!(name(&defaults, "own", "A"), "cluster", "the namespace speaks of its own class alone");
        assert_eq!(name(&defaults, "nothing", ""), "cluster");
        assert!(defaults.same_namespace("classy") && !defaults.same_namespace("own"));
    }

    #[test]
    fn without_a_cluster_default_there_is_none() {
        let defaults = defaults("namespaceDefaults: {own: {brokerClass: C, name: own}}");
        assert_eq!((defaults.class("x"), defaults.config("x", "C")), (None, None));
        assert_eq!(name(&defaults, "own", "C"), "own");
    }

    #[test]
    fn the_shipped_defaults_retry_ten_times() {
        let defaults = defaults(SHIPPED);
        let delivery = defaults.config("ns", "").and_then(|found| found.delivery.clone()).expect("a delivery");
        assert_eq!((delivery.retry, delivery.backoff_delay.as_deref()), (Some(10), Some("PT0.2S")));
    }
}
