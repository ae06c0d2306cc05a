//! How events are delivered, and what becomes of those that cannot be.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Destination;
use crate::iso8601;

/// How waits grow from attempt to attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackoffPolicy {
    /// The delay times the number of the attempt.
    Linear,
    /// The delay, doubled at each attempt.
    Exponential,
}

/// In which form events are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Structured mode of the HTTP binding.
    Json,
    /// Binary mode of the HTTP binding.
    Binary,
}

/// Desired delivery.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliverySpec {
    /// Who gets what could not be delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter_sink: Option<Destination>,
    /// Attempts beyond the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<i32>,
    /// Most time for one attempt, ISO 8601.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// How waits grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_policy: Option<BackoffPolicy>,
    /// The wait that grows, ISO 8601.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_delay: Option<String>,
    /// The longest wait that an answer's `Retry-After` may ask for, ISO 8601; zero to ignore the header, as without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_max: Option<String>,
    /// In which form events are sent; as they came when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
}

impl DeliverySpec {
    /// Most time for one attempt; nothing when it is not limited.
    pub fn timeout(&self) -> Option<Duration> {
        span(self.timeout.as_deref())
    }

    /// The wait that grows; nothing when it is not given.
    pub fn backoff_delay(&self) -> Option<Duration> {
        span(self.backoff_delay.as_deref())
    }

    /// The longest wait that an answer may ask for; nothing when answers are not listened to.
    pub fn retry_after_max(&self) -> Option<Duration> {
        span(self.retry_after_max.as_deref()).filter(|most| !most.is_zero())
    }
}

/// A span that admission has let pass; a negative one counts as none.
fn span(text: Option<&str>) -> Option<Duration> {
    iso8601::parse(text?).ok()?.to_std()
}

/// The part of a status that says where dead letters go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryStatus {
    /// URI of the dead letter sink.
    #[serde(default, rename = "deadLetterSinkUri", skip_serializing_if = "Option::is_none")]
    pub dead_letter_sink_uri: Option<String>,
    /// PEM bundle to trust.
    #[serde(default, rename = "deadLetterSinkCACerts", skip_serializing_if = "Option::is_none")]
    pub dead_letter_sink_ca_certs: Option<String>,
    /// OIDC audience.
    #[serde(default, rename = "deadLetterSinkAudience", skip_serializing_if = "Option::is_none")]
    pub dead_letter_sink_audience: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_a_delivery_are_read_once_they_may_be_used() {
        let spec: DeliverySpec = serde_json::from_str(
            r#"{"timeout": "PT1.5S", "backoffDelay": "PT0.2S", "retryAfterMax": "PT0S", "backoffPolicy": "linear"}"#,
        )
        .expect("a delivery");
        assert_eq!(spec.timeout(), Some(Duration::from_millis(1500)));
        assert_eq!(spec.backoff_delay(), Some(Duration::from_millis(200)));
        assert_eq!(spec.retry_after_max(), None, "zero opts out");
        assert_eq!(spec.backoff_policy, Some(BackoffPolicy::Linear));
    }
}
