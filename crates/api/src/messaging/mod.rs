//! `messaging.knative.dev`: channels, and who is subscribed to them.

mod channel;
mod in_memory_channel;
mod subscription;

pub use channel::*;
pub use in_memory_channel::*;
pub use subscription::*;
