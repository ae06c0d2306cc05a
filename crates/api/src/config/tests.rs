use std::{collections::BTreeMap, time::Duration};

use expect_test::{Expect, expect};

use super::*;

fn map(pairs: &[(&str, &str)]) -> Data {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn refuses<T: std::fmt::Debug>(result: Result<T, ConfigError>, expected: Expect) {
    expected.assert_eq(&result.expect_err("the map breaks a rule").to_string());
}

#[test]
fn absent_keys_take_their_defaults() {
    let none = Data::new();
    assert_eq!(AutoscalerConfig::parse(&none), Ok(AutoscalerConfig::default()));
    assert_eq!(CertmanagerConfig::parse(&none), Ok(CertmanagerConfig::default()));
    assert_eq!(DefaultsConfig::parse(&none), Ok(DefaultsConfig::default()));
    assert_eq!(DomainConfig::parse(&none), Ok(DomainConfig::default()));
    assert_eq!(Features::parse(&none), Features::default());
    assert_eq!(GarbageCollectionConfig::parse(&none), Ok(GarbageCollectionConfig::default()));
    assert_eq!(LeaderElectionConfig::parse(&none), Ok(LeaderElectionConfig::default()));
    assert_eq!(LoggingConfig::parse(&none), Ok(LoggingConfig::default()));
    assert_eq!(NetworkConfig::parse(&none), Ok(NetworkConfig::default()));
    assert_eq!(ObservabilityConfig::parse(&none), Ok(ObservabilityConfig::default()));
    let image = map(&[("queue-sidecar-image", "q")]);
    let expected = DeploymentConfig { queue_sidecar_image: "q".into(), ..DeploymentConfig::default() };
    assert_eq!(DeploymentConfig::parse(&image), Ok(expected));
}

#[test]
fn the_concurrency_percentage_may_be_a_fraction() {
    for (raw, expected) in [("85", 0.85), ("0.6", 0.6), ("1", 1.0)] {
        let config = AutoscalerConfig::parse(&map(&[("container-concurrency-target-percentage", raw)]));
        assert_eq!(config.expect("in range").container_concurrency_target_fraction, expected);
    }
}

#[test]
fn autoscaler_values_have_bounds() {
    let refuse = |pairs: &[(&str, &str)], expected| refuses(AutoscalerConfig::parse(&map(pairs)), expected);
    refuse(&[("max-scale-up-rate", "1")], expect!["max-scale-up-rate = 1, must be greater than 1.0"]);
    refuse(&[("stable-window", "5s")], expect!["stable-window = 5s, must be in [6s; 1h0m0s] range"]);
    refuse(
        &[("stable-window", "10500ms")],
        expect!["stable-window = 10.5s, must be specified with at most second precision"],
    );
    refuse(
        &[("target-burst-capacity", "-2")],
        expect!["target-burst-capacity must be either non-negative or -1 (for unlimited), was: -2.000000"],
    );
    refuse(
        &[("initial-scale", "0")],
        expect!["initial-scale = 0, must be at least 0 (or at least 1 when allow-zero-initial-scale is false)"],
    );
    refuse(&[("max-scale-limit", "3")], expect!["max-scale = 0, must be in [1, max-scale-limit(3)] range"]);
    refuse(&[("min-scale", "3"), ("max-scale", "2")], expect!["min-scale (3) must be less than max-scale (2)"]);
    refuse(
        &[("min-scale", "x")],
        expect![[r#"failed to parse "min-scale": strconv.ParseInt: parsing "x": invalid syntax"#]],
    );
    refuse(
        &[("enable-scale-to-zero", "yes")],
        expect![[r#"failed to parse "enable-scale-to-zero": strconv.ParseBool: parsing "yes": invalid syntax"#]],
    );
    refuse(&[("scale-down-delay", "-1s")], expect!["scale-down-delay cannot be negative, was: -1s"]);
    let zero = map(&[("initial-scale", "0"), ("allow-zero-initial-scale", "true")]);
    assert_eq!(AutoscalerConfig::parse(&zero).expect("zero is allowed").initial_scale, 0);
}

#[test]
fn timeouts_stay_below_each_other() {
    let refuse = |pairs: &[(&str, &str)], expected| refuses(DefaultsConfig::parse(&map(pairs)), expected);
    refuse(
        &[("revision-timeout-seconds", "601")],
        expect!["revision-timeout-seconds (601) cannot be greater than max-revision-timeout-seconds (600)"],
    );
    refuse(
        &[("revision-idle-timeout-seconds", "301")],
        expect!["revision-idle-timeout-seconds (301) cannot be greater than revision-timeout-seconds (300)"],
    );
    let config = DefaultsConfig::parse(&map(&[("revision-timeout-seconds", "100")])).expect("in range");
    assert_eq!(config.revision_response_start_timeout_seconds, 100);
}

#[test]
fn container_names_are_templates_over_the_parent() {
    let config =
        DefaultsConfig::parse(&map(&[("container-name-template", "{{.Name}}-{{.Namespace}}")])).expect("a template");
    let meta = serde_json::json!({"name": "hello", "namespace": "ns"});
    assert_eq!(config.container_name_template.render(&meta_data(&meta)).as_deref(), Ok("hello-ns"));
    assert!(DefaultsConfig::parse(&map(&[("container-name-template", "{{.Nope}}")])).is_err());
}

#[test]
fn service_links_have_three_states() {
    for (raw, expected) in [("true", Some(true)), ("FALSE", Some(false)), ("default", None)] {
        let config = DefaultsConfig::parse(&map(&[("enable-service-links", raw)])).expect("any text is fine");
        assert_eq!(config.enable_service_links, expected);
    }
}

#[test]
fn collection_can_be_switched_off() {
    let config = GarbageCollectionConfig::parse(&map(&[
        ("retain-since-create-time", "Disabled"),
        ("retain-since-last-active-time", "2h"),
        ("max-non-active-revisions", "disabled"),
    ]));
    let expected = GarbageCollectionConfig {
        retain_since_create_time: None,
        retain_since_last_active_time: Some(Duration::from_secs(7200)),
        min_non_active_revisions: 20,
        max_non_active_revisions: None,
    };
    assert_eq!(config, Ok(expected));
    refuses(
        GarbageCollectionConfig::parse(&map(&[("max-non-active-revisions", "3")])),
        expect!["min-non-active-revisions(20) must be <= max-non-active-revisions(3)"],
    );
}

#[test]
fn the_most_specific_domain_wins() {
    let config = DomainConfig::parse(&map(&[
        ("example.com", ""),
        ("b.org", "selector:\n  app: prod"),
        ("a.org", "selector:\n  app: prod"),
        ("deep.org", "selector:\n  app: prod\n  tier: front"),
        ("_example", "not: [yaml"),
    ]))
    .expect("yaml");
    let lookup = |pairs: &[(&str, &str)]| config.lookup(&map(pairs));
    assert_eq!(lookup(&[]), "example.com");
    assert_eq!(lookup(&[("app", "prod")]), "a.org");
    assert_eq!(lookup(&[("app", "prod"), ("tier", "front")]), "deep.org");
    let local = ("networking.knative.dev/visibility", "cluster-local");
    assert_eq!(lookup(&[("app", "prod"), local]), "svc.cluster.local");
    assert!(config.domains["example.com"].wildcard);
    assert!(!config.domains["a.org"].wildcard);
}

#[test]
fn without_a_default_domain_the_cluster_domain_is_one() {
    let config = DomainConfig::parse(&map(&[("a.org", "selector:\n  app: prod\ntype: wildcard")])).expect("yaml");
    assert_eq!(config.lookup(&Data::new()), "svc.cluster.local");
    assert!(config.domains["a.org"].wildcard);
}

#[test]
fn unknown_flag_values_are_ignored() {
    let config = Features::parse(&map(&[
        ("multi-container", "maybe"),
        ("kubernetes.podspec-affinity", "ALLOWED"),
        ("secure-pod-defaults", "allowRootBounded"),
        ("tag-header-based-routing", "enabled"),
    ]));
    assert_eq!(config.multi_container, Flag::Enabled);
    assert_eq!(config.pod_spec_affinity, Flag::Allowed);
    assert_eq!(config.secure_pod_defaults, SecurePodDefaults::AllowRootBounded);
    assert!(config.tag_header_based_routing.is_enabled());
}

#[test]
fn hosts_come_from_templates() {
    let config = NetworkConfig::parse(&map(&[
        ("domain-template", r#"{{.Name}}-{{index .Annotations "sub"}}.{{.Namespace}}.{{.Domain}}"#),
        ("tag-template", "{{.Name}}-{{.Tag}}"),
    ]))
    .expect("templates");
    let host = config.host("hello", "ns", "example.com", &map(&[("sub", "x")]), &Data::new());
    assert_eq!(host.as_deref(), Ok("hello-x.ns.example.com"));
    assert_eq!(config.tagged_name("hello", "v2").as_deref(), Ok("hello-v2"));
    assert_eq!(config.tagged_name("hello", "").as_deref(), Ok("hello"));
    assert_eq!(NetworkConfig::default().tagged_name("hello", "v2").as_deref(), Ok("v2-hello"));
}

#[test]
fn templates_must_give_a_host() {
    let refuse = |pairs: &[(&str, &str)], expected| refuses(NetworkConfig::parse(&map(pairs)), expected);
    refuse(&[("domain-template", "{{.Domain}}/{{.Name}}")], expect!["domain template has url path: /foo"]);
    refuse(&[("domain-template", "")], expect!["empty hostname"]);
    refuse(
        &[("domain-template", "{{.Nope}}")],
        expect![[r#"failed to parse "domain-template": template: can't evaluate field Nope"#]],
    );
    refuse(&[("http-protocol", "maybe")], expect!["httpProtocol maybe in config-network ConfigMap is not supported"]);
    refuse(
        &[("system-internal-tls", "on")],
        expect![[r#"system-internal-tls with value: "on" in config-network ConfigMap is not supported"#]],
    );
    refuse(&[("rollout-duration", "-1")], expect!["rollout-duration must be a positive integer, but was -1"]);
}

#[test]
fn legacy_keys_give_way_to_new_ones() {
    let config = NetworkConfig::parse(&map(&[
        ("ingress.class", "old"),
        ("ingress-class", "new"),
        ("certificate.class", "old"),
        ("autoTLS", "Enabled"),
    ]))
    .expect("values");
    assert_eq!((config.ingress_class.as_str(), config.certificate_class.as_str()), ("new", "old"));
    assert!(config.external_domain_tls);
    let off = NetworkConfig::parse(&map(&[("auto-tls", "enabled"), ("external-domain-tls", "true")])).expect("values");
    assert!(!off.external_domain_tls);
}

#[test]
fn runtime_classes_are_chosen_by_labels() {
    let config = DeploymentConfig::parse(&map(&[
        ("queue-sidecar-image", "q"),
        ("runtime-class-name", "kata:\n  selector:\n    kind: risky\ngvisor: {}\n"),
    ]))
    .expect("yaml");
    assert_eq!(config.runtime_class(&map(&[("kind", "risky")])), Some("kata"));
    assert_eq!(config.runtime_class(&Data::new()), Some("gvisor"));
    refuses(DeploymentConfig::parse(&Data::new()), expect!["queue-sidecar-image cannot be empty or unset"]);
    refuses(
        DeploymentConfig::parse(&map(&[("queue-sidecar-image", "q"), ("default-affinity-type", "x")])),
        expect![[r#"unsupported default-affinity-type value: "x""#]],
    );
}

#[test]
fn exporters_need_an_endpoint() {
    let refuse = |pairs: &[(&str, &str)], expected| refuses(ObservabilityConfig::parse(&map(pairs)), expected);
    refuse(&[("metrics-protocol", "grpc")], expect![[r#"endpoint should be set when protocol is "grpc""#]]);
    refuse(&[("request-metrics-endpoint", "x")], expect![[r#"endpoint should not be set when protocol is "none""#]]);
    refuse(&[("tracing-sampling-rate", "2")], expect!["sampling rate 2.000000 should be less than or equal to one"]);
    refuse(
        &[("logging.enable-request-log", "true"), ("logging.request-log-template", "")],
        expect![[
            r#""logging.enable-request-log" was set to true, but no "logging.request-log-template" was specified"#
        ]],
    );
}

#[test]
fn components_have_their_own_levels() {
    let config =
        LoggingConfig::parse(&map(&[("zap-logger-config", r#"{"level": "warn"}"#), ("loglevel.controller", "debug")]))
            .expect("levels");
    assert_eq!((config.level("controller"), config.level("webhook")), (Level::Debug, Level::Warn));
    assert!(LoggingConfig::parse(&map(&[("loglevel.controller", "loud")])).is_err());
}

#[test]
fn a_bad_map_keeps_the_last_good_values() {
    let maps = |window: &str| BTreeMap::from([("config-autoscaler".to_owned(), map(&[("stable-window", window)]))]);
    let good = ConfigBundle::default().updated(&maps("30s"));
    assert_eq!(good.autoscaler.stable_window, Duration::from_secs(30));
    assert!(good.errors.is_empty());
    let bad = good.updated(&maps("1s"));
    assert_eq!(bad.autoscaler, good.autoscaler);
    assert_eq!(bad.errors.keys().collect::<Vec<_>>(), ["config-autoscaler"]);
    assert_eq!(bad.updated(&BTreeMap::new()), ConfigBundle::default());
}

#[test]
fn example_checksums_ignore_blank_lines_and_outer_space() {
    assert_eq!(checksum("a\n\n\r\nb\n"), checksum("  a\nb"));
    assert_ne!(checksum("a\nb"), checksum("a b"));
}

#[test]
fn a_domain_stands_in_until_a_rule_for_every_route_is_written() {
    let parse = |pairs: &[(&str, &str)]| {
        let data = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        super::DomainConfig::parse(&data).expect("parses").or_else("localhost")
    };
    let any = std::collections::BTreeMap::new();
    assert_eq!(parse(&[]).lookup(&any), "localhost");
    assert_eq!(parse(&[("team.example", "selector: {team: a}")]).lookup(&any), "localhost");
    assert_eq!(parse(&[("apps.example", "")]).lookup(&any), "apps.example");
    assert_eq!(parse(&[("svc.cluster.local", "")]).lookup(&any), "svc.cluster.local");
}
