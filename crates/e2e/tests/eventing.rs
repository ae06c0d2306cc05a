//! Brokers, Triggers, channels and flows: who gets which events.

use knoll_e2e::{Namespace, Place, Reply, Sink, request, until};
use serde_json::{Value, json};

fn object(api: &str, kind: &str, name: &str, spec: Value) -> String {
    json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}).to_string()
}

fn broker(space: &Namespace, spec: Value) -> Place {
    space.apply(&object("eventing.knative.dev/v1", "Broker", "default", spec));
    Place::of(space, "broker", "default")
}

fn trigger(space: &Namespace, name: &str, mut spec: Value, to: &str) {
    spec["broker"] = "default".into();
    spec["subscriber"] = json!({"uri": to});
    space.apply(&object("eventing.knative.dev/v1", "Trigger", name, spec));
    space.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", &format!("trigger/{name}")]);
}

fn ids(sink: &Sink) -> Vec<String> {
    let mut ids: Vec<String> = sink.received().iter().map(|one| one.attribute("id").to_owned()).collect();
    ids.sort();
    ids
}

#[test]
fn a_trigger_gets_the_events_that_its_filter_lets_through() {
    let space = Namespace::new("filters");
    let place = broker(&space, json!({}));
    let (all, some, none) = (Sink::open(), Sink::open(), Sink::open());
    trigger(&space, "all", json!({}), &all.url());
    trigger(&space, "some", json!({"filter": {"attributes": {"type": "wanted"}}}), &some.url());
    trigger(&space, "none", json!({"filters": [{"cesql": "type = 'wanted' AND source LIKE '/x%'"}]}), &none.url());
    place.take("1", "wanted");
    place.take("2", "other");
    all.wait_for(2);
    some.wait_for(1);
    assert_eq!((ids(&all), ids(&some)), (vec!["1".into(), "2".into()], vec!["1".to_owned()]));
    assert!(ids(&none).is_empty());
    let first = &some.received()[0];
    assert_eq!((first.body.as_str(), first.attribute("source")), ("1", "/e2e"));
    assert!(!first.attribute("knativearrivaltime").is_empty(), "{first:?}");
    assert_eq!(first.headers.get("content-type").map(String::as_str), Some("text/plain"));
}

#[test]
fn what_is_no_event_is_refused_with_the_reason() {
    let space = Namespace::new("refused");
    let place = broker(&space, json!({}));
    let answer = request(&place.address, &place.host, "POST", &place.path, &[], "no event").expect("it answers");
    assert_eq!(answer.status, 400, "{}", answer.body);
    let other = Place { path: "/nobody/default".into(), ..place };
    assert_eq!(other.send("1", "t", "").status, 404);
}

#[test]
fn a_reply_comes_back_to_the_broker() {
    let space = Namespace::new("replies");
    let place = broker(&space, json!({}));
    let (asked, answered) = (Sink::new(|received| Reply::event(received, "answer")), Sink::open());
    trigger(&space, "asked", json!({"filter": {"attributes": {"type": "question"}}}), &asked.url());
    trigger(&space, "answered", json!({"filter": {"attributes": {"type": "answer"}}}), &answered.url());
    place.take("q", "question");
    let got = answered.wait_for(1);
    assert_eq!((got[0].attribute("source"), got[0].body.as_str()), ("/reply", "q+"));
    assert_eq!(asked.received().len(), 1);
}

#[test]
fn what_a_subscriber_refuses_is_tried_again_and_then_a_dead_letter() {
    let space = Namespace::new("letters");
    let place = broker(&space, json!({}));
    let (refusing, letters) = (Sink::new(|_| Reply::status(503)), Sink::open());
    let delivery = json!({
        "retry": 2, "backoffPolicy": "linear", "backoffDelay": "PT0.05S", "deadLetterSink": {"uri": letters.url()},
    });
    trigger(&space, "refusing", json!({"delivery": delivery}), &refusing.url());
    place.take("1", "t");
    let letter = letters.wait_for(1).remove(0);
    assert_eq!(letter.attribute("knativeerrorcode"), "503");
    assert_eq!(letter.attribute("knativeerrordest"), refusing.url());
    assert_eq!(refusing.received().len(), 3, "one attempt and two more");
}

#[test]
fn a_subscriber_without_instances_is_woken_by_its_event() {
    let space = Namespace::new("woken");
    space.apply(&object(
        "serving.knative.dev/v1",
        "Service",
        "actor",
        json!({"template": {
            "metadata": {"annotations": {"autoscaling.knative.dev/window": "6s"}},
            "spec": {"containers": [{"image": "localhost:5000/e2e/actor:1"}]},
        }}),
    ));
    space.ready("actor");
    let place = broker(&space, json!({}));
    let subscriber = json!({"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "actor"}, "uri": "/say?woken"});
    let spec = json!({"broker": "default", "subscriber": subscriber});
    space.apply(&object("eventing.knative.dev/v1", "Trigger", "woken", spec));
    space.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "trigger/woken"]);
    until("it has no instance", || space.pods("actor").is_empty().then_some(()));
    place.take("1", "t");
    until("it logs the event", || {
        let pods = space.pods("actor");
        let pod = pods.first()?["metadata"]["name"].as_str()?.to_owned();
        let log = space.cluster.try_kubectl(&["-n", &space.name, "logs", &pod], "");
        String::from_utf8_lossy(&log.stdout).contains("actor: woken").then_some(())
    });
}

#[test]
fn a_channel_hands_every_event_to_every_subscription() {
    let space = Namespace::new("channel");
    space.apply(&object("messaging.knative.dev/v1", "Channel", "c", json!({})));
    let (one, other, replies) = (Sink::new(|received| Reply::event(received, "r")), Sink::open(), Sink::open());
    for (name, sink, reply) in [("one", &one, Some(&replies)), ("other", &other, None)] {
        let mut spec = json!({
            "channel": {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": "c"},
            "subscriber": {"uri": sink.url()},
        });
        if let Some(reply) = reply {
            spec["reply"] = json!({"uri": reply.url()});
        }
        space.apply(&object("messaging.knative.dev/v1", "Subscription", name, spec));
        space.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", &format!("subscription/{name}")]);
    }
    let place = Place::of(&space, "channels.messaging.knative.dev", "c");
    place.take("1", "t");
    place.take("2", "t");
    for sink in [&one, &other, &replies] {
        sink.wait_for(2);
        assert_eq!(ids(sink), ["1", "2"]);
    }
    let reply = &replies.received()[0];
    assert_eq!((reply.attribute("type"), reply.attribute("source")), ("r", "/reply"));
}

#[test]
fn a_sequence_goes_from_step_to_step_and_a_parallel_to_the_branches_that_let_it_through() {
    let space = Namespace::new("flows");
    let step = || Sink::new(|received| Reply::event(received, "step"));
    let (first, second, end) = (step(), step(), Sink::open());
    let steps = json!([{"uri": first.url()}, {"uri": second.url()}]);
    space.apply(&object("flows.knative.dev/v1", "Sequence", "s", json!({"steps": steps, "reply": {"uri": end.url()}})));
    Place::of(&space, "sequence", "s").take("x", "t");
    assert_eq!(end.wait_for(1)[0].body, "x++");

    let (through, out, closed, unseen) = (
        Sink::new(|received| Reply::event(received, "passed")),
        Sink::open(),
        Sink::new(|_| Reply::status(202)),
        Sink::open(),
    );
    let branches = json!([
        {"filter": {"uri": through.url()}, "subscriber": {"uri": through.url()}, "reply": {"uri": out.url()}},
        {"filter": {"uri": closed.url()}, "subscriber": {"uri": unseen.url()}},
    ]);
    space.apply(&object("flows.knative.dev/v1", "Parallel", "p", json!({"branches": branches})));
    Place::of(&space, "parallel", "p").take("y", "t");
    assert_eq!(out.wait_for(1)[0].body, "y++");
    closed.wait_for(1);
    assert!(unseen.received().is_empty(), "a filter without a reply lets nothing through");
}

#[test]
fn events_are_not_sent_to_addresses_of_the_machines_own() {
    let space = Namespace::new("machine");
    let place = broker(&space, json!({}));
    let (own, letters) = (Sink::open(), Sink::open());
    let port = own.url().rsplit(':').next().expect("a port").to_owned();
    let urls = ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"];
    for (at, host) in urls.iter().enumerate() {
        let delivery = json!({"deadLetterSink": {"uri": letters.url()}});
        trigger(&space, &format!("own-{at}"), json!({"delivery": delivery}), &format!("http://{host}:{port}"));
    }
    place.take("1", "t");
    letters.wait_for(urls.len());
    assert!(own.received().is_empty(), "{:?}", own.received());
}

#[test]
fn a_job_sink_makes_one_job_of_an_event_that_reads_it() {
    let space = Namespace::new("jobs");
    let container = json!({
        "name": "main", "image": "localhost:5000/e2e/actor:1",
        "env": [{"name": "ACTOR_SHOW", "value": "/etc/jobsink-event/event"}],
    });
    let job = json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}});
    space.apply(&object("sinks.knative.dev/v1alpha1", "JobSink", "work", json!({"job": job})));
    let place = Place::of(&space, "jobsink", "work");
    let broker = broker(&space, json!({}));
    trigger(&space, "work", json!({}), &format!("http://{}{}", place.host, place.path));
    // By a Trigger, and once more by itself.
    broker.take("1", "t");
    let jobs = || space.list("jobs");
    until("there is a Job", || (!jobs().is_empty()).then_some(()));
    place.take("1", "t");
    let all = jobs();
    let name = all[0]["metadata"]["name"].as_str().expect("a name");
    assert_eq!((all.len(), name.starts_with("work-")), (1, true), "{name}");
    let status = format!("/namespaces/{}/name/work/sources/%2Fe2e/ids/1", space.name);
    until("it is complete", || {
        let answer = request(&place.address, &place.host, "GET", &status, &[], "").expect("it answers");
        assert!([200, 202].contains(&answer.status), "{} {}", answer.status, answer.body);
        (answer.status == 200).then_some(())
    });
    let said = space.kubectl(&["logs", &format!("job/{name}")]);
    let event = said.lines().find_map(|line| line.strip_prefix("actor: {")).expect("it says the event");
    let event: Value = serde_json::from_str(&format!("{{{event}")).expect("JSON");
    assert_eq!((&event["id"], &event["source"], &event["data"]), (&json!("1"), &json!("/e2e"), &json!("1")));
    assert_eq!(space.list("secrets").len(), 1);
    // What is the sink's goes with it, what is the Job's with that.
    space.kubectl(&["delete", "jobsink", "work"]);
    until("the Job and its Secret are gone", || (jobs().is_empty() && space.list("secrets").is_empty()).then_some(()));
}

#[test]
fn an_integration_sink_writes_events_into_the_log() {
    let space = Namespace::new("logs");
    let log = json!({"log": {"loggerName": "mine", "showHeaders": true}});
    space.apply(&object("sinks.knative.dev/v1alpha1", "IntegrationSink", "book", log));
    let place = Place::of(&space, "integrationsink", "book");
    assert_eq!(place.host, format!("book-deployment.{}.svc.cluster.local", space.name));
    let answer = place.send("1", "t", "1");
    assert_eq!(answer.status, 204, "{}", answer.body);
    // The log of the instance, or of the broker where that is a process of its own.
    let data = space.cluster.data_dir.display().to_string();
    until("it is written", || {
        let logs = [format!("{data}/knoll.log"), format!("{data}-broker.log")];
        let logs = logs.map(|log| std::fs::read(log).unwrap_or_default());
        logs.iter()
            .any(|log| {
                let log = String::from_utf8_lossy(log);
                let mut lines = log.lines().filter(|line| line.contains(&space.name) && line.contains("Exchange["));
                lines.any(|line| line.contains("ce-id=1,") && line.contains("Body: 1]") && line.contains("mine"))
            })
            .then_some(())
    });
    let answer = request(&place.address, &place.host, "POST", "/elsewhere", &[], "").expect("it answers");
    assert_eq!(answer.status, 400, "{}", answer.body);
}
