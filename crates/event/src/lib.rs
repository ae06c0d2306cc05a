//! CloudEvents: the value, its forms in HTTP and JSON, and filters over it. Knows no I/O.

pub mod cesql;
