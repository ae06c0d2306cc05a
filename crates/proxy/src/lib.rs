//! The gateway: one hop between a client and the user's container.
//!
//! A request's life is one function, [`life`](self), read top to bottom: route, admit, pick, forward, account.
//! Around it:
//!
//! - Data threads. Each runs its own single-threaded runtime; a client connection belongs to one thread for
//!   life, and so do its requests and its connections to instances. One acceptor deals sockets to threads.
//! - The [`Table`](knoll_api::table::Table) is an immutable snapshot. Threads keep the last one they saw and
//!   look at a generation number a request; what a new one changes is worked out once, off the request path.
//! - What must be agreed on by all threads (who waits, which instance has a free slot) lives in one station a
//!   revision, keyed by the revision's uid, so that a new table disturbs neither waiters nor slots.
//! - Statistics are counted by each thread for itself and collected each second.
//!
//! Everything has a bound, set in [`Config`], and an answer when the bound is reached.

mod admit;
mod balance;
mod body;
mod client;
mod client_stream;
mod config;
mod contain;
mod control;
mod drain;
mod errors;
mod fleet;
mod forward;
mod gateway;
mod headers;
mod life;
mod metrics;
mod pool;
mod probe;
mod registry;
mod responses;
mod route;
mod routes;
mod station;
mod stats;
mod thread;
mod timeouts;
mod upgrade;
mod wire;

pub use config::{Config, ConfigError};
pub use drain::Drained;
pub use gateway::{Feeds, Gateway, GatewayError, Hints, Side};
