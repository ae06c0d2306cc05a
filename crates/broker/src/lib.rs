//! The data plane of Eventing: takes events in, keeps them, and delivers them, at least once.
//!
//! An event's way: [`Ingress`] reads it, checks it, and answers 202 once it stands in the [`Log`]; the worker of its broker or
//! channel matches it once with the index over filters and gives it to the subscribers it is for; each of them has its own
//! progress, retries, dead letters and bounds. What counts for whom is in a [`Topology`], an immutable snapshot
//! that controllers make. Replies, and deliveries from one broker or channel of the topology to another, are kept without a
//! detour over HTTP.
//!
//! What is promised:
//! - An event that was answered with 202 is delivered to every Trigger or Subscription that there was then, or becomes a
//!   dead letter, whatever crashes; several times if one does in mid-delivery.
//! - An event that nobody took, and that no dead letter sink took, is kept as a built-in dead letter, to be delivered again
//!   or dropped on request.
//! - A subscriber that is slow, stuck or away holds up nobody else for longer than a tenth of a second, and costs disk, not
//!   memory.
//! - An event that a JobSink answered with 202 has a Job; it has the same one when it comes again.
//! - A request to a RequestReply waits for the first event that answers it, and for no longer than it says.
//! - Everything has a bound, set in [`Config`], and each client or namespace has a part of it. At the budget of the event log, or
//!   at its namespace's part of that, senders are answered 503 and deliveries go on; what they send on to a broker or channel that
//!   has no room waits where it is.
//! - A panic costs one request or one attempt.
//!
//! What things cost is said where they are done: [`topology`] for look-ups, `dispatch` for deliveries, `budget` for who may have
//! how much of the log.

mod budget;
mod client;
mod config;
mod data_plane;
mod dead_letters;
pub mod delivery;
mod dispatch;
mod event_types;
mod history;
mod ingress;
mod intake;
mod log;
mod metrics;
mod record;
mod request_reply;
mod sender;
mod sinks;
mod streams;
pub mod topology;
mod transport;

pub use budget::NoRoom;
pub use client::{MachineAddresses, Resolve, resolve_as_the_machine_does};
pub use config::{Config, ConfigError};
pub use data_plane::{DataPlane, Hooks};
pub use dead_letters::{DeadLetter, OperationError, Page, Redriven, Undeliverable};
pub use dispatch::{Adopted, SubscriptionStatus, Tokens};
pub use event_types::{EventTypes, Made, NewTypes};
pub use history::{History, Kept, Start};
pub use ingress::{Authorize, Denied, Ingress, serve, serve_tls};
pub use intake::Taken;
pub use log::{AskError, Log, LogThread, OpenError};
pub use sender::{Here, Origin, Sender};
pub use sinks::{Jobs, NoJob, Progress};
pub use topology::Topology;
pub use transport::{CertificateError, Transport};
