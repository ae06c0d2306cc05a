//! What a Job says of failures, of success, and of pods that take the place of others.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{indexes, not_negative};
use crate::{object, status::Cause, validation::names};

/// Most rules of a policy, exit codes of a rule, patterns of a rule.
const MOST_RULES: usize = 20;
const MOST_CODES: usize = 255;
const MOST_PATTERNS: usize = 20;
/// Longest list of indexes.
const LONGEST_INDEXES: usize = 64 * 1024;

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: &[&str] = &["In", "NotIn"];
const STATUSES: &[&str] = &["False", "True", "Unknown"];

pub(super) fn check(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    if !spec["podFailurePolicy"].is_null() {
        failure_policy(spec, &format!("{path}.podFailurePolicy.rules"), causes);
    }
    if !spec["successPolicy"].is_null() {
        if spec["completionMode"] == "Indexed" {
            success_policy(spec, &format!("{path}.successPolicy.rules"), causes);
        } else {
            let field = format!("{path}.successPolicy");
            causes.push(Cause::invalid(field, &spec["successPolicy"], "requires indexed completion mode"));
        }
    }
    replacement_policy(spec, &format!("{path}.podReplacementPolicy"), causes);
}

fn replacement_policy(spec: &Value, field: &str, causes: &mut Vec<Cause>) {
    let Some(policy) = spec["podReplacementPolicy"].as_str() else { return };
    let known: &[&str] =
        if spec["podFailurePolicy"].is_null() { &["Failed", "TerminatingOrFailed"] } else { &["Failed"] };
    if !known.contains(&policy) {
        causes.push(Cause::not_supported(field, &policy.into(), known));
    }
}

/// A member of a closed set that must be there.
fn required(parent: &Value, path: &str, field: &str, known: &[&str], causes: &mut Vec<Cause>) {
    let value = parent[field].as_str().unwrap_or_default();
    let field = format!("{path}.{field}");
    if value.is_empty() {
        let listed: Vec<String> = known.iter().map(|one| format!("{one:?}")).collect();
        causes.push(Cause::required(field, &format!("valid values: [{}]", listed.join(" "))));
    } else if !known.contains(&value) {
        causes.push(Cause::not_supported(field, &value.into(), known));
    }
}

fn too_many(count: usize, most: usize, field: &str, causes: &mut Vec<Cause>) {
    if count > most {
        causes.push(Cause::too_many(field, count, most));
    }
}

fn failure_policy(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let rules = object::list(spec, "/podFailurePolicy/rules");
    too_many(rules.len(), MOST_RULES, path, causes);
    let containers = ["/template/spec/containers", "/template/spec/initContainers"];
    let containers = containers.iter().flat_map(|list| object::list(spec, list));
    let names: BTreeSet<&str> = containers.filter_map(|container| container["name"].as_str()).collect();
    for (at, rule) in rules.iter().enumerate() {
        let path = format!("{path}[{at}]");
        required(rule, &path, "action", ACTIONS, causes);
        if rule["action"] == "FailIndex" && spec["backoffLimitPerIndex"].is_null() {
            let why = "requires the backoffLimitPerIndex to be set";
            causes.push(Cause::invalid(format!("{path}.action"), &rule["action"], why));
        }
        let (codes, patterns) = (&rule["onExitCodes"], object::list(rule, "/onPodConditions"));
        if !codes.is_null() {
            exit_codes(codes, &format!("{path}.onExitCodes"), &names, causes);
        }
        pod_conditions(patterns, &format!("{path}.onPodConditions"), causes);
        let why = match (codes.is_null(), patterns.is_empty()) {
            (false, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (true, true) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        causes.push(Cause::other("FieldValueInvalid", path, format!("Invalid value: {why}")));
    }
}

fn pod_conditions(patterns: &[Value], path: &str, causes: &mut Vec<Cause>) {
    too_many(patterns.len(), MOST_PATTERNS, path, causes);
    for (at, pattern) in patterns.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let type_ = object::text(pattern, "/type");
        if let Err(why) = names::key(type_) {
            causes.push(Cause::invalid(format!("{path}.type"), &type_.into(), &why));
        }
        required(pattern, &path, "status", STATUSES, causes);
    }
}

fn exit_codes(codes: &Value, path: &str, names: &BTreeSet<&str>, causes: &mut Vec<Cause>) {
    required(codes, path, "operator", OPERATORS, causes);
    if let Some(name) = codes["containerName"].as_str().filter(|name| !names.contains(name)) {
        let why = "must be one of the container or initContainer names in the pod template";
        causes.push(Cause::invalid(format!("{path}.containerName"), &name.into(), why));
    }
    let (field, list) = (format!("{path}.values"), object::list(codes, "/values"));
    if list.is_empty() {
        causes.push(Cause::invalid(&field, &codes["values"], "at least one value is required"));
    }
    too_many(list.len(), MOST_CODES, &field, causes);
    let mut seen = BTreeSet::new();
    for (at, code) in list.iter().enumerate() {
        let field = format!("{field}[{at}]");
        if codes["operator"] == "In" && *code == 0 {
            causes.push(Cause::invalid(&field, code, "must not be 0 for the In operator"));
        }
        if !seen.insert(code.as_i64()) {
            causes.push(Cause::duplicate(field, code));
        }
    }
    if !list.is_sorted_by_key(Value::as_i64) {
        causes.push(Cause::invalid(field, &codes["values"], "must be ordered"));
    }
}

fn success_policy(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let rules = object::list(spec, "/successPolicy/rules");
    if rules.is_empty() {
        let why = "at least one rules must be specified when the successPolicy is specified";
        causes.push(Cause::required(path, why));
    }
    too_many(rules.len(), MOST_RULES, path, causes);
    let completions = spec["completions"].as_i64().unwrap_or_default();
    for (at, rule) in rules.iter().enumerate() {
        success_rule(rule, &format!("{path}[{at}]"), completions, causes);
    }
}

fn success_rule(rule: &Value, path: &str, completions: i64, causes: &mut Vec<Cause>) {
    let (count, list) = (rule["succeededCount"].as_i64(), rule["succeededIndexes"].as_str());
    if count.is_none() && list.is_none() {
        let why = "at least one of succeededCount or succeededIndexes must be specified";
        causes.push(Cause::required(path, why));
    }
    let named = list.map(|list| {
        let field = format!("{path}.succeededIndexes");
        if list.len() > LONGEST_INDEXES {
            causes.push(Cause::too_long(&field, LONGEST_INDEXES));
        }
        indexes::count(list, completions).unwrap_or_else(|why| {
            causes.push(Cause::invalid(field, &list.into(), &format!("error parsing succeededIndexes: {why}")));
            0
        })
    });
    let Some(count) = count else { return };
    not_negative(rule, path, "succeededCount", causes);
    let limits = [
        (Some(completions), "the number of specified completions"),
        (named, "the number of indexes in the specified succeededIndexes field"),
    ];
    for (most, what) in limits {
        if let Some(most) = most.filter(|most| count > *most) {
            let why = format!("must be less than or equal to {most} ({what})");
            causes.push(Cause::invalid(format!("{path}.succeededCount"), &count.into(), &why));
        }
    }
}
