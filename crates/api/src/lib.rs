//! Every kind Knoll serves, as plain values: types, defaults, validation, conditions, names and labels,
//! and the snapshots (`table`, `stats`, `metrics`) that cross from one plane to another.
//!
//! Pure: nothing here reads a clock, a file, the environment or the network. `now` and configuration
//! are arguments.

pub mod admission;
pub mod annotation;
pub mod autoscaling;
pub mod caching;
pub mod clock;
pub mod conditions;
pub mod config;
pub mod conversion;
pub mod cron;
pub mod duck;
pub mod duration;
pub mod eventing;
pub mod field_error;
pub mod flows;
pub mod iso8601;
pub mod json;
pub mod key;
pub mod kind;
pub mod labels;
pub mod messaging;
pub mod metrics;
pub mod names;
pub mod networking;
mod number;
pub mod object;
pub mod quantity;
pub mod serving;
pub mod sinks;
pub mod sources;
pub mod stats;
pub mod status;
pub mod syntax;
pub mod table;
pub mod template;

pub use jiff::Timestamp;
pub use k8s_openapi;
pub use key::Key;
pub use kind::Kind;
pub use object::{Object, Resource};
