//! What the API server knows about types, and what that lets one do with JSON trees.
//!
//! Pure: nothing here reads a clock, a file or the environment.

pub mod apply;
pub mod builtin;
mod conform;
pub mod crd;
pub mod json;
pub mod limits;
mod misfits;
pub mod openapi;
mod path;
pub mod protobuf;
pub mod strategic;
mod table;
mod time;
pub mod ty;

pub use builtin::{is_custom, lookup, lookup_ref};
pub use conform::{TypeError, conform, fill_defaults, prune, unknown_fields};
pub use misfits::misfits;
pub use strategic::{PatchError, strategic_merge};
pub use ty::Type;
