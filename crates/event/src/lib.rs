//! CloudEvents: the value, its forms in HTTP and JSON, and filters over it. Knows no I/O.
//!
//! An [`Event`] cannot break a rule of the specification: whatever makes or changes one checks, and an error names the
//! attribute and what to do. Versions 1.0 and 0.3 are read, kept and written as such. [`mode`] reads and writes the three
//! content modes of HTTP, [`filter`] decides who gets an event, [`knative`] holds the attributes Knative adds on the way.

pub mod cesql;
mod data;
mod event;
pub mod filter;
mod invalid;
pub mod json;
pub mod knative;
pub mod limits;
mod media_type;
pub mod mode;
mod percent;
mod time;
mod uri;
mod value;
mod work;

pub use data::Data;
pub use event::{Event, SpecVersion};
pub use invalid::{Fault, Invalid, ReadError};
pub use uri::{Uri, UriReference};
pub use value::{Attribute, Value};
