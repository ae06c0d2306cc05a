//! `eventing.knative.dev`: brokers, what is delivered from them, and what is known of events.

mod auto_create;
mod broker;
mod event_policy;
mod event_transform;
mod event_type;
mod filter;
mod request_reply;
pub mod services;
mod trigger;

pub use auto_create::auto_created;
pub use broker::*;
pub use event_policy::*;
pub use event_transform::*;
pub use event_type::*;
pub use filter::*;
pub use request_reply::*;
pub use trigger::*;
