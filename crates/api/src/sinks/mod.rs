//! `sinks.knative.dev`: what becomes of events.

mod integration_sink;
mod job_sink;

pub use integration_sink::*;
pub use job_sink::*;
