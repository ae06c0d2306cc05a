use std::time::Duration;

use knoll_api::Object;
use serde_json::{Value, json};

use super::*;
use crate::{
    Observation, Refusal, Want,
    check::{Cluster, NOW},
};

/// A cluster with the CronJob `c`, made at noon.
struct Scene {
    cluster: Cluster,
    now: Timestamp,
    recheck: Option<Duration>,
}

impl Scene {
    /// Every ten minutes; `change` says what else of the spec.
    fn new(change: Value) -> Scene {
        let mut spec = json!({
            "schedule": "*/10 * * * *", "concurrencyPolicy": "Allow", "suspend": false,
            "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": {
                "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
                "spec": {"template": {"spec": {"containers": []}}},
            },
        });
        let more = change.as_object().expect("an object").clone();
        spec.as_object_mut().expect("an object").extend(more);
        let mut scene = Scene { cluster: Cluster::new(), now: NOW, recheck: None };
        scene.cluster.put(Kind::CronJob, json!({"metadata": {"name": "c"}, "spec": spec}));
        scene.settle();
        scene
    }

    fn key() -> Key {
        Key::new("default", "c")
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            let plan = (ROW.plan)(&self.cluster.world, &Scene::key(), self.now);
            assert_eq!(plan, (ROW.plan)(&self.cluster.world, &Scene::key(), self.now), "the same plan twice");
            self.recheck = plan.recheck;
            plan.wants.iter().for_each(|want| self.cluster.carry_out(want, self.now));
            if plan.wants.iter().all(|want| matches!(want, Want::RecordEvent(_))) {
                return;
            }
        }
        panic!("no rest");
    }

    /// So many minutes and seconds after noon.
    fn at(&mut self, minutes: u64, seconds: u64) {
        self.now = NOW + Duration::from_secs(minutes * 60 + seconds);
        self.settle();
    }

    /// Names of its Jobs, without the part they share.
    fn jobs(&self) -> Vec<String> {
        let names = self.cluster.world.jobs.iter().map(|job| job.name().to_owned());
        let noon = NOW.as_second() / 60;
        names
            .map(|name| match name.strip_prefix("c-").and_then(|minutes| minutes.parse::<i64>().ok()) {
                Some(minutes) => format!("+{}", minutes - noon),
                None => name,
            })
            .collect()
    }

    /// Has the run of so many minutes after noon end.
    fn end(&mut self, minutes: i64, type_: &str) {
        let key = Scene::key().sibling(format!("c-{}", NOW.as_second() / 60 + minutes));
        let now = self.now.to_string();
        self.cluster.edit(Kind::Job, &key, |job| {
            job["status"] = json!({
                "startTime": now, "completionTime": (type_ == "Complete").then_some(&now),
                "conditions": [{"type": type_, "status": "True", "lastTransitionTime": now}],
            });
        });
        self.settle();
    }

    fn status(&self) -> Value {
        self.cluster.world.object(Kind::CronJob, &Scene::key()).expect("it is there").to_json()["status"].clone()
    }

    fn active(&self) -> usize {
        self.status()["active"].as_array().map_or(0, Vec::len)
    }

    fn told(&self, reason: &str) -> Vec<&str> {
        let notes = self.cluster.notes.iter();
        notes.filter_map(|note| note.strip_prefix(reason)?.strip_prefix(": ")).collect()
    }
}

#[test]
fn a_job_is_made_at_each_time_under_a_name_that_says_which() {
    let mut scene = Scene::new(json!({"timeZone": "Asia/Tokyo"}));
    assert_eq!(scene.jobs(), [""; 0]);
    assert_eq!(scene.recheck, Some(Duration::from_millis(600_100)));
    scene.at(10, 0);
    assert_eq!((scene.jobs(), scene.active()), (vec!["+10".to_owned()], 1));
    let job = scene.cluster.world.jobs.iter().next().expect("one");
    assert!(job.is_controlled_by(scene.cluster.world.cron_jobs.iter().next().expect("one").as_ref()));
    assert_eq!((job.label("a"), job.annotation("c")), (Some("b"), Some("d")));
    assert_eq!(job.annotation(batch::SCHEDULED), Some("2026-01-01T21:10:00+09:00"));
    let status = scene.status();
    assert_eq!(status["lastScheduleTime"], "2026-01-01T12:10:00Z");
    assert_eq!((&status["active"][0]["kind"], &status["active"][0]["uid"]), (&json!("Job"), &json!(job.uid())));
    scene.at(19, 59);
    assert_eq!(scene.jobs(), ["+10"]);
    scene.at(20, 0);
    assert_eq!((scene.jobs(), scene.active()), (vec!["+10".to_owned(), "+20".to_owned()], 2), "they may overlap");
    scene.end(10, "Complete");
    assert_eq!((scene.active(), &scene.status()["lastSuccessfulTime"]), (1, &json!("2026-01-01T12:20:00Z")));
    assert_eq!(scene.told("SawCompletedJob").len(), 1);
    assert_eq!(scene.told("UnexpectedJob"), [""; 0]);
}

#[test]
fn a_crash_between_any_two_steps_neither_loses_a_run_nor_doubles_one() {
    let base = Scene::new(json!({"concurrencyPolicy": "Replace"}));
    let due = NOW + Duration::from_secs(600);
    let wants = (ROW.plan)(&base.cluster.world, &Scene::key(), due).wants;
    for done in 0..=wants.len() {
        let mut scene = Scene { cluster: base.cluster.clone(), now: due, recheck: None };
        wants[..done].iter().for_each(|want| scene.cluster.carry_out(want, due));
        scene.settle();
        assert_eq!((scene.jobs(), scene.active()), (vec!["+10".to_owned()], 1), "after {done}");
        assert_eq!(scene.status()["lastScheduleTime"], "2026-01-01T12:10:00Z");
    }
}

#[test]
fn a_run_that_may_not_overlap_waits_and_is_made_up_for() {
    let mut scene = Scene::new(json!({"concurrencyPolicy": "Forbid"}));
    scene.at(10, 0);
    scene.at(20, 0);
    assert_eq!(scene.jobs(), ["+10"]);
    assert_eq!(scene.told("JobAlreadyActive").len(), 1);
    scene.at(25, 0);
    scene.end(10, "Complete");
    assert_eq!(scene.jobs(), ["+10", "+20"], "what was left out");
}

#[test]
fn a_run_may_take_the_place_of_the_one_before() {
    let mut scene = Scene::new(json!({"concurrencyPolicy": "Replace"}));
    scene.at(10, 0);
    scene.at(20, 0);
    assert_eq!((scene.jobs(), scene.active()), (vec!["+20".to_owned()], 1));
    assert_eq!(scene.told("SuccessfulDelete").len(), 1);
}

#[test]
fn of_what_was_missed_the_newest_is_made_up_for_unless_it_is_too_late() {
    let mut scene = Scene::new(json!({}));
    scene.at(47, 0);
    assert_eq!(scene.jobs(), ["+40"]);
    assert_eq!(scene.recheck, Some(Duration::from_millis(180_100)));
    scene.at(60 * 24 + 5, 0);
    assert_eq!(scene.jobs(), ["+40", "+1440"]);
    assert_eq!(scene.told("TooManyMissedTimes").len(), 1);
    let mut scene = Scene::new(json!({"startingDeadlineSeconds": 60}));
    scene.at(47, 0);
    assert_eq!(scene.jobs(), [""; 0]);
    scene.at(50, 59);
    assert_eq!(scene.jobs(), ["+50"]);
}

#[test]
fn a_suspended_one_makes_none_and_keeps_its_books() {
    let mut scene = Scene::new(json!({}));
    scene.at(10, 0);
    scene.cluster.edit(Kind::CronJob, &Scene::key(), |cron| cron["spec"]["suspend"] = true.into());
    scene.at(35, 0);
    assert_eq!((scene.jobs(), scene.recheck), (vec!["+10".to_owned()], None));
    scene.end(10, "Failed");
    assert_eq!((scene.active(), scene.status().get("lastSuccessfulTime")), (0, None));
    scene.cluster.edit(Kind::CronJob, &Scene::key(), |cron| cron["spec"]["suspend"] = false.into());
    scene.settle();
    assert_eq!(scene.jobs(), ["+10", "+30"]);
}

#[test]
fn as_many_ended_jobs_are_kept_as_were_asked_for() {
    let mut scene = Scene::new(json!({"successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 0}));
    for minutes in [10, 20, 30] {
        scene.at(minutes, 0);
        scene.end(i64::try_from(minutes).expect("small"), "Complete");
    }
    assert_eq!(scene.jobs(), ["+20", "+30"]);
    scene.at(40, 0);
    scene.end(40, "Failed");
    assert_eq!(scene.jobs(), ["+20", "+30"]);
    assert_eq!((scene.told("SuccessfulDelete").len(), scene.active()), (2, 0));
}

#[test]
fn jobs_that_vanish_or_come_from_elsewhere_are_told_of() {
    let mut scene = Scene::new(json!({}));
    scene.at(10, 0);
    let key = scene.cluster.world.jobs.iter().next().expect("one").key();
    scene.cluster.delete(Kind::Job, &key);
    scene
        .cluster
        .put(Kind::Job, json!({"metadata": {"name": "by-hand", "owner": "CronJob/c"}, "spec": {"template": {}}}));
    scene.settle();
    assert_eq!((scene.jobs(), scene.active()), (vec!["by-hand".to_owned()], 0), "its time was run already");
    assert_eq!(scene.told("MissingJob"), [format!("Active job went missing: {}", key.name)]);
    let why = "Saw a job that the controller did not create or forgot: by-hand";
    assert!(scene.told("UnexpectedJob").contains(&why));
    scene.end_named("by-hand");
    assert_eq!(scene.status()["lastSuccessfulTime"], "2026-01-01T12:10:00Z");
}

impl Scene {
    fn end_named(&mut self, name: &str) {
        let now = self.now.to_string();
        self.cluster.edit(Kind::Job, &Scene::key().sibling(name), |job| {
            job["status"] = json!({
                "completionTime": now, "conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": now}],
            });
        });
        self.settle();
    }
}

#[test]
fn somebody_elses_job_of_that_name_is_left_alone() {
    let mut scene = Scene::new(json!({}));
    let name = format!("c-{}", NOW.as_second() / 60 + 10);
    scene.cluster.put(Kind::Job, json!({"metadata": {"name": name}, "spec": {"template": {}}}));
    scene.at(10, 0);
    assert_eq!((scene.active(), scene.told("SuccessfulCreate").len()), (0, 0));
    scene.at(20, 0);
    assert_eq!(scene.active(), 1);
}

#[test]
fn what_no_time_can_be_read_from_is_told() {
    let told = |change: Value, reason: &str| {
        let scene = Scene::new(change);
        assert_eq!(scene.recheck, None, "{reason}");
        scene.told(reason).join("\n")
    };
    assert_eq!(
        told(json!({"schedule": "x"}), "UnparseableSchedule"),
        "unparseable schedule: \"x\" : expected exactly 5 fields, found 1: [x]"
    );
    assert_eq!(
        told(json!({"timeZone": "Moon/Base"}), "UnknownTimeZone"),
        "invalid timeZone: \"Moon/Base\": unknown time zone Moon/Base"
    );
    assert_eq!(
        told(json!({"schedule": "0 0 30 2 *"}), "InvalidSchedule"),
        "invalid schedule: 0 0 30 2 * : time difference between two schedules is less than 1 second"
    );
}

#[test]
fn a_refusal_is_told_and_tried_again() {
    let mut scene = Scene::new(json!({}));
    let due = NOW + Duration::from_secs(600);
    let key = Scene::key().sibling(format!("c-{}", due.as_second() / 60));
    let refusal = Refusal { reason: "Forbidden".into(), message: "exceeded quota".into(), at: due };
    let (asker, object) = ((Kind::CronJob, Scene::key()), (Kind::Job, key));
    scene.cluster.world.observe(Observation::Refused { asker, object, refusal });
    scene.at(10, 0);
    assert_eq!(scene.told("FailedCreate"), ["Error creating job: exceeded quota"]);
    assert_eq!(scene.jobs(), ["+10"]);
}

#[test]
fn a_deleted_one_only_keeps_its_books() {
    let mut scene = Scene::new(json!({}));
    scene.cluster.edit(Kind::CronJob, &Scene::key(), |cron| {
        cron["metadata"]["finalizers"] = json!(["orphan"]);
        cron["metadata"]["deletionTimestamp"] = NOW.to_string().into();
    });
    scene.at(10, 0);
    assert_eq!(scene.jobs(), [""; 0]);
    let gone = Object::from_json(Kind::CronJob, json!({"metadata": {"name": "gone", "namespace": "default"}}));
    assert!(gone.is_ok() && (ROW.plan)(&scene.cluster.world, &Key::new("default", "gone"), NOW).is_empty());
}
