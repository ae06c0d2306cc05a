//! The node of the standalone machine: pods bound to it become containers, with volumes, probes, logs, addresses,
//! names and Service addresses.
//!
//! Decisions are pure ([`pod::decide`], [`pod::status`], [`mod@env`]); [`Node`] carries them out. Containers belong to
//! the monitor process (`knoll-container`), images to `knoll-oci`; this crate is the only one that joins pods and
//! containers.

mod agent;
mod api;
mod config;
mod counters;
mod disk;
pub mod env;
mod eviction;
pub mod exec;
mod expected;
mod feed;
mod images;
pub mod logs;
mod machine;
mod mount_points;
pub mod network;
mod panics;
pub mod pod;
pub mod pressure;
pub mod probes;
mod pulls;
mod recorder;
pub mod resources;
mod room;
pub mod runtime;
pub mod security;
mod shared;
mod sources;
mod streams;
pub mod volumes;
mod worker;

/// The clocks of this machine: the one that is never set, and the one that is.
fn clocks() -> knoll_api::clock::Reading {
    (std::time::Instant::now(), jiff::Timestamp::now())
}

pub use agent::{Node, NodeError};
pub use config::{Callbacks, Config, InstanceEvent, ServesHost};
pub use counters::Reading;
pub use streams::{Forwarded, StreamError, Whom};
