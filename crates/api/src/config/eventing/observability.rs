//! `config-observability` of Eventing.

use crate::config::{ConfigError, Data, ObservabilityConfig, read::Reader};

/// What is logged, measured and traced of events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventingObservability {
    /// What Serving's map says, too.
    pub common: ObservabilityConfig,
    /// Whether a source tells by a Kubernetes Event that its sink does not take events.
    pub sink_event_error_reporting: bool,
}

impl EventingObservability {
    /// Parses the map.
    ///
    /// # Errors
    /// When a value cannot be read.
    pub fn parse(data: &Data) -> Result<EventingObservability, ConfigError> {
        Ok(EventingObservability {
            common: ObservabilityConfig::parse(data)?,
            sink_event_error_reporting: Reader(data).bool(&["sink-event-error-reporting.enable"], false)?,
        })
    }
}
