//! ClusterDomainClaim: which namespace may use a domain.

use serde::{Deserialize, Serialize};

use crate::object::resource;

/// Desired state of a ClusterDomainClaim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterDomainClaimSpec {
    /// The namespace that holds the domain.
    #[serde(default)]
    pub namespace: String,
}

resource!(
    /// `networking.internal.knative.dev/v1alpha1` ClusterDomainClaim.
    ClusterDomainClaim, ClusterDomainClaimSpec
);
