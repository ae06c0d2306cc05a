//! What a Job's `podFailurePolicy` says of a pod that failed: the first rule that fits decides.

use knoll_api::{
    Resource,
    k8s_openapi::api::{
        batch::v1::{
            PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
            PodFailurePolicyRule,
        },
        core::v1::{ContainerStatus, Pod, PodCondition, PodStatus},
    },
};

/// What becomes of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts.
    Count,
    /// It does not count.
    Ignore,
    /// The pod's index has failed, however many attempts were left.
    FailIndex,
    /// The Job has failed, for this reason.
    FailJob(String),
}

/// What `policy` says of a failed pod; without one, and where no rule fits, it counts.
pub(super) fn verdict(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    let rules = policy.into_iter().flat_map(|policy| &policy.rules).enumerate();
    let mut fitting = rules.filter_map(|(at, rule)| Some((at, rule, fits(rule, pod)?)));
    let Some((at, rule, why)) = fitting.next() else { return Verdict::Count };
    match rule.action.as_str() {
        "Ignore" => Verdict::Ignore,
        "FailIndex" => Verdict::FailIndex,
        "FailJob" => Verdict::FailJob(format!("{why} matching FailJob rule at index {at}")),
        _ => Verdict::Count,
    }
}

/// What of the pod fits the rule, in words.
fn fits(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    if let Some(requirement) = &rule.on_exit_codes {
        let (container, code) = by_exit_code(status, requirement)?;
        return Some(format!("Container {container} for pod {} failed with exit code {code}", pod.key()));
    }
    let condition = by_condition(status, rule.on_pod_conditions.as_deref()?)?;
    Some(format!("Pod {} has condition {}", pod.key(), condition.type_))
}

/// The first container that failed with a code that is asked for.
fn by_exit_code<'a>(
    status: &'a PodStatus,
    requirement: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(&'a str, i32)> {
    let all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let failed = all.filter_map(|container: &ContainerStatus| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        (code != 0).then_some((container.name.as_str(), code))
    });
    let is_asked_for = |(name, code): &(&str, i32)| {
        let listed = requirement.values.contains(code);
        requirement.container_name.as_deref().is_none_or(|wanted| wanted == *name)
            && match requirement.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
    };
    failed.into_iter().find(is_asked_for)
}

fn by_condition<'a>(
    status: &'a PodStatus,
    patterns: &[PodFailurePolicyOnPodConditionsPattern],
) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|condition| {
        patterns.iter().any(|pattern| pattern.type_ == condition.type_ && pattern.status == condition.status)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(rules: Value, pod: &Pod) -> Verdict {
        let policy = serde_json::from_value(json!({"rules": rules})).expect("a policy");
        verdict(Some(&policy), pod)
    }

    fn pod(codes: &[(&str, i32)], conditions: Value) -> Pod {
        let status = |(name, code): &(&str, i32)| {
            json!({
                "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code}},
            })
        };
        let statuses: Vec<Value> = codes.iter().map(status).collect();
        let status = json!({"phase": "Failed", "containerStatuses": statuses, "conditions": conditions});
        let pod = json!({"metadata": {"namespace": "a", "name": "p"}, "status": status});
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let pod = pod(&[("ok", 0), ("main", 42)], json!([{"type": "DisruptionTarget", "status": "True"}]));
        let exit = |action: &str, operator: &str, values: &[i32]| json!({"action": action, "onExitCodes": {"operator": operator, "values": values}});
        let disrupted =
            json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
        assert_eq!(verdict(None, &pod), Verdict::Count);
        assert_eq!(of(json!([exit("FailIndex", "In", &[1])]), &pod), Verdict::Count);
        assert_eq!(of(json!([exit("FailIndex", "In", &[1]), disrupted]), &pod), Verdict::Ignore);
        assert_eq!(of(json!([exit("FailIndex", "In", &[42]), disrupted]), &pod), Verdict::FailIndex);
        assert_eq!(of(json!([exit("Count", "NotIn", &[1]), disrupted]), &pod), Verdict::Count);
        let why = "Container main for pod a/p failed with exit code 42 matching FailJob rule at index 1";
        let rules = json!([exit("Ignore", "NotIn", &[42]), exit("FailJob", "In", &[1, 42])]);
        assert_eq!(of(rules, &pod), Verdict::FailJob(why.into()));
        let condition =
            json!([{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]);
        let why = "Pod a/p has condition DisruptionTarget matching FailJob rule at index 0";
        assert_eq!(of(condition, &pod), Verdict::FailJob(why.into()));
    }

    #[test]
    fn a_rule_may_be_of_one_container_and_success_fits_none() {
        let pod = pod(&[("side", 3), ("main", 0)], json!([]));
        let rule = |name: &str, values: &[i32]| json!([{"action": "Ignore", "onExitCodes": {"containerName": name, "operator": "NotIn", "values": values}}]);
        assert_eq!(of(rule("side", &[1]), &pod), Verdict::Ignore);
        assert_eq!(of(rule("main", &[1]), &pod), Verdict::Count);
        assert_eq!(of(rule("side", &[3]), &pod), Verdict::Count);
    }
}
