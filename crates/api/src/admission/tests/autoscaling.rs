use expect_test::expect;

use super::*;

fn with(pairs: &[(&str, &str)]) -> String {
    with_config(Check::new(), pairs)
}

fn with_config(check: Check, pairs: &[(&str, &str)]) -> String {
    let annotations: serde_json::Map<String, Value> =
        pairs.iter().map(|&(key, value)| (format!("autoscaling.knative.dev/{key}"), json!(value))).collect();
    let mut object = service();
    object["spec"]["template"]["metadata"] = json!({"annotations": annotations});
    let found = check.errors(Kind::Service, object);
    // The path is always the same; what is told is short this way.
    found.replace("spec.template.metadata.annotations.autoscaling.knative.dev/", "~")
}

#[test]
fn scales_are_whole_and_in_order() {
    assert_eq!(with(&[("min-scale", "1"), ("max-scale", "2"), ("activation-scale", "2")]), "");
    expect!["expected 0 <= -1 <= 2147483647: ~min-scale"].assert_eq(&with(&[("min-scale", "-1")]));
    expect!["expected 0 <= 2147483648 <= 2147483647: ~maxScale"].assert_eq(&with(&[("maxScale", "2147483648")]));
    expect!["invalid value: two: ~min-scale"].assert_eq(&with(&[("min-scale", "two")]));
    expect!["max-scale=1 is less than min-scale=2: ~max-scale, ~min-scale"]
        .assert_eq(&with(&[("min-scale", "2"), ("max-scale", "1")]));
    expect!["activation-scale=1 must be greater than 1: ~activation-scale"]
        .assert_eq(&with(&[("activation-scale", "1")]));
    expect!["min-scale=3 is greater than activation-scale=2: ~activation-scale"]
        .assert_eq(&with(&[("activation-scale", "2"), ("min-scale", "3")]));
    expect!["max-scale=2 is less than activation-scale=3: ~activation-scale"]
        .assert_eq(&with(&[("activation-scale", "3"), ("max-scale", "2")]));
}

#[test]
fn the_cluster_may_limit_the_greatest_scale() {
    let limited = || {
        let mut check = Check::new();
        check.config.autoscaler.max_scale_limit = 5;
        check
    };
    expect!["expected 1 <= 6 <= 5: ~max-scale"].assert_eq(&with_config(limited(), &[("max-scale", "6")]));
    expect!["max-scale=0 (unlimited), must be less than 5: ~max-scale"]
        .assert_eq(&with_config(limited(), &[("max-scale", "0")]));
}

#[test]
fn the_initial_scale_may_be_zero_where_the_cluster_allows() {
    expect!["invalid value: 0: ~initial-scale=0 not allowed by cluster"].assert_eq(&with(&[("initial-scale", "0")]));
    expect!["invalid value: -1: ~initial-scale must be greater than 0"].assert_eq(&with(&[("initial-scale", "-1")]));
    let mut check = Check::new();
    check.config.autoscaler.allow_zero_initial_scale = true;
    assert_eq!(with_config(check, &[("initial-scale", "0")]), "");
}

#[test]
fn numbers_have_bounds() {
    expect!["target 0.001 should be at least 0.01: ~target"].assert_eq(&with(&[("target", "0.001")]));
    expect!["expected 1 <= 0 <= 100: ~target-utilization-percentage"]
        .assert_eq(&with(&[("target-utilization-percentage", "0")]));
    expect!["expected 110 <= 100 <= 1000: ~panic-threshold-percentage"]
        .assert_eq(&with(&[("panic-threshold-percentage", "100")]));
    expect!["expected 1 <= 101 <= 100: ~panicWindowPercentage"].assert_eq(&with(&[("panicWindowPercentage", "101")]));
    expect!["invalid value: -2: ~target-burst-capacity"].assert_eq(&with(&[("target-burst-capacity", "-2")]));
    assert_eq!(with(&[("target-burst-capacity", "-1")]), "");
}

#[test]
fn spans_have_bounds_and_precision() {
    expect!["expected 6s <= 5s <= 1h0m0s: ~window"].assert_eq(&with(&[("window", "5s")]));
    expect!["must be specified with at most second precision: ~window"].assert_eq(&with(&[("window", "6.5s")]));
    expect!["invalid value: 60: ~window"].assert_eq(&with(&[("window", "60")]));
    expect!["expected 0s <= 2h <= 1h0m0s: ~scale-down-delay"].assert_eq(&with(&[("scale-down-delay", "2h")]));
    expect!["must be specified with at most second precision: ~scale-down-delay"]
        .assert_eq(&with(&[("scale-down-delay", "1ms")]));
    expect!["expected 0s <= -1s <= 1h0m0s: ~scale-to-zero-pod-retention-period"]
        .assert_eq(&with(&[("scale-to-zero-pod-retention-period", "-1s")]));
    assert_eq!(with(&[("scale-to-zero-pod-retention-period", "1ms")]), "");
}

#[test]
fn classes_and_metrics_belong_together() {
    expect!["invalid value: x.autoscaling.knative.dev: ~class"]
        .assert_eq(&with(&[("class", "x.autoscaling.knative.dev")]));
    assert_eq!(with(&[("class", "keda.sh"), ("metric", "anything"), ("metric-aggregation-algorithm", "own")]), "");
    expect!["invalid value: cpu: ~metric"].assert_eq(&with(&[("metric", "cpu")]));
    assert_eq!(with(&[("metric", "rps")]), "");
    let hpa = ("class", "hpa.autoscaling.knative.dev");
    assert_eq!(with(&[hpa, ("metric", "memory")]), "");
    expect!["invalid value: : ~metric"].assert_eq(&with(&[hpa, ("metric", "")]));
    let kpa = ("class", "kpa.autoscaling.knative.dev");
    expect!["invalid value: median: ~metric-aggregation-algorithm"]
        .assert_eq(&with(&[kpa, ("metric-aggregation-algorithm", "median")]));
}
