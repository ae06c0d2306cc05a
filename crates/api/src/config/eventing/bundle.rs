//! All ConfigMaps of Eventing together.

use std::collections::BTreeMap;

use super::{
    BrokerDefaults, ChannelDefaults, EventingFeatures, EventingObservability, KReferenceMapping, PingDefaults,
    SugarConfig, TransformationImages, broker_defaults, channel_defaults, channel_template,
};
use crate::config::{ConfigError, Data, LeaderElectionConfig, LoggingConfig};

/// Names of the ConfigMaps that are read, in Eventing's namespace.
pub const NAMES: [&str; 11] = [
    "config-br-default-channel",
    "config-br-defaults",
    "config-features",
    "config-kreference-mapping",
    "config-leader-election",
    "config-logging",
    "config-observability",
    "config-ping-defaults",
    "config-sugar",
    "default-ch-webhook",
    "eventing-transformations-images",
];

/// What a map says from the start.
pub fn shipped(name: &str) -> Data {
    let pairs: &[(&str, &str)] = match name {
        "config-br-default-channel" => &[(channel_defaults::TEMPLATE_KEY, channel_defaults::SHIPPED_TEMPLATE)],
        "config-br-defaults" => &[(broker_defaults::KEY, broker_defaults::SHIPPED)],
        "default-ch-webhook" => &[(channel_defaults::KEY, channel_defaults::SHIPPED)],
        "config-features" => super::features::SHIPPED,
        "eventing-transformations-images" => super::transformation_images::SHIPPED,
        _ => &[],
    };
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Everything the ConfigMaps of Eventing say. The default is what absent ConfigMaps mean.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventingBundle {
    /// `config-br-defaults`.
    pub broker_defaults: BrokerDefaults,
    /// `default-ch-webhook`.
    pub channel_defaults: ChannelDefaults,
    /// `config-features`.
    pub features: EventingFeatures,
    /// `config-kreference-mapping`.
    pub kreference_mapping: KReferenceMapping,
    /// `config-leader-election`.
    pub leader_election: LeaderElectionConfig,
    /// `config-logging`.
    pub logging: LoggingConfig,
    /// `config-observability`.
    pub observability: EventingObservability,
    /// `config-ping-defaults`.
    pub ping_defaults: PingDefaults,
    /// `config-sugar`.
    pub sugar: SugarConfig,
    /// `eventing-transformations-images`.
    pub transformation_images: TransformationImages,
    /// Maps that could not be used, by name; their parts kept their earlier values.
    pub errors: BTreeMap<String, ConfigError>,
}

impl EventingBundle {
    /// What the maps of Eventing's namespace say, by name. Others than [`NAMES`] are ignored; bad ones are listed in
    /// [`EventingBundle::errors`] and keep what `self` has. So do those that are not there, as upstream's watchers have it: a
    /// map that is replaced is gone for a moment, and what a feature carried is not to go with it.
    pub fn updated(&self, maps: &BTreeMap<String, Data>) -> EventingBundle {
        let mut bundle = EventingBundle { errors: BTreeMap::new(), ..self.clone() };
        for name in NAMES {
            let set = maps.get(name).map(|data| bundle.set(name, data));
            if let Some(Err(error)) = set {
                bundle.errors.insert(name.to_owned(), error);
            }
        }
        bundle
    }

    /// Puts one map's values in place, or leaves what is there when they are bad.
    fn set(&mut self, name: &str, data: &Data) -> Result<(), ConfigError> {
        match name {
            // Brokers name the map they take their channels from; this is only the one that comes with Eventing.
            "config-br-default-channel" => drop(channel_template(data)?),
            "config-br-defaults" => self.broker_defaults = BrokerDefaults::parse(data)?,
            "default-ch-webhook" => self.channel_defaults = ChannelDefaults::parse(data)?,
            "config-features" => self.features = EventingFeatures::parse(data)?,
            "config-kreference-mapping" => self.kreference_mapping = KReferenceMapping::parse(data)?,
            "config-leader-election" => self.leader_election = LeaderElectionConfig::parse(data)?,
            "config-logging" => self.logging = LoggingConfig::parse(data)?,
            "config-observability" => self.observability = EventingObservability::parse(data)?,
            "config-ping-defaults" => self.ping_defaults = PingDefaults::parse(data)?,
            "config-sugar" => self.sugar = SugarConfig::parse(data)?,
            "eventing-transformations-images" => self.transformation_images = TransformationImages::parse(data)?,
            _ => {}
        }
        Ok(())
    }
}

/// Checks one ConfigMap of Eventing's namespace; one that is not in [`NAMES`] is always fine.
///
/// # Errors
/// When it could not be used.
pub(crate) fn check(name: &str, data: &Data) -> Result<(), ConfigError> {
    EventingBundle::default().set(name, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Data {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn what_is_shipped_can_be_used() {
        let maps = NAMES.into_iter().map(|name| (name.to_owned(), shipped(name))).collect();
        let bundle = EventingBundle::default().updated(&maps);
        assert_eq!(bundle.errors, BTreeMap::new());
        assert_eq!(bundle.features, EventingFeatures::default(), "the features say what they are without a map");
        assert_eq!(bundle.broker_defaults.class("ns"), Some("MTChannelBasedBroker"));
        assert_eq!(bundle.channel_defaults.template("ns").expect("a default").kind, "InMemoryChannel");
    }

    #[test]
    fn a_bad_map_keeps_what_was_and_so_does_one_that_goes() {
        let good = map(&[("data-max-size", "5")]);
        let named = |data: Data| BTreeMap::from([("config-ping-defaults".to_owned(), data)]);
        let bundle = EventingBundle::default().updated(&named(good));
        let kept = bundle.updated(&named(map(&[("data-max-size", "much")])));
        assert_eq!(kept.ping_defaults.data_max_size, 5);
        assert_eq!(kept.errors.keys().collect::<Vec<_>>(), ["config-ping-defaults"]);
        let without = kept.updated(&BTreeMap::new());
        assert_eq!((without.ping_defaults.data_max_size, without.errors), (5, BTreeMap::new()));
    }

    #[test]
    fn maps_that_cannot_be_used_are_told_by_what_is_wrong() {
        let why = |name: &str, pairs: &[(&str, &str)]| check(name, &map(pairs)).expect_err("it is bad").to_string();
        assert_eq!(why("config-br-defaults", &[]), r#"ConfigMap is missing (or empty) key: "default-br-config""#);
        assert_eq!(
            why("default-ch-webhook", &[("default-ch-config", " ")]),
            r#"ConfigMap is missing (or empty) key: "default-ch-config""#
        );
        assert_eq!(
            why("config-br-default-channel", &[("channel-template-spec", "apiVersion: v1")]),
            "channel-template-spec must name apiVersion and kind of a channel"
        );
        assert_eq!(
            why("config-features", &[("transport-encryption", "sometimes")]),
            r#"failed to parse "transport-encryption": "sometimes" is none of disabled, permissive, strict"#
        );
        assert!(why("config-sugar", &[("namespace-selector", "[]")]).starts_with(r#"failed to parse "namespace-"#));
        assert_eq!(check("config-sugar", &map(&[("namespace-selector", "")])), Ok(()));
        assert_eq!(check("some-other", &map(&[("a", "b")])), Ok(()));
    }
}
