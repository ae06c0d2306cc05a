//! Of the processes with one role, the holder of its lease plans.

use std::{sync::Arc, time::Duration};

use http::Method;
use knoll_api::Kind;
use knoll_drive::{Lease, Role};
use knoll_plan::Settings;

use crate::{Fake, Registry, Running, bound_pods, cluster, deployment, start_with};

fn candidate(fake: &Fake, holder: &str) -> Running {
    let lease = Lease { namespace: "a".into(), name: "role".into(), holder: holder.into() };
    let role = Role { lease: Some(lease), ..Role::everything(Settings::default()) };
    start_with(fake, role, Arc::new(Registry), |_| {})
}

async fn leads(running: &Running) {
    while running.counters.read().planned == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_another_takes_over_when_it_dies() {
    let fake = cluster();
    let first = candidate(&fake, "first");
    leads(&first).await;
    let second = candidate(&fake, "second");
    fake.put(Kind::Deployment, deployment(2));
    fake.until("two bound pods", |fake| bound_pods(fake) == 2).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(second.counters.read().planned, 0, "who does not lead plans nothing");

    first.task.abort();
    let died = tokio::time::Instant::now();
    leads(&second).await;
    assert!(died.elapsed() >= Duration::from_secs(10), "a dead holder is waited for");
    fake.put(Kind::Deployment, deployment(3));
    fake.until("three bound pods", |fake| bound_pods(fake) == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_told_to_stop_hands_over_at_once() {
    let fake = cluster();
    let first = candidate(&fake, "first");
    leads(&first).await;
    let second = candidate(&fake, "second");
    tokio::time::sleep(Duration::from_secs(5)).await;
    first.stop.send(()).expect("it runs");
    first.task.await.expect("no panic").expect("no error");
    let stopped = tokio::time::Instant::now();
    leads(&second).await;
    assert!(stopped.elapsed() <= Duration::from_secs(5), "{:?}", stopped.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_answered_late_counts_from_when_it_was_asked_for() {
    let fake = cluster();
    let first = candidate(&fake, "first");
    leads(&first).await;
    let (asked, mut asked_at) = tokio::sync::mpsc::unbounded_channel();
    let mut late = true;
    // The first renewal is done at once and answered after nine seconds, those after it never.
    fake.set_delay(move |method, path| match (path.contains("/leases/"), method == Method::PUT) {
        (true, true) if std::mem::replace(&mut late, false) => {
            asked.send(tokio::time::Instant::now()).expect("the test waits");
            Duration::from_secs(9)
        }
        (true, _) if !late => Duration::from_secs(3600),
        _ => Duration::ZERO,
    });
    let asked = asked_at.recv().await.expect("it renews");
    // Others may lead fifteen seconds after they saw it.
    tokio::time::sleep_until(asked + Duration::from_secs(13)).await;
    let planned = first.counters.read().planned;
    fake.put(Kind::Deployment, deployment(1));
    tokio::time::sleep_until(asked + Duration::from_secs(17)).await;
    assert_eq!(first.counters.read().planned, planned, "it stopped");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_another_may_lead() {
    let fake = cluster();
    let first = candidate(&fake, "first");
    leads(&first).await;
    fake.set_fault(|method, path, _| (*method == Method::PUT && path.contains("/leases/")).then_some((500, "Broken")));
    tokio::time::sleep(Duration::from_secs(13)).await;
    let planned = first.counters.read().planned;
    fake.put(Kind::Deployment, deployment(1));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(first.counters.read().planned, planned, "it stopped");
    fake.set_fault(|_, _, _| None);
    fake.until("it leads again", |fake| bound_pods(fake) == 1).await;
}
