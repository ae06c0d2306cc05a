//! `sources.knative.dev`: what makes events.

mod api_server_source;
mod aws;
pub mod bound;
mod container_source;
mod event_types;
mod integration_source;
mod ping_source;
mod sink_binding;

pub use api_server_source::*;
pub use aws::*;
pub use container_source::*;
pub use event_types::*;
pub use integration_source::*;
pub use ping_source::*;
pub use sink_binding::*;
