//! Shapes that kinds of Eventing share, whoever defines the kind ("duck types"): what can be addressed, what can be
//! subscribed to, what sends events, and how events are delivered.

mod address;
mod auth;
mod channelable;
mod delivery;
mod destination;
mod reference;
mod source;

pub use address::*;
pub use auth::*;
pub use channelable::*;
pub use delivery::*;
pub use destination::*;
pub use reference::*;
pub use source::*;
