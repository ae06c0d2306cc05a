//! `config-leader-election`.

use std::{collections::BTreeMap, time::Duration};

use super::{ConfigError, Data, ensure, read::Reader};

/// How replicas of a controller share the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderElectionConfig {
    /// How long a lease holds without renewal.
    pub lease_duration: Duration,
    /// How long a leader tries to renew.
    pub renew_deadline: Duration,
    /// Time between two tries.
    pub retry_period: Duration,
    /// Into how many parts the work is cut, 1 to 10.
    pub buckets: u32,
    /// Lease names that replace others, by prefix.
    pub lease_prefixes: BTreeMap<String, String>,
}

impl Default for LeaderElectionConfig {
    fn default() -> Self {
        LeaderElectionConfig {
            lease_duration: Duration::from_secs(60),
            renew_deadline: Duration::from_secs(40),
            retry_period: Duration::from_secs(10),
            buckets: 1,
            lease_prefixes: BTreeMap::new(),
        }
    }
}

impl LeaderElectionConfig {
    /// Parses the map.
    ///
    /// # Errors
    /// When a value cannot be read or breaks a rule.
    pub fn parse(data: &Data) -> Result<LeaderElectionConfig, ConfigError> {
        let d = LeaderElectionConfig::default();
        let read = Reader(data);
        let buckets = read.int(&["buckets"], d.buckets)?;
        ensure!((1..=10).contains(&buckets), "buckets: value must be between 1 <= {buckets} <= 10");
        let prefix = "map-lease-prefix.";
        let renamed = data.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?, value)));
        Ok(LeaderElectionConfig {
            lease_duration: read.span(&["leaseDuration", "lease-duration"], d.lease_duration)?,
            renew_deadline: read.span(&["renewDeadline", "renew-deadline"], d.renew_deadline)?,
            retry_period: read.span(&["retryPeriod", "retry-period"], d.retry_period)?,
            buckets,
            lease_prefixes: renamed.map(|(from, to)| (from.to_owned(), to.clone())).collect(),
        })
    }
}
