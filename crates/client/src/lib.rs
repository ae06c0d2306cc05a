//! What the control loop and the node share as clients of the Kubernetes API: how a collection is listed and watched,
//! how Events are recorded, and what goes first when requests wait. It knows no kinds; objects are JSON.

mod page;
pub mod recorder;
pub mod rush;
mod slim;
pub mod watch;
