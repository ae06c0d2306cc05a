//! `config-autoscaler`.

use std::time::Duration;

use super::{ConfigError, Data, ensure, read::Reader};
use crate::{
    autoscaling::bounds::{PANIC_WINDOW_PERCENT, TARGET_MIN, WINDOW_MAX, WINDOW_MIN},
    duration::format_std,
    number::show_float,
};

/// How revisions scale when they do not say otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoscalerConfig {
    /// Class of a PodAutoscaler without one.
    pub pod_autoscaler_class: String,
    /// Whether revisions may have no instance.
    pub enable_scale_to_zero: bool,
    /// Whether a revision may start with no instance.
    pub allow_zero_initial_scale: bool,
    /// Instances a new revision must reach once.
    pub initial_scale: i32,
    /// Fewest instances.
    pub min_scale: i32,
    /// Most instances; 0 is unlimited.
    pub max_scale: i32,
    /// Greatest max scale a revision may ask for; 0 is unlimited.
    pub max_scale_limit: i32,
    /// Greatest growth in one step, as a factor.
    pub max_scale_up_rate: f64,
    /// Greatest shrinking in one step, as a factor.
    pub max_scale_down_rate: f64,
    /// Share of the concurrency target to aim at, in (0, 1].
    pub container_concurrency_target_fraction: f64,
    /// Requests in flight per instance where the revision sets no limit.
    pub container_concurrency_target_default: f64,
    /// Requests per second per instance.
    pub requests_per_second_target_default: f64,
    /// Share of the requests-per-second target to aim at; fixed.
    pub requests_per_second_target_fraction: f64,
    /// Requests that must find room at once; 0 never keeps the activator in the path, -1 always does.
    pub target_burst_capacity: f64,
    /// Requests in flight that one activator takes.
    pub activator_capacity: f64,
    /// Time over which decisions average.
    pub stable_window: Duration,
    /// Panic window as a percentage of the stable window.
    pub panic_window_percentage: f64,
    /// Load that begins panic, in percent of capacity.
    pub panic_threshold_percentage: f64,
    /// Longest time in which the data plane may learn of the last instance's end.
    pub scale_to_zero_grace_period: Duration,
    /// How long the last instance stays after traffic ends.
    pub scale_to_zero_pod_retention_period: Duration,
    /// How long a smaller demand must last before it counts.
    pub scale_down_delay: Duration,
}

impl Default for AutoscalerConfig {
    fn default() -> Self {
        AutoscalerConfig {
            pod_autoscaler_class: "kpa.autoscaling.knative.dev".to_owned(),
            enable_scale_to_zero: true,
            allow_zero_initial_scale: false,
            initial_scale: 1,
            min_scale: 0,
            max_scale: 0,
            max_scale_limit: 0,
            max_scale_up_rate: 1000.0,
            max_scale_down_rate: 2.0,
            container_concurrency_target_fraction: 0.7,
            container_concurrency_target_default: 100.0,
            requests_per_second_target_default: 200.0,
            requests_per_second_target_fraction: 0.7,
            target_burst_capacity: 211.0,
            activator_capacity: 100.0,
            stable_window: Duration::from_secs(60),
            panic_window_percentage: 10.0,
            panic_threshold_percentage: 200.0,
            scale_to_zero_grace_period: Duration::from_secs(30),
            scale_to_zero_pod_retention_period: Duration::ZERO,
            scale_down_delay: Duration::ZERO,
        }
    }
}

impl AutoscalerConfig {
    /// Parses the map.
    ///
    /// # Errors
    /// When a value cannot be read or breaks a rule.
    pub fn parse(data: &Data) -> Result<AutoscalerConfig, ConfigError> {
        let d = AutoscalerConfig::default();
        let read = Reader(data);
        let percentage = read.float(&["container-concurrency-target-percentage"], 70.0)?;
        let config = AutoscalerConfig {
            pod_autoscaler_class: read.text(&["pod-autoscaler-class"], &d.pod_autoscaler_class),
            enable_scale_to_zero: read.bool(&["enable-scale-to-zero"], d.enable_scale_to_zero)?,
            allow_zero_initial_scale: read.bool(&["allow-zero-initial-scale"], d.allow_zero_initial_scale)?,
            initial_scale: read.int(&["initial-scale"], d.initial_scale)?,
            min_scale: read.int(&["min-scale"], d.min_scale)?,
            max_scale: read.int(&["max-scale"], d.max_scale)?,
            max_scale_limit: read.int(&["max-scale-limit"], d.max_scale_limit)?,
            max_scale_up_rate: read.float(&["max-scale-up-rate"], d.max_scale_up_rate)?,
            max_scale_down_rate: read.float(&["max-scale-down-rate"], d.max_scale_down_rate)?,
            // Up to 1 it is a fraction, for the sake of old maps.
            container_concurrency_target_fraction: if percentage > 1.0 { percentage / 100.0 } else { percentage },
            container_concurrency_target_default: read
                .float(&["container-concurrency-target-default"], d.container_concurrency_target_default)?,
            requests_per_second_target_default: read
                .float(&["requests-per-second-target-default"], d.requests_per_second_target_default)?,
            requests_per_second_target_fraction: d.requests_per_second_target_fraction,
            target_burst_capacity: read.float(&["target-burst-capacity"], d.target_burst_capacity)?,
            activator_capacity: read.float(&["activator-capacity"], d.activator_capacity)?,
            stable_window: read.span(&["stable-window"], d.stable_window)?,
            panic_window_percentage: read.float(&["panic-window-percentage"], d.panic_window_percentage)?,
            panic_threshold_percentage: read.float(&["panic-threshold-percentage"], d.panic_threshold_percentage)?,
            scale_to_zero_grace_period: read.span(&["scale-to-zero-grace-period"], d.scale_to_zero_grace_period)?,
            scale_to_zero_pod_retention_period: read
                .span(&["scale-to-zero-pod-retention-period"], d.scale_to_zero_pod_retention_period)?,
            scale_down_delay: read.span(&["scale-down-delay"], d.scale_down_delay)?,
        };
        config.check_times()?;
        config.check_targets()?;
        config.check_scales()?;
        Ok(config)
    }

    fn check_times(&self) -> Result<(), ConfigError> {
        let grace = self.scale_to_zero_grace_period;
        ensure!(!grace.is_zero(), "scale-to-zero-grace-period must be positive, was: {}", format_std(grace));
        for (key, span) in [("scale-down-delay", self.scale_down_delay), ("stable-window", self.stable_window)] {
            let text = format_std(span);
            ensure!(span.subsec_nanos() == 0, "{key} = {text}, must be specified with at most second precision");
        }
        ensure!(
            (WINDOW_MIN..=WINDOW_MAX).contains(&self.stable_window),
            "stable-window = {}, must be in [{}; {}] range",
            format_std(self.stable_window),
            format_std(WINDOW_MIN),
            format_std(WINDOW_MAX)
        );
        ensure!(
            PANIC_WINDOW_PERCENT.contains(&self.panic_window_percentage),
            "panic-window-percentage = {}, must be in [{}, {}] interval",
            show_float(self.panic_window_percentage),
            PANIC_WINDOW_PERCENT.start(),
            PANIC_WINDOW_PERCENT.end()
        );
        Ok(())
    }

    fn check_targets(&self) -> Result<(), ConfigError> {
        let burst = self.target_burst_capacity;
        #[expect(clippy::float_cmp, reason = "-1 is a name, not a measurement")]
        let burst_is_valid = burst >= 0.0 || burst == -1.0;
        ensure!(
            burst_is_valid,
            "target-burst-capacity must be either non-negative or -1 (for unlimited), was: {burst:.6}"
        );
        let fraction = self.container_concurrency_target_fraction;
        ensure!(
            fraction > 0.0 && fraction <= 1.0,
            "container-concurrency-target-percentage = {fraction:.6} is outside of valid range of (0, 100]"
        );
        let target = fraction * self.container_concurrency_target_default;
        ensure!(
            target >= TARGET_MIN,
            "container-concurrency-target-percentage and container-concurrency-target-default yield target concurrency \
             of {}, can't be less than {TARGET_MIN}",
            show_float(target)
        );
        let rps = self.requests_per_second_target_default;
        ensure!(
            rps >= TARGET_MIN,
            "requests-per-second-target-default must be at least {TARGET_MIN}, was: {}",
            show_float(rps)
        );
        let capacity = self.activator_capacity;
        ensure!(capacity >= 1.0, "activator-capacity = {}, must be at least 1", show_float(capacity));
        for (key, rate) in
            [("max-scale-up-rate", self.max_scale_up_rate), ("max-scale-down-rate", self.max_scale_down_rate)]
        {
            ensure!(rate > 1.0, "{key} = {}, must be greater than 1.0", show_float(rate));
        }
        Ok(())
    }

    fn check_scales(&self) -> Result<(), ConfigError> {
        let AutoscalerConfig { initial_scale, min_scale, max_scale, max_scale_limit: limit, .. } = *self;
        ensure!(
            initial_scale > 0 || (initial_scale == 0 && self.allow_zero_initial_scale),
            "initial-scale = {initial_scale}, must be at least 0 (or at least 1 when allow-zero-initial-scale is false)"
        );
        ensure!(min_scale >= 0, "min-scale = {min_scale}, must be at least 0");
        // Under a limit, "unlimited" is no possible default.
        let least = i32::from(limit > 0);
        ensure!(
            max_scale >= least && (limit <= 0 || max_scale <= limit),
            "max-scale = {max_scale}, must be in [{least}, max-scale-limit({limit})] range"
        );
        ensure!(limit >= 0, "max-scale-limit = {limit}, must be at least 0");
        ensure!(
            max_scale == 0 || min_scale <= max_scale,
            "min-scale ({min_scale}) must be less than max-scale ({max_scale})"
        );
        Ok(())
    }
}
