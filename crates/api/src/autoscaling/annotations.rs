//! The annotations under `autoscaling.knative.dev/`, their alternate spellings and their values.

use std::{collections::BTreeMap, time::Duration};

use crate::duration;

/// Prefix of the keys, without the slash.
pub const GROUP: &str = "autoscaling.knative.dev";
/// Class of our own autoscaler.
pub const KPA: &str = "kpa.autoscaling.knative.dev";
/// Class of Kubernetes' HorizontalPodAutoscaler.
pub const HPA: &str = "hpa.autoscaling.knative.dev";
/// Metric: requests in flight.
pub const CONCURRENCY: &str = "concurrency";
/// Metric: requests per second.
pub const RPS: &str = "rps";
/// Metric: processor use.
pub const CPU: &str = "cpu";
/// Metric: memory use.
pub const MEMORY: &str = "memory";

/// The spellings of a key, preferred first. The first one present counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub &'static [&'static str]);

impl Key {
    /// The preferred spelling.
    pub fn name(self) -> &'static str {
        self.0[0]
    }

    /// The spelling found and its value.
    pub fn find(self, annotations: &BTreeMap<String, String>) -> Option<(&'static str, &str)> {
        self.0.iter().find_map(|&name| Some((name, annotations.get(name)?.as_str())))
    }

    /// The value.
    pub fn get(self, annotations: &BTreeMap<String, String>) -> Option<&str> {
        self.find(annotations).map(|(_, value)| value)
    }

    /// The value as a number; nothing when it is none.
    pub fn int(self, annotations: &BTreeMap<String, String>) -> Option<i32> {
        self.get(annotations)?.parse().ok()
    }

    /// The value as a number; nothing when it is none.
    pub fn float(self, annotations: &BTreeMap<String, String>) -> Option<f64> {
        self.get(annotations)?.parse().ok().filter(|value: &f64| !value.is_nan())
    }

    /// The value as a span; nothing when it is none or negative.
    pub fn span(self, annotations: &BTreeMap<String, String>) -> Option<Duration> {
        let nanoseconds = duration::parse(self.get(annotations)?).ok()?;
        (nanoseconds >= 0).then(|| duration::to_std(nanoseconds))
    }
}

macro_rules! keys {
    ($($name:ident $kebab:literal $(or $camel:literal)?, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            pub const $name: Key = Key(&[
                concat!("autoscaling.knative.dev/", $kebab),
                $(concat!("autoscaling.knative.dev/", $camel),)?
            ]);
        )*
    };
}

keys! {
    CLASS "class", "Who scales.";
    METRIC "metric", "What is measured.";
    TARGET "target", "How much of it one instance takes.";
    TARGET_UTILIZATION_PERCENTAGE "target-utilization-percentage" or "targetUtilizationPercentage", "Share of the target to aim at, percent.";
    TARGET_BURST_CAPACITY "target-burst-capacity" or "targetBurstCapacity", "Requests that must find room at once; -1 is all.";
    MIN_SCALE "min-scale" or "minScale", "Fewest instances.";
    MAX_SCALE "max-scale" or "maxScale", "Most instances; 0 is unlimited.";
    INITIAL_SCALE "initial-scale" or "initialScale", "Instances to reach once.";
    ACTIVATION_SCALE "activation-scale", "Fewest instances when there are any.";
    SCALE_DOWN_DELAY "scale-down-delay" or "scaleDownDelay", "How long a smaller demand must last.";
    SCALE_TO_ZERO_POD_RETENTION_PERIOD "scale-to-zero-pod-retention-period" or "scaleToZeroPodRetentionPeriod", "How long the last instance stays.";
    WINDOW "window", "Time over which decisions average.";
    PANIC_WINDOW_PERCENTAGE "panic-window-percentage" or "panicWindowPercentage", "Panic window, percent of the window.";
    PANIC_THRESHOLD_PERCENTAGE "panic-threshold-percentage" or "panicThresholdPercentage", "Load that begins panic, percent.";
    METRIC_AGGREGATION_ALGORITHM "metric-aggregation-algorithm" or "metricAggregationAlgorithm", "How seconds are weighed.";
}

/// The metric of a class when none is named; empty for foreign classes.
pub fn default_metric(class: &str) -> &'static str {
    match class {
        KPA => CONCURRENCY,
        HPA => CPU,
        _ => "",
    }
}
