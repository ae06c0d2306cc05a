//! `autoscaling`.

use super::Resource;
use crate::tables;

pub(super) fn rows() -> Vec<Resource> {
    vec![
        Resource::new("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
            .short(&["hpa"])
            .category(&["all"])
            .status()
            .no_generation()
            .table(&tables::autoscaling::HORIZONTAL_POD_AUTOSCALER),
    ]
}
