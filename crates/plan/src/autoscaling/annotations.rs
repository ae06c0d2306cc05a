//! What `autoscaling.knative.dev/` annotations ask for, over what the configuration says. Admission checked
//! them; one that cannot be read counts as absent.

use std::{str::FromStr, time::Duration};

use knoll_api::{Resource, config::AutoscalerConfig, duration};
use knoll_scale::{Algorithm, ScalingMetric};

use crate::children::Map;

/// The class that scales on requests.
pub(crate) const KPA: &str = "kpa.autoscaling.knative.dev";
const PREFIX: &str = "autoscaling.knative.dev/";

/// The annotations of a Revision or of its PodAutoscaler.
#[derive(Clone, Copy)]
pub(crate) struct Annotations<'a> {
    map: Option<&'a Map>,
    config: &'a AutoscalerConfig,
}

impl<'a> Annotations<'a> {
    /// The annotations of `object`, with `config` behind them.
    pub(crate) fn of<R: Resource>(object: &'a R, config: &'a AutoscalerConfig) -> Self {
        Self { map: object.meta().annotations.as_ref(), config }
    }

    /// The value under `name`, which older clients write in camel case.
    fn text(&self, name: &str) -> Option<&'a str> {
        let get = |name: &str| self.map?.get(&format!("{PREFIX}{name}")).map(String::as_str);
        get(name).or_else(|| get(&camel(name)))
    }

    fn read<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    fn span(&self, name: &str) -> Option<Duration> {
        duration::parse(self.text(name)?).ok().map(duration::to_std)
    }

    /// Who scales.
    pub(crate) fn class(&self) -> &'a str {
        self.text("class").unwrap_or(&self.config.pod_autoscaler_class)
    }

    /// What is measured.
    pub(crate) fn metric(&self) -> ScalingMetric {
        if self.text("metric") == Some("rps") { ScalingMetric::Rps } else { ScalingMetric::Concurrency }
    }

    /// How windows average.
    pub(crate) fn algorithm(&self) -> Algorithm {
        match self.text("metric-aggregation-algorithm") {
            Some("weighted-exponential" | "weightedExponential") => Algorithm::WeightedExponential,
            _ => Algorithm::Linear,
        }
    }

    /// Metric that one instance should carry.
    pub(crate) fn target(&self) -> Option<f64> {
        self.read("target").filter(|target: &f64| *target > 0.0)
    }

    /// Share of the target to aim at.
    pub(crate) fn utilization(&self) -> Option<f64> {
        self.read::<f64>("target-utilization-percentage").map(|percent| percent / 100.0)
    }

    /// Capacity to keep free; -1 keeps the gateway in the path.
    pub(crate) fn target_burst_capacity(&self) -> f64 {
        self.read("target-burst-capacity").unwrap_or(self.config.target_burst_capacity)
    }

    /// Fewest instances.
    pub(crate) fn min_scale(&self) -> i32 {
        self.read("min-scale").unwrap_or(self.config.min_scale)
    }

    /// Most instances; 0 is unlimited.
    pub(crate) fn max_scale(&self) -> i32 {
        self.read("max-scale").unwrap_or(self.config.max_scale)
    }

    /// Instances to begin with.
    pub(crate) fn initial_scale(&self) -> i32 {
        let wanted = self.read("initial-scale").unwrap_or(self.config.initial_scale);
        if wanted == 0 && !self.config.allow_zero_initial_scale { self.config.initial_scale } else { wanted }
    }

    /// Instances to start from zero with.
    pub(crate) fn activation_scale(&self) -> i32 {
        self.read("activation-scale").unwrap_or(1)
    }

    /// How long a smaller number must be wanted.
    pub(crate) fn scale_down_delay(&self) -> Duration {
        self.span("scale-down-delay").unwrap_or(self.config.scale_down_delay)
    }

    /// How long the last instance stays at least.
    pub(crate) fn retention(&self) -> Duration {
        self.span("scale-to-zero-pod-retention-period").unwrap_or(self.config.scale_to_zero_pod_retention_period)
    }

    /// Length of the stable window.
    pub(crate) fn stable_window(&self) -> Duration {
        self.span("window").unwrap_or(self.config.stable_window)
    }

    /// Panic window in percent of the stable window.
    pub(crate) fn panic_window_percent(&self) -> f64 {
        self.read("panic-window-percentage").unwrap_or(self.config.panic_window_percentage)
    }

    /// Load at which panic begins; 2.0 is twice the capacity.
    pub(crate) fn panic_threshold(&self) -> f64 {
        self.read("panic-threshold-percentage").unwrap_or(self.config.panic_threshold_percentage) / 100.0
    }
}

fn camel(name: &str) -> String {
    let mut parts = name.split('-');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |camel, part| {
        let (head, tail) = part.split_at(part.len().min(1));
        camel + &head.to_ascii_uppercase() + tail
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_count_and_the_hyphenated_one_wins() {
        let config = AutoscalerConfig::default();
        let map = Map::from(
            [("minScale", "3"), ("max-scale", "9"), ("maxScale", "5"), ("scaleToZeroPodRetentionPeriod", "1m")]
                .map(|(name, value)| (format!("{PREFIX}{name}"), value.to_owned())),
        );
        let read = Annotations { map: Some(&map), config: &config };
        assert_eq!((read.min_scale(), read.max_scale(), read.retention()), (3, 9, Duration::from_secs(60)));
    }
}
