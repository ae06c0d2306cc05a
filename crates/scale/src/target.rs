//! How much of the metric one instance should carry.

use crate::ScalingMetric;

/// Smallest target, so that a division by it stays finite.
pub const TARGET_MIN: f64 = 0.01;

/// What the target follows from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TargetInputs {
    /// What is measured.
    pub metric: ScalingMetric,
    /// The revision's hard limit; 0 is unlimited.
    pub container_concurrency: u32,
    /// `container-concurrency-target-default` or `requests-per-second-target-default`.
    pub default_total: f64,
    /// `container-concurrency-target-percentage` / 100, or the 0.7 of requests per second.
    pub default_utilization: f64,
    /// Annotation `autoscaling.knative.dev/target`.
    pub annotated_target: Option<f64>,
    /// Annotation `autoscaling.knative.dev/target-utilization-percentage` / 100.
    pub annotated_utilization: Option<f64>,
}

/// The target of one instance, with and without headroom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// With headroom: what the number of instances is computed with.
    pub value: f64,
    /// Without headroom: what burst capacity is computed with.
    pub total: f64,
}

/// Resolves the target of a revision.
pub fn resolve(inputs: &TargetInputs) -> Target {
    let limit = f64::from(inputs.container_concurrency);
    let limited = inputs.metric == ScalingMetric::Concurrency && inputs.container_concurrency != 0;
    let total = match inputs.annotated_target {
        Some(target) if limited => target.min(limit),
        Some(target) => target,
        None if limited => limit,
        None => inputs.default_total,
    };
    let utilization = inputs.annotated_utilization.unwrap_or(inputs.default_utilization);
    Target { value: (total * utilization).max(TARGET_MIN), total }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(metric: ScalingMetric, container_concurrency: u32) -> TargetInputs {
        let default_total = if metric == ScalingMetric::Rps { 200.0 } else { 100.0 };
        TargetInputs {
            metric,
            container_concurrency,
            default_total,
            default_utilization: 0.7,
            annotated_target: None,
            annotated_utilization: None,
        }
    }

    #[track_caller]
    fn check(inputs: TargetInputs, value: f64, total: f64) {
        let found = resolve(&inputs);
        assert!((found.value - value).abs() < 1e-9 && (found.total - total).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn defaults_hold_without_annotations() {
        check(inputs(ScalingMetric::Concurrency, 0), 70.0, 100.0);
        check(inputs(ScalingMetric::Concurrency, 10), 7.0, 10.0);
        check(inputs(ScalingMetric::Rps, 10), 140.0, 200.0);
    }

    #[test]
    fn an_annotated_target_never_passes_the_hard_limit() {
        check(TargetInputs { annotated_target: Some(50.0), ..inputs(ScalingMetric::Concurrency, 10) }, 7.0, 10.0);
        check(TargetInputs { annotated_target: Some(5.0), ..inputs(ScalingMetric::Concurrency, 10) }, 3.5, 5.0);
        check(TargetInputs { annotated_target: Some(50.0), ..inputs(ScalingMetric::Concurrency, 0) }, 35.0, 50.0);
        check(TargetInputs { annotated_target: Some(50.0), ..inputs(ScalingMetric::Rps, 10) }, 35.0, 50.0);
    }

    #[test]
    fn an_annotated_utilization_replaces_the_default() {
        check(TargetInputs { annotated_utilization: Some(1.0), ..inputs(ScalingMetric::Concurrency, 10) }, 10.0, 10.0);
    }

    #[test]
    fn the_target_has_a_floor() {
        check(TargetInputs { annotated_target: Some(0.01), ..inputs(ScalingMetric::Concurrency, 0) }, 0.01, 0.01);
    }
}
