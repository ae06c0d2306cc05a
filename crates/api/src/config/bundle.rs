//! All ConfigMaps together.

use std::collections::BTreeMap;

use super::{
    Autoscaler, Certmanager, ConfigError, Data, Defaults, Deployment, Domain, Features, GarbageCollection,
    LeaderElection, Logging, Network, Observability,
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
pub struct Bundle {
    /// `config-autoscaler`.
    pub autoscaler: Autoscaler,
    /// `config-certmanager`.
    pub certmanager: Certmanager,
    /// `config-defaults`.
    pub defaults: Defaults,
    /// `config-deployment`.
    pub deployment: Deployment,
    /// `config-domain`.
    pub domain: Domain,
    /// `config-features`.
    pub features: Features,
    /// `config-gc`.
    pub gc: GarbageCollection,
    /// `config-leader-election`.
    pub leader_election: LeaderElection,
    /// `config-logging`.
    pub logging: Logging,
    /// `config-network`.
    pub network: Network,
    /// `config-observability`.
    pub observability: Observability,
    /// Maps that could not be used, by name; their parts kept their earlier values.
    pub errors: BTreeMap<String, ConfigError>,
}

impl Bundle {
    /// What the maps of the system namespace say, by name. Others than [`NAMES`] are ignored; bad ones are listed in
    /// [`Bundle::errors`] and keep what `self` has.
    pub fn updated(&self, maps: &BTreeMap<String, Data>) -> Bundle {
        let mut bundle = Bundle { errors: BTreeMap::new(), ..self.clone() };
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
            "config-autoscaler" => self.autoscaler = Autoscaler::parse(data)?,
            "config-certmanager" => self.certmanager = Certmanager::parse(data)?,
            "config-defaults" => self.defaults = Defaults::parse(data)?,
            // A map that is there must name an image; one that is not there may not.
            "config-deployment" if !is_present => self.deployment = Deployment::default(),
            "config-deployment" => self.deployment = Deployment::parse(data)?,
            "config-domain" => self.domain = Domain::parse(data)?,
            "config-features" => self.features = Features::parse(data),
            "config-gc" => self.gc = GarbageCollection::parse(data)?,
            "config-leader-election" => self.leader_election = LeaderElection::parse(data)?,
            "config-logging" => self.logging = Logging::parse(data)?,
            "config-network" => self.network = Network::parse(data)?,
            "config-observability" => self.observability = Observability::parse(data)?,
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
    Bundle::default().set(name, data, true)
}
