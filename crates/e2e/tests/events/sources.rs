//! Sources, bindings and Parallels, and that all of it can be deleted.

use std::collections::BTreeSet;

use knoll_e2e::{Namespace, Place, Reply, Sink, until};
use serde_json::{Value, json};

use super::{apply, at, broker_object, by_path, object, refused, trigger_object, until_condition};

const SOURCES: &str = "sources.knative.dev/v1";

fn ping(name: &str, to: &Value, spec: Value) -> Value {
    let mut spec = spec;
    spec["sink"] = to.clone();
    object(SOURCES, "PingSource", name, &spec)
}

#[test]
fn a_ping_source_keeps_time_heals_and_ends() {
    let space = Namespace::new("pings");
    let sink = Sink::open();
    let every = "*/2 * * * * *";
    let to = |path: &str| json!({"uri": at(&sink, path)});
    apply(
        &space,
        &[
            ping(
                "text",
                &to("text"),
                json!({"schedule": every, "contentType": "text/plain", "data": "a b",
                    "ceOverrides": {"extensions": {"who": "me"}}}),
            ),
            ping(
                "bytes",
                &to("bytes"),
                json!({"schedule": every, "timezone": "Asia/Tokyo", "dataBase64": "YcO8", "contentType": "application/octet-stream"}),
            ),
            ping(
                "late",
                &json!({"ref": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "b"}}),
                json!({"schedule": every}),
            ),
        ],
    );
    let three = until("three ticks of each", || {
        let counts = by_path(&sink);
        (counts.get("/text") >= Some(&3) && counts.get("/bytes") >= Some(&3)).then(|| sink.received())
    });
    let text: Vec<_> = three.iter().filter(|received| received.path == "/text").collect();
    let ids: BTreeSet<&str> = text.iter().map(|received| received.attribute("id")).collect();
    assert_eq!(ids.len(), text.len(), "each tick has an id of its own");
    let source = format!("/apis/v1/namespaces/{}/pingsources/text", space.name);
    for received in text {
        let attributes = ["type", "source", "who"].map(|name| received.attribute(name));
        assert_eq!(attributes, ["dev.knative.sources.ping", &source, "me"]);
        assert_eq!(received.body, "a b");
    }
    assert!(three.iter().filter(|received| received.path == "/bytes").all(|received| received.body == "aü"));

    until_condition(&space, "pingsources", "late", "SinkProvided", "False NotFound");
    apply(&space, &[broker_object("b", &json!({})), trigger_object("t", json!({}), &at(&sink, "late"))]);
    until_condition(&space, "pingsources", "late", "Ready", "True");
    until("a tick through the broker", || (by_path(&sink).get("/late") >= Some(&1)).then_some(()));

    space.kubectl(&["delete", "pingsource", "text", "bytes"]);
    // What goes on ticking beside says how much time has passed.
    let (before, late) = (by_path(&sink), by_path(&sink)["/late"]);
    until("two ticks of another", || (by_path(&sink)["/late"] >= late + 2).then_some(()));
    let after = by_path(&sink);
    for path in ["/text", "/bytes"] {
        assert!(after[path] <= before[path] + 1, "{path}: {before:?}, then {after:?}");
    }
}

fn env(space: &Namespace, kind: &str, name: &str) -> Vec<String> {
    let object = space.object(kind, name);
    let env = object["spec"]["template"]["spec"]["containers"][0]["env"].as_array().cloned().unwrap_or_default();
    let text = |variable: &Value, field: &str| variable[field].as_str().unwrap_or_default().to_owned();
    env.iter().map(|variable| format!("{}={}", text(variable, "name"), text(variable, "value"))).collect()
}

#[test]
fn jobs_of_a_cron_job_are_told_when_they_are_made() {
    let space = Namespace::new("jobs");
    let subject = json!({"apiVersion": "batch/v1", "kind": "Job", "selector": {"matchLabels": {"app": "beat"}}});
    apply(
        &space,
        &[object(
            SOURCES,
            "SinkBinding",
            "beats",
            &json!({"subject": subject, "sink": {"uri": "http://one.example/"}}),
        )],
    );
    until_condition(&space, "sinkbindings", "beats", "Ready", "True");
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "localhost:5000/e2e/actor:1"}]});
    let job = json!({"metadata": {"labels": {"app": "beat"}}, "spec": {"suspend": true, "template": {"spec": pod}}});
    apply(&space, &[object("batch/v1", "CronJob", "beat", &json!({"schedule": "0 0 1 1 *", "jobTemplate": job}))]);
    space.kubectl(&["create", "job", "one", "--from=cronjob/beat"]);
    assert_eq!(env(&space, "jobs", "one"), ["K_SINK=http://one.example/", "K_CE_OVERRIDES="]);
}

#[test]
fn a_binding_binds_by_name_and_label_follows_its_sink_and_lets_go() {
    let space = Namespace::new("bindings");
    let deployment = |name: &str, label: &str| {
        let container = json!({"name": "c", "image": "localhost:5000/e2e/actor:1",
            "env": [{"name": "MINE", "value": "x"}, {"name": "K_SINK", "value": "old"}]});
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": {"team": label}}, "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}}})
    };
    let binding = |name: &str, subject: Value, uri: &str| {
        let mut subject = subject;
        subject["apiVersion"] = "apps/v1".into();
        subject["kind"] = "Deployment".into();
        let spec = json!({"subject": subject, "sink": {"uri": uri}, "ceOverrides": {"extensions": {"who": "me"}}});
        object(SOURCES, "SinkBinding", name, &spec)
    };
    apply(
        &space,
        &[
            deployment("named", "no"),
            deployment("chosen", "a"),
            binding("named", json!({"name": "named"}), "http://one.example/"),
            binding("chosen", json!({"selector": {"matchLabels": {"team": "a"}}}), "http://label.example/"),
        ],
    );
    let bound = |uri: &str| {
        vec!["MINE=x".to_owned(), format!("K_SINK={uri}"), r#"K_CE_OVERRIDES={"extensions":{"who":"me"}}"#.to_owned()]
    };
    let until_bound = |name: &str, wanted: Vec<String>| {
        until(&format!("{name}: {wanted:?}"), || (env(&space, "deployments", name) == wanted).then_some(()));
    };
    until_bound("named", bound("http://one.example/"));
    until_bound("chosen", bound("http://label.example/"));
    let moved = r#"{"spec": {"sink": {"uri": "http://two.example/"}}}"#;
    space.kubectl(&["patch", "sinkbinding", "named", "--type", "merge", "-p", moved]);
    until_bound("named", bound("http://two.example/"));
    // Two that want the same subject do not fight: the older one has it.
    apply(&space, &[binding("second", json!({"name": "named"}), "http://three.example/")]);
    until_condition(&space, "sinkbindings", "second", "Ready", "False SubjectTaken");
    assert_eq!(env(&space, "deployments", "named"), bound("http://two.example/"));
    space.kubectl(&["delete", "sinkbinding", "second", "named", "--timeout=20s"]);
    until_bound("named", vec!["MINE=x".to_owned()]);

    let subject = |subject: Value| refused(&space, &binding("z", subject, "http://x.example/"));
    let said = subject(json!({}));
    assert!(said.contains("expected exactly one, got neither: spec.subject.name, spec.subject.selector"), "{said}");
    let said = subject(json!({"name": "a", "namespace": "other"}));
    assert!(said.contains("invalid value: other: spec.subject.namespace"), "{said}");
}

#[test]
fn branches_of_a_parallel_answer_for_themselves() {
    let space = Namespace::new("branches");
    let sink = Sink::new(|received| match received.path.as_str() {
        "/1" => Reply::event(received, "b1"),
        "/f3" => Reply::event(received, "filtered"),
        "/3" => Reply::event(received, "b3"),
        "/4" => Reply::status(500),
        _ => Reply::status(202),
    });
    let to = |path: &str| json!({"uri": at(&sink, path)});
    let branches = json!([
        {"subscriber": to("1"), "reply": to("r1")},
        {"filter": to("f2"), "subscriber": to("2")},
        {"filter": to("f3"), "subscriber": to("3")},
        {"subscriber": to("4"), "delivery": {"retry": 0}},
    ]);
    let spec = json!({"branches": branches, "reply": to("r0")});
    apply(&space, &[object("flows.knative.dev/v1", "Parallel", "p", &spec)]);
    let place = Place::of(&space, "parallel", "p");
    place.take("1", "t");
    let wanted = ["/1", "/3", "/4", "/f2", "/f3", "/r0", "/r1"];
    until("all that is to be asked", || wanted.iter().all(|path| by_path(&sink).contains_key(*path)).then_some(()));
    let counts = by_path(&sink);
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), wanted.map(|path| (path.to_owned(), 1)));
    let kind = |path: &str| {
        let all = sink.received();
        all.iter().find(|received| received.path == path).map(|received| received.attribute("type").to_owned())
    };
    assert_eq!(["/r1", "/3", "/r0"].map(kind), ["b1", "filtered", "b3"].map(|kind| Some(kind.to_owned())));
}

#[test]
fn a_namespace_full_of_half_made_things_can_be_deleted() {
    let space = Namespace::new("half");
    let nowhere = json!({"ref": {"apiVersion": "v1", "kind": "Service", "name": "nope"}});
    let somewhere = json!({"uri": "http://x.example/"});
    let channel =
        |name: &str| json!({"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel", "name": name});
    let subscription = |of: &str| json!({"channel": channel(of), "subscriber": somewhere});
    let bound = |subject: Value, to: &Value| json!({"subject": subject, "sink": to});
    let resources = json!([{"apiVersion": "v1", "kind": "Pod"}]);
    let mut lost = trigger_object("v", json!({}), "http://x.example/");
    lost["spec"]["broker"] = "nobody".into();
    apply(
        &space,
        &[
            broker_object("b", &json!({})),
            trigger_object("t", json!({}), "http://x.example/"),
            trigger_object("u", json!({"subscriber": nowhere}), ""),
            lost,
            object("messaging.knative.dev/v1", "InMemoryChannel", "c", &json!({})),
            object("messaging.knative.dev/v1", "Subscription", "s", &subscription("c")),
            object("messaging.knative.dev/v1", "Subscription", "s2", &subscription("nobody")),
            object("flows.knative.dev/v1", "Sequence", "q", &json!({"steps": [somewhere, nowhere]})),
            object("flows.knative.dev/v1", "Parallel", "p", &json!({"branches": [{"subscriber": somewhere}]})),
            object(SOURCES, "PingSource", "g", &json!({"sink": nowhere})),
            object(SOURCES, "ApiServerSource", "i", &json!({"sink": nowhere, "resources": resources})),
            object(
                SOURCES,
                "SinkBinding",
                "n1",
                &bound(json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "nope"}), &nowhere),
            ),
            object(
                SOURCES,
                "SinkBinding",
                "n2",
                &bound(json!({"apiVersion": "batch/v1", "kind": "Nothing", "name": "x"}), &somewhere),
            ),
        ],
    );
    for name in ["n1", "n2"] {
        until_condition(&space, "sinkbindings", name, "Ready", "False");
        space.kubectl(&["delete", "sinkbinding", name, "--timeout=20s"]);
    }
    space.cluster.kubectl(&["delete", "namespace", &space.name, "--timeout=60s"]);
}
