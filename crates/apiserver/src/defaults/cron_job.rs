//! CronJobs.

use serde_json::Value;

use super::{inner, job, pod};
use crate::object::default as set;

/// Runs may overlap; few finished ones are kept.
pub(crate) fn default(cron: &mut Value) {
    let spec = super::spec(cron);
    set(spec, "concurrencyPolicy", "Allow");
    set(spec, "suspend", false);
    set(spec, "successfulJobsHistoryLimit", 3);
    set(spec, "failedJobsHistoryLimit", 1);
    if let Some(template) = inner(spec, "jobTemplate").and_then(|template| inner(template, "spec")) {
        job::patterns(template);
        pod::template(template);
    }
}
