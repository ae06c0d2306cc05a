//! A seeded world in which the real controllers, the loop's real queue, the autoscaler's deciders and the real store run
//! against harm: watches that lag and list again, writes that conflict or fail, a process that dies between two wants,
//! power cuts, nodes that start pods slowly or not at all, users who change their minds, a clock on the wall that is set by
//! a day. The machine's clocks are the run's own; the store's thread is waited for at each write, so that a seed says
//! everything that happens.
//!
//! Safety is checked after every step, liveness at rest: once the harm stops, everything must settle.
//!
//! [`EventSimulation`] is the same for events: ingress, log and deliveries of the real data plane over a disk that loses what
//! was not synced.

mod clocks;
mod cluster;
mod events;
mod manager;
mod node;
mod safety;
mod seed;
mod simulation;

pub use cluster::{Cluster, Denied};
pub use events::{EventFault, EventSimulation, Tally};
pub use manager::Fault;
pub use seed::{Seed, each_seed};
pub use simulation::{Edit, Simulation};
