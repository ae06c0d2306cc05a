//! ContainerSource: a container of the user's that sends events.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::{Deserialize, Serialize};

use crate::{
    duck::{SourceSpec, SourceStatus},
    object::resource,
};

/// Desired state of a ContainerSource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerSourceSpec {
    /// Sink and changes to events.
    #[serde(flatten)]
    pub source: SourceSpec,
    /// Its pod.
    #[serde(default)]
    pub template: PodTemplateSpec,
}

resource!(
    /// `sources.knative.dev/v1` ContainerSource.
    ContainerSource, ContainerSourceSpec, SourceStatus
);
