//! Turns plans into what happens: watches objects into the World, plans what they wake, carries the plans out, and
//! keeps the autoscaler, the digests, the gateway's table and what the data plane of events acts on going beside it.
//!
//! One task owns the World and the queue; there are no locks around either. The World changes only by what
//! watches and finished work report, so our own writes and a stranger's take the same path.

mod access;
mod api;
mod autoscaler;
mod brake;
mod coalescing;
mod control;
mod counters;
mod discovery;
mod ducks;
mod events;
mod execute;
mod failing;
mod hearing;
mod inspect;
mod lease;
mod lives;
mod namespace_content;
mod pace;
mod progress;
mod publish;
pub mod queue;
mod recorder;
mod resolve;
mod role;
mod run;
pub mod scaler;
mod sweeps;
mod times;
mod token;
mod untyped;
mod watch;

pub use counters::{Counters, Reading};
pub use events::{EventLinks, SourceLinks};
pub use inspect::Inspect;
pub use lease::Lease;
pub use progress::shows;
pub use resolve::{ResolveDigest, Resolving};
pub use role::Role;
pub use run::{Clocks, DriveError, Links, clocks, run};
pub use scaler::Scaler;
