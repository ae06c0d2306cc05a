//! The ConfigMaps of the system namespace, parsed: one file a map.
//!
//! An absent key takes its default. A value that cannot be read makes the whole map unusable: admission refuses it,
//! and a [`ConfigBundle`] keeps what it had.

mod autoscaler;
mod bundle;
mod certmanager;
mod defaults;
mod deployment;
mod domain;
pub mod eventing;
mod example;
mod features;
mod gc;
mod leader_election;
mod logging;
mod network;
mod observability;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use autoscaler::AutoscalerConfig;
pub(crate) use bundle::check;
pub use bundle::{ConfigBundle, NAMES};
pub use certmanager::{CertmanagerConfig, IssuerRef};
pub use defaults::{DefaultsConfig, meta_data};
pub use deployment::{Affinity, DeploymentConfig};
pub use domain::{CLUSTER_DOMAIN, DomainConfig, DomainRule};
pub(crate) use example::problem as example_problem;
pub use example::{CHECKSUM_ANNOTATION, EXAMPLE_KEY, checksum};
pub use features::{Features, Flag, SecurePodDefaults};
pub use gc::GarbageCollectionConfig;
pub use leader_election::LeaderElectionConfig;
pub use logging::{Level, LoggingConfig};
pub use network::{HttpProtocol, MeshCompatibility, NetworkConfig};
pub use observability::{MetricsConfig, MetricsProtocol, ObservabilityConfig, Tracing, TracingProtocol};
pub use read::parse_bool;

/// A ConfigMap's `data`.
pub type Data = BTreeMap<String, String>;

/// Why a ConfigMap cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The value of a key cannot be read.
    #[error("failed to parse {key:?}: {problem}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// Values break a rule.
    #[error("{0}")]
    Rule(String),
}

impl ConfigError {
    fn value(key: &str, problem: impl std::fmt::Display) -> ConfigError {
        ConfigError::Value { key: key.to_owned(), problem: problem.to_string() }
    }
}

/// Fails with the text when the rule does not hold.
macro_rules! ensure {
    ($rule:expr, $($text:tt)*) => {
        let holds: bool = $rule;
        if !holds {
            return Err($crate::config::ConfigError::Rule(format!($($text)*)));
        }
    };
}
use ensure;
