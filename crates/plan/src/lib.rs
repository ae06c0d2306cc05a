//! Decides what the control plane does next, and does none of it.
//!
//! A controller is a [`Row`]: a function from the [`World`] (every object as last seen), a key and the time
//! to a [`Plan`] (what it wants done). The loop that owns the World carries plans out; what comes of them
//! returns as changes to the World. Nothing here reads a clock, a file, the environment or the network.

mod access;
mod autoscaling;
#[cfg(test)]
mod check;
mod children;
mod ducks;
mod eventing;
mod indexer;
mod instances;
pub mod kube;
mod lineage;
mod networking;
mod observed;
mod packed;
mod plan;
mod row;
mod rows;
mod serving;
mod settings;
mod shelf;
mod status;
mod system_config;
mod terms;
mod unreadable;
mod untyped;
mod world;

pub use access::{AccessAnswer, AccessOutcome, AccessRequest, Denial};
pub use autoscaling::{DECIDER_KINDS, FollowedRevision, decider};
pub use ducks::{DuckKind, DuckObject, DuckSeen, Ducks};
pub use eventing::{
    CARRIED_KINDS, TokenSecret, broker_of, event_job, event_transform, graph, sender_account, served_broker,
    subscriptions, to_carry,
};
pub use indexer::Indexer;
pub use instances::user_port;
pub use lineage::{AnyKind, Lineage, Target};
pub use networking::table;
pub use observed::{
    Carried, DigestFailure, DigestOutcome, DigestRequest, Observation, Observed, Refusal, ScaleDecision,
};
pub use plan::{EventRecord, EventType, MetadataList, Plan, Propagation, Want};
pub use row::{Absence, Mapper, Row, RowGroup, by_controller, by_same_key, rows, rows_of};
pub use rows::{Asked, Rows, Woken};
pub use settings::{GatewayAddresses, QueuePlacement, Settings};
pub use system_config::SystemConfig;
pub use terms::{Indexed, Term};
pub use untyped::{GroupKind, ServedKind, Sighting, Untyped, UntypedKind, UntypedSeen};
pub use world::{Change, Changed, Meta, Size, World};
