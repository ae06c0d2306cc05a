//! The node of the standalone machine: pods bound to it become containers, with volumes, probes, logs, addresses,
//! names and Service addresses.
//!
//! Decisions are pure ([`pod::decide`], [`pod::status`], [`env`]); [`Node`] carries them out. Containers belong to
//! the monitor process (`knoll-container`), images to `knoll-oci`; this crate is the only one that joins pods and
//! containers.

pub mod env;
pub mod exec;
pub mod logs;
pub mod pod;
pub mod probes;
pub mod quantity;
pub mod resources;
pub mod security;
pub mod volumes;
