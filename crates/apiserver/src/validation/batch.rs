//! `batch`.

use serde_json::Value;

use super::pod;
use crate::{object, status::Cause};

/// Jobs.
pub(crate) fn job(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    job_spec(&new["spec"], "spec", &mut causes);
    if let Some(old) = old {
        for field in ["selector", "completionMode"] {
            if old["spec"][field] != new["spec"][field] {
                causes.push(Cause::invalid(format!("spec.{field}"), &new["spec"][field], "field is immutable"));
            }
        }
        if old["spec"]["template"] != new["spec"]["template"] && old["spec"]["suspend"] != true {
            causes.push(Cause::invalid("spec.template", &new["spec"]["template"], "field is immutable"));
        }
    }
    causes
}

fn job_spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    for field in ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"] {
        if let Some(n) = spec[field].as_i64().filter(|&n| n < 0) {
            causes.push(Cause::invalid(format!("{path}.{field}"), &n.into(), "must be greater than or equal to 0"));
        }
    }
    pod::spec(&spec["template"]["spec"], &format!("{path}.template.spec"), causes);
    let policy = object::text(spec, "/template/spec/restartPolicy");
    if !matches!(policy, "OnFailure" | "Never") {
        let field = format!("{path}.template.spec.restartPolicy");
        let why = format!("Required value: valid values: {:?}, {:?}", "OnFailure", "Never");
        causes.push(match policy {
            "" | "Always" => Cause::other("FieldValueRequired", field, why),
            other => Cause::not_supported(field, &other.into(), &["OnFailure", "Never"]),
        });
    }
}

/// CronJobs.
pub(crate) fn cron_job(new: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let schedule = object::text(new, "/spec/schedule");
    if schedule.is_empty() {
        causes.push(Cause::required("spec.schedule", ""));
    } else if !schedule.starts_with('@') && schedule.split_whitespace().count() != 5 {
        let found = schedule.split_whitespace().count();
        let why = format!("expected exactly 5 fields, found {found}: [{schedule}]");
        causes.push(Cause::invalid("spec.schedule", &schedule.into(), &why));
    }
    job_spec(&new["spec"]["jobTemplate"]["spec"], "spec.jobTemplate.spec", &mut causes);
    causes
}
