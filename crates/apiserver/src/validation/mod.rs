//! What a kind's objects must look like, beyond the types of their fields.

pub mod apps;
pub mod batch;
pub mod coordination;
pub mod core;
pub mod extensions;
pub mod metadata;
pub mod names;
pub mod pod;
pub mod rbac;
