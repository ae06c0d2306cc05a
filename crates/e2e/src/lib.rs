//! What the black-box tests share: the instance under test, `kubectl`, and plain HTTP.
//!
//! `scripts/e2e` starts an instance and says where it is in the environment; nothing here knows more of it than
//! another client would. Tests own their namespace, wait for states with a bound, and clean up.

mod cluster;
mod http;
mod namespace;
mod wait;

pub use cluster::Cluster;
pub use http::{Answer, get, request};
pub use namespace::Namespace;
pub use wait::{PATIENCE, until};
