//! CronJobs.

use knoll_api::cron;
use serde_json::Value;

use super::{job_spec, not_negative};
use crate::{object, status::Cause};

/// Longest name: a Job's has eleven more characters.
const LONGEST_NAME: usize = 52;
/// Longest part of a time zone's name.
const LONGEST_ZONE: usize = 14;

/// CronJobs.
pub(crate) fn cron_job(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &new["spec"];
    schedule(spec, old, &mut causes);
    not_negative(spec, "spec", "startingDeadlineSeconds", &mut causes);
    if old.is_none_or(|old| old["spec"]["timeZone"] != spec["timeZone"]) {
        time_zone(spec, &mut causes);
    }
    match object::text(spec, "/concurrencyPolicy") {
        "Allow" | "Forbid" | "Replace" => {}
        "" => causes.push(Cause::required("spec.concurrencyPolicy", "")),
        other => {
            let known = ["Allow", "Forbid", "Replace"];
            causes.push(Cause::not_supported("spec.concurrencyPolicy", &other.into(), &known));
        }
    }
    template(&spec["jobTemplate"]["spec"], &mut causes);
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(spec, "spec", field, &mut causes);
    }
    let name = object::name(new);
    if old.is_none() && name.len() > LONGEST_NAME {
        let why = format!("must be no more than {LONGEST_NAME} characters");
        causes.push(Cause::invalid("metadata.name", &name.into(), &why));
    }
    causes
}

fn template(spec: &Value, causes: &mut Vec<Cause>) {
    const PATH: &str = "spec.jobTemplate.spec";
    job_spec(spec, PATH, causes);
    if !spec["selector"].is_null() {
        let why = "`selector` will be auto-generated";
        causes.push(Cause::invalid(format!("{PATH}.selector"), &spec["selector"], why));
    }
    if spec["manualSelector"] == true {
        let known = ["nil", "false"];
        causes.push(Cause::not_supported(format!("{PATH}.manualSelector"), &true.into(), &known));
    }
}

fn schedule(spec: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    const FIELD: &str = "spec.schedule";
    let schedule = object::text(spec, "/schedule");
    if schedule.is_empty() {
        return causes.push(Cause::required(FIELD, ""));
    }
    let mut refuse = |why: &str| causes.push(Cause::invalid(FIELD, &schedule.into(), why));
    if let Err(why) = cron::parse_standard(schedule) {
        refuse(&why);
    }
    if !schedule.contains("TZ") {
        return;
    }
    let had = old.is_some_and(|old| object::text(old, "/spec/schedule").contains("TZ"));
    if !had {
        refuse("cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if !spec["timeZone"].is_null() {
        refuse("cannot use both timeZone field and TZ or CRON_TZ in schedule");
    }
}

fn time_zone(spec: &Value, causes: &mut Vec<Cause>) {
    const FIELD: &str = "spec.timeZone";
    let Some(name) = spec["timeZone"].as_str() else { return };
    let mut refuse = |why: &str| causes.push(Cause::invalid(FIELD, &name.into(), why));
    let unknown = format!("unknown time zone {name}");
    let is_part = |part: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte);
        (1..=LONGEST_ZONE).contains(&part.len())
            && part.bytes().all(known)
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
    };
    if name.is_empty() {
        refuse("timeZone must be nil or non-empty string");
    } else if name.eq_ignore_ascii_case("Local") {
        refuse("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    } else if !name.split('/').all(is_part) || cron::time_zone(name).is_err() {
        refuse(&unknown);
    }
}
