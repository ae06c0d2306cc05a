//! `config-logging`.

use std::collections::BTreeMap;

use super::{ConfigError, Data, ensure};

/// From which severity on a component logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    Debug,
    /// What happens.
    #[default]
    Info,
    /// What looks wrong.
    Warn,
    /// What is wrong.
    Error,
    /// What should never happen.
    DPanic,
    /// What ends a task.
    Panic,
    /// What ends the process.
    Fatal,
}

impl Level {
    fn parse(raw: &str) -> Option<Level> {
        Some(match raw.to_ascii_lowercase().as_str() {
            "debug" => Level::Debug,
            "info" | "" => Level::Info,
            "warn" => Level::Warn,
            "error" => Level::Error,
            "dpanic" => Level::DPanic,
            "panic" => Level::Panic,
            "fatal" => Level::Fatal,
            _ => return None,
        })
    }
}

/// How components log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoggingConfig {
    /// The logger's JSON configuration; empty for the default.
    pub zap_logger_config: String,
    /// Levels by component; one that is missing logs at the logger's own level.
    pub levels: BTreeMap<String, Level>,
}

impl LoggingConfig {
    /// Parses the map.
    ///
    /// # Errors
    /// When a level is unknown, or the logger's configuration is not JSON.
    pub fn parse(data: &Data) -> Result<LoggingConfig, ConfigError> {
        let zap_logger_config = data.get("zap-logger-config").cloned().unwrap_or_default();
        if !zap_logger_config.is_empty() {
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(&zap_logger_config);
            let is_object = parsed.map_err(|e| ConfigError::value("zap-logger-config", e))?.is_object();
            ensure!(is_object, "zap-logger-config must be a JSON object");
        }
        let mut levels = BTreeMap::new();
        for (key, raw) in data {
            let Some(component) = key.strip_prefix("loglevel.").filter(|component| !component.is_empty()) else {
                continue;
            };
            let level =
                Level::parse(raw).ok_or_else(|| ConfigError::value(key, format!("unrecognized level: {raw:?}")))?;
            levels.insert(component.to_owned(), level);
        }
        Ok(LoggingConfig { zap_logger_config, levels })
    }

    /// The level of a component.
    pub fn level(&self, component: &str) -> Level {
        let of_logger = || {
            let logger: serde_json::Value = serde_json::from_str(&self.zap_logger_config).ok()?;
            Level::parse(logger.get("level")?.as_str()?)
        };
        self.levels.get(component).copied().or_else(of_logger).unwrap_or_default()
    }
}
