//! Wall clocks that are set, and machines that sleep: timers stand still meanwhile, and dates go on.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use knoll_api::{Key, Kind, clock::Reading};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{cluster, fake::Fake, start_by};

/// When each test begins.
const NOON: &str = "2026-06-01T12:00:00Z";

/// The clocks of a machine whose wall clock a test sets.
#[derive(Clone)]
struct Machine {
    begun: Instant,
    set: Arc<Mutex<SignedDuration>>,
}

impl Machine {
    fn at_noon() -> Machine {
        Machine { begun: Instant::now(), set: Arc::default() }
    }

    fn jump(&self, by: SignedDuration) {
        *self.set.lock().expect("nobody panicked") += by;
    }

    fn read(&self) -> Reading {
        let noon: Timestamp = NOON.parse().expect("a time");
        (Instant::now().into_std(), noon + self.begun.elapsed() + *self.set.lock().expect("nobody panicked"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_schedule_goes_by_the_wall_clock_though_the_machine_slept_meanwhile() {
    let (fake, machine) = (cluster(), Machine::at_noon());
    fake.put(
        Kind::CronJob,
        json!({"metadata": {"namespace": "a", "name": "daily", "creationTimestamp": NOON}, "spec": {
            "schedule": "0 18 * * *", "jobTemplate": {"spec": {"suspend": true, "template": {"spec": {"containers": []}}}}}}),
    );
    let clocks = machine.clone();
    let _running = start_by(&fake, Arc::new(move || clocks.read()));
    sleep(Duration::from_secs(60)).await;
    assert!(fake.all(Kind::Job).is_empty());
    machine.jump(SignedDuration::from_mins(5 * 60 + 50));
    let woken = Instant::now();
    fake.until("the Job of six in the evening is made", |fake| fake.all(Kind::Job).len() == 1).await;
    let late = woken.elapsed().saturating_sub(Duration::from_secs(9 * 60));
    assert!(late < Duration::from_secs(60), "{late:?} late");
    machine.jump(SignedDuration::from_hours(24));
    let woken = Instant::now();
    fake.until("the Job that was missed is made up for", |fake| fake.all(Kind::Job).len() == 2).await;
    assert!(woken.elapsed() < Duration::from_secs(60), "{:?}", woken.elapsed());
}

/// A binding whose sink asks who sends.
fn binding(fake: &Fake) {
    let features = json!({"authentication-oidc": "enabled"});
    let namespace = "knative-eventing";
    fake.put(
        Kind::ConfigMap,
        json!({"metadata": {"namespace": namespace, "name": "config-features"}, "data": features}),
    );
    fake.put(Kind::Deployment, crate::deployment(0));
    fake.put(
        Kind::SinkBinding,
        json!({"metadata": {"namespace": "a", "name": "b"}, "spec": {
            "sink": {"uri": "https://sink", "audience": "me"},
            "subject": {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "a", "name": "d"}}, "status": {}}),
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_is_issued_once_for_as_long_as_it_holds_wherever_the_clock_was_set() {
    for (hours, end, later) in
        [(6, "2026-06-01T19:00:00Z", "2026-06-01T19:50:00Z"), (-6, "2026-06-01T07:00:00Z", "2026-06-01T07:50:00Z")]
    {
        let (fake, machine) = (cluster(), Machine::at_noon());
        let clocks = machine.clone();
        let _running = start_by(&fake, Arc::new(move || clocks.read()));
        sleep(Duration::from_secs(60)).await;
        machine.jump(SignedDuration::from_hours(hours));
        fake.issue_tokens(end);
        let mut asked = 0;
        fake.set_fault(move |_, path, _| {
            asked += u32::from(path.ends_with("/token"));
            // Whoever asks again and again would keep the clock of this test from going on.
            (path.ends_with("/token") && asked > 9).then_some((429, "TooManyRequests"))
        });
        binding(&fake);
        let issued = || fake.requests().iter().filter(|request| request.ends_with("/token")).count();
        let secret = Key::new("a", "b-oidc-token");
        fake.until("a token is there", |fake| fake.get(Kind::Secret, &secret).is_some()).await;
        sleep(Duration::from_secs(40 * 60)).await;
        assert_eq!(issued(), 1, "set by {hours} hours");
        fake.issue_tokens(later);
        sleep(Duration::from_secs(15 * 60)).await;
        assert_eq!(issued(), 2, "set by {hours} hours: it is renewed before it ends");
    }
}
