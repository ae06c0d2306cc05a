//! How often an event is tried, where it goes when nobody takes it, and what becomes of it when brokers and Triggers come and go.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use knoll_e2e::{Namespace, Place, Received, Reply, Sink, until};
use serde_json::{Value, json};

use super::{
    apply, at, broker, broker_object, broker_with, by_path, object, refused, take, trigger_object, until_condition,
};

fn quickly(retry: u32) -> Value {
    json!({"retry": retry, "backoffPolicy": "linear", "backoffDelay": "PT0.1S"})
}

fn with_letters(mut delivery: Value, letters: &str) -> Value {
    delivery["deadLetterSink"] = json!({"uri": letters});
    delivery
}

#[test]
fn deliveries_that_mean_nothing_are_refused() {
    let space = Namespace::new("no-delivery");
    for (delivery, wanted) in [
        (json!({"backoffDelay": "1s"}), "invalid value: 1s: spec.delivery.backoffDelay"),
        (json!({"backoffDelay": "2007-03-01T13:00:00Z/P1Y2M10DT2H30M"}), "spec.delivery.backoffDelay"),
        (json!({"backoffPolicy": "fibonacci"}), "invalid value: fibonacci: spec.delivery.backoffPolicy"),
        (json!({"retry": -1}), "invalid value: -1: spec.delivery.retry"),
        (json!({"timeout": "PT0S"}), "invalid value: PT0S: spec.delivery.timeout"),
        (json!({"timeout": "5s"}), "invalid value: 5s: spec.delivery.timeout"),
    ] {
        let said = refused(&space, &trigger_object("t", json!({"delivery": delivery}), "http://x.example/"));
        assert!(said.contains(wanted), "{said}");
    }
}

#[test]
fn a_subscriber_that_takes_long_is_asked_once_unless_a_timeout_says_otherwise() {
    let space = Namespace::new("slow");
    let answered = Arc::new(AtomicUsize::new(0));
    let slow = |seconds| {
        let answered = answered.clone();
        Sink::new(move |_| {
            thread::sleep(Duration::from_secs(seconds));
            answered.fetch_add(1, Relaxed);
            Reply::status(200)
        })
    };
    let (cut, patient, letters) = (slow(3), slow(8), Sink::open());
    let mut limited = with_letters(json!({"retry": 1}), &letters.url());
    limited["timeout"] = "PT1S".into();
    let unlimited = with_letters(json!({"retry": 5}), &letters.url());
    let place = broker(
        &space,
        &[
            trigger_object("cut", json!({"delivery": limited}), &cut.url()),
            trigger_object("patient", json!({"delivery": unlimited}), &patient.url()),
        ],
    );
    take(&place, "1", json!({}));
    let letter = letters.wait_for(1).remove(0);
    assert_eq!(
        (letter.attribute("knativeerrordest"), letter.attribute("knativeerrorcode")),
        (cut.url().as_str(), "500")
    );
    until("all have answered", || (answered.load(Relaxed) == 3).then_some(()));
    assert_eq!((cut.wait_for(2).len(), patient.wait_for(1).len(), letters.received().len()), (2, 1, 1));
}

#[test]
fn a_triggers_own_delivery_counts_and_the_brokers_dead_letter_sink_where_it_has_none() {
    let space = Namespace::new("whose");
    let (refusing, of_trigger, of_broker) = (Sink::new(|_| Reply::status(500)), Sink::open(), Sink::open());
    let own = json!({"delivery": with_letters(json!({"retry": 0}), &of_trigger.url())});
    let place = broker_with(
        &space,
        &json!({"delivery": with_letters(quickly(3), &of_broker.url())}),
        &[
            trigger_object("a", own, &at(&refusing, "a")),
            trigger_object("b", json!({}), &at(&refusing, "b")),
            trigger_object("c", json!({"delivery": {"retry": 1}}), &at(&refusing, "c")),
        ],
    );
    let sink_of = |name: &str| space.object("triggers", name)["status"]["deadLetterSinkUri"].clone();
    assert_eq!(["a", "b", "c"].map(sink_of), [of_trigger.url(), of_broker.url(), of_broker.url()]);
    take(&place, "1", json!({}));
    of_broker.wait_for(2);
    of_trigger.wait_for(1);
    let counts = by_path(&refusing);
    assert_eq!(["/a", "/b", "/c"].map(|path| counts[path]), [1, 4, 2]);

    let removal = r#"[{"op": "remove", "path": "/spec/delivery"}]"#;
    space.kubectl(&["patch", "trigger", "a", "--type", "json", "-p", removal]);
    until("the broker's sink counts", || (sink_of("a") == of_broker.url()).then_some(()));
    until_condition(&space, "triggers", "a", "Ready", "True");
    // It is acted on when a delivery shows it; what was sent before that goes by what was said before.
    let mut sent = 1;
    until("a dead letter of a at the broker's sink", || {
        sent += 1;
        take(&place, &sent.to_string(), json!({}));
        of_broker.wait_for(2 + 2 * (sent - 1));
        let from = |sink: &Sink| {
            sink.received().iter().filter(|letter| letter.attribute("knativeerrordest") == at(&refusing, "a")).count()
        };
        until("its dead letter", || (from(&of_broker) + from(&of_trigger) == sent).then_some(()));
        (from(&of_broker) > 0).then_some(())
    });

    let nowhere =
        json!({"delivery": {"deadLetterSink": {"ref": {"apiVersion": "v1", "kind": "Service", "name": "nope"}}}});
    apply(&space, &[trigger_object("z", nowhere, &refusing.url())]);
    let wanted = format!(
        "False Unable to get the dead letter sink's URI failed to get object {}/nope: services \"nope\" not found",
        space.name
    );
    until_condition(&space, "triggers", "z", "DeadLetterSinkResolved", &wanted);
}

#[test]
fn an_answer_that_is_no_event_is_a_failed_delivery_of_a_trigger_and_ignored_on_a_channel() {
    let space = Namespace::new("answers");
    let answering = |status: u16, kind: &'static str, body: &'static str| {
        Sink::new(move |_| Reply {
            status,
            headers: if kind.is_empty() { Vec::new() } else { vec![("content-type".into(), kind.into())] },
            body: body.into(),
        })
    };
    let half = r#"{"specversion": "1.0", "source": "/x"}"#;
    let bad = [
        answering(200, "application/json", "{}"),
        answering(200, "text/plain", "ok"),
        answering(202, "text/plain", "ok"),
        answering(200, "application/cloudevents+json", half),
    ];
    let good = [
        answering(200, "", ""),
        answering(202, "", ""),
        answering(204, "", ""),
        answering(200, "application/json", ""),
    ];
    let (letters, seen) = (Sink::open(), answering(200, "application/json", "{}"));
    let delivery = json!({"delivery": with_letters(json!({"retry": 1}), &letters.url())});
    let all: Vec<Value> = bad
        .iter()
        .chain(&good)
        .enumerate()
        .map(|(index, sink)| trigger_object(&format!("t{index}"), delivery.clone(), &sink.url()))
        .collect();
    let place = broker(&space, &all);
    let channel = object("messaging.knative.dev/v1", "InMemoryChannel", "c", &json!({}));
    let subscription = json!({
        "channel": {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel", "name": "c"},
        "subscriber": {"uri": seen.url()}, "delivery": delivery["delivery"],
    });
    apply(&space, &[channel, object("messaging.knative.dev/v1", "Subscription", "s", &subscription)]);
    space.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "subscription/s"]);
    take(&place, "1", json!({}));
    Place::of(&space, "inmemorychannel", "c").take("1", "t");
    letters.wait_for(bad.len());
    seen.wait_for(1);
    for sink in &bad {
        assert_eq!(sink.received().len(), 2);
    }
    for sink in &good {
        assert_eq!(sink.wait_for(1).len(), 1);
    }
    let letters = letters.received();
    assert_eq!(letters.len(), bad.len());
    assert!(letters.iter().all(|letter| letter.attribute("knativeerrorcode") == "502"), "{letters:?}");
    assert_eq!(seen.received().len(), 1);
}

#[test]
fn a_redirect_is_followed_whole_or_a_dead_letter_and_never_a_get() {
    let space = Namespace::new("redirects");
    let (elsewhere, letters) = (Sink::open(), Sink::open());
    let codes = [301, 302, 303, 307, 308];
    let sinks = codes.map(|code| {
        let location = at(&elsewhere, &code.to_string());
        Sink::new(move |_| Reply { headers: vec![("location".into(), location.clone())], ..Reply::status(code) })
    });
    let trigger = |(code, sink): (&u16, &Sink)| {
        let delivery = json!({"delivery": with_letters(json!({"retry": 0}), &at(&letters, &code.to_string()))});
        trigger_object(&format!("t{code}"), delivery, &sink.url())
    };
    let place = broker(&space, &codes.iter().zip(&sinks).map(trigger).collect::<Vec<_>>());
    take(&place, "1", json!({"data": {"n": 1}}));
    for code in codes {
        let path = format!("/{code}");
        let arrived =
            |sink: &Sink| sink.received().into_iter().filter(|received| received.path == path).collect::<Vec<_>>();
        let found = until(&format!("{code}"), || {
            let all = [arrived(&elsewhere), arrived(&letters)].concat();
            (!all.is_empty()).then_some(all)
        });
        assert_eq!(found.iter().map(Received::data).collect::<Vec<_>>(), [r#"{"n":1}"#], "{code}");
    }
}

#[test]
fn a_trigger_waits_for_its_broker_and_a_new_one_gets_new_events_only() {
    let space = Namespace::new("order");
    let (sink, is_well) = (Sink::open(), Arc::new(AtomicBool::new(false)));
    apply(&space, &[trigger_object("t", json!({}), &sink.url())]);
    let missing = r#"False BrokerDoesNotExist Broker "b" does not exist"#;
    until_condition(&space, "triggers", "t", "BrokerReady", missing);
    for round in 1..=2 {
        apply(&space, &[broker_object("b", &json!({"delivery": {"retry": 0}}))]);
        until_condition(&space, "triggers", "t", "Ready", "True");
        Place::of(&space, "broker", "b").take(&round.to_string(), "t");
        sink.wait_for(round);
        space.kubectl(&["delete", "broker", "b"]);
        until_condition(&space, "triggers", "t", "BrokerReady", "False BrokerDoesNotExist");
    }
    let failing = {
        let is_well = is_well.clone();
        Sink::new(move |_| Reply::status(if is_well.load(Relaxed) { 202 } else { 503 }))
    };
    let delivery = json!({"delivery": {"retry": 50, "backoffPolicy": "linear", "backoffDelay": "PT0.2S"}});
    let place = broker(&space, &[trigger_object("x", delivery, &failing.url())]);
    place.take("old", "t");
    failing.wait_for(2);
    space.kubectl(&["delete", "trigger", "x"]);
    is_well.store(true, Relaxed);
    apply(&space, &[trigger_object("x", json!({}), &failing.url())]);
    until_condition(&space, "triggers", "x", "Ready", "True");
    place.take("new", "t");
    let arrived = until("the new event", || {
        let arrived = failing.received();
        arrived.iter().any(|one| one.attribute("id") == "new").then_some(arrived)
    });
    let last = arrived.iter().rposition(|one| one.attribute("id") == "old").expect("it was tried");
    assert!(arrived[last + 1..].iter().all(|one| one.attribute("id") == "new"), "{arrived:?}");
    assert_eq!(failing.received().iter().filter(|one| one.attribute("id") == "new").count(), 1);
}

#[test]
fn a_subscriber_may_come_later_have_a_path_and_be_in_another_namespace() {
    let (space, other) = (Namespace::new("places"), Namespace::new("other"));
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let reference = |name: &str, namespace: &str, uri: &str| json!({"subscriber": {"ref": {"apiVersion": "v1", "kind": "Service", "name": name, "namespace": namespace}, "uri": uri}});
    apply(
        &space,
        &[
            broker_object("b", &json!({})),
            trigger_object("near", reference("s", &space.name, "/a?x=1"), ""),
            trigger_object("far", reference("s", &other.name, "/b"), ""),
        ],
    );
    let missing = format!(
        "False Unable to get the Subscriber's URI failed to get object {}/s: services \"s\" not found",
        space.name
    );
    until_condition(&space, "triggers", "near", "SubscriberResolved", &missing);
    [&space, &other].into_iter().for_each(|space| apply(space, std::slice::from_ref(&service)));
    for (name, wanted) in [
        ("near", format!("http://s.{}.svc.cluster.local/a?x=1", space.name)),
        ("far", format!("http://s.{}.svc.cluster.local/b", other.name)),
    ] {
        until_condition(&space, "triggers", name, "Ready", "True");
        assert_eq!(space.object("triggers", name)["status"]["subscriberUri"], wanted);
    }
    let map = json!({"subscriber": {"ref": {"apiVersion": "v1", "kind": "ConfigMap", "name": "kube-root-ca.crt"}}});
    apply(&space, &[trigger_object("map", map, "")]);
    let told = "False Unable to get the Subscriber's URI address not set for Kind = ConfigMap";
    until_condition(&space, "triggers", "map", "SubscriberResolved", told);

    for (subscriber, wanted) in [
        (
            json!({"ref": {"apiVersion": "v1", "kind": "Service", "name": "s"}, "uri": "http://x.example/"}),
            "Absolute URI is not allowed when Ref or [apiVersion, kind, name] is present: ",
        ),
        (
            json!({"uri": "/x"}),
            "invalid value: Relative URI is not allowed when Ref and [apiVersion, kind, name] is absent: spec.subscriber.uri",
        ),
        (json!({}), "expected at least one, got none: spec.subscriber.ref, spec.subscriber.uri"),
        (json!({"ref": {"kind": "Service", "name": "s"}}), "missing field(s): spec.subscriber.ref.apiVersion"),
    ] {
        let said = refused(&space, &trigger_object("z", json!({"subscriber": subscriber}), ""));
        assert!(said.contains(wanted), "{said}");
    }
    let mut without = trigger_object("z", json!({}), "http://x.example/");
    without["spec"].as_object_mut().expect("a spec").remove("broker");
    assert!(refused(&space, &without).contains("missing field(s): spec.broker"));
}
