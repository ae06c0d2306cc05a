use std::{net::Ipv4Addr, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use knoll_oci::Progress;
use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("in range")
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(
        json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u-1", "generation": 1}, "spec": spec}),
    )
    .expect("a pod")
}

fn deleting(spec: Value, grace: i64) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u-1",
        "deletionTimestamp": "2027-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}, "spec": spec}))
    .expect("a pod")
}

fn image() -> ImageInfo {
    ImageInfo { id: "img@sha256:1".into(), name: "img:1".into() }
}

/// A pod whose sandbox, volumes and images are there.
fn prepared(pod: &Pod) -> ObservedPod {
    let mut seen = ObservedPod { accepted: Some(at(0)), volumes: Step::Done(()), ..ObservedPod::default() };
    seen.sandbox = Step::Done(SandboxInfo { address: Ipv4Addr::new(10, 244, 0, 5), host_network: false });
    for (_, container) in containers(pod.spec.as_ref().expect("spec")) {
        seen.container_mut(&container.name).pulled(image());
    }
    seen
}

fn start(seen: &mut ObservedPod, name: &str, now: Timestamp) {
    let container = seen.container_mut(name);
    container.begin(now).expect("may begin");
    container.run(format!("id-{name}-{}", container.restarts), now).expect("may run");
    container.started = true;
    container.ready = true;
}

fn exit(seen: &mut ObservedPod, name: &str, code: i32, now: Timestamp) {
    let exit = Terminated {
        id: format!("id-{name}"),
        code,
        signal: None,
        reason: if code == 0 { "Completed" } else { "Error" }.into(),
        message: String::new(),
        started: now,
        finished: now,
    };
    seen.container_mut(name).end(exit);
}

fn report(pod: &Pod, seen: &ObservedPod, now: Timestamp) -> PodStatus {
    status(pod, seen, &NodeFacts { host_ip: "192.0.2.1".into() }, None, now)
}

fn container(status: &PodStatus, index: usize) -> &ContainerStatus {
    &status.container_statuses.as_ref().expect("statuses")[index]
}

fn waiting_reason(status: &PodStatus) -> &str {
    let state = container(status, 0).state.as_ref().expect("state");
    state.waiting.as_ref().expect("waiting").reason.as_deref().expect("reason")
}

fn condition<'a>(status: &'a PodStatus, name: &str) -> (&'a str, &'a str, &'a str) {
    let list = status.conditions.as_ref().expect("conditions");
    let found = list.iter().find(|c| c.type_ == name).expect("the condition");
    (&found.status, found.reason.as_deref().unwrap_or_default(), found.message.as_deref().unwrap_or_default())
}

fn names(acts: &[&str]) -> Vec<Act> {
    acts.iter().map(|n| Act::Start((*n).to_owned())).collect()
}

#[test]
fn a_new_pod_prepares_everything_at_once() {
    let pod = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    let actions = decide(&pod, &ObservedPod::default(), at(0));
    let all = [Act::PrepareVolumes, Act::PrepareSandbox, Act::Pull("a".into()), Act::Pull("b".into())];
    assert_eq!(actions.acts, all);
    let status = report(&pod, &ObservedPod::default(), at(0));
    assert_eq!((status.phase.as_deref(), waiting_reason(&status)), (Some("Pending"), "ContainerCreating"));
    assert_eq!(condition(&status, "Ready"), ("False", "ContainersNotReady", "containers with unready status: [a b]"));
}

#[test]
fn nothing_under_way_is_begun_twice() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut seen = ObservedPod { volumes: Step::Doing, sandbox: Step::Doing, ..ObservedPod::default() };
    seen.container_mut("a").image = Step::Doing;
    assert_eq!(decide(&pod, &seen, at(0)), PodActions::default());
    let mut seen = prepared(&pod);
    seen.container_mut("a").begin(at(0)).expect("begins");
    assert_eq!(decide(&pod, &seen, at(0)), PodActions::default());
    start(&mut prepared(&pod), "a", at(0));
}

#[test]
fn prepared_containers_start_together() {
    let pod = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    assert_eq!(decide(&pod, &prepared(&pod), at(0)).acts, names(&["a", "b"]));
}

#[test]
fn init_containers_run_in_order_and_sidecars_stay() {
    let pod =
        pod(json!({"initContainers": [{"name": "i1"}, {"name": "side", "restartPolicy": "Always"}, {"name": "i2"}],
        "containers": [{"name": "a"}]}));
    let mut seen = prepared(&pod);
    assert_eq!(decide(&pod, &seen, at(0)).acts, names(&["i1"]));
    let status = report(&pod, &seen, at(0));
    assert_eq!(waiting_reason(&status), "PodInitializing");
    assert_eq!(
        condition(&status, "Initialized"),
        ("False", "ContainersNotInitialized", "containers with incomplete status: [i1 side i2]")
    );
    start(&mut seen, "i1", at(0));
    assert_eq!(decide(&pod, &seen, at(0)).acts, []);
    exit(&mut seen, "i1", 0, at(1));
    assert_eq!(decide(&pod, &seen, at(1)).acts, names(&["side"]));
    start(&mut seen, "side", at(1));
    assert_eq!(decide(&pod, &seen, at(1)).acts, names(&["i2"]));
    start(&mut seen, "i2", at(1));
    exit(&mut seen, "i2", 0, at(2));
    assert_eq!(decide(&pod, &seen, at(2)).acts, names(&["a"]));
    start(&mut seen, "a", at(2));
    assert_eq!(decide(&pod, &seen, at(2)), PodActions::default());
    let status = report(&pod, &seen, at(2));
    assert_eq!(condition(&status, "Initialized").0, "True");
    assert_eq!(condition(&status, "Ready").0, "True");
    assert!(is_ready(&pod, &seen));
    assert!(status.init_container_statuses.as_ref().expect("init").iter().all(|c| c.ready));
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let pod = pod(json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}));
    let mut seen = prepared(&pod);
    start(&mut seen, "i", at(0));
    exit(&mut seen, "i", 3, at(1));
    assert_eq!(decide(&pod, &seen, at(1)).acts, [Act::TearDown]);
    assert_eq!(report(&pod, &seen, at(1)).phase.as_deref(), Some("Failed"));
}

#[test]
fn the_first_restart_is_at_once_and_the_next_ones_wait_longer_each_time() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut seen = prepared(&pod);
    start(&mut seen, "a", at(0));
    exit(&mut seen, "a", 1, at(1));
    assert_eq!(decide(&pod, &seen, at(1)).acts, names(&["a"]));
    let mut now = 1;
    for pause in [10, 20, 40, 80, 160, 300, 300] {
        start(&mut seen, "a", at(now));
        exit(&mut seen, "a", 1, at(now));
        let actions = decide(&pod, &seen, at(now));
        assert_eq!(actions, PodActions { acts: vec![], recheck: Some(at(now + pause)) });
        now += pause;
        assert_eq!(decide(&pod, &seen, at(now)).acts, names(&["a"]));
    }
}

#[test]
fn a_container_that_cannot_be_started_again_for_want_of_its_image_says_so() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "img:2"}]}));
    let mut seen = prepared(&pod);
    start(&mut seen, "a", at(0));
    exit(&mut seen, "a", 0, at(0));
    seen.container_mut("a").image = Step::Todo;
    seen.container_mut("a").pull_failed("ErrImagePull", "not authorized".into(), at(1));
    let status = report(&pod, &seen, at(1));
    let shown = container(&status, 0);
    let waiting = shown.state.as_ref().and_then(|s| s.waiting.as_ref()).expect("waiting");
    assert_eq!(waiting.reason.as_deref(), Some("ErrImagePull"));
    assert!(shown.last_state.as_ref().is_some_and(|last| last.terminated.is_some()));
}

#[test]
fn a_crash_loop_is_reported_with_its_pause_and_its_last_end() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut seen = prepared(&pod);
    start(&mut seen, "a", at(0));
    exit(&mut seen, "a", 7, at(0));
    start(&mut seen, "a", at(0));
    exit(&mut seen, "a", 7, at(0));
    let status = report(&pod, &seen, at(1));
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let shown = container(&status, 0);
    let waiting = shown.state.as_ref().and_then(|s| s.waiting.as_ref()).expect("waiting");
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(waiting.message.as_deref(), Some("back-off 10s restarting failed container=a pod=p_ns(u-1)"));
    let last = shown.last_state.as_ref().and_then(|s| s.terminated.as_ref()).expect("last");
    assert_eq!((last.exit_code, last.reason.as_deref()), (7, Some("Error")));
    assert_eq!(shown.restart_count, 1);
}

#[test]
fn ten_good_minutes_forgive_earlier_crashes() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut seen = prepared(&pod);
    start(&mut seen, "a", at(0));
    exit(&mut seen, "a", 1, at(0));
    start(&mut seen, "a", at(0));
    exit(&mut seen, "a", 1, at(601));
    assert_eq!(decide(&pod, &seen, at(601)).acts, names(&["a"]));
}

#[test]
fn restart_policies_decide_who_runs_again_and_which_phase_remains() {
    for (policy, code, phase) in
        [("Never", 0, "Succeeded"), ("Never", 1, "Failed"), ("OnFailure", 0, "Succeeded"), ("OnFailure", 1, "Running")]
    {
        let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
        let mut seen = prepared(&pod);
        start(&mut seen, "a", at(0));
        exit(&mut seen, "a", code, at(1));
        assert_eq!(report(&pod, &seen, at(1)).phase.as_deref(), Some(phase), "{policy} {code}");
        let again = decide(&pod, &seen, at(1)).acts == names(&["a"]);
        assert_eq!(again, phase == "Running", "{policy} {code}");
    }
}

#[test]
fn sidecars_stop_only_after_the_others() {
    let spec = json!({"initContainers": [{"name": "side", "restartPolicy": "Always"}], "containers": [{"name": "a"}]});
    let pod = deleting(spec, 5);
    let mut seen = prepared(&pod);
    start(&mut seen, "side", at(0));
    start(&mut seen, "a", at(0));
    let stop =
        |name: &str| Act::Stop { container: name.into(), grace: Duration::from_secs(5), cause: StopCause::Deleted };
    assert_eq!(decide(&pod, &seen, at(1)).acts, [stop("a")]);
    seen.container_mut("a").stop(false).expect("stops");
    assert_eq!(decide(&pod, &seen, at(1)).acts, []);
    exit(&mut seen, "a", 0, at(2));
    assert_eq!(decide(&pod, &seen, at(2)).acts, [stop("side")]);
    exit(&mut seen, "side", 143, at(3));
    assert_eq!(decide(&pod, &seen, at(3)).acts, [Act::TearDown]);
    seen.teardown = Step::Done(());
    assert_eq!(decide(&pod, &seen, at(3)).acts, [Act::Forget]);
    seen.forgotten = Step::Done(());
    assert_eq!(decide(&pod, &seen, at(3)), PodActions::default());
}

#[test]
fn a_pod_that_the_api_forgot_is_killed() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut seen = prepared(&pod);
    start(&mut seen, "a", at(0));
    seen.gone = true;
    let stop = Act::Stop { container: "a".into(), grace: Duration::from_secs(1), cause: StopCause::Deleted };
    assert_eq!(decide(&pod, &seen, at(0)).acts, [stop]);
    seen.container_mut("a").stop(false).expect("stops");
    assert_eq!(decide(&pod, &seen, at(0)).acts, [Act::Kill("a".into())]);
    assert!(!is_ready(&pod, &seen));
}

#[test]
fn a_grace_that_is_shortened_later_holds() {
    let spec = || json!({"containers": [{"name": "a"}]});
    let (patient, hurried) = (deleting(spec(), 100_000), deleting(spec(), 1));
    let mut seen = prepared(&patient);
    start(&mut seen, "a", at(0));
    let container = seen.container_mut("a");
    container.asked_to_stop = Some(at(0));
    container.stop(false).expect("stops");
    assert_eq!(decide(&patient, &seen, at(60)), PodActions { acts: vec![], recheck: Some(at(100_005)) });
    assert_eq!(decide(&hurried, &seen, at(2)), PodActions { acts: vec![], recheck: Some(at(6)) });
    assert_eq!(decide(&hurried, &seen, at(60)).acts, [Act::Kill("a".into())]);
}

#[test]
fn deletion_waits_for_what_is_being_made() {
    let pod = deleting(json!({"containers": [{"name": "a"}]}), 5);
    let mut seen = prepared(&pod);
    seen.container_mut("a").begin(at(0)).expect("begins");
    assert_eq!(decide(&pod, &seen, at(0)), PodActions::default());
    let seen = ObservedPod { sandbox: Step::Doing, ..ObservedPod::default() };
    assert_eq!(decide(&pod, &seen, at(0)), PodActions::default());
}

#[test]
fn a_pull_under_way_says_how_far_it_has_come() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "img"}]}));
    let mut seen = prepared(&pod);
    seen.container_mut("a").image = Step::Doing;
    seen.container_mut("a").pulling = Some(Progress { done: 12_345_678, total: 45_600_000 });
    let status = report(&pod, &seen, at(0));
    let waiting = container(&status, 0).state.as_ref().and_then(|s| s.waiting.as_ref()).expect("waiting");
    assert_eq!(waiting.reason.as_deref(), Some("ContainerCreating"));
    assert_eq!(waiting.message.as_deref(), Some("pulling the image: 12.3 of 45.6 MB"));
    seen.container_mut("a").pulled(image());
    assert_eq!(seen.container_mut("a").pulling, None);
}

#[test]
fn a_failed_pull_is_shown_as_it_failed_and_then_as_waiting() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "img"}]}));
    let mut seen = prepared(&pod);
    seen.container_mut("a").pull_failed("ErrImagePull", "not found".into(), at(0));
    assert_eq!(waiting_reason(&report(&pod, &seen, at(0))), "ErrImagePull");
    assert_eq!(decide(&pod, &seen, at(0)), PodActions { acts: vec![], recheck: Some(at(1)) });
    let status = report(&pod, &seen, at(1));
    let waiting = container(&status, 0).state.as_ref().and_then(|s| s.waiting.as_ref()).expect("waiting");
    assert_eq!(waiting.reason.as_deref(), Some("ImagePullBackOff"));
    assert_eq!(waiting.message.as_deref(), Some("Back-off pulling image \"img\": ErrImagePull: not found"));
    assert_eq!(decide(&pod, &seen, at(1)).recheck, Some(at(10)));
    assert_eq!(decide(&pod, &seen, at(10)).acts, [Act::Pull("a".into())]);
    seen.container_mut("a").pull_failed("ErrImagePull", "not found".into(), at(10));
    assert_eq!(decide(&pod, &seen, at(12)).recheck, Some(at(30)));
}

#[test]
fn an_unresolvable_configuration_is_tried_again() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut seen = prepared(&pod);
    let container = seen.container_mut("a");
    container.begin(at(0)).expect("begins");
    container.reject("CreateContainerConfigError", "configmap \"x\" not found".into(), None, at(0)).expect("rejects");
    assert_eq!(waiting_reason(&report(&pod, &seen, at(0))), "CreateContainerConfigError");
    assert_eq!(decide(&pod, &seen, at(0)).recheck, Some(at(1)));
    assert_eq!(decide(&pod, &seen, at(1)).acts, names(&["a"]));
    assert_eq!(seen.containers["a"].restarts, 0);
}

#[test]
fn a_condemned_container_is_stopped_and_starts_again() {
    let pod = pod(json!({"terminationGracePeriodSeconds": 3, "containers": [{"name": "a"}]}));
    let mut seen = prepared(&pod);
    start(&mut seen, "a", at(0));
    seen.container_mut("a").condemned = Some(EndReason { reason: "Unhealthy".into(), message: "liveness".into() });
    let stop = Act::Stop { container: "a".into(), grace: Duration::from_secs(3), cause: StopCause::Condemned };
    assert_eq!(decide(&pod, &seen, at(1)).acts, [stop]);
    seen.container_mut("a").stop(false).expect("stops");
    exit(&mut seen, "a", 137, at(2));
    assert_eq!(decide(&pod, &seen, at(2)).acts, names(&["a"]));
    start(&mut seen, "a", at(2));
    assert_eq!(decide(&pod, &seen, at(2)), PodActions::default());
}

#[test]
fn the_deadline_fails_the_pod() {
    let pod = pod(json!({"activeDeadlineSeconds": 5, "containers": [{"name": "a"}]}));
    let mut seen = prepared(&pod);
    start(&mut seen, "a", at(0));
    assert_eq!(decide(&pod, &seen, at(4)).recheck, Some(at(5)));
    assert!(matches!(decide(&pod, &seen, at(5)).acts[..], [Act::Fail { reason: "DeadlineExceeded", .. }]));
    seen.verdict = Some(EndReason { reason: "DeadlineExceeded".into(), message: "late".into() });
    assert!(matches!(&decide(&pod, &seen, at(5)).acts[..], [Act::Stop { cause: StopCause::Finished, .. }]));
    let status = report(&pod, &seen, at(5));
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
}

#[test]
fn readiness_gates_hold_the_pod_but_not_its_containers() {
    let mut pod = pod(json!({"readinessGates": [{"conditionType": "x/y"}], "containers": [{"name": "a"}]}));
    let mut seen = prepared(&pod);
    start(&mut seen, "a", at(0));
    let status = report(&pod, &seen, at(0));
    assert_eq!(condition(&status, "ContainersReady").0, "True");
    assert_eq!(
        condition(&status, "Ready"),
        ("False", "ReadinessGatesNotReady", "corresponding condition of pod readiness gate \"x/y\" does not exist.")
    );
    assert!(!is_ready(&pod, &seen));
    pod.status = serde_json::from_value(json!({"conditions": [{"type": "x/y", "status": "True"}]})).expect("status");
    let status = super::status(&pod, &seen, &NodeFacts { host_ip: String::new() }, pod.status.as_ref(), at(0));
    assert_eq!(condition(&status, "Ready").0, "True");
    assert_eq!(condition(&status, "x/y").0, "True");
    assert!(is_ready(&pod, &seen));
}

#[test]
fn transition_times_move_only_with_the_status() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut seen = prepared(&pod);
    let facts = NodeFacts { host_ip: String::new() };
    let first = super::status(&pod, &seen, &facts, None, at(0));
    let second = super::status(&pod, &seen, &facts, Some(&first), at(5));
    assert_eq!(first, second);
    start(&mut seen, "a", at(6));
    let third = super::status(&pod, &seen, &facts, Some(&second), at(6));
    let time = |s: &PodStatus, name: &str| {
        let list = s.conditions.as_ref().expect("conditions");
        list.iter().find(|c| c.type_ == name).and_then(|c| c.last_transition_time.clone()).expect("time").0
    };
    assert_eq!((time(&third, "Ready"), time(&third, "PodScheduled")), (at(6), at(0)));
}

#[test]
fn illegal_moves_are_refused_and_change_nothing() {
    let mut container = ObservedContainer::default();
    assert!(container.run("x".into(), at(0)).is_err());
    assert!(container.stop(true).is_err());
    container.begin(at(0)).expect("begins");
    assert_eq!(
        container.begin(at(0)).expect_err("twice").to_string(),
        "a container that is creating cannot become creating"
    );
    assert_eq!(container.life, Life::Creating);
}

#[test]
fn what_was_under_way_when_the_server_stopped_is_begun_again() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut seen = prepared(&pod);
    seen.sandbox = Step::Doing;
    start(&mut seen, "a", at(0));
    exit(&mut seen, "a", 1, at(1));
    seen.container_mut("a").begin(at(1)).expect("begins");
    seen.settle(at(2));
    assert_eq!(seen.sandbox, Step::Todo);
    assert!(matches!(seen.containers["a"].life, Life::Exited(_)));
    let kept: ObservedPod = serde_json::from_str(&serde_json::to_string(&seen).expect("writes")).expect("reads");
    assert_eq!(kept, seen);
}

#[test]
fn a_clock_that_was_set_back_while_the_server_was_away_delays_nothing_by_more_than_its_pause() {
    let pod = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    let (day, mut seen) = (86_400, prepared(&pod));
    start(&mut seen, "a", at(day));
    exit(&mut seen, "a", 1, at(day + 1));
    start(&mut seen, "a", at(day + 2));
    exit(&mut seen, "a", 1, at(day + 3));
    seen.container_mut("b").pull_failed("ErrImagePull", "no".into(), at(day));
    seen.volumes = Step::Done(());
    let latest = |seen: &ObservedPod| decide(&pod, seen, at(5)).recheck;
    assert!(latest(&seen).is_some_and(|when| when > at(day)), "for a day nothing would happen");
    seen.settle(at(5));
    assert!(latest(&seen).is_some_and(|when| when <= at(25)));
    let acts = decide(&pod, &seen, at(30)).acts;
    assert_eq!(acts, [Act::Start("a".into()), Act::Pull("b".into())]);
}

#[test]
fn a_grace_that_no_clock_can_count_is_a_very_long_one() {
    let pod = |seconds: i64| -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p"}, "spec": {"containers": [], "terminationGracePeriodSeconds": seconds}}),
        )
        .expect("a pod")
    };
    for (seconds, expected) in [(i64::MAX, LONGEST_GRACE), (i64::MIN, Duration::ZERO), (30, Duration::from_secs(30))] {
        assert_eq!(grace(&pod(seconds)), expected);
        assert!(std::time::Instant::now().checked_add(expected).is_some());
    }
    let mut deleted = pod(5);
    deleted.metadata.deletion_grace_period_seconds = Some(i64::MAX);
    assert_eq!(grace(&deleted), LONGEST_GRACE);
}
