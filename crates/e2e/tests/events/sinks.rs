//! JobSinks: one Job for one event, what becomes of it, and what goes with it.

use knoll_e2e::{Answer, Namespace, Place, request, until};
use serde_json::{Value, json};

use super::{apply, object, post};

/// Source of the events: with slashes, which a path must not take for its own.
const SOURCE: &str = "https://ex.org/x/y";

fn sink(name: &str, env: Value) -> Value {
    let container = json!({"name": "c", "image": "localhost:5000/e2e/actor:1", "env": env});
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [container]}});
    let job = json!({"spec": {"backoffLimit": 0, "template": template}});
    object("sinks.knative.dev/v1alpha1", "JobSink", name, &json!({"job": job}))
}

/// Posts an event, which is taken. Where its Job is asked about.
fn send(place: &Place, id: &str, data: &str) -> String {
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", id),
        ("ce-source", SOURCE),
        ("ce-type", "t"),
        ("content-type", "application/json"),
    ];
    let answer = post(place, &headers, data);
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.header("location").to_owned()
}

/// Asks what became of a Job until that has this status.
fn until_told(place: &Place, location: &str, status: u16) -> Answer {
    until(&format!("{location} is {status}"), || {
        let answer = request(&place.address, &place.host, "GET", location, &[], "").expect("it answers");
        (answer.status == status).then_some(answer)
    })
}

/// What the containers of a Job said of their event.
fn said(space: &Namespace, job: &Value) -> Value {
    let name = job["metadata"]["name"].as_str().expect("a name");
    let log = space.kubectl(&["logs", &format!("job/{name}")]);
    let event = log.lines().find_map(|line| line.strip_prefix("actor: {")).expect("it says the event");
    serde_json::from_str(&format!("{{{event}")).expect("JSON")
}

#[test]
fn an_event_has_one_job_and_one_that_comes_after_it_is_gone_has_its_own_data() {
    let space = Namespace::new("job-sinks");
    let shows = json!([{"name": "ACTOR_SHOW", "value": "/etc/jobsink-event/event"}]);
    apply(&space, &[sink("shows", shows), sink("fails", json!([{"name": "ACTOR_EXIT", "value": "3"}]))]);
    let place = Place::of(&space, "jobsink", "shows");
    let jobs = || space.list("jobs");

    let location = send(&place, "a/b", r#"{"v":1}"#);
    let path = "shows/sources/https:%2F%2Fex.org%2Fx%2Fy/ids/a%2Fb";
    assert_eq!(location, format!("/namespaces/{}/name/{path}", space.name));
    assert_eq!(until_told(&place, &location, 200).header("reason"), "Complete");
    let first = jobs().remove(0);
    let event = said(&space, &first);
    assert_eq!((&event["id"], &event["source"], &event["data"]), (&json!("a/b"), &json!(SOURCE), &json!({"v": 1})));
    let env = first["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
    assert!(env.contains(r#"{"name":"K_EVENT_PATH","value":"/etc/jobsink-event"}"#), "{env}");

    assert_eq!(send(&place, "a/b", r#"{"v":2}"#), location);
    assert_eq!(jobs().len(), 1, "it is the same event");
    send(&place, "c", r#"{"v":3}"#);
    assert_eq!(jobs().len(), 2);

    space.kubectl(&["delete", "jobs", "-l", "sinks.knative.dev/job-sink-name=shows"]);
    until("their Secrets are gone", || space.list("secrets").is_empty().then_some(()));
    send(&place, "a/b", r#"{"v":9}"#);
    until_told(&place, &location, 200);
    assert_eq!(said(&space, &jobs()[0])["data"], json!({"v": 9}));

    let failing = Place::of(&space, "jobsink", "fails");
    let location = send(&failing, "f", "1");
    assert_eq!(until_told(&failing, &location, 400).header("reason"), "Failed");
    assert_eq!(post(&place, &[("content-type", "text/plain")], "x").status, 400, "it is no event");
    let nobody = Place { path: format!("/{}/nobody", space.name), ..place };
    assert_eq!(nobody.send("1", "t", "").status, 400);
}
