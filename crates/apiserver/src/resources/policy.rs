//! `policy`.

use super::Resource;
use crate::tables;

pub(super) fn rows() -> Vec<Resource> {
    vec![
        Resource::new("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
            .short(&["pdb"])
            .status()
            .conditional()
            .table(&tables::policy::POD_DISRUPTION_BUDGET),
    ]
}
