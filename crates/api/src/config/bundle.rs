//! All ConfigMaps together.

use std::collections::BTreeMap;

use super::{
    AutoscalerConfig, CertmanagerConfig, ConfigError, Data, DefaultsConfig, DeploymentConfig, DomainConfig, Features,
    GarbageCollectionConfig, LeaderElectionConfig, LoggingConfig, NetworkConfig, ObservabilityConfig,
};

/// Names of the ConfigMaps that are read, in the system namespace.
pub const NAMES: [&str; 11] = [
    "config-autoscaler",
    "config-certmanager",
    "config-defaults",
    "config-deployment",
    "config-domain",
    "config-features",
    "config-gc",
    "config-leader-election",
    "config-logging",
    "config-network",
    "config-observability",
];

/// Everything the ConfigMaps say. The default is what absent ConfigMaps mean.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigBundle {
    /// `config-autoscaler`.
    pub autoscaler: AutoscalerConfig,
    /// `config-certmanager`.
    pub certmanager: CertmanagerConfig,
    /// `config-defaults`.
    pub defaults: DefaultsConfig,
    /// `config-deployment`.
    pub deployment: DeploymentConfig,
    /// `config-domain`.
    pub domain: DomainConfig,
    /// `config-features`.
    pub features: Features,
    /// `config-gc`.
    pub gc: GarbageCollectionConfig,
    /// `config-leader-election`.
    pub leader_election: LeaderElectionConfig,
    /// `config-logging`.
    pub logging: LoggingConfig,
    /// `config-network`.
    pub network: NetworkConfig,
    /// `config-observability`.
    pub observability: ObservabilityConfig,
    /// Maps that could not be used, by name; their parts kept their earlier values.
    pub errors: BTreeMap<String, ConfigError>,
}

impl ConfigBundle {
    /// What the maps of the system namespace say, by name. Others than [`NAMES`] are ignored; bad ones are listed in
    /// [`ConfigBundle::errors`] and keep what `self` has.
    pub fn updated(&self, maps: &BTreeMap<String, Data>) -> ConfigBundle {
        let mut bundle = ConfigBundle { errors: BTreeMap::new(), ..self.clone() };
        let empty = Data::new();
        for name in NAMES {
            if let Err(error) = bundle.set(name, maps.get(name).unwrap_or(&empty), maps.contains_key(name)) {
                bundle.errors.insert(name.to_owned(), error);
            }
        }
        bundle
    }

    /// Puts one map's values in place, or leaves what is there when they are bad.
    fn set(&mut self, name: &str, data: &Data, is_present: bool) -> Result<(), ConfigError> {
        match name {
            "config-autoscaler" => self.autoscaler = AutoscalerConfig::parse(data)?,
            "config-certmanager" => self.certmanager = CertmanagerConfig::parse(data)?,
            "config-defaults" => self.defaults = DefaultsConfig::parse(data)?,
            // A map that is there must name an image; one that is not there may not.
            "config-deployment" if !is_present => self.deployment = DeploymentConfig::default(),
            "config-deployment" => self.deployment = DeploymentConfig::parse(data)?,
            "config-domain" => self.domain = DomainConfig::parse(data)?,
            "config-features" => self.features = Features::parse(data),
            "config-gc" => self.gc = GarbageCollectionConfig::parse(data)?,
            "config-leader-election" => self.leader_election = LeaderElectionConfig::parse(data)?,
            "config-logging" => self.logging = LoggingConfig::parse(data)?,
            "config-network" => self.network = NetworkConfig::parse(data)?,
            "config-observability" => self.observability = ObservabilityConfig::parse(data)?,
            _ => {}
        }
        Ok(())
    }
}

/// Checks one ConfigMap of the system namespace; one that is not in [`NAMES`] is always fine.
///
/// # Errors
/// When it could not be used.
pub(crate) fn check(name: &str, data: &Data) -> Result<(), ConfigError> {
    ConfigBundle::default().set(name, data, true)
}
