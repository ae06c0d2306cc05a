//! Configuration: the history of a template, one Revision a generation.

use serde::{Deserialize, Serialize};

use super::RevisionTemplate;
use crate::{object::resource, status};

/// Desired state of a Configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigurationSpec {
    /// Template of the Revisions.
    #[serde(default)]
    pub template: RevisionTemplate,
}

/// Observed state of a Configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: status::DuckStatus,
    /// The Revision of the newest generation, once created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_created_revision_name: Option<String>,
    /// The newest Revision that became ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_ready_revision_name: Option<String>,
}

resource!(
    /// `serving.knative.dev/v1` Configuration.
    Configuration, ConfigurationSpec, ConfigurationStatus
);
