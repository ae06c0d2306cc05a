//! What the control loop and the node share as clients of the Kubernetes API: how a collection is listed and watched, and
//! how Events are recorded. It knows no kinds; objects are JSON.

pub mod recorder;
pub mod watch;
