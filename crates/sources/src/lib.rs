//! The sources of events that run in this process: PingSource, ApiServerSource, and the timer of IntegrationSource.
//!
//! Which there are, and what they do, is in a [`Sources`], an immutable snapshot that controllers make; [`Adapters`] carries
//! the newest one out, and tells by [`Applied`] what of it is being carried out, so that nobody calls a source ready before.
//!
//! What is promised, as upstream has it:
//! - A tick is one event, sent anew for a few seconds while its sink does not take it, and lost then. A tick that came while
//!   this process did not run is not made up, and none is sent again after a restart.
//! - Of changes in the API each is one event, in the order in which they happened to a collection. What there was before is
//!   not told. What happened while a watch had to begin anew at another revision is not told either; such gaps are counted,
//!   whatever made it begin anew, but for a restart of the process.
//! - A sink that is slow or away costs bounded memory: a source has a bound of ticks under way, beyond which they are skipped,
//!   counted and logged; a watch is not read on until the event before was sent or given up.
//! - Between ticks nothing runs: all schedules share one timer, which looks at the wall clock once a minute at least.
//! - A panic costs one event, one watch or one source's worker, which begin again.
//!
//! What it costs: a change of the snapshot its own source; a tick a look into an ordered set and one task while its event is
//! sent; a source that is not due its entry.

mod adapters;
mod api_server;
mod applied;
mod config;
mod metrics;
mod read;
mod schedules;
mod sending;
mod snapshot;
mod tick;

pub use adapters::{Adapters, Clients, Clock, Hooks};
pub use applied::{Applied, Carrying};
pub use config::{Config, ConfigError};
pub use snapshot::{ApiServer, Id, Mode, Namespaces, Ping, Resource, Snapshots, Source, Sources, Timer, Work};
