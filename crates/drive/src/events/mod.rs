//! What connects the control plane with the data plane of events in the same process.

mod publish;
mod sources;
mod translate;
mod transport;

use std::sync::Arc;

use knoll_broker::{Adopted, EventTypes, Topology, Transport, topology::Names};
use tokio::sync::watch;

pub(crate) use publish::{EventPublisher, KINDS};
pub use sources::SourceLinks;
pub(crate) use sources::{KINDS as SOURCE_KINDS, SourcePublisher};

/// Both ways between the loop and the data plane of events.
#[derive(Clone)]
pub struct EventLinks {
    /// What the data plane acts on; nothing before everything was listed.
    pub topology: watch::Sender<Option<Topology>>,
    /// What it acts on already: brokers, channels and Triggers are ready once they are among those.
    pub adopted: Adopted,
    /// Has EventTypes made of events, where the feature says so.
    pub event_types: Arc<EventTypes>,
    /// Is told how events travel.
    pub transport: Transport,
    /// What the addresses are made of that it answers at.
    pub names: Names,
}
