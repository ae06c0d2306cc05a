//! What the black-box tests share: the instance under test, `kubectl`, plain HTTP, and load.
//!
//! `scripts/e2e` starts an instance and says where it is in the environment; nothing here knows more of it than
//! another client would. Tests own their namespace, wait for states with a bound, and clean up. A test that changes
//! what is the whole instance's holds a lock that the other tests of its file share.

mod cluster;
mod events;
mod http;
mod kubernetes;
mod load;
mod namespace;
mod own;
mod sink;
mod socket;
mod split;
mod wait;

pub use cluster::{Cluster, Configured};
pub use events::Place;
pub use http::{Answer, Connection, get, request};
pub use kubernetes::{Controller, Kubernetes};
pub use load::{Load, at_once};
pub use namespace::{Namespace, condition, example, host_of};
pub use own::{Own, knoll, scratch, succeed};
pub use sink::{Received, Reply, Sink};
pub use socket::Socket;
pub use split::Split;
pub use wait::{PATIENCE, found_within, until, until_within};
