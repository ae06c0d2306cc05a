//! `batch`, by the rules and in the words of Kubernetes.

mod cron_job;
mod indexes;
mod policies;
mod status;
mod update;

use serde_json::{Value, json};

pub(crate) use self::{cron_job::cron_job, status::job_status};
use super::{metadata, names, pod};
use crate::{label_selector::LabelSelector, object, status::Cause};

/// Most pods of an indexed Job at a time, and most of its indexes that may fail.
const MOST_INDEXED: i64 = 100_000;
/// Completions of an indexed Job beyond which less may run and fail, when each has attempts of its own.
const MANY_COMPLETIONS: i64 = 100_000;
/// Most pods at a time, and most failed indexes, of a Job of more completions than that.
const MOST_OF_MANY: i64 = 10_000;
/// Longest name of a controller.
const LONGEST_MANAGER: usize = 63;
/// What the generated labels of a Job's pods say, each with an older name.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// Jobs.
pub(crate) fn job(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &new["spec"];
    generated_labels(new, &mut causes);
    job_spec(spec, "spec", &mut causes);
    selector(spec, &mut causes);
    indexed_name(new, &mut causes);
    if let Some(old) = old {
        update::unchanged(old, new, &mut causes);
    }
    causes
}

/// A selector and labels that the server makes are as it makes them.
fn generated_labels(job: &Value, causes: &mut Vec<Cause>) {
    let spec = &job["spec"];
    if spec["manualSelector"] == true || spec["selector"].is_null() {
        return;
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let (uid, name) = (object::uid(job), object::name(job));
    let wanted = UID_LABELS.iter().map(|key| (*key, uid)).chain(NAME_LABELS.iter().map(|key| (*key, name)));
    let mut expected = json!({});
    for (key, value) in wanted {
        expected[key] = value.into();
        let field = format!("spec.template.metadata.labels[{key}]");
        match labels.get(key).and_then(Value::as_str) {
            Some(found) if found == value => {}
            Some(_) => causes.push(Cause::invalid(field, labels, &format!("must be '{value}'"))),
            None => causes.push(Cause::required(field, &format!("must be '{value}'"))),
        }
    }
    if LabelSelector::from_object(&spec["selector"]).is_some_and(|selector| !selector.matches(&expected)) {
        causes.push(Cause::invalid("spec.selector", &spec["selector"], "`selector` not auto-generated"));
    }
}

fn selector(spec: &Value, causes: &mut Vec<Cause>) {
    let selector = &spec["selector"];
    if selector.is_null() {
        causes.push(Cause::required("spec.selector", ""));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if !LabelSelector::from_object(selector).is_some_and(|selector| selector.matches(labels)) {
        let shown = if labels.is_null() { json!({}) } else { labels.clone() };
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", &shown, why));
    }
}

/// Pods of an indexed Job have its name and their index for a host name.
fn indexed_name(job: &Value, causes: &mut Vec<Cause>) {
    let completions = object::integer(job, "/spec/completions").unwrap_or_default();
    if job["spec"]["completionMode"] != "Indexed" || completions <= 0 {
        return;
    }
    let name = object::name(job);
    let longest = format!("{name}-{}", completions - 1);
    if names::label(&longest).is_err() {
        let why = format!("will not able to create pod with invalid DNS label: {longest}");
        causes.push(Cause::invalid("metadata.name", &name.into(), &why));
    }
}

/// A Job's spec, or a template's.
fn job_spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        not_negative(spec, path, field, causes);
    }
    if !spec["maxFailedIndexes"].is_null() && spec["backoffLimitPerIndex"].is_null() {
        let why = "when maxFailedIndexes is specified";
        causes.push(Cause::required(format!("{path}.backoffLimitPerIndex"), why));
    }
    manager(spec, path, causes);
    match object::text(spec, "/completionMode") {
        "Indexed" => indexed(spec, path, causes),
        "" | "NonIndexed" => not_indexed(spec, path, causes),
        other => {
            let field = format!("{path}.completionMode");
            causes.push(Cause::not_supported(field, &other.into(), &["NonIndexed", "Indexed"]));
        }
    }
    policies::check(spec, path, causes);
    let labels = &spec["template"]["metadata"]["labels"];
    metadata::labels(labels, &format!("{path}.template.labels"), causes);
    pod::spec(&spec["template"]["spec"], &format!("{path}.template.spec"), causes);
    restart_policy(spec, path, causes);
}

/// A number that counts something.
fn not_negative(spec: &Value, path: &str, field: &str, causes: &mut Vec<Cause>) {
    if let Some(number) = spec[field].as_i64().filter(|number| *number < 0) {
        causes.push(Cause::invalid(format!("{path}.{field}"), &number.into(), "must be greater than or equal to 0"));
    }
}

/// Who looks after it: a domain, and a path in it.
fn manager(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(manager) = spec["managedBy"].as_str() else { return };
    let field = format!("{path}.managedBy");
    let is_path = |path: &str| {
        !path.is_empty()
            && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte))
    };
    match manager.split_once('/') {
        _ if manager.is_empty() => causes.push(Cause::required(field.clone(), "")),
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            if let Err(why) = names::subdomain(domain) {
                causes.push(Cause::invalid(field.clone(), &domain.into(), &why));
            }
            if !is_path(rest) {
                causes.push(Cause::invalid(field.clone(), &rest.into(), "Invalid path"));
            }
        }
        _ => {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            causes.push(Cause::invalid(field.clone(), &manager.into(), why));
        }
    }
    if manager.len() > LONGEST_MANAGER {
        causes.push(Cause::too_long(field, LONGEST_MANAGER));
    }
}

fn indexed(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let number = |field: &str| spec[field].as_i64();
    let at_most = |field: &str, most: i64, when: &str, causes: &mut Vec<Cause>| {
        if let Some(found) = number(field).filter(|found| *found > most) {
            let why = format!("must be less than or equal to {most}{when}");
            causes.push(Cause::invalid(format!("{path}.{field}"), &found.into(), &why));
        }
    };
    let Some(completions) = number("completions") else {
        causes.push(Cause::required(format!("{path}.completions"), "when completion mode is Indexed"));
        return;
    };
    at_most("parallelism", MOST_INDEXED, " when completion mode is Indexed", causes);
    if let Some(found) = number("maxFailedIndexes").filter(|found| *found > completions) {
        let why = "must be less than or equal to completions";
        causes.push(Cause::invalid(format!("{path}.maxFailedIndexes"), &found.into(), why));
    }
    at_most("maxFailedIndexes", MOST_INDEXED, "", causes);
    if completions > MANY_COMPLETIONS && !spec["backoffLimitPerIndex"].is_null() {
        if spec["maxFailedIndexes"].is_null() {
            let why = format!("must be specified when completions is above {MANY_COMPLETIONS}");
            causes.push(Cause::required(format!("{path}.maxFailedIndexes"), &why));
        }
        let when = format!(" when completions are above {MANY_COMPLETIONS} and used with backoff limit per index");
        at_most("parallelism", MOST_OF_MANY, &when, causes);
        at_most("maxFailedIndexes", MOST_OF_MANY, &when, causes);
    }
}

fn not_indexed(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
        if !spec[field].is_null() {
            let why = "requires indexed completion mode";
            causes.push(Cause::invalid(format!("{path}.{field}"), &spec[field], why));
        }
    }
}

fn restart_policy(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let policy = object::text(spec, "/template/spec/restartPolicy");
    let field = format!("{path}.template.spec.restartPolicy");
    match policy {
        "" | "Always" => {
            causes.push(Cause::required(field, &format!("valid values: {:?}, {:?}", "OnFailure", "Never")));
        }
        "OnFailure" if !spec["podFailurePolicy"].is_null() => {
            let why = format!("only {:?} is supported when podFailurePolicy is specified", "Never");
            causes.push(Cause::invalid(field, &policy.into(), &why));
        }
        "OnFailure" | "Never" => {}
        other => causes.push(Cause::not_supported(field, &other.into(), &["OnFailure", "Never"])),
    }
}
