use futures_util::poll;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::components::events::fake_api::FakeApi;

/// The kinds of the objects that there are.
fn shown(fake: &FakeApi) -> Vec<String> {
    fake.paths().iter().map(|path| path.split('/').rev().nth(1).expect("a kind").to_owned()).collect()
}

/// Changes what has this in its path.
fn edit(fake: &FakeApi, part: &str, edit: impl Fn(&mut Value)) {
    for path in fake.paths().iter().filter(|path| path.contains(part)) {
        let mut object = fake.get(path).expect("it is there");
        edit(&mut object);
        fake.put(path, object);
    }
}

/// Removes what has this in its path.
fn remove(fake: &FakeApi, part: &str) {
    fake.paths().iter().filter(|path| path.contains(part)).for_each(|path| fake.remove(path));
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
    let fake = FakeApi::default();
    let jobs = ApiJobs::new(fake.client());
    assert_eq!((status(&jobs, "1").await, status(&jobs, "1").await), (202, 202));
    assert_eq!(shown(&fake), ["secrets", "jobs"]);
    assert_eq!(status(&jobs, "2").await, 202);
    assert_eq!(shown(&fake), ["secrets", "secrets", "jobs", "jobs"]);
    edit(&fake, "secrets", |secret| {
        let event = secret["data"]["event"].as_str().expect("it holds the event");
        assert!(event.starts_with("eyJzcGVjdmVyc2lvbiI6IjEuMCIs"), "{event}");
        assert_eq!(secret["metadata"]["ownerReferences"][0]["kind"], "Job");
    });
}

#[tokio::test]
async fn events_that_read_the_same_when_source_and_id_are_joined_have_jobs_of_their_own() {
    let fake = FakeApi::default();
    let jobs = ApiJobs::new(fake.client());
    let of = |source: &str, id: &str| Event::new(id, source, "t").expect("an event");
    for (source, id) in [("/s", "11"), ("/s1", "1"), ("/s", "11")] {
        jobs.make(sink("1"), of(source, id)).await.expect("it is made");
    }
    assert_eq!(shown(&fake), ["secrets", "secrets", "jobs", "jobs"]);
}

#[tokio::test]
async fn a_job_of_the_name_that_it_had_before_is_its_events_alone() {
    let fake = FakeApi::default();
    let jobs = ApiJobs::new(fake.client());
    let of = |source: &str, id: &str| Event::new(id, source, "t").expect("an event");
    jobs.make(sink("1"), of("/s", "11")).await.expect("it is made");
    let (now, before) = (event_job::name("j", "/s", "11"), event_job::earlier_name("j", "/s", "11"));
    for path in fake.paths() {
        let mut object = fake.get(&path).expect("it is there");
        fake.remove(&path);
        object["metadata"]["name"] = before.as_str().into();
        fake.put(&path.replace(&now, &before), object);
    }
    jobs.make(sink("1"), of("/s", "11")).await.expect("it has its Job");
    assert_eq!(shown(&fake), ["secrets", "jobs"]);
    assert_eq!(progress(&jobs, "11").await, Ok(Progress::Running));
    let other = jobs.progress(sink("1"), "/s1".into(), "1".into()).await;
    assert_eq!(other.map_err(|no| no.status.as_u16()), Err(500), "it is none of this one's");
    jobs.make(sink("1"), of("/s1", "1")).await.expect("it is made");
    assert_eq!(shown(&fake), ["secrets", "secrets", "jobs", "jobs"]);
}

#[tokio::test]
async fn what_a_crash_left_out_is_made_up_for_when_the_event_comes_again() {
    let fake = FakeApi::default();
    let jobs = ApiJobs::new(fake.client());
    fake.fail("secrets", 500);
    assert_eq!(status(&jobs, "1").await, 503);
    assert_eq!(shown(&fake), ["jobs"]);
    assert_eq!(status(&jobs, "1").await, 202);
    assert_eq!(shown(&fake), ["secrets", "jobs"]);
}

#[tokio::test]
async fn what_the_api_server_refuses_is_told_and_what_it_cannot_do_now_may_come_again() {
    let fake = FakeApi::default();
    let jobs = ApiJobs::new(fake.client());
    for (code, expected) in [(422, 500), (403, 500), (429, 503), (500, 503), (504, 503)] {
        fake.fail("/jobs", code);
        assert_eq!(status(&jobs, "1").await, expected, "{code}");
    }
    fake.fail("jobs", 403);
    let no = jobs.make(sink("1"), event("1")).await.expect_err("it is refused");
    assert_eq!(no.reason, "the Job cannot be made: no");
    assert!(shown(&fake).is_empty());
}

#[tokio::test]
async fn a_job_or_secret_of_another_is_none_of_the_events() {
    let fake = FakeApi::default();
    let jobs = ApiJobs::new(fake.client());
    jobs.make(sink("0"), event("1")).await.expect("it is made");
    assert_eq!(status(&jobs, "1").await, 503, "of a JobSink that there was before");
    assert_eq!(progress(&jobs, "1").await, Err(500));
    remove(&fake, "jobs");
    assert_eq!(status(&jobs, "1").await, 503, "the Secret of that Job");
    remove(&fake, "secrets");
    assert_eq!(status(&jobs, "1").await, 202);
}

#[tokio::test]
async fn an_event_that_no_secret_holds_makes_no_job() {
    let fake = FakeApi::default();
    let mut large = event("1");
    large.set_data("text/plain", "x".repeat(1 << 20)).expect("data");
    let no = ApiJobs::new(fake.client()).make(sink("1"), large).await.expect_err("it is too large");
    assert_eq!(no.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(shown(&fake).is_empty());
}

#[tokio::test]
async fn a_job_that_ended_says_how() {
    let fake = FakeApi::default();
    let jobs = ApiJobs::new(fake.client());
    assert_eq!(progress(&jobs, "1").await, Err(500));
    assert_eq!(status(&jobs, "1").await, 202);
    assert_eq!(progress(&jobs, "1").await, Ok(Progress::Running));
    for (condition, expected) in [("Failed", Progress::Failed), ("Complete", Progress::Complete)] {
        let conditions = json!([{"type": condition, "status": "True"}]);
        edit(&fake, "jobs", |job| job["status"] = json!({"conditions": conditions}));
        assert_eq!(progress(&jobs, "1").await, Ok(expected));
    }
    // Its Secret may be gone by then.
    remove(&fake, "secrets");
    assert_eq!(status(&jobs, "1").await, 202);
    assert_eq!(shown(&fake), ["jobs"]);
}

#[tokio::test]
async fn a_sender_that_goes_away_leaves_no_job_without_its_event() {
    let fake = FakeApi::default();
    let gate = Arc::new(Notify::new());
    fake.hold(Some(gate.clone()));
    let jobs = ApiJobs::new(fake.client());
    let mut making = jobs.make(sink("1"), event("1"));
    while shown(&fake).is_empty() {
        assert!(poll!(&mut making).is_pending());
        tokio::task::yield_now().await;
    }
    drop(making);
    gate.notify_one();
    while shown(&fake).len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(shown(&fake), ["secrets", "jobs"]);
}

#[tokio::test]
async fn jobs_that_one_namespace_waits_for_hold_up_no_other_and_their_places_come_back() {
    let fake = FakeApi::default();
    let gate = Arc::new(Notify::new());
    fake.hold(Some(gate.clone()));
    let jobs = ApiJobs::new(fake.client());
    let mut waiting: Vec<_> = (0..100).map(|id| jobs.make(sink("1"), event(&id.to_string()))).collect();
    while shown(&fake).len() < PLACES / PARTS + 1 {
        for making in &mut waiting {
            assert!(poll!(making).is_pending());
        }
        tokio::task::yield_now().await;
    }
    let mut other = jobs.make(sink_of("other", "2"), event("1"));
    while !fake.paths().iter().any(|path| path.contains("/other/")) {
        assert!(poll!(&mut other).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(shown(&fake).len(), PLACES / PARTS + 2, "the others wait for their turns");
    fake.hold(None);
    gate.notify_waiters();
    other.await.expect("it is made");
    for making in waiting {
        making.await.expect("it is made");
    }
    assert_eq!(shown(&fake).len(), 2 * 101);
}
