//! `serving.knative.dev`: what users write.

mod configuration;
mod domain_mapping;
mod revision;
mod revision_helpers;
mod route;
mod service;

pub use configuration::*;
pub use domain_mapping::*;
pub use revision::*;
pub use revision_helpers::*;
pub use route::*;
pub use service::*;
