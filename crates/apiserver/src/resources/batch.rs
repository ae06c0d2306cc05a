//! `batch`.

use super::{Resource, SelectableField};
use crate::{admission, defaults, tables, validation};

const JOB_FIELDS: &[SelectableField] = &[("status.successful", "/status/succeeded", "0")];

pub(super) fn rows() -> Vec<Resource> {
    let row = |plural, kind| Resource::new("batch", "v1", plural, kind);
    vec![
        row("jobs", "Job")
            .category(&["all"])
            .status()
            .fields(JOB_FIELDS)
            .table(&tables::batch::JOB)
            .default_with(defaults::job::default)
            .admit_with(admission::job::admit)
            .validate_with(validation::batch::job),
        row("cronjobs", "CronJob")
            .short(&["cj"])
            .category(&["all"])
            .status()
            .table(&tables::batch::CRON_JOB)
            .default_with(defaults::cron_job::default)
            .validate_with(validation::batch::cron_job),
    ]
}
