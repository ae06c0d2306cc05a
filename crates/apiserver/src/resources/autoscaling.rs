//! `autoscaling`.

use super::Resource;
use crate::{defaults, tables};

pub(super) fn rows() -> Vec<Resource> {
    vec![
        Resource::new("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
            .short(&["hpa"])
            .category(&["all"])
            .status()
            .no_generation()
            .table(&tables::autoscaling::HORIZONTAL_POD_AUTOSCALER)
            .default_with(defaults::horizontal_pod_autoscaler::default),
    ]
}
