use std::collections::BTreeMap;

use expect_test::expect;

use super::*;
use crate::config::{Data, eventing};

/// Eventing as it is shipped, but for these keys of `config-features`.
fn eventing(features: &[(&str, &str)]) -> Check {
    with_maps(&[("config-features", features)])
}

fn with_maps(changes: &[(&str, &[(&str, &str)])]) -> Check {
    let mut maps: BTreeMap<String, Data> =
        eventing::NAMES.iter().map(|name| ((*name).to_owned(), eventing::shipped(name))).collect();
    for (name, pairs) in changes {
        let map = maps.entry((*name).to_owned()).or_default();
        map.extend(pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())));
    }
    let bundle = EventingBundle::default().updated(&maps);
    assert_eq!(bundle.errors, BTreeMap::new());
    Check { eventing: bundle, ..Check::new() }
}

fn named(spec: Value) -> Value {
    json!({"metadata": {"name": "x", "namespace": "ns"}, "spec": spec})
}

fn sink() -> Value {
    json!({"uri": "http://example.com/"})
}

fn trigger(more: Value) -> Value {
    let mut spec = json!({"broker": "b", "subscriber": sink()});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    named(spec)
}

fn object(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "name": name})
}

#[test]
fn a_broker_gets_class_configuration_and_delivery() {
    let check = eventing(&[]);
    let broker = check.defaulted(Kind::Broker, named(json!({})));
    assert_eq!(broker["metadata"]["annotations"], json!({"eventing.knative.dev/broker.class": "MTChannelBasedBroker"}));
    let expected = json!({
        "config": {"apiVersion": "v1", "kind": "ConfigMap", "name": "config-br-default-channel", "namespace": "knative-eventing"},
        "delivery": {"retry": 10, "backoffPolicy": "exponential", "backoffDelay": "PT0.2S"},
    });
    assert_eq!(broker["spec"], expected);
    assert_eq!(check.errors(Kind::Broker, named(json!({}))), "");
    // What is said is said, as a whole; what it lacks of a namespace is its own.
    let said = named(json!({
        "config": {"apiVersion": "v1", "kind": "ConfigMap", "name": "c"},
        "delivery": {"retry": 1, "deadLetterSink": {"ref": object("d")}},
    }));
    let broker = check.defaulted(Kind::Broker, said);
    assert_eq!(broker["spec"]["config"]["namespace"], "ns");
    assert_eq!(broker["spec"]["delivery"]["deadLetterSink"]["ref"]["namespace"], "ns");
    assert_eq!(broker["spec"]["delivery"].get("backoffPolicy"), None);
}

#[test]
fn a_broker_without_any_defaults_must_name_its_class() {
    expect!["missing field(s): eventing.knative.dev/broker.class"]
        .assert_eq(&Check::new().errors(Kind::Broker, named(json!({}))));
}

#[test]
fn only_some_of_a_default_delivery_is_taken() {
    let text = "clusterDefault: {brokerClass: A, delivery: {timeout: PT1S, format: json, retry: 3, deadLetterSink: {uri: 'http://d'}}}";
    let check = with_maps(&[("config-br-defaults", &[("default-br-config", text)])]);
    let broker = check.defaulted(Kind::Broker, named(json!({})));
    assert_eq!(broker["spec"], json!({"delivery": {"retry": 3, "deadLetterSink": {"uri": "http://d"}}}));
}

#[test]
fn a_brokers_configuration_may_have_to_be_near() {
    let far = || named(json!({"config": {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "namespace": "far"}}));
    assert_eq!(eventing(&[]).errors(Kind::Broker, far()), "");
    let text = "clusterDefault: {brokerClass: A, disallowDifferentNamespaceConfig: true}";
    let check = with_maps(&[("config-br-defaults", &[("default-br-config", text)])]);
    expect![[r#"
        mismatched namespaces: spec.config.namespace
        parent namespace: "ns" does not match ref: "far""#]]
    .assert_eq(&check.errors(Kind::Broker, far()));
}

#[test]
fn class_and_configuration_of_a_broker_stay_and_its_delivery_may_change() {
    let check = eventing(&[]);
    let old = check.defaulted(Kind::Broker, named(json!({})));
    let mut new = old.clone();
    new["spec"]["delivery"]["retry"] = json!(2);
    assert_eq!(check.update_errors(Kind::Broker, &old, new.clone()), "");
    new["spec"]["config"]["name"] = json!("other");
    let expected = "Immutable fields changed (-old +new): spec\n\
                    {v1.BrokerSpec}.Config.Name:\n\t-: \"config-br-default-channel\"\n\t+: \"other\"\n";
    assert_eq!(check.update_errors(Kind::Broker, &old, new), expected);
    let mut new = old.clone();
    new["metadata"]["annotations"]["eventing.knative.dev/broker.class"] = json!("Other");
    let expected = "Immutable annotations changed (-old +new): annotations\n\
                    {string}:\n\t-: \"MTChannelBasedBroker\"\n\t+: \"Other\"\n";
    assert_eq!(check.update_errors(Kind::Broker, &old, new), expected);
}

#[test]
fn a_trigger_gets_a_filter_a_label_and_namespaces() {
    let spec = json!({"broker": "b", "subscriber": {"ref": object("s")}, "delivery": {"deadLetterSink": {"ref": object("d")}}});
    let trigger = eventing(&[]).defaulted(Kind::Trigger, named(spec));
    assert_eq!(trigger["metadata"]["labels"], json!({"eventing.knative.dev/broker": "b"}));
    assert_eq!(trigger["spec"]["filter"], json!({}));
    assert_eq!(trigger["spec"]["subscriber"]["ref"]["namespace"], "ns");
    assert_eq!(trigger["spec"]["delivery"]["deadLetterSink"]["ref"]["namespace"], "ns");
    let spec = json!({"brokerRef": {"apiVersion": "v1", "kind": "Broker", "name": "r", "namespace": "far"}, "subscriber": sink()});
    let linked = eventing(&[("cross-namespace-event-links", "enabled")]);
    let trigger = linked.defaulted(Kind::Trigger, named(spec.clone()));
    assert_eq!(trigger["metadata"]["labels"], json!({"eventing.knative.dev/broker": "r"}));
    assert_eq!(linked.errors(Kind::Trigger, named(spec.clone())), "");
    expect![[r#"
        must not set the field(s): spec.namespace
        only name, apiVersion and kind are supported fields when feature.CrossNamespaceEventLinks is disabled"#]]
    .assert_eq(&eventing(&[]).errors(Kind::Trigger, named(spec)));
}

#[test]
fn a_trigger_names_one_broker_that_stays() {
    let check = eventing(&[]);
    expect!["missing field(s): spec.broker"]
        .assert_eq(&check.errors(Kind::Trigger, named(json!({"subscriber": sink()}))));
    let both = json!({"brokerRef": {"apiVersion": "v1", "kind": "Broker", "name": "r"}});
    expect!["expected exactly one, got both: spec.broker, spec.brokerRef"]
        .assert_eq(&check.errors(Kind::Trigger, trigger(both)));
    let (old, new) = (trigger(json!({})), trigger(json!({"broker": "c"})));
    let expected = "Immutable fields changed (-old +new): broker, spec\n{string}:\n\t-: \"b\"\n\t+: \"c\"\n";
    assert_eq!(check.update_errors(Kind::Trigger, &old, new), expected);
    expect!["expected at least one, got none: spec.subscriber.ref, spec.subscriber.uri"]
        .assert_eq(&check.errors(Kind::Trigger, named(json!({"broker": "b"}))));
}

#[test]
fn a_filter_has_one_dialect_and_names_of_attributes() {
    let told = |filters: Value| eventing(&[]).errors(Kind::Trigger, trigger(json!({"filters": filters})));
    assert_eq!(
        told(json!([{"exact": {"type": "a"}}, {"not": {"any": [{"prefix": {"source": "x"}}]}}, {"cesql": "TRUE"}])),
        ""
    );
    expect!["multiple dialects found, filters can have only one dialect set: "]
        .assert_eq(&told(json!([{"exact": {"type": "a"}, "prefix": {"type": "b"}}])));
    expect!["multiple dialects found, filters can have only one dialect set: "]
        .assert_eq(&told(json!([{"all": [{"not": {}, "cesql": "TRUE"}]}])));
    expect![[r#"
        invalid key name "Type": spec.filters[0].any[0].exact[Type]
        Attribute name must start with a letter and can only contain lowercase alphanumeric
        invalid key name "s-pace": spec.filters[1].not.suffix[s-pace]
        Attribute name must start with a letter and can only contain lowercase alphanumeric"#]]
    .assert_eq(&told(json!([{"any": [{"exact": {"Type": "a"}}]}, {"not": {"suffix": {"s-pace": ""}}}])));
    let attributes = json!({"filter": {"attributes": {"123": "x", "a1": "", "b_c": ""}}});
    expect![[r#"
        invalid key name "123": spec.filter.attributes[123]
        Attribute name must start with a letter and can only contain lowercase alphanumeric
        invalid key name "b_c": spec.filter.attributes[b_c]
        Attribute name must start with a letter and can only contain lowercase alphanumeric"#]]
    .assert_eq(&eventing(&[]).errors(Kind::Trigger, trigger(attributes)));
    let deep = (0..40).fold(json!({"exact": {"type": "a"}}), |inner, _| json!({"not": inner}));
    assert!(told(json!([deep])).starts_with("filters are nested more than 32 deep: spec.filters[0].not.not"));
}

#[test]
fn an_expression_that_does_not_compile_is_refused_and_a_doubtful_one_is_told() {
    let check = eventing(&[]);
    let found = |cesql: &str| {
        let new = trigger(json!({"filters": [{"all": [{"cesql": cesql}]}]}));
        let (errors, warnings) = validate(Kind::Trigger, Operation::Create, &new, None, &check.context());
        (errors.to_string(), warnings.to_string())
    };
    assert_eq!(found("type = 'a' AND EXISTS subject"), Default::default());
    expect![[r#"
        invalid value: type = 'a: spec.filters[0].all[0].cesql
        at character 8: the text that begins here does not end with '"#]]
    .assert_eq(&found("type = 'a").0);
    for bad in [
        "type == 'es.t'",
        "type =",
        "LIKE 'x'",
        "type LIKE source",
        "LENGTH(",
        "'abc",
        "type = 'a' AND",
        "type = 'a' && id = 'b'",
        "99999999999 > 1",
    ] {
        let head = format!("invalid value: {bad}: spec.filters[0].all[0].cesql\nat character ");
        assert!(found(bad).0.starts_with(&head), "{}", found(bad).0);
    }
    let (errors, warnings) = found("type = 'a' AND NOWHERE(id)");
    assert_eq!(errors, "");
    expect!["there is no function NOWHERE of 1 arguments: to call it is an error: spec.filters[0].all[0].cesql"]
        .assert_eq(&warnings);
    let policy = json!({"filters": [{"cesql": "("}]});
    let told = eventing(&[("authentication-oidc", "enabled")]).errors(Kind::EventPolicy, named(policy));
    assert!(told.starts_with("invalid value: (: spec.filters[0].cesql\nat character 2: "), "{told}");
}

#[test]
fn annotations_of_a_trigger_make_sense() {
    let told = |broker: &str, key: &str, value: &str| {
        let mut object = trigger(json!({"broker": broker}));
        object["metadata"]["annotations"] = json!({key: value});
        eventing(&[]).errors(Kind::Trigger, object)
    };
    let injection = "eventing.knative.dev/injection";
    assert_eq!(told("default", injection, "enabled"), "");
    expect![[r#"The provided injection annotation value can only be "enabled" or "disabled", not "yes": metadata.annotations[eventing.knative.dev/injection]"#]]
    .assert_eq(&told("default", injection, "yes"));
    expect![[r#"The provided injection annotation is only used for default broker, but non-default broker specified here: "b": metadata.annotations[eventing.knative.dev/injection]"#]]
    .assert_eq(&told("b", injection, "enabled"));
    let dependency = "knative.dev/dependency";
    assert_eq!(
        told("b", dependency, r#"{"kind": "PingSource", "name": "p", "apiVersion": "sources.knative.dev/v1"}"#),
        ""
    );
    expect![[r#"
        Namespace must be empty or equal to the trigger namespace "ns": metadata.annotations[knative.dev/dependency].namespace
        missing field(s): metadata.annotations[knative.dev/dependency].apiVersion, metadata.annotations[knative.dev/dependency].kind, metadata.annotations[knative.dev/dependency].name"#]]
    .assert_eq(&told("b", dependency, r#"{"namespace": "far"}"#));
    assert!(told("b", dependency, "x").starts_with(
        r#"The provided annotation was not a corev1.ObjectReference: "x": metadata.annotations[knative.dev/dependency]"#
    ));
}

#[test]
fn deliveries_have_bounds() {
    let told = |features: &[(&str, &str)], delivery: Value| {
        eventing(features).errors(Kind::Trigger, trigger(json!({"delivery": delivery})))
    };
    let all = json!({
        "deadLetterSink": sink(), "retry": 3, "timeout": "PT1S", "backoffPolicy": "linear", "backoffDelay": "PT0.5S",
        "format": "binary",
    });
    assert_eq!(told(&[], all), "");
    expect![[r#"
        expected at least one, got none: spec.delivery.deadLetterSink.ref, spec.delivery.deadLetterSink.uri
        invalid value: -1: spec.delivery.retry
        invalid value: 1s: spec.delivery.backoffDelay
        invalid value: PT0S: spec.delivery.timeout
        invalid value: fibonacci: spec.delivery.backoffPolicy
        invalid value: xml: spec.delivery.format
        must not set the field(s): spec.delivery.retryAfterMax"#]]
    .assert_eq(&told(
        &[],
        json!({"deadLetterSink": {}, "retry": -1, "backoffDelay": "1s", "timeout": "PT0S", "backoffPolicy": "fibonacci",
               "format": "xml", "retryAfterMax": "PT1S"}),
    ));
    let off = [("delivery-timeout", "disabled"), ("delivery-retryafter", "enabled")];
    expect![[r#"
        invalid value: -PT1S: spec.delivery.retryAfterMax
        must not set the field(s): spec.delivery.timeout"#]]
    .assert_eq(&told(&off, json!({"timeout": "PT1S", "retryAfterMax": "-PT1S"})));
    assert_eq!(told(&off, json!({"retryAfterMax": "PT0S"})), "");
}

#[test]
fn a_policy_is_made_only_where_senders_are_known() {
    let policy = |spec: Value| named(spec);
    expect!["oidc-authentication feature not enabled: "]
        .assert_eq(&eventing(&[]).errors(Kind::EventPolicy, policy(json!({}))));
    let check = eventing(&[("authentication-oidc", "enabled")]);
    let sender = json!({"apiVersion": "sources.knative.dev/v1", "kind": "PingSource", "name": "p"});
    let made = check.defaulted(Kind::EventPolicy, policy(json!({"from": [{"ref": sender}, {"sub": "system:*"}]})));
    assert_eq!(made["spec"]["from"][0]["ref"]["namespace"], "ns");
    assert_eq!(check.errors(Kind::EventPolicy, made.clone()), "");
    assert_eq!(eventing(&[]).update_errors(Kind::EventPolicy, &made, made.clone()), "", "one that is there may change");
    expect![[r#"
        expected exactly one, got both: spec.from[1].ref, spec.from[1].sub, spec.to[1].ref, spec.to[1].selector
        expected exactly one, got neither: spec.from[0].ref, spec.from[0].sub, spec.to[0].ref, spec.to[0].selector
        invalid value: a*b: spec.from[2].sub
        '*' is only allowed as suffix
        missing field(s): spec.to[1].ref.name"#]]
    .assert_eq(&check.errors(
        Kind::EventPolicy,
        policy(json!({
            "from": [{"sub": ""}, {"ref": sender, "sub": "x"}, {"sub": "a*b"}],
            "to": [{}, {"ref": {"apiVersion": "v1", "kind": "K"}, "selector": {"kind": "K"}}],
        })),
    ));
}

#[test]
fn a_transformation_needs_an_expression_and_its_reply_a_sink() {
    let told = |spec: Value| eventing(&[]).errors(Kind::EventTransform, named(spec));
    let jsonata = json!({"expression": "{}"});
    assert_eq!(told(json!({"jsonata": jsonata, "sink": sink(), "reply": {"discard": true}})), "");
    expect!["expected exactly one, got neither: spec.jsonata"].assert_eq(&told(json!({})));
    expect!["reply is set without spec.sink: spec.reply"].assert_eq(&told(json!({"jsonata": jsonata, "reply": {}})));
    expect!["expected exactly one, got both: spec.reply.discard, spec.reply.jsonata"]
        .assert_eq(&told(json!({"jsonata": jsonata, "sink": sink(), "reply": {"discard": true, "jsonata": jsonata}})));
    let far = json!({"ref": {"apiVersion": "v1", "kind": "Service", "name": "s", "namespace": "far"}});
    assert!(
        told(json!({"jsonata": jsonata, "sink": far})).starts_with("mismatched namespaces: spec.sink.ref.namespace")
    );
}

#[test]
fn each_version_of_an_event_type_has_its_own_needs() {
    let told = |version: &str, spec: Value| {
        let mut object = named(spec);
        object["apiVersion"] = format!("eventing.knative.dev/{version}").into();
        Check::new().errors(Kind::EventType, object)
    };
    assert_eq!(told("v1beta2", json!({"type": "t", "source": ""})), "");
    expect!["missing field(s): spec.type"].assert_eq(&told("v1beta2", json!({})));
    expect![[r#"
        invalid value: : spec.source
        source URI cannot be empty"#]]
    .assert_eq(&told("v1beta1", json!({"type": "t", "source": ""})));
    expect!["missing field(s): spec.attributes.id, spec.attributes.source"]
        .assert_eq(&told("v1beta3", json!({"attributes": [{"name": "type"}, {"name": "specversion"}]})));
    let mut more = named(json!({"attributes": [
        {"name": "type"}, {"name": "source"}, {"name": "specversion"}, {"name": "id"}, {"name": "subject"}]}));
    more["apiVersion"] = "eventing.knative.dev/v1beta3".into();
    let check = Check::new();
    let (errors, warnings) = validate(Kind::EventType, Operation::Create, &more, None, &check.context());
    assert!(errors.is_empty(), "{errors}");
    expect!["not kept, for only id, schemadata, source, specversion and type are stored: spec.attributes[4]"]
        .assert_eq(&warnings.to_string());
    let reference = json!({"type": "t", "reference": {"apiVersion": "v1", "kind": "Broker", "name": "b"}});
    let made = Check::new().defaulted(Kind::EventType, named(reference));
    assert_eq!(made["spec"]["reference"]["namespace"], "ns");
}

#[test]
fn a_request_waits_for_its_reply_with_attributes_of_its_own() {
    let check = eventing(&[("requestreply-default-timeout", "PT5S")]);
    let broker = json!({"apiVersion": "eventing.knative.dev/v1", "kind": "broker", "name": "b"});
    let made = check.defaulted(Kind::RequestReply, named(json!({"brokerRef": broker})));
    assert_eq!(made["metadata"]["labels"], json!({"eventing.knative.dev/broker": "b"}));
    assert_eq!(
        (&made["spec"]["timeout"], &made["spec"]["correlationAttribute"], &made["spec"]["replyAttribute"]),
        (&json!("PT5S"), &json!("correlationid"), &json!("replyid"))
    );
    assert_eq!(check.errors(Kind::RequestReply, made), "");
    expect![[r#"
        invalid value: PT0S: spec.timeout
        timeout must be a positive duration
        invalid value: Service: spec.brokerRef.kind
        brokerRef kind must be Broker
        invalid value: id: spec.replyattribute
        replyattribute must be non-empty and cannot be a core cloudevent attribute (id, type, specversion, source)"#]]
    .assert_eq(&check.errors(
        Kind::RequestReply,
        named(json!({"brokerRef": object("s"), "timeout": "PT0S", "replyAttribute": "id"})),
    ));
}

#[test]
fn a_channel_is_made_from_the_default_of_its_namespace_and_stays() {
    let text = "clusterDefault: {apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel}\n\
                namespaceDefaults: {ns: {apiVersion: v1, kind: Special, spec: {parts: 3}}}";
    let check = with_maps(&[("default-ch-webhook", &[("default-ch-config", text)])]);
    let channel = check.defaulted(Kind::Channel, named(json!({"delivery": {"retry": 1}})));
    assert_eq!(channel["metadata"]["annotations"], json!({"messaging.knative.dev/subscribable": "v1"}));
    let template = json!({"apiVersion": "v1", "kind": "Special", "spec": {"parts": 3}});
    assert_eq!(channel["spec"]["channelTemplate"], template);
    assert_eq!(check.errors(Kind::Channel, channel.clone()), "");
    let mut new = channel.clone();
    new["spec"]["delivery"]["retry"] = json!(2);
    let expected = "Immutable fields changed (-old +new): spec\n\
                    {v1.ChannelSpec}.Delivery.Retry:\n\t-: \"1\"\n\t+: \"2\"\n";
    assert_eq!(check.update_errors(Kind::Channel, &channel, new), expected);
    expect![[r#"
        missing field(s): spec.channelTemplate.apiVersion
        must not set the field(s): spec.subscribable.subscribers"#]]
    .assert_eq(&check.errors(
        Kind::Channel,
        named(json!({"channelTemplate": {"kind": "InMemoryChannel"}, "subscribers": [{"uid": "u"}]})),
    ));
    expect!["missing field(s): spec.channelTemplate"].assert_eq(&Check::new().errors(Kind::Channel, named(json!({}))));
}

/// A uid is a name in the event log, and goes into lines that are sent.
#[test]
fn subscribers_of_a_channel_have_uids_that_a_subscription_could_have() {
    let check = eventing(&[]);
    let told = |uid: &str| {
        let subscribers = json!([{"uid": uid, "subscriberUri": "http://s"}]);
        check.errors(Kind::InMemoryChannel, named(json!({"subscribers": subscribers})))
    };
    for uid in ["", "u", "5b0d9f0c-6d63-4b8e-8f0a-3a3b1f1b7e55"] {
        assert_eq!(told(uid), "", "{uid:?}");
    }
    for uid in ["a/b", "a\nb", "matched", "é", &"u".repeat(64)] {
        let expected = format!("invalid value: {uid}: spec.subscribers[0].uid\nexpected the uid of a Subscription");
        assert_eq!(told(uid), expected);
    }
}

#[test]
fn subscribers_of_a_channel_change_by_its_controller_alone() {
    let check = eventing(&[]);
    let old = check.defaulted(Kind::InMemoryChannel, named(json!({})));
    assert_eq!(old["metadata"]["annotations"], json!({"messaging.knative.dev/subscribable": "v1"}));
    let mut new = old.clone();
    new["spec"]["subscribers"] = json!([{"uid": "u", "subscriberUri": "http://s"}]);
    let told = |user: &str| {
        let context = Context { user, ..check.context() };
        validate(Kind::InMemoryChannel, Operation::Update, &new, Some(&old), &context).0.to_string()
    };
    assert_eq!(told("system:serviceaccount:knative-eventing:eventing-controller"), "");
    assert_eq!(told("system:serviceaccount:knative-serving:controller"), "");
    let refused = told("alice");
    assert!(
        refused.starts_with(
            "Channel.Spec.Subscribers changed by user alice which was not the \
             system:serviceaccount:knative-eventing:eventing-controller service account: spec.subscribers\n"
        ),
        "{refused}"
    );
    let mut scoped = named(json!({"subscribers": [{"uid": "u"}]}));
    scoped["metadata"]["annotations"] = json!({"eventing.knative.dev/scope": "world"});
    expect![[r#"
        invalid value: world: metadata.annotations.[eventing.knative.dev/scope]
        expected either 'cluster' or 'namespace'
        missing field(s): spec.subscribable.subscriber[0].replyURI, spec.subscribable.subscriber[0].subscriberURI
        expected at least one of, got none"#]]
    .assert_eq(&check.errors(Kind::InMemoryChannel, scoped));
}

#[test]
fn a_subscription_keeps_its_channel() {
    let check = eventing(&[]);
    let channel = json!({"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": "c"});
    let spec = json!({"channel": channel, "subscriber": {"ref": object("s")}, "reply": {"ref": object("r")}});
    let old = check.defaulted(Kind::Subscription, named(spec));
    assert_eq!(
        (&old["spec"]["subscriber"]["ref"]["namespace"], &old["spec"]["reply"]["ref"]["namespace"]),
        (&json!("ns"), &json!("ns"))
    );
    assert_eq!(old["spec"]["channel"].get("namespace"), None);
    assert_eq!(check.errors(Kind::Subscription, old.clone()), "");
    let mut new = old.clone();
    new["spec"]["subscriber"] = sink();
    assert_eq!(check.update_errors(Kind::Subscription, &old, new.clone()), "");
    new["spec"]["channel"]["apiVersion"] = json!("messaging.knative.dev/v2");
    let expected = "Immutable fields changed (-old +new): spec\n{v1.SubscriptionSpec}.Channel.APIVersion:\n\
                    \t-: \"messaging.knative.dev/v1\"\n\t+: \"messaging.knative.dev/v2\"\n";
    assert_eq!(check.update_errors(Kind::Subscription, &old, new), expected);
    expect![[r#"
        missing field(s): spec.channel
        the Subscription must reference a channel"#]]
    .assert_eq(&check.errors(Kind::Subscription, named(json!({}))));
    let far = json!({"apiVersion": "v1", "kind": "Channel", "name": "c", "namespace": "far"});
    expect![[r#"
        missing field(s): spec.subscriber
        the Subscription must reference a subscriber
        must not set the field(s): spec.channel.namespace
        only name, apiVersion and kind are supported fields when feature.CrossNamespaceEventLinks is disabled"#]]
    .assert_eq(&check.errors(Kind::Subscription, named(json!({"channel": far, "subscriber": {}, "reply": {}}))));
}

#[test]
fn flows_are_made_from_the_default_of_the_cluster() {
    let text = "clusterDefault: {apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel}\n\
                namespaceDefaults: {ns: {apiVersion: v1, kind: Special}}";
    let check = with_maps(&[("default-ch-webhook", &[("default-ch-config", text)])]);
    let steps =
        json!({"steps": [{"ref": object("a"), "delivery": {"retry": 1}}, sink()], "reply": {"ref": object("r")}});
    let sequence = check.defaulted(Kind::Sequence, named(steps));
    let template = json!({"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel"});
    assert_eq!(sequence["spec"]["channelTemplate"], template);
    assert_eq!(sequence["spec"]["steps"][0]["ref"]["namespace"], "ns");
    assert_eq!(check.errors(Kind::Sequence, sequence), "");
    expect![[r#"
        expected at least one, got none: spec.steps[0].ref, spec.steps[0].uri
        invalid value: -1: spec.steps[1].delivery.retry"#]]
    .assert_eq(
        &check.errors(Kind::Sequence, named(json!({"steps": [{}, {"uri": "http://x", "delivery": {"retry": -1}}]}))),
    );
    expect!["missing field(s): spec.channelTemplate, spec.steps"]
        .assert_eq(&Check::new().errors(Kind::Sequence, named(json!({}))));

    let branches = json!({"branches": [{"filter": {"ref": object("f")}, "subscriber": {"ref": object("s")}}]});
    let parallel = check.defaulted(Kind::Parallel, named(branches));
    assert_eq!(parallel["spec"]["channelTemplate"], template);
    assert_eq!(parallel["spec"]["branches"][0]["filter"]["ref"]["namespace"], "ns");
    assert_eq!(check.errors(Kind::Parallel, parallel), "");
    expect![[r#"
        expected at least one, got none: spec.branches[0].reply.ref, spec.branches[0].reply.uri, spec.branches[0].subscriber.ref, spec.branches[0].subscriber.uri
        invalid value: none: spec.branches[0].delivery.backoffPolicy"#]]
    .assert_eq(&check.errors(
        Kind::Parallel,
        named(json!({"branches": [{"reply": {}, "delivery": {"backoffPolicy": "none"}}]})),
    ));
    expect!["missing field(s): spec.branches"].assert_eq(&check.errors(Kind::Parallel, named(json!({}))));
}

#[test]
fn an_api_server_source_says_what_it_watches() {
    let check = eventing(&[]);
    let made = check.defaulted(
        Kind::ApiServerSource,
        named(json!({"sink": sink(), "resources": [{"apiVersion": "v1", "kind": "Event"}]})),
    );
    assert_eq!((&made["spec"]["mode"], &made["spec"]["serviceAccountName"]), (&json!("Reference"), &json!("default")));
    assert_eq!(check.errors(Kind::ApiServerSource, made), "");
    let odd = json!({
        "mode": "Some", "resources": [{"apiVersion": "a/b/c"}], "owner": {"apiVersion": "v1"}, "sink": sink(),
        "filters": [{"exact": {"type": "a"}}], "ceOverrides": {"extensions": {"ok": "1", "not-ok": "2"}},
    });
    expect![[r#"
        Filters is not empty but the NewAPIServerFilters feature is disabled.: 
        invalid key name "not-ok": spec.ceOverrides.extensions
        keys are expected to be alphanumeric
        invalid value: Some: spec.mode
        invalid value: a/b/c: spec.resources[0].apiVersion
        missing field(s): spec.owner.kind, spec.resources[0].kind"#]]
    .assert_eq(&check.errors(Kind::ApiServerSource, named(odd)));
    let filters = json!({"sink": sink(), "resources": [{"apiVersion": "v1", "kind": "Event"}], "filters": [{"exact": {"T": "a"}}]});
    let check = eventing(&[("new-apiserversource-filters", "enabled")]);
    assert!(
        check
            .errors(Kind::ApiServerSource, named(filters))
            .starts_with(r#"invalid key name "T": spec.filters[0].exact[T]"#)
    );
    expect![[r#"
        expected at least one, got none: spec.sink.ref, spec.sink.uri
        missing field(s): spec.resources"#]]
    .assert_eq(&check.errors(Kind::ApiServerSource, named(json!({}))));
}

#[test]
fn containers_of_a_source_get_names() {
    let check = eventing(&[]);
    let template = json!({"spec": {"containers": [{"image": "a"}, {"image": "b", "name": "own"}, {}]}});
    let made = check.defaulted(Kind::ContainerSource, named(json!({"sink": sink(), "template": template})));
    let names: Vec<&Value> = (0..3).map(|at| &made["spec"]["template"]["spec"]["containers"][at]["name"]).collect();
    assert_eq!(names, ["x-0", "own", "x-2"]);
    expect!["missing field(s): spec.containers[2].image"].assert_eq(&check.errors(Kind::ContainerSource, made));
    expect!["missing field(s): spec.containers"]
        .assert_eq(&check.errors(Kind::ContainerSource, named(json!({"sink": sink()}))));
}

#[test]
fn a_ping_has_a_schedule_and_data_that_fit() {
    let check = with_maps(&[("config-ping-defaults", &[("data-max-size", "8")])]);
    let told = |spec: Value| {
        let mut spec = spec;
        spec["sink"] = sink();
        check.errors(Kind::PingSource, named(spec))
    };
    assert_eq!(check.defaulted(Kind::PingSource, named(json!({})))["spec"]["schedule"], "* * * * *");
    assert_eq!(told(json!({"schedule": "*/10 * * * * *", "timezone": "Europe/Zurich", "data": "[1]"})), "");
    assert_eq!(told(json!({"contentType": "application/json", "dataBase64": "e30="})), "");
    expect![[r#"
        invalid value: end of range (61) above maximum (59): 61: spec.schedule
        invalid value: provided bad location Moon: unknown time zone Moon: spec.timezone"#]]
    .assert_eq(&told(json!({"schedule": "61 * * * *", "timezone": "Moon"})));
    expect!["invalid value: unsupported descriptor @every: spec.schedule"]
        .assert_eq(&told(json!({"schedule": "@every 1m"})));
    assert_eq!(told(json!({"schedule": "CRON_TZ=Asia/Tokyo 0 9 * * *"})), "");
    expect!["invalid value: its time zone is said in timezone already: spec.schedule"]
        .assert_eq(&told(json!({"schedule": "TZ=Asia/Tokyo 0 9 * * *", "timezone": "UTC"})));
    expect!["expected exactly one, got both: spec.data, spec.dataBase64"]
        .assert_eq(&told(json!({"data": "a", "dataBase64": "YQ=="})));
    expect!["invalid value: the data length of 9 bytes exceeds limit set at 8.: spec.data"]
        .assert_eq(&told(json!({"data": "123456789"})));
    expect!["invalid value: with contentType application/json it must be a JSON object, not an array: spec.data"]
        .assert_eq(&told(json!({"data": "[1]", "contentType": "application/json"})));
    let refused = told(json!({"dataBase64": "!"}));
    assert!(refused.starts_with("invalid value: illegal base64 data: "), "{refused}");
}

#[test]
fn a_binding_is_of_something_near() {
    let check = eventing(&[]);
    let subject = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let made = check.defaulted(Kind::SinkBinding, named(json!({"subject": subject, "sink": {"ref": object("s")}})));
    assert_eq!(
        (&made["spec"]["subject"]["namespace"], &made["spec"]["sink"]["ref"]["namespace"]),
        (&json!("ns"), &json!("ns"))
    );
    assert_eq!(check.errors(Kind::SinkBinding, made), "");
    let told = |subject: Value| check.errors(Kind::SinkBinding, named(json!({"subject": subject, "sink": sink()})));
    let by_labels = |operator: &str| json!({"apiVersion": "apps/v1", "kind": "Deployment", "selector": {"matchExpressions": [{"key": "a", "operator": operator}]}});
    assert_eq!(told(by_labels("Exists")), "");
    expect![[r#"invalid value: "Is" is not a valid label selector operator: spec.subject.selector"#]]
        .assert_eq(&told(by_labels("Is")));
    expect![[r#"
        expected exactly one, got neither: spec.subject.name, spec.subject.selector
        invalid value: far: spec.subject.namespace
        missing field(s): spec.subject.apiVersion, spec.subject.kind"#]]
    .assert_eq(&told(json!({"namespace": "far"})));
}

#[test]
fn an_integration_is_with_one_system() {
    let check = eventing(&[]);
    let made = check.defaulted(Kind::IntegrationSource, named(json!({"sink": sink(), "timer": {"message": "m"}})));
    assert_eq!(made["spec"]["timer"], json!({"message": "m", "period": 1000, "contentType": "text/plain"}));
    assert_eq!(check.errors(Kind::IntegrationSource, made), "");
    let told = |spec: Value| {
        let mut spec = spec;
        spec["sink"] = sink();
        check.errors(Kind::IntegrationSource, named(spec))
    };
    expect!["at least one source type must be specified: spec.spec"].assert_eq(&told(json!({})));
    expect!["only one source type can be set: spec.spec"].assert_eq(&told(json!({"timer": {}, "aws": {"s3": {}}})));
    expect!["missing field(s): spec.aws.auth.secret.ref.name, spec.aws.ddb-streams.region, spec.aws.ddb-streams.table"]
        .assert_eq(&told(json!({"aws": {"ddbStreams": {}}})));
    let sink = check.defaulted(Kind::IntegrationSink, named(json!({"log": {"level": "WARN"}})));
    assert_eq!((&sink["spec"]["log"]["level"], &sink["spec"]["log"]["showBody"]), (&json!("WARN"), &json!(true)));
    assert_eq!(check.errors(Kind::IntegrationSink, sink), "");
    let sns = json!({"aws": {"sns": {"arn": "a", "region": "r"}, "auth": {"serviceAccountName": "sa"}}});
    assert_eq!(check.errors(Kind::IntegrationSink, named(sns)), "");
    expect!["at least one sink type must be specified: spec.spec"]
        .assert_eq(&check.errors(Kind::IntegrationSink, named(json!({"aws": {}}))));
}

#[test]
fn containers_of_a_job_sink_know_how_they_are_run() {
    let check = eventing(&[]);
    let pod = json!({
        "containers": [{"image": "a"}, {"image": "b", "env": [{"name": "K_EXECUTION_MODE", "value": "own"}]}],
        "initContainers": [{"image": "c", "env": []}],
    });
    let made = check.defaulted(Kind::JobSink, named(json!({"job": {"spec": {"template": {"spec": pod}}}})));
    let pod = &made["spec"]["job"]["spec"]["template"]["spec"];
    let batch = json!([{"name": "K_EXECUTION_MODE", "value": "batch"}]);
    assert_eq!((&pod["containers"][0]["env"], &pod["initContainers"][0]["env"]), (&batch, &batch));
    assert_eq!(pod["containers"][1]["env"][0]["value"], "own");
    expect!["expected exactly one, got neither: spec.job"].assert_eq(&check.errors(Kind::JobSink, named(json!({}))));
}

#[test]
fn refusals_speak_in_the_name_of_the_kinds_webhook() {
    let errors = FieldErrors::from(FieldError::missing(&["spec"]));
    let told = |kind| denial(kind, &errors);
    let of = |webhook: &str| {
        format!("admission webhook \"{webhook}\" denied the request: validation failed: missing field(s): spec")
    };
    assert_eq!(told(Kind::Trigger), of("validation.webhook.eventing.knative.dev"));
    assert_eq!(told(Kind::Sequence), of("validation.webhook.eventing.knative.dev"));
    assert_eq!(told(Kind::InMemoryChannel), of("validation.inmemorychannel.eventing.knative.dev"));
    assert_eq!(told(Kind::Service), of("validation.webhook.serving.knative.dev"));
    let bad = Data::from([("namespace-selector".to_owned(), "[]".to_owned())]);
    let refused = validate_config_map("knative-eventing", "config-sugar", &bad, &Data::new()).expect_err("no selector");
    let told = config_map_denial("knative-eventing", &refused);
    assert!(told.starts_with("admission webhook \"config.webhook.eventing.knative.dev\" denied the request: validation failed: failed to parse \"namespace-selector\""), "{told}");
    assert_eq!(validate_config_map("knative-serving", "config-sugar", &bad, &Data::new()), Ok(()));
}

#[test]
fn objects_keep_what_they_hold_through_their_types() {
    let flows = json!({"apiVersion": "flows.knative.dev/v1", "kind": "Sequence", "metadata": {"name": "s"},
        "spec": {"steps": [{"uri": "http://a", "delivery": {"retry": 1, "backoffPolicy": "linear"}}],
                 "channelTemplate": {"apiVersion": "v1", "kind": "K", "spec": {"a": [1]}}}});
    let policy = json!({"apiVersion": "eventing.knative.dev/v1alpha1", "kind": "EventPolicy", "metadata": {"name": "p"},
        "spec": {"to": [{"selector": {"apiVersion": "v1", "kind": "K", "matchLabels": {"a": "b"}}}],
                 "filters": [{"not": {"any": [{"exact": {"type": "a"}}]}}]}});
    let channel = json!({"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel", "metadata": {"name": "c"},
        "spec": {"subscribers": [{"uid": "u", "generation": 2, "subscriberUri": "http://s", "replyCACerts": "x"}]},
        "status": {"address": {"url": "http://c"}, "subscribers": [{"uid": "u", "ready": "True", "observedGeneration": 2}],
                   "deadLetterSinkUri": "http://d", "policies": [{"apiVersion": "v1", "name": "p"}],
                   "conditions": [{"type": "Ready", "status": "True"}], "observedGeneration": 1}});
    for (kind, object) in [(Kind::Sequence, flows), (Kind::EventPolicy, policy), (Kind::InMemoryChannel, channel)] {
        let mut through = crate::Object::from_json(kind, object.clone()).expect("of its type").to_json();
        if object.get("status").is_none() {
            through.as_object_mut().expect("an object").remove("status");
        }
        assert_eq!(through, object);
    }
}
