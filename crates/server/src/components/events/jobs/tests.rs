use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Mutex, PoisonError},
};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use knoll_client::{Body, whole};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;

/// As much of an API server as making a Job takes.
#[derive(Clone, Default)]
struct Fake {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    /// Answered instead, by the end of a collection's path, as often as it says.
    faults: Arc<Mutex<Vec<(&'static str, u16)>>>,
    /// Creates of Secrets wait for this where there is one.
    gate: Arc<Mutex<Option<Arc<Notify>>>>,
}

impl Fake {
    fn jobs(&self) -> ApiJobs {
        let fake = self.clone();
        ApiJobs::new(Client::new(move |request| {
            let fake = fake.clone();
            async move { Ok::<_, Infallible>(fake.answer(request).await) }
        }))
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let path = head.uri.path().to_owned();
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(gate) = gate.filter(|_| head.method == Method::POST && path.ends_with("secrets")) {
            gate.notified().await;
        }
        let (code, value) = self.decide(&head.method, &path, &body);
        let mut response = Response::new(whole(value.to_string()));
        *response.status_mut() = StatusCode::from_u16(code).expect("a status");
        response
    }

    fn decide(&self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
        let status = |code: u16| {
            let reason = if code == 404 { "NotFound" } else { "" };
            let status =
                json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "no"});
            (code, status)
        };
        let mut faults = self.faults.lock().unwrap();
        if let Some(at) = faults.iter().position(|(end, _)| path.ends_with(end)) {
            return status(faults.remove(at).1);
        }
        let mut objects = self.objects.lock().unwrap();
        if *method != Method::POST {
            return objects.get(path).map_or_else(|| status(404), |object| (200, object.clone()));
        }
        let mut object: Value = serde_json::from_slice(body).expect("an object");
        let path = format!("{path}/{}", object["metadata"]["name"].as_str().expect("a name"));
        if objects.contains_key(&path) {
            return status(409);
        }
        object["metadata"]["uid"] = format!("uid-{}", objects.len()).into();
        objects.insert(path, object.clone());
        (201, object)
    }

    fn fail(&self, end: &'static str, code: u16) {
        self.faults.lock().unwrap().push((end, code));
    }

    fn edit(&self, part: &str, edit: impl Fn(&mut Value)) {
        self.objects.lock().unwrap().iter_mut().filter(|(path, _)| path.contains(part)).for_each(|(_, it)| edit(it));
    }

    /// What there is: kind, name and what is asked for of it.
    fn shown(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().map(|path| path.split('/').rev().nth(1).unwrap().to_owned()).collect()
    }
}

fn sink(uid: &str) -> Arc<JobSink> {
    sink_of("ns", uid)
}

fn sink_of(namespace: &str, uid: &str) -> Arc<JobSink> {
    let job = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let metadata = json!({"name": "j", "namespace": namespace, "uid": uid});
    Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": {"job": job}})).expect("a JobSink"))
}

fn event(id: &str) -> Event {
    Event::new(id, "/s", "t").expect("an event")
}

async fn status(jobs: &ApiJobs, id: &str) -> u16 {
    jobs.make(sink("1"), event(id)).await.map_or_else(|no| no.status.as_u16(), |()| 202)
}

async fn progress(jobs: &ApiJobs, id: &str) -> Result<Progress, u16> {
    jobs.progress(sink("1"), "/s".into(), id.into()).await.map_err(|no| no.status.as_u16())
}

#[tokio::test]
async fn an_event_has_one_job_and_secret_however_often_it_comes() {
    let fake = Fake::default();
    let jobs = fake.jobs();
    assert_eq!((status(&jobs, "1").await, status(&jobs, "1").await), (202, 202));
    assert_eq!(fake.shown(), ["secrets", "jobs"]);
    assert_eq!(status(&jobs, "2").await, 202);
    assert_eq!(fake.shown(), ["secrets", "secrets", "jobs", "jobs"]);
    fake.edit("secrets", |secret| {
        let event = secret["data"]["event"].as_str().expect("it holds the event");
        assert!(event.starts_with("eyJzcGVjdmVyc2lvbiI6IjEuMCIs"), "{event}");
        assert_eq!(secret["metadata"]["ownerReferences"][0]["kind"], "Job");
    });
}

#[tokio::test]
async fn events_that_read_the_same_when_source_and_id_are_joined_have_jobs_of_their_own() {
    let fake = Fake::default();
    let jobs = fake.jobs();
    let of = |source: &str, id: &str| Event::new(id, source, "t").expect("an event");
    for (source, id) in [("/s", "11"), ("/s1", "1"), ("/s", "11")] {
        jobs.make(sink("1"), of(source, id)).await.expect("it is made");
    }
    assert_eq!(fake.shown(), ["secrets", "secrets", "jobs", "jobs"]);
}

#[tokio::test]
async fn a_job_of_the_name_that_it_had_before_is_its_events_alone() {
    let fake = Fake::default();
    let jobs = fake.jobs();
    let of = |source: &str, id: &str| Event::new(id, source, "t").expect("an event");
    jobs.make(sink("1"), of("/s", "11")).await.expect("it is made");
    let (now, before) = (event_job::name("j", "/s", "11"), event_job::earlier_name("j", "/s", "11"));
    let objects = std::mem::take(&mut *fake.objects.lock().unwrap());
    *fake.objects.lock().unwrap() =
        objects.into_iter().map(|(path, object)| (path.replace(&now, &before), object)).collect();
    fake.edit("", |object| object["metadata"]["name"] = before.as_str().into());
    jobs.make(sink("1"), of("/s", "11")).await.expect("it has its Job");
    assert_eq!(fake.shown(), ["secrets", "jobs"]);
    assert_eq!(progress(&jobs, "11").await, Ok(Progress::Running));
    let other = jobs.progress(sink("1"), "/s1".into(), "1".into()).await;
    assert_eq!(other.map_err(|no| no.status.as_u16()), Err(500), "it is none of this one's");
    jobs.make(sink("1"), of("/s1", "1")).await.expect("it is made");
    assert_eq!(fake.shown(), ["secrets", "secrets", "jobs", "jobs"]);
}

#[tokio::test]
async fn what_a_crash_left_out_is_made_up_for_when_the_event_comes_again() {
    let fake = Fake::default();
    let jobs = fake.jobs();
    fake.fail("secrets", 500);
    assert_eq!(status(&jobs, "1").await, 503);
    assert_eq!(fake.shown(), ["jobs"]);
    assert_eq!(status(&jobs, "1").await, 202);
    assert_eq!(fake.shown(), ["secrets", "jobs"]);
}

#[tokio::test]
async fn what_the_api_server_refuses_is_told_and_what_it_cannot_do_now_may_come_again() {
    let fake = Fake::default();
    let jobs = fake.jobs();
    for (code, expected) in [(422, 500), (403, 500), (429, 503), (500, 503), (504, 503)] {
        fake.fail("/jobs", code);
        assert_eq!(status(&jobs, "1").await, expected, "{code}");
    }
    fake.fail("jobs", 403);
    let no = jobs.make(sink("1"), event("1")).await.expect_err("it is refused");
    assert_eq!(no.reason, "the Job cannot be made: no");
    assert!(fake.shown().is_empty());
}

#[tokio::test]
async fn a_job_or_secret_of_another_is_none_of_the_events() {
    let fake = Fake::default();
    let jobs = fake.jobs();
    jobs.make(sink("0"), event("1")).await.expect("it is made");
    assert_eq!(status(&jobs, "1").await, 503, "of a JobSink that there was before");
    assert_eq!(progress(&jobs, "1").await, Err(500));
    fake.objects.lock().unwrap().retain(|path, _| path.contains("secrets"));
    assert_eq!(status(&jobs, "1").await, 503, "the Secret of that Job");
    fake.objects.lock().unwrap().retain(|path, _| path.contains("jobs"));
    assert_eq!(status(&jobs, "1").await, 202);
}

#[tokio::test]
async fn an_event_that_no_secret_holds_makes_no_job() {
    let fake = Fake::default();
    let mut large = event("1");
    large.set_data("text/plain", "x".repeat(1 << 20)).expect("data");
    let no = fake.jobs().make(sink("1"), large).await.expect_err("it is too large");
    assert_eq!(no.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(fake.shown().is_empty());
}

#[tokio::test]
async fn a_job_that_ended_says_how() {
    let fake = Fake::default();
    let jobs = fake.jobs();
    assert_eq!(progress(&jobs, "1").await, Err(500));
    assert_eq!(status(&jobs, "1").await, 202);
    assert_eq!(progress(&jobs, "1").await, Ok(Progress::Running));
    for (condition, expected) in [("Failed", Progress::Failed), ("Complete", Progress::Complete)] {
        let conditions = json!([{"type": condition, "status": "True"}]);
        fake.edit("jobs", |job| job["status"] = json!({"conditions": conditions}));
        assert_eq!(progress(&jobs, "1").await, Ok(expected));
    }
    // Its Secret may be gone by then.
    fake.objects.lock().unwrap().retain(|path, _| path.contains("jobs"));
    assert_eq!(status(&jobs, "1").await, 202);
    assert_eq!(fake.shown(), ["jobs"]);
}

#[tokio::test]
async fn a_sender_that_goes_away_leaves_no_job_without_its_event() {
    let fake = Fake::default();
    let gate = Arc::new(Notify::new());
    *fake.gate.lock().unwrap() = Some(gate.clone());
    let jobs = fake.jobs();
    let mut making = jobs.make(sink("1"), event("1"));
    while fake.shown().is_empty() {
        assert!(futures_util::poll!(&mut making).is_pending());
        tokio::task::yield_now().await;
    }
    drop(making);
    gate.notify_one();
    while fake.shown().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fake.shown(), ["secrets", "jobs"]);
}

#[tokio::test]
async fn jobs_that_one_namespace_waits_for_hold_up_no_other_and_their_places_come_back() {
    let fake = Fake::default();
    let gate = Arc::new(Notify::new());
    *fake.gate.lock().unwrap() = Some(gate.clone());
    let jobs = fake.jobs();
    let mut waiting: Vec<_> = (0..100).map(|id| jobs.make(sink("1"), event(&id.to_string()))).collect();
    while fake.shown().len() < PLACES / PARTS + 1 {
        for making in &mut waiting {
            assert!(futures_util::poll!(making).is_pending());
        }
        tokio::task::yield_now().await;
    }
    let mut other = jobs.make(sink_of("other", "2"), event("1"));
    while !fake.objects.lock().unwrap().keys().any(|path| path.contains("/other/")) {
        assert!(futures_util::poll!(&mut other).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(fake.shown().len(), PLACES / PARTS + 2, "the others wait for their turns");
    *fake.gate.lock().unwrap() = None;
    gate.notify_waiters();
    other.await.expect("it is made");
    for making in waiting {
        making.await.expect("it is made");
    }
    assert_eq!(fake.shown().len(), 2 * 101);
}
