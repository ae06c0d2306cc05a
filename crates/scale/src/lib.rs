//! How many instances a revision needs: the arithmetic of Knative's pod autoscaler.
//!
//! Pure: nothing here reads a clock. `now` is a [`Duration`](std::time::Duration) since an epoch of the
//! caller's choice, which must be the same for the whole life of a [`Decider`] and must not run backwards by
//! more than a window (a wall clock since 1970 and a monotonic clock since process start both do).
//!
//! [`Decider`] is the heart: statistics in, a wanted number of instances out. Around it stand the pieces that
//! turn a wish into a scale ([`bounds`], [`to_zero`]) and the numbers the data plane needs ([`throttle`],
//! [`activators`]).

pub mod activators;
pub mod bounds;
pub mod decider;
pub mod max_window;
pub mod target;
pub mod throttle;
pub mod to_zero;
pub mod window;

pub use decider::{Decider, DeciderSpec, ScaleResult, ScalingMetric, Silence, SpecError, Stat};
pub use target::{Target, TargetInputs};
pub use window::Algorithm;
