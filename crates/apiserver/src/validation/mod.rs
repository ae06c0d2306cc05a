//! What a kind's objects must look like, beyond the types of their fields.

pub(crate) mod addresses;
pub(crate) mod apps;
pub(crate) mod batch;
pub(crate) mod coordination;
pub(crate) mod core;
pub(crate) mod endpoints;
pub(crate) mod extensions;
pub(crate) mod limits;
pub(crate) mod metadata;
pub(crate) mod names;
pub(crate) mod pod;
pub(crate) mod rbac;
pub(crate) mod service;
