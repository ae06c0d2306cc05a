//! `batch`.

use jiff::Timestamp;
use serde_json::Value;

use super::{Table, age, containers, count, human, name, number, selector, text, wide};
use crate::object;

/// Jobs.
pub(crate) static JOB: Table = Table {
    columns: &[
        text("Name"),
        text("Status"),
        text("Completions"),
        text("Duration"),
        text("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |o, now| {
        let (names, images) = containers(o, "/spec/template/spec/containers");
        vec![
            name(o),
            job_status(o).into(),
            completions(o),
            duration(o, now),
            age(o, now),
            names,
            images,
            selector(&o["spec"]["selector"]),
        ]
    },
};

fn job_status(job: &Value) -> &'static str {
    let is =
        |kind: &str| object::list(job, "/status/conditions").iter().any(|c| c["type"] == kind && c["status"] == "True");
    if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if object::is_deleting(job) {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else if is("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> Value {
    let succeeded = count(job, "/status/succeeded");
    let parallelism = object::integer(job, "/spec/parallelism").unwrap_or(0);
    match object::integer(job, "/spec/completions") {
        Some(wanted) => format!("{succeeded}/{wanted}").into(),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}").into(),
        None => format!("{succeeded}/1").into(),
    }
}

fn duration(job: &Value, now: Timestamp) -> Value {
    let Ok(start) = object::text(job, "/status/startTime").parse::<Timestamp>() else { return "".into() };
    let end = object::text(job, "/status/completionTime").parse().unwrap_or(now);
    human::duration(end.as_second() - start.as_second()).into()
}

/// CronJobs.
pub(crate) static CRON_JOB: Table = Table {
    columns: &[
        text("Name"),
        text("Schedule"),
        text("Timezone"),
        text("Suspend"),
        number("Active"),
        text("Last Schedule"),
        text("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |o, now| {
        let (names, images) = containers(o, "/spec/jobTemplate/spec/template/spec/containers");
        let last = object::text(o, "/status/lastScheduleTime");
        let zone = object::text(o, "/spec/timeZone");
        vec![
            name(o),
            object::text(o, "/spec/schedule").into(),
            super::none_if_empty(zone),
            if o["spec"]["suspend"] == true { "True" } else { "False" }.into(),
            object::list(o, "/status/active").len().into(),
            if last.is_empty() { "<none>".into() } else { human::since(last, now).into() },
            age(o, now),
            names,
            images,
            selector(&o["spec"]["jobTemplate"]["spec"]["selector"]),
        ]
    },
};
