//! The small controllers that a cluster would bring along; run only where Knoll is its own cluster.

use crate::Row;

/// Every controller of this module.
pub fn rows() -> Vec<Row> {
    Vec::new()
}
