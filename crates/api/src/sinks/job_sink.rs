//! JobSink: a Job for each event.

use k8s_openapi::api::batch::v1::Job;
use serde::{Deserialize, Serialize};

use crate::{
    duck::{AddressStatus, AppliedEventPoliciesStatus},
    object::resource,
    status::DuckStatus,
};

/// Variable that tells containers how they are run.
pub const EXECUTION_MODE: &str = "K_EXECUTION_MODE";
/// Its value in the Jobs of a JobSink.
pub const EXECUTION_MODE_BATCH: &str = "batch";

/// Desired state of a JobSink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobSinkSpec {
    /// What Jobs are made from; its spec counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
}

/// Where the Jobs of a JobSink are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSinkJobStatus {
    /// The label that they all have, as a selector.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
}

/// Observed state of a JobSink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobSinkStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: DuckStatus,
    /// Where it takes events.
    #[serde(flatten)]
    pub address: AddressStatus,
    /// Where its Jobs are.
    #[serde(default)]
    pub job: JobSinkJobStatus,
    /// Who may send.
    #[serde(flatten)]
    pub policies: AppliedEventPoliciesStatus,
}

resource!(
    /// `sinks.knative.dev/v1alpha1` JobSink.
    JobSink, JobSinkSpec, JobSinkStatus
);
