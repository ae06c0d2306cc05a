//! How long a Job waits before it makes a pod in place of one that failed: 10 s, twice as long for each failure in a
//! row, at most 10 minutes; counted from when the last one ended.

use std::time::Duration;

use knoll_api::{
    Timestamp, clock,
    k8s_openapi::api::core::v1::{ContainerStatus, Pod},
};

use super::super::pods;

/// The first pause and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

/// What is left of the pause after so many failures, of which the last was at `last`.
pub(super) fn left(failures: u32, last: Timestamp, now: Timestamp) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let doubled = 2_u32.saturating_pow(failures - 1);
    PAUSE.0.saturating_mul(doubled).min(PAUSE.1).saturating_sub(clock::elapsed(last, now))
}

/// How many pods have failed since one succeeded, and when the last of them did.
pub(super) fn since_success<'a, 'b>(
    failed: impl Iterator<Item = &'a Pod>,
    succeeded: impl Iterator<Item = &'b Pod>,
) -> Option<(u32, Timestamp)> {
    let success = succeeded.map(ended_at).max();
    let later = failed.map(ended_at).filter(|at| success.is_none_or(|success| *at > success));
    later.fold(None, |found, at| match found {
        None => Some((1, at)),
        Some((count, last)) => Some((count + 1, at.max(last))),
    })
}

/// When a pod ended: when its last container did; else when it was no longer ready, was asked to go, or was made.
pub(super) fn ended_at(pod: &Pod) -> Timestamp {
    let deleted = || {
        let asked = pod.metadata.deletion_timestamp.as_ref()?.0;
        let grace = u64::try_from(pod.metadata.deletion_grace_period_seconds.unwrap_or_default()).unwrap_or_default();
        asked.checked_sub(Duration::from_secs(grace)).ok()
    };
    let made = || pod.metadata.creation_timestamp.as_ref().map(|at| at.0);
    containers_ended(pod).or_else(|| unready(pod)).or_else(deleted).or_else(made).unwrap_or_default()
}

/// When the last container ended, those that run beside the others included; nothing while one has not.
fn containers_ended(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let beside = |name: &str| {
        let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        init.into_iter().any(|c| c.name == name && c.restart_policy.as_deref() == Some("Always"))
    };
    let beside = status.init_container_statuses.iter().flatten().filter(|status| beside(&status.name));
    let all = status.container_statuses.iter().flatten().chain(beside);
    let ended = |status: &ContainerStatus| Some(status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0);
    all.map(ended).try_fold(None, |latest, at| at.map(|at| latest.max(Some(at))))?
}

fn unready(pod: &Pod) -> Option<Timestamp> {
    let ready = pods::condition(pod, "Ready").filter(|ready| ready.status == "False")?;
    ready.last_transition_time.as_ref().map(|at| at.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn each_failure_in_a_row_doubles_the_pause_up_to_ten_minutes() {
        let pause = |failures| left(failures, at(100), at(100)).as_secs();
        assert_eq!((0..10).map(pause).collect::<Vec<_>>(), [0, 10, 20, 40, 80, 160, 320, 600, 600, 600]);
        assert_eq!(pause(u32::MAX), 600);
        assert_eq!(left(2, at(100), at(113)), Duration::from_secs(7));
        assert_eq!(left(2, at(100), at(121)), Duration::ZERO);
        assert_eq!(left(2, at(100_000), at(100)), Duration::ZERO, "a clock that was set back holds nothing up");
    }

    #[test]
    fn a_success_ends_the_row() {
        let ended = |second: i64| {
            let state = json!({"terminated": {"exitCode": 1, "finishedAt": at(second).to_string()}});
            let status =
                json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
            pod(json!({"status": {"containerStatuses": [status]}}))
        };
        let failed = [ended(10), ended(30), ended(20)];
        let count = |succeeded: &[Pod]| since_success(failed.iter(), succeeded.iter());
        assert_eq!(count(&[]), Some((3, at(30))));
        assert_eq!(count(&[ended(5), ended(20)]), Some((1, at(30))));
        assert_eq!(count(&[ended(30)]), None);
    }

    #[test]
    fn a_pod_ended_when_its_last_container_did_or_else_by_what_is_known() {
        let status = |name: &str, second: Option<i64>| {
            let state = second.map(|at_| json!({"terminated": {"exitCode": 0, "finishedAt": at(at_).to_string()}}));
            json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state.unwrap_or(json!({}))})
        };
        let meta = json!({"creationTimestamp": at(1).to_string()});
        let spec = json!({"containers": [], "initContainers": [{"name": "beside", "restartPolicy": "Always"}, {"name": "before"}]});
        let both = json!([status("a", Some(5)), status("b", Some(7))]);
        let init = json!([status("before", None), status("beside", Some(9))]);
        let with = |containers: &serde_json::Value, init: &serde_json::Value| {
            let status = json!({"containerStatuses": containers, "initContainerStatuses": init});
            ended_at(&pod(json!({"metadata": meta, "spec": spec, "status": status})))
        };
        assert_eq!(with(&both, &json!([])), at(7));
        assert_eq!(with(&both, &init), at(9));
        assert_eq!(with(&json!([status("a", Some(5)), status("b", None)]), &json!([])), at(1));
        let unready = json!([{"type": "Ready", "status": "False", "lastTransitionTime": at(4).to_string()}]);
        assert_eq!(ended_at(&pod(json!({"metadata": meta, "status": {"conditions": unready}}))), at(4));
        let going = json!({"creationTimestamp": at(1).to_string(), "deletionTimestamp": at(40).to_string(), "deletionGracePeriodSeconds": 30});
        assert_eq!(ended_at(&pod(json!({"metadata": going}))), at(10));
    }
}
