//! `batch`.

use super::{Resource, SelectableField};
use crate::tables;

const JOB_FIELDS: &[SelectableField] = &[("status.successful", "/status/succeeded", "0")];

pub(super) fn rows() -> Vec<Resource> {
    let row = |plural, kind| Resource::new("batch", "v1", plural, kind);
    vec![
        row("jobs", "Job").category(&["all"]).status().fields(JOB_FIELDS).table(&tables::batch::JOB),
        row("cronjobs", "CronJob").short(&["cj"]).category(&["all"]).status().table(&tables::batch::CRON_JOB),
    ]
}
