//! What a PodAutoscaler asks for, with the cluster's configuration behind it.

use std::{collections::BTreeMap, time::Duration};

use super::{
    PodAutoscaler,
    annotations::{self as keys, CONCURRENCY, KPA, RPS},
    bounds::TARGET_MIN,
};
use crate::{
    annotation::AnnotationKey,
    conditions::{self, TRUE},
    config::AutoscalerConfig,
    labels::serving,
};

/// How seconds of a window are weighed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregation {
    /// All alike.
    #[default]
    Linear,
    /// Recent ones more.
    WeightedExponential,
}

/// Everything that decides how many instances there are. Annotations that cannot be read count as absent.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    /// Who scales.
    pub class: String,
    /// What is measured.
    pub metric: String,
    /// How much of it one instance should carry: the total, derated.
    pub target: f64,
    /// How much of it one instance can carry.
    pub total: f64,
    /// Requests that must find room at once; -1 is all.
    pub target_burst_capacity: f64,
    /// Fewest instances; 0 for a revision that no route reaches.
    pub min_scale: i32,
    /// Most instances; 0 is unlimited.
    pub max_scale: i32,
    /// Instances to reach once.
    pub initial_scale: i32,
    /// Fewest instances when there are any; 0 without a wish.
    pub activation_scale: i32,
    /// Time over which decisions average.
    pub stable_window: Duration,
    /// Time over which panic is looked for, whole seconds, at least one.
    pub panic_window: Duration,
    /// Load that begins panic, as a factor of capacity.
    pub panic_threshold: f64,
    /// How long a smaller demand must last.
    pub scale_down_delay: Duration,
    /// How long the last instance stays.
    pub scale_to_zero_pod_retention_period: Duration,
    /// How seconds are weighed.
    pub aggregation: Aggregation,
    /// How long the scale target may take to progress, when the revision says so.
    pub progress_deadline: Option<Duration>,
    /// Whether a route may reach the revision.
    pub is_reachable: bool,
}

impl Scaling {
    /// What `autoscaler` asks for.
    pub fn of(autoscaler: &PodAutoscaler, config: &AutoscalerConfig) -> Scaling {
        let none = BTreeMap::new();
        let annotations = autoscaler.metadata.annotations.as_ref().unwrap_or(&none);
        let class = keys::CLASS.get(annotations).unwrap_or(KPA);
        let metric = keys::METRIC.get(annotations).unwrap_or(keys::default_metric(class));
        let is_reachable = autoscaler.spec.reachability != "Unreachable";
        let total = total(annotations, metric, autoscaler.spec.container_concurrency, config);
        let stable_window = keys::WINDOW.span(annotations).unwrap_or(config.stable_window);
        Scaling {
            class: class.to_owned(),
            metric: metric.to_owned(),
            target: (total * utilization(annotations, metric, config)).max(TARGET_MIN),
            total,
            target_burst_capacity: keys::TARGET_BURST_CAPACITY
                .float(annotations)
                .unwrap_or(config.target_burst_capacity),
            min_scale: if is_reachable { keys::MIN_SCALE.int(annotations).unwrap_or(config.min_scale) } else { 0 },
            max_scale: keys::MAX_SCALE.int(annotations).unwrap_or(config.max_scale),
            initial_scale: keys::INITIAL_SCALE
                .int(annotations)
                .filter(|scale| *scale != 0 || config.allow_zero_initial_scale)
                .unwrap_or(config.initial_scale),
            activation_scale: keys::ACTIVATION_SCALE.int(annotations).unwrap_or(0),
            stable_window,
            panic_window: panic_window(stable_window, annotations, config),
            panic_threshold: keys::PANIC_THRESHOLD_PERCENTAGE
                .float(annotations)
                .unwrap_or(config.panic_threshold_percentage)
                / 100.0,
            scale_down_delay: keys::SCALE_DOWN_DELAY.span(annotations).unwrap_or(config.scale_down_delay),
            scale_to_zero_pod_retention_period: keys::SCALE_TO_ZERO_POD_RETENTION_PERIOD
                .span(annotations)
                .unwrap_or(config.scale_to_zero_pod_retention_period),
            aggregation: match keys::METRIC_AGGREGATION_ALGORITHM.get(annotations) {
                Some("weighted-exponential" | "weightedExponential") => Aggregation::WeightedExponential,
                _ => Aggregation::Linear,
            },
            progress_deadline: AnnotationKey(&[serving::PROGRESS_DEADLINE]).span(annotations),
            is_reachable,
        }
    }
}

fn total(annotations: &BTreeMap<String, String>, metric: &str, concurrency: i64, config: &AutoscalerConfig) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "admission keeps concurrencies far below 2^53")]
    let limit = (concurrency != 0).then_some(concurrency as f64);
    let default = if metric == RPS {
        config.requests_per_second_target_default
    } else {
        limit.unwrap_or(config.container_concurrency_target_default)
    };
    let Some(wanted) = keys::TARGET.float(annotations) else { return default };
    // Nobody is to aim above what one instance may carry.
    limit.filter(|_| metric == CONCURRENCY).map_or(wanted, |limit| wanted.min(limit))
}

fn utilization(annotations: &BTreeMap<String, String>, metric: &str, config: &AutoscalerConfig) -> f64 {
    let default = if metric == RPS {
        config.requests_per_second_target_fraction
    } else {
        config.container_concurrency_target_fraction
    };
    keys::TARGET_UTILIZATION_PERCENTAGE.float(annotations).map_or(default, |percent| percent / 100.0)
}

fn panic_window(stable: Duration, annotations: &BTreeMap<String, String>, config: &AutoscalerConfig) -> Duration {
    let percent = keys::PANIC_WINDOW_PERCENTAGE.float(annotations).unwrap_or(config.panic_window_percentage);
    let seconds = (stable.as_secs_f64() * percent / 100.0).round();
    Duration::try_from_secs_f64(seconds).unwrap_or(stable).max(Duration::from_secs(1))
}

impl PodAutoscaler {
    /// Whether it has instances that serve.
    pub fn is_active(&self) -> bool {
        self.active_status() == Some(TRUE)
    }

    fn active_status(&self) -> Option<&str> {
        conditions::find(&self.status.common.conditions, "Active").map(|condition| condition.status.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn autoscaler(pairs: &[(&str, &str)], concurrency: i64) -> PodAutoscaler {
        let mut pa = PodAutoscaler::default();
        let annotations = pairs.iter().map(|&(k, v)| (format!("autoscaling.knative.dev/{k}"), v.to_owned()));
        pa.metadata.annotations = Some(annotations.collect());
        pa.spec.container_concurrency = concurrency;
        pa
    }

    fn of(pairs: &[(&str, &str)], concurrency: i64) -> Scaling {
        Scaling::of(&autoscaler(pairs, concurrency), &AutoscalerConfig::default())
    }

    #[test]
    fn the_target_is_the_total_derated() {
        let target = |pairs: &[(&str, &str)], concurrency| {
            let scaling = of(pairs, concurrency);
            (scaling.total, scaling.target)
        };
        assert_eq!(target(&[], 0), (100.0, 70.0));
        assert_eq!(target(&[], 10), (10.0, 7.0));
        assert_eq!(target(&[("target", "20")], 10), (10.0, 7.0));
        assert_eq!(target(&[("target", "20")], 0), (20.0, 14.0));
        assert_eq!(target(&[("metric", "rps")], 10), (200.0, 140.0));
        assert_eq!(target(&[("metric", "rps"), ("target", "50")], 10), (50.0, 35.0));
        assert_eq!(target(&[("target", "1"), ("targetUtilizationPercentage", "1")], 0), (1.0, 0.01));
    }

    #[test]
    fn kebab_case_wins_over_camel_case() {
        assert_eq!(of(&[("min-scale", "1"), ("minScale", "2")], 0).min_scale, 1);
        assert_eq!(of(&[("minScale", "2")], 0).min_scale, 2);
        assert_eq!(of(&[("min-scale", "many"), ("minScale", "2")], 0).min_scale, 0);
    }

    #[test]
    fn the_panic_window_is_whole_seconds() {
        assert_eq!(of(&[], 0).panic_window, Duration::from_secs(6));
        assert_eq!(of(&[("window", "6s")], 0).panic_window, Duration::from_secs(1));
        assert_eq!(of(&[("window", "15s"), ("panic-window-percentage", "30")], 0).panic_window, Duration::from_secs(5));
    }

    #[test]
    fn what_no_route_reaches_has_no_minimum() {
        let mut pa = autoscaler(&[("min-scale", "3")], 0);
        pa.spec.reachability = "Unreachable".into();
        let scaling = Scaling::of(&pa, &AutoscalerConfig::default());
        assert_eq!((scaling.min_scale, scaling.is_reachable), (0, false));
    }

    #[test]
    fn an_initial_scale_of_zero_needs_the_clusters_leave() {
        assert_eq!(of(&[("initial-scale", "0")], 0).initial_scale, 1);
        let config = AutoscalerConfig { allow_zero_initial_scale: true, ..AutoscalerConfig::default() };
        assert_eq!(Scaling::of(&autoscaler(&[("initial-scale", "0")], 0), &config).initial_scale, 0);
    }
}
