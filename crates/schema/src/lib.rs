//! What the API server knows about types, and what that lets one do with JSON trees.
