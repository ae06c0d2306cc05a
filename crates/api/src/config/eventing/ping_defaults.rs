//! `config-ping-defaults`.

use crate::config::{ConfigError, Data, read::Reader};

/// Bounds of PingSources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingDefaults {
    /// Most bytes of data, as they are written; any negative number is no bound.
    pub data_max_size: i64,
}

impl Default for PingDefaults {
    fn default() -> Self {
        PingDefaults { data_max_size: -1 }
    }
}

impl PingDefaults {
    /// Parses the map.
    ///
    /// # Errors
    /// When a value cannot be read.
    pub fn parse(data: &Data) -> Result<PingDefaults, ConfigError> {
        Ok(PingDefaults { data_max_size: Reader(data).int(&["dataMaxSize", "data-max-size"], -1)? })
    }
}
