//! Settings, and their checks.

use std::time::Duration;

/// Bounds and times. Start from [`Config::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Most time for one attempt to send an event; upstream waits for ever.
    pub attempt_timeout: Duration,
    /// Ticks of one source that wait or are being sent; those beyond are skipped.
    pub most_of_one: usize,
    /// Events of all sources that are being sent at a time, each of which has a connection; those beyond wait.
    pub most_at_once: usize,
    /// Those of the sources of one namespace, and one; a namespace whose sinks hang takes no places of others.
    pub most_of_namespace: usize,
    /// Ticks of a PingSource are sent up to so much later, each by chance, so that those of one instant do not all come at
    /// once.
    pub jitter: Duration,
    /// Watches of all ApiServerSources. Those of one namespace may have half of what the others leave; one for which there are not
    /// enough is not carried out until there are.
    pub most_watches: usize,
    /// How long what is being sent is waited for at the end.
    pub grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            attempt_timeout: Duration::from_secs(600),
            most_of_one: 16,
            most_at_once: 1024,
            most_of_namespace: 128,
            jitter: Duration::from_millis(500),
            most_watches: 2048,
            grace: Duration::from_secs(10),
        }
    }
}

/// Why a [`Config`] is refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field} must be {wanted}")]
pub struct ConfigError {
    /// Name of the field.
    pub field: &'static str,
    /// What it should have been.
    pub wanted: &'static str,
}

impl Config {
    /// Checks every bound.
    ///
    /// # Errors
    /// For the first field that is out of its range.
    pub fn checked(self) -> Result<Self, ConfigError> {
        let rules = [
            (!self.attempt_timeout.is_zero(), "attempt_timeout", "more than nothing"),
            (self.most_of_one > 0, "most_of_one", "at least 1"),
            (self.most_at_once > 0, "most_at_once", "at least 1"),
            (self.most_of_namespace > 0, "most_of_namespace", "at least 1"),
            (self.jitter <= Duration::from_secs(60), "jitter", "at most a minute"),
            (self.most_watches > 0, "most_watches", "at least 1"),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, field, wanted)) => Err(ConfigError { field, wanted }),
            None => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_fine_and_what_is_out_of_range_is_named() {
        assert!(Config::default().checked().is_ok());
        let refused = Config { most_of_one: 0, ..Config::default() }.checked().expect_err("none at all");
        assert_eq!(refused.to_string(), "most_of_one must be at least 1");
    }
}
