//! The annotations under `autoscaling.knative.dev/`, their alternate spellings and their values.

pub use crate::annotation::AnnotationKey;

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

macro_rules! keys {
    ($($name:ident $kebab:literal $(or $camel:literal)?, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            pub const $name: AnnotationKey = AnnotationKey(&[
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
