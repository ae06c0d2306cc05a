//! The gateway: one hop between a client and the user's container.
//!
//! A request's life is one function, `answer` in `request.rs`, read top to bottom: route, admit, pick, forward, account.
//! Around it:
//!
//! - Data threads. Each runs its own single-threaded runtime; a client connection belongs to one thread for
//!   life, and so do its requests and its connections to instances. One acceptor deals sockets to threads.
//! - The [`RoutingTable`](knoll_api::table::RoutingTable) is an immutable snapshot; before the first one requests wait. Threads
//!   keep the last one they saw and look at a generation number a request.
//! - What must be agreed on by all threads (who waits, which instance has a free place) lives in one endpoint pool a
//!   revision, keyed by the revision's uid, so that a new table disturbs neither waiters nor requests in flight.
//! - Requests are counted by each thread for itself and collected each second.
//!
//! Everything has a bound, set in [`Config`], and an answer when the bound is reached. A panic costs one request, one
//! connection or one turn of a task, and never a thread.
//!
//! What things cost, n being all services, c those that changed, and b those that are busy or have an instance:
//!
//! | | |
//! |---|---|
//! | a table | c log n, once; then for each thread and host log n when the host is next asked for |
//! | a report, each second | b |
//! | an instance announced or withdrawn | the instances of its revision |
//! | a request | one look-up in the thread's prepared hosts; log n when its table is new to the host |
//! | a service nobody asks for | memory alone |

mod admit;
mod balance;
mod body;
mod client;
mod client_stream;
mod config;
mod connection_pool;
mod contain;
mod control;
mod drain;
mod endpoint;
mod endpoint_pool;
mod endpoint_pools;
mod errors;
mod forward;
mod gateway;
mod headers;
mod meter;
mod metrics;
pub mod parsers;
mod probe;
mod request;
mod responses;
mod route;
mod routes;
mod sync;
mod thread;
mod timeouts;
mod upgrade;
mod wire;

#[cfg(test)]
mod tests;

pub use config::{Config, ConfigError};
pub use drain::Drained;
pub use gateway::{EndpointHints, EndpointPoolView, EndpointView, Feeds, Gateway, GatewayError, Visibility};
