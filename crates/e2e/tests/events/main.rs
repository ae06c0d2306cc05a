//! What people reported of Eventing and of systems like it, with the right answer: what is taken, who gets it, how often it is
//! tried, and what sources, bindings and sinks do.

mod delivery;
mod event_types;
mod filters;
mod sinks;
mod sources;
mod taken;

use std::collections::BTreeMap;

use knoll_e2e::{Answer, Namespace, Place, Sink, condition, request, until};
use serde_json::{Value, json};

fn object(api: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn broker_object(name: &str, spec: &Value) -> Value {
    object("eventing.knative.dev/v1", "Broker", name, spec)
}

/// A Trigger of the broker `b`.
fn trigger_object(name: &str, mut spec: Value, to: &str) -> Value {
    spec["broker"] = "b".into();
    if spec["subscriber"].is_null() {
        spec["subscriber"] = json!({"uri": to});
    }
    object("eventing.knative.dev/v1", "Trigger", name, &spec)
}

fn apply(space: &Namespace, objects: &[Value]) {
    space.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string());
}

/// A broker `b` that tries nothing again, with Triggers, all ready.
fn broker(space: &Namespace, triggers: &[Value]) -> Place {
    broker_with(space, &json!({"delivery": {"retry": 0}}), triggers)
}

fn broker_with(space: &Namespace, spec: &Value, triggers: &[Value]) -> Place {
    apply(space, &[&[broker_object("b", spec)], triggers].concat());
    if !triggers.is_empty() {
        space.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "triggers", "--all"]);
    }
    Place::of(space, "broker", "b")
}

/// Posts an event as the JSON format has it.
fn structured(place: &Place, event: &str) -> Answer {
    post(place, &[("content-type", "application/cloudevents+json")], event)
}

fn post(place: &Place, headers: &[(&str, &str)], body: &str) -> Answer {
    request(&place.address, &place.host, "POST", &place.path, headers, body).expect("it answers")
}

/// An event in JSON with these further members, which is taken.
fn take(place: &Place, id: &str, more: Value) {
    let mut event = json!({"specversion": "1.0", "id": id, "source": "/es", "type": "es.t"});
    event.as_object_mut().expect("it is one").extend(more.as_object().expect("members").clone());
    let answer = structured(place, &event.to_string());
    assert_eq!(answer.status, 202, "{}", answer.body);
}

/// Waits until a condition is as it should be: `Status Reason Message`, from the beginning.
fn until_condition(space: &Namespace, kind: &str, name: &str, type_: &str, wanted: &str) {
    until(&format!("{kind}/{name} {type_} {wanted}"), || {
        let condition = condition(&space.object(kind, name), type_);
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        let told = format!("{} {} {}", text("status"), text("reason"), text("message"));
        told.starts_with(wanted).then_some(())
    });
}

/// A refusal's words.
fn refused(space: &Namespace, object: &Value) -> String {
    space.kubectl_refused(&["apply", "-f", "-"], &object.to_string())
}

/// How often each path of a sink was asked for.
fn by_path(sink: &Sink) -> BTreeMap<String, usize> {
    sink.received().into_iter().fold(BTreeMap::new(), |mut counts, received| {
        *counts.entry(received.path).or_default() += 1;
        counts
    })
}

/// Where a sink has this path.
fn at(sink: &Sink, path: &str) -> String {
    format!("{}{path}", sink.url())
}
