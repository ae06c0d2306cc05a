//! A seeded world in which the real controllers and the loop's real queue run against harm: watches that lag and list again, writes that
//! conflict or fail, a process that dies between two wants, nodes that start pods slowly or not at all, users who change
//! their minds. Synchronous, without a clock or threads: a seed says everything that happens.
//!
//! Safety is checked after every step, liveness at rest: once the harm stops, everything must settle.

mod cluster;
mod manager;
mod node;
mod safety;
mod seed;
mod simulation;

pub use cluster::{Cluster, Denied};
pub use manager::Fault;
pub use seed::{Seed, seeds};
pub use simulation::{Edit, Simulation};
