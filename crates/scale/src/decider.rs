//! The decision: statistics in, a wanted number of instances out.

use std::time::Duration;

use thiserror::Error;

use crate::max_window::MaxWindow;
use crate::target::Target;
use crate::window::{Algorithm, Window, panic_window};

/// What is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScalingMetric {
    /// Requests in the system, time-weighted.
    #[default]
    Concurrency,
    /// Requests that arrive, a second.
    Rps,
}

/// What a window without any statistic means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Silence {
    /// All traffic passes the reporter, so silence is no traffic.
    #[default]
    IsZero,
    /// Silence is a lost reporter: the last decision is kept.
    KeepsDecision,
}

/// What a [`Decider`] follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeciderSpec {
    /// What is measured.
    pub metric: ScalingMetric,
    /// How windows average.
    pub algorithm: Algorithm,
    /// What one instance should carry.
    pub target: Target,
    /// Greatest factor by which one decision may grow, at least 1.
    pub max_scale_up_rate: f64,
    /// Greatest factor by which one decision may shrink, at least 1.
    pub max_scale_down_rate: f64,
    /// Capacity to keep free: 0 none, -1 the gateway always stays in the path.
    pub target_burst_capacity: f64,
    /// Instances to start from zero with; 1 or less is no wish.
    pub activation_scale: i32,
    /// Instances of a new revision.
    pub initial_scale: i32,
    /// Load over ready instances at which panic begins: 2.0 is 200 %.
    pub panic_threshold: f64,
    /// Panic window as a share of the stable window, percent.
    pub panic_window_percent: f64,
    /// Length of the stable window.
    pub stable_window: Duration,
    /// How long a smaller number must be wanted before it is followed. Read when the decider is created.
    pub scale_down_delay: Duration,
    /// Whether a route leads to the revision.
    pub reachable: bool,
    /// What silence means.
    pub silence: Silence,
}

/// Why a spec makes no sense.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
pub enum SpecError {
    /// The target is not a positive number.
    #[error("target must be a positive number, was {0}")]
    Target(f64),
    /// A rate is below one.
    #[error("{name} must be at least 1, was {value}")]
    Rate {
        /// Which rate.
        name: &'static str,
        /// What it was.
        value: f64,
    },
    /// The stable window is shorter than a second.
    #[error("stable window must be at least one second, was {0:?}")]
    StableWindow(Duration),
}

impl DeciderSpec {
    /// Checks the numbers that divide or multiply.
    pub fn validate(&self) -> Result<(), SpecError> {
        if !(self.target.value.is_finite() && self.target.value > 0.0) {
            return Err(SpecError::Target(self.target.value));
        }
        let rates = [("max scale-up rate", self.max_scale_up_rate), ("max scale-down rate", self.max_scale_down_rate)];
        for (name, value) in rates {
            if value.is_nan() || value < 1.0 {
                return Err(SpecError::Rate { name, value });
            }
        }
        if self.stable_window < Duration::from_secs(1) {
            return Err(SpecError::StableWindow(self.stable_window));
        }
        Ok(())
    }

    fn panic_window(&self) -> Duration {
        panic_window(self.stable_window, self.panic_window_percent)
    }
}

/// One report about a revision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stat {
    /// Time-weighted mean of requests in the system over the last second.
    pub concurrency: f64,
    /// Requests that arrived, a second.
    pub requests_per_second: f64,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleResult {
    /// Wanted instances before any user's limits; -1 while nothing is known.
    pub desired: i32,
    /// Spare capacity beyond the wanted burst capacity; negative keeps the gateway in the path.
    pub excess_burst_capacity: i64,
    /// Whether load outruns the instances: the number never shrinks meanwhile.
    pub panic: bool,
    /// Average over the stable window, in units of the metric.
    pub stable: f64,
    /// Average over the panic window, in units of the metric.
    pub panic_value: f64,
}

/// Decides for one revision.
#[derive(Clone, Debug)]
pub struct Decider {
    spec: DeciderSpec,
    stable: Window,
    panic: Window,
    delay: Option<MaxWindow>,
    /// Last time over the threshold, while panicking.
    panic_since: Option<Duration>,
    /// Greatest number wanted in this panic.
    panic_peak: i32,
    /// Whether the next report repeats the request that [`Decider::wake`] already counted.
    woken: bool,
    last: ScaleResult,
}

impl Decider {
    /// A decider that knows nothing yet.
    ///
    /// With more than one instance already `ready` it begins in panic, so that a restarted autoscaler with
    /// empty windows cannot shrink what another one built.
    pub fn new(spec: DeciderSpec, now: Duration, ready: u32) -> Result<Self, SpecError> {
        spec.validate()?;
        let ready_instances = count(f64::from(ready));
        let restarted = ready > 1;
        Ok(Self {
            spec,
            stable: Window::new(spec.stable_window, spec.algorithm),
            panic: Window::new(spec.panic_window(), spec.algorithm),
            delay: (!spec.scale_down_delay.is_zero()).then(|| MaxWindow::new(spec.scale_down_delay)),
            panic_since: restarted.then_some(now),
            panic_peak: if restarted { ready_instances } else { 0 },
            woken: false,
            last: ScaleResult {
                desired: -1,
                excess_burst_capacity: initial_burst_capacity(&spec),
                panic: restarted,
                stable: 0.0,
                panic_value: 0.0,
            },
        })
    }

    /// What the decider follows.
    pub fn spec(&self) -> &DeciderSpec {
        &self.spec
    }

    /// The newest decision.
    pub fn last(&self) -> ScaleResult {
        self.last
    }

    /// Follows `spec` from now on. Windows keep what they saw, unless what they measure changed; the
    /// scale-down delay stays as it was created. A wrong spec changes nothing.
    pub fn update_spec(&mut self, spec: DeciderSpec) -> Result<(), SpecError> {
        spec.validate()?;
        if (spec.metric, spec.algorithm) == (self.spec.metric, self.spec.algorithm) {
            self.stable.resize(spec.stable_window);
            self.panic.resize(spec.panic_window());
        } else {
            self.stable = Window::new(spec.stable_window, spec.algorithm);
            self.panic = Window::new(spec.panic_window(), spec.algorithm);
        }
        self.spec = spec;
        Ok(())
    }

    /// Notes a report. Reports of one second (several gateways) add up.
    pub fn record(&mut self, now: Duration, stat: Stat) {
        let mut value = match self.spec.metric {
            ScalingMetric::Concurrency => stat.concurrency,
            ScalingMetric::Rps => stat.requests_per_second,
        };
        self.forget_wake(now);
        if std::mem::take(&mut self.woken) {
            value = (value - 1.0).max(0.0);
        }
        self.stable.record(now, value);
        self.panic.record(now, value);
    }

    /// Notes the first request to a revision at zero, ahead of the report that will hold it; that report then
    /// counts one less. A second call before the report changes nothing, as long as the first is remembered.
    pub fn wake(&mut self, now: Duration) {
        self.forget_wake(now);
        if self.woken {
            return;
        }
        self.record(now, Stat { concurrency: 1.0, requests_per_second: 1.0 });
        self.woken = true;
    }

    /// A report may never come: a caller leaves at once, or reports are dropped. What no window holds any more is as
    /// if it had never been, or the next wake-up would be lost.
    fn forget_wake(&mut self, now: Duration) {
        self.woken &= !self.stable.is_empty(now);
    }

    /// Decides for `ready` instances that take requests now.
    pub fn decide(&mut self, now: Duration, ready: u32) -> ScaleResult {
        self.stable.trim(now);
        self.panic.trim(now);
        if self.spec.silence == Silence::KeepsDecision && self.stable.is_empty(now) {
            return self.last;
        }
        let stable = self.stable.average(now);
        let panic_value = self.panic.average(now);
        let desired = self.desired(now, ready, stable, panic_value);
        self.last = ScaleResult {
            desired,
            excess_burst_capacity: excess_burst_capacity(&self.spec, ready, panic_value),
            panic: self.panic_since.is_some(),
            stable,
            panic_value,
        };
        self.last
    }

    /// Whether deciding again gives the same answer for ever: without a report, a wake-up, another spec or another
    /// number of ready instances there is nothing to decide.
    pub fn is_at_rest(&self, now: Duration) -> bool {
        let silent = self.stable.is_empty(now) && self.panic.is_empty(now);
        silent && self.panic_since.is_none() && (self.delay.is_none() || self.last.desired == 0)
    }

    fn desired(&mut self, now: Duration, ready: u32, stable: f64, panic_value: f64) -> i32 {
        let spec = &self.spec;
        let ready = f64::from(ready.max(1));
        let most = (spec.max_scale_up_rate * ready).ceil();
        let least = if spec.reachable { (ready / spec.max_scale_down_rate).floor() } else { 0.0 };
        let raw_stable = (stable / spec.target.value).ceil();
        let raw_panic = (panic_value / spec.target.value).ceil();
        let within = |raw: f64| {
            let limited = count(raw.max(least).min(most));
            let wished = if spec.activation_scale > 1 && raw > 0.0 { spec.activation_scale } else { 0 };
            limited.max(wished)
        };
        let (from_stable, from_panic) = (within(raw_stable), within(raw_panic));

        let over = raw_panic / ready >= spec.panic_threshold;
        let calm_again = self.panic_since.is_some_and(|since| since + spec.stable_window < now);
        if over {
            self.panic_since = Some(now);
        } else if calm_again {
            self.panic_since = None;
            self.panic_peak = 0;
        }

        let mut desired = from_stable;
        if self.panic_since.is_some() {
            self.panic_peak = self.panic_peak.max(from_stable).max(from_panic);
            desired = self.panic_peak;
        }
        match &mut self.delay {
            Some(delay) if self.spec.reachable => delay.record(now, desired),
            _ => desired,
        }
    }
}

fn initial_burst_capacity(spec: &DeciderSpec) -> i64 {
    let burst = spec.target_burst_capacity;
    if burst == 0.0 || burst == -1.0 {
        return burst as i64;
    }
    (f64::from(spec.initial_scale) * spec.target.total - burst).floor() as i64
}

fn excess_burst_capacity(spec: &DeciderSpec, ready: u32, panic_value: f64) -> i64 {
    let burst = spec.target_burst_capacity;
    if burst == 0.0 {
        0
    } else if burst > 0.0 {
        // Ready as it is: at zero there is no capacity at all.
        (f64::from(ready) * spec.target.total - burst - panic_value).floor() as i64
    } else {
        -1
    }
}

/// A whole number of instances; absurd ones saturate.
fn count(value: f64) -> i32 {
    value as i32
}

#[cfg(test)]
mod tests;
