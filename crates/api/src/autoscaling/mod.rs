//! `autoscaling.internal.knative.dev`: what the autoscaler is asked for and reports.

pub mod annotations;
pub mod bounds;
mod metric;
mod pod_autoscaler;
mod scaling;

pub use metric::*;
pub use pod_autoscaler::*;
pub use scaling::*;
