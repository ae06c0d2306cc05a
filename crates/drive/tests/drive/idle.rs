//! Hours in which nothing happens, and a wall clock that does not go on meanwhile, as one that was set back.

use std::time::Duration;

use knoll_api::{Key, Kind};
use tokio::time::{Instant, sleep};

use crate::{bound_pods, cluster, is_ready, kubelet, service_at_zero, start};

#[tokio::test(start_paused = true)]
async fn a_cold_start_after_an_idle_hour_is_as_fast_as_the_first() {
    let fake = cluster();
    let running = start(&fake);
    service_at_zero(&fake);
    fake.until("the service is ready at zero", |fake| is_ready(fake, Kind::Service, "hello")).await;
    let listed = running.counters.read().listed;
    for round in 0..3 {
        let node = kubelet(&fake);
        let before = Instant::now();
        running.wakes.send(Key::new("a", "hello-00001")).await.expect("it listens");
        fake.until("an instance is bound", |fake| bound_pods(fake) == 1).await;
        assert_eq!(before.elapsed(), Duration::ZERO, "round {round}: nothing waited for a clock");
        // The wall clock of this test stands still, and yet windows and graces pass.
        fake.until("there is no instance again", |fake| fake.all(Kind::Pod).is_empty()).await;
        node.abort();
        for _ in 0..12 {
            sleep(Duration::from_secs(300)).await;
            fake.age();
            sleep(Duration::from_millis(1)).await;
            fake.hang_up();
        }
        sleep(Duration::from_millis(1)).await;
        assert_eq!(fake.watching(), Kind::ALL.len(), "round {round}: every kind is watched");
    }
    assert_eq!(running.counters.read().listed, listed, "no listing was needed");
}
