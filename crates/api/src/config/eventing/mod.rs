//! The ConfigMaps of Eventing's namespace, parsed: one file a map. What Serving has too is read as there.

mod broker_defaults;
mod bundle;
mod channel_defaults;
mod features;
mod kreference_mapping;
mod observability;
mod ping_defaults;
mod sugar;
mod transformation_images;

pub use broker_defaults::{BrokerConfig, BrokerDefaults};
pub(crate) use bundle::check;
pub use bundle::{EventingBundle, NAMES, shipped};
pub use channel_defaults::{ChannelDefaults, channel_template};
pub use features::{DefaultAuthorizationMode, EventingFeatures, TransportEncryption};
pub use kreference_mapping::{KReferenceMapping, Referent};
pub use observability::EventingObservability;
pub use ping_defaults::PingDefaults;
pub use sugar::SugarConfig;
pub use transformation_images::TransformationImages;

use super::{ConfigError, Data, read};

/// Reads the YAML document that a map must hold under a key.
fn document<T: serde::de::DeserializeOwned>(data: &Data, key: &str) -> Result<T, ConfigError> {
    let missing = || ConfigError::Rule(format!("ConfigMap is missing (or empty) key: {key:?}"));
    let raw = data.get(key).ok_or_else(missing)?;
    read::yaml(key, raw)?.ok_or_else(missing)
}
