//! What the control loop and the node share as clients of the Kubernetes API: how it is asked, how a collection is listed
//! and watched, how Events are recorded, how tokens are asked for, and what goes first when requests wait. It knows no kinds; objects are JSON.

mod api;
mod error;
mod events;
mod page;
pub mod recorder;
pub mod rush;
mod slim;
pub mod token;
pub mod watch;

pub use api::{Body, Client, JSON, MERGE_PATCH, METADATA, whole};
pub use error::{BoxError, Cause, Details, Error, Result, Status};
