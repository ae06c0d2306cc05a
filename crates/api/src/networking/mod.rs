//! `networking.internal.knative.dev`: what the data plane is built from.

pub mod annotations;
mod certificate;
mod cluster_domain_claim;
mod ingress;
mod serverless_service;

pub use certificate::*;
pub use cluster_domain_claim::*;
pub use ingress::*;
pub use serverless_service::*;
