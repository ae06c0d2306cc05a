//! Decisions with numbers worked by hand: a target of 10 with a total of 15 unless a test says otherwise.

use super::*;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn spec() -> DeciderSpec {
    DeciderSpec {
        metric: ScalingMetric::Concurrency,
        algorithm: Algorithm::Linear,
        target: Target { value: 10.0, total: 15.0 },
        max_scale_up_rate: 10.0,
        max_scale_down_rate: 2.0,
        target_burst_capacity: 0.0,
        activation_scale: 1,
        initial_scale: 1,
        panic_threshold: 2.0,
        panic_window_percent: 10.0,
        stable_window: at(60),
        scale_down_delay: Duration::ZERO,
        reachable: true,
        silence: Silence::IsZero,
    }
}

fn decider(spec: DeciderSpec) -> Decider {
    Decider::new(spec, at(0), 0).expect("spec is valid")
}

/// A decider that saw `value` in each of `seconds`.
fn fed(spec: DeciderSpec, seconds: std::ops::RangeInclusive<u64>, value: f64) -> Decider {
    let mut decider = decider(spec);
    feed(&mut decider, seconds, value);
    decider
}

fn feed(decider: &mut Decider, seconds: std::ops::RangeInclusive<u64>, value: f64) {
    for second in seconds {
        decider.record(at(second), Stat { concurrency: value, requests_per_second: value * 3.0 });
    }
}

#[test]
fn nothing_is_known_before_the_first_decision() {
    assert_eq!(decider(spec()).last().desired, -1);
    let burst = |target_burst_capacity| {
        let spec = DeciderSpec { target_burst_capacity, initial_scale: 2, ..spec() };
        decider(spec).last().excess_burst_capacity
    };
    // 2 * 15 - 200
    assert_eq!([burst(0.0), burst(-1.0), burst(200.0)], [0, -1, -170]);
}

#[test]
fn load_over_target_rounded_up_is_wanted() {
    assert_eq!(fed(spec(), 1..=60, 10.0).decide(at(60), 1).desired, 1);
    assert_eq!(fed(spec(), 1..=60, 10.1).decide(at(60), 1).desired, 2);
    let mut steady = fed(spec(), 1..=60, 45.0);
    let decision = steady.decide(at(60), 4);
    assert_eq!((decision.desired, decision.panic), (5, false));
    assert_eq!((decision.stable, decision.panic_value), (45.0, 45.0));
}

#[test]
fn requests_per_second_are_measured_when_asked() {
    // 3 * 12 = 36 a second over 10.
    assert_eq!(fed(DeciderSpec { metric: ScalingMetric::Rps, ..spec() }, 1..=60, 12.0).decide(at(60), 3).desired, 4);
}

#[test]
fn growth_and_shrinking_are_limited_by_rate() {
    // 3000 / 10 = 300, but at most 10 * 2.
    assert_eq!(fed(spec(), 1..=60, 3000.0).decide(at(60), 2).desired, 20);
    // 10 / 10 = 1, but at least floor(9 / 2).
    assert_eq!(fed(spec(), 1..=60, 10.0).decide(at(60), 9).desired, 4);
    // Without a route there is no least.
    let unreachable = DeciderSpec { reachable: false, ..spec() };
    assert_eq!(fed(unreachable, 1..=60, 0.0).decide(at(60), 9).desired, 0);
}

#[test]
fn no_traffic_wants_none() {
    assert_eq!(fed(spec(), 1..=60, 0.0).decide(at(60), 1).desired, 0);
    assert_eq!(decider(spec()).decide(at(5), 1).desired, 0);
}

#[test]
fn silence_keeps_the_last_decision_when_the_reporter_may_be_lost() {
    let mut decider = fed(DeciderSpec { silence: Silence::KeepsDecision, ..spec() }, 1..=60, 25.0);
    assert_eq!(decider.decide(at(60), 3).desired, 3);
    assert_eq!(decider.decide(at(119), 3).desired, 3);
    assert_eq!(decider.decide(at(500), 3).desired, 3);
}

#[test]
fn a_burst_panics_at_twice_the_capacity() {
    let mut decider = fed(spec(), 1..=60, 10.0);
    // Panic window of 6 s at 20: ceil(20 / 10) / 1 = 2.0, exactly the threshold.
    feed(&mut decider, 61..=66, 20.0);
    let decision = decider.decide(at(66), 1);
    assert_eq!((decision.desired, decision.panic), (2, true));
}

#[test]
fn below_the_threshold_there_is_no_panic() {
    let mut decider = fed(spec(), 1..=60, 20.0);
    feed(&mut decider, 61..=66, 39.0);
    // ceil(39 / 10) / 3 = 1.33
    assert!(!decider.decide(at(66), 3).panic);
}

#[test]
fn panic_never_shrinks_and_ends_a_stable_window_after_the_last_excess() {
    let mut decider = fed(spec(), 1..=6, 100.0);
    assert_eq!(decider.decide(at(6), 1).desired, 10);
    feed(&mut decider, 7..=66, 10.0);
    // The panic began at 6; at 66 exactly one stable window has passed, which is not more than one.
    let held = decider.decide(at(66), 10);
    assert_eq!((held.desired, held.panic), (10, true));
    feed(&mut decider, 67..=67, 10.0);
    // 60 buckets of 10 -> 1, but floor(10 / 2) at least.
    let calm = decider.decide(at(67), 10);
    assert_eq!((calm.desired, calm.panic), (5, false));
}

#[test]
fn each_excess_prolongs_panic() {
    let mut decider = fed(spec(), 1..=6, 100.0);
    assert!(decider.decide(at(6), 1).panic);
    feed(&mut decider, 7..=40, 100.0);
    assert!(decider.decide(at(40), 1).panic);
    feed(&mut decider, 41..=90, 10.0);
    assert!(decider.decide(at(90), 10).panic);
}

#[test]
fn a_new_panic_forgets_the_peak_of_the_last() {
    let mut decider = fed(spec(), 1..=6, 100.0);
    assert_eq!(decider.decide(at(6), 1).desired, 10);
    feed(&mut decider, 7..=67, 10.0);
    assert!(!decider.decide(at(67), 1).panic);
    feed(&mut decider, 68..=73, 30.0);
    let decision = decider.decide(at(73), 1);
    assert_eq!((decision.desired, decision.panic), (3, true));
}

#[test]
fn a_restarted_autoscaler_holds_what_it_finds() {
    let mut decider = Decider::new(spec(), at(1000), 7).expect("spec is valid");
    feed(&mut decider, 1000..=1001, 10.0);
    let decision = decider.decide(at(1001), 7);
    assert_eq!((decision.desired, decision.panic), (7, true));
    feed(&mut decider, 1002..=1061, 10.0);
    assert_eq!(decider.decide(at(1061), 7).desired, 3);
    assert!(!Decider::new(spec(), at(1000), 1).expect("spec is valid").last().panic);
}

#[test]
fn the_activation_scale_is_used_only_when_something_is_wanted() {
    let spec = DeciderSpec { activation_scale: 5, ..spec() };
    assert_eq!(fed(spec, 1..=60, 1.0).decide(at(60), 0).desired, 5);
    assert_eq!(fed(spec, 1..=60, 0.0).decide(at(60), 0).desired, 0);
    assert_eq!(fed(spec, 1..=60, 69.0).decide(at(60), 6).desired, 7);
}

#[test]
fn a_smaller_number_waits_for_the_delay() {
    let delayed = DeciderSpec { scale_down_delay: at(10), max_scale_down_rate: 1000.0, ..spec() };
    let mut decider = fed(delayed, 1..=60, 50.0);
    assert_eq!(decider.decide(at(60), 5).desired, 5);
    feed(&mut decider, 61..=69, 0.0);
    // 51 buckets of 50 over 60: 42.5
    assert_eq!(decider.decide(at(69), 5).desired, 5);
    // Slot 30 left the window of five slots with slot 35; slot 34 wanted ceil(4.25).
    assert_eq!(decider.decide(at(130), 5).desired, 0);
}

#[test]
fn the_delay_is_skipped_without_a_route_and_fixed_at_creation() {
    let delayed = DeciderSpec { scale_down_delay: at(1000), max_scale_down_rate: 1000.0, ..spec() };
    let mut decider = fed(delayed, 1..=60, 50.0);
    assert_eq!(decider.decide(at(60), 5).desired, 5);
    decider.update_spec(DeciderSpec { scale_down_delay: Duration::ZERO, ..delayed }).expect("spec is valid");
    assert_eq!(decider.decide(at(200), 5).desired, 5);
    decider.update_spec(DeciderSpec { reachable: false, ..delayed }).expect("spec is valid");
    assert_eq!(decider.decide(at(200), 5).desired, 0);
}

#[test]
fn burst_capacity_counts_real_instances_and_the_panic_window() {
    let burst = DeciderSpec { target_burst_capacity: 20.0, ..spec() };
    let mut decider = fed(burst, 1..=60, 4.5);
    // floor(3 * 15 - 20 - 4.5)
    assert_eq!(decider.decide(at(60), 3).excess_burst_capacity, 20);
    // floor(0 - 20 - 4.5)
    assert_eq!(decider.decide(at(60), 0).excess_burst_capacity, -25);
    let always = DeciderSpec { target_burst_capacity: -1.0, ..spec() };
    assert_eq!(fed(always, 1..=60, 4.5).decide(at(60), 3).excess_burst_capacity, -1);
}

#[test]
fn the_request_that_wakes_is_counted_once() {
    let one = DeciderSpec { target: Target { value: 1.0, total: 1.0 }, ..spec() };
    let mut decider = decider(one);
    decider.wake(at(10));
    decider.wake(at(10));
    assert_eq!(decider.decide(at(10), 0).desired, 1);
    feed(&mut decider, 10..=10, 0.4);
    assert_eq!(decider.decide(at(10), 0).stable, 1.0);
    feed(&mut decider, 11..=11, 3.0);
    assert_eq!(decider.decide(at(11), 1).stable, 2.0);
}

#[test]
fn a_wake_up_whose_report_never_came_does_not_swallow_the_next() {
    let mut decider = decider(spec());
    decider.wake(at(10));
    assert_eq!(decider.decide(at(10), 0).desired, 1);
    assert_eq!(decider.decide(at(3000), 0).desired, 0);
    decider.wake(at(4000));
    assert_eq!(decider.decide(at(4000), 0).desired, 1);
    // Nor does it take a request from a report of hours later.
    feed(&mut decider, 9000..=9000, 3.0);
    assert_eq!(decider.decide(at(9000), 1).stable, 3.0);
}

#[test]
fn a_new_window_length_keeps_what_was_seen() {
    let mut decider = fed(spec(), 1..=60, 10.0);
    feed(&mut decider, 61..=70, 40.0);
    // (50 * 10 + 10 * 40) / 60 = 15
    assert_eq!(decider.decide(at(70), 5).stable, 15.0);
    decider.update_spec(DeciderSpec { stable_window: at(20), ..spec() }).expect("spec is valid");
    // (10 * 10 + 10 * 40) / 20
    assert_eq!(decider.decide(at(70), 5).stable, 25.0);
}

#[test]
fn another_metric_starts_over() {
    let mut decider = fed(spec(), 1..=60, 50.0);
    decider.update_spec(DeciderSpec { metric: ScalingMetric::Rps, ..spec() }).expect("spec is valid");
    assert_eq!(decider.decide(at(60), 1).stable, 0.0);
}

#[test]
fn senseless_specs_are_refused_and_change_nothing() {
    let refused = |spec| Decider::new(spec, at(0), 0).expect_err("spec is wrong");
    let target = Target { value: 0.0, total: 1.0 };
    assert_eq!(refused(DeciderSpec { target, ..spec() }), SpecError::Target(0.0));
    assert!(matches!(refused(DeciderSpec { max_scale_up_rate: 0.5, ..spec() }), SpecError::Rate { .. }));
    assert!(matches!(refused(DeciderSpec { max_scale_down_rate: f64::NAN, ..spec() }), SpecError::Rate { .. }));
    let instant = DeciderSpec { stable_window: Duration::ZERO, ..spec() };
    assert_eq!(refused(instant), SpecError::StableWindow(Duration::ZERO));
    let mut decider = decider(spec());
    decider.update_spec(instant).expect_err("spec is wrong");
    assert_eq!(decider.spec(), &spec());
}
