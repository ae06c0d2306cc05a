//! Listings of many pages.

use std::time::Duration;

use http::Method;
use knoll_api::{Key, Kind};
use knoll_drive::Inspect;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{bound_pods, cluster, deployment, fake::Fake, start};

fn config_map(at: usize) -> Value {
    json!({"metadata": {"namespace": "a", "name": format!("m{at:04}")}, "data": {"key": "value"}})
}

/// Waits until the loop shows that it knows as many ConfigMaps as there are.
async fn all_known(fake: &Fake, inspect: &Inspect) {
    let is_known = || {
        let dump = inspect.dump();
        let world = dump["world"].as_array().into_iter().flatten();
        let of = |kind: &&Value| kind["kind"] == "configmaps";
        world.filter(of).any(|kind| kind["objects"] == fake.all(Kind::ConfigMap).len())
    };
    let waiting = async {
        while !is_known() {
            sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(Duration::from_secs(600), waiting).await.expect("the World knows what there is");
}

#[tokio::test(start_paused = true)]
async fn everything_of_a_listing_of_many_pages_is_known_and_what_the_next_does_not_name_is_gone() {
    let fake = cluster();
    for at in 0..450 {
        fake.put(Kind::ConfigMap, config_map(at));
    }
    let running = start(&fake);
    fake.put(Kind::Deployment, deployment(1));
    fake.until("a bound pod", |fake| bound_pods(fake) == 1).await;
    all_known(&fake, &running.inspect).await;
    let pages = fake.requests().iter().filter(|request| *request == "GET /api/v1/configmaps").count();
    assert!(pages > 2, "{pages} pages");
    // Its watches end without a word of what vanished.
    fake.lose(Kind::ConfigMap, &Key::new("a", "m0333"));
    fake.put(Kind::ConfigMap, config_map(450));
    all_known(&fake, &running.inspect).await;
    fake.lose(Kind::ConfigMap, &Key::new("a", "m0044"));
    all_known(&fake, &running.inspect).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_set_back_is_listed_again() {
    let fake = cluster();
    fake.put(Kind::ConfigMap, config_map(1));
    fake.put(Kind::ConfigMap, config_map(2));
    let running = start(&fake);
    all_known(&fake, &running.inspect).await;
    fake.set_back(Kind::ConfigMap, &Key::new("a", "m0001"));
    all_known(&fake, &running.inspect).await;
    fake.put(Kind::Deployment, deployment(1));
    fake.until("a bound pod", |fake| bound_pods(fake) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_has_its_table_before_anything_else_is_listed() {
    let fake = cluster();
    fake.put(Kind::ConfigMap, config_map(1));
    let hour = Duration::from_secs(3600);
    // Nothing of this is in a table; of the ConfigMaps only the configuration.
    let others = ["/api/v1/configmaps", "/api/v1/secrets", "/api/v1/namespaces", "/apis/apps/v1/deployments"];
    fake.set_delay(move |_, path| if others.contains(&path) { hour } else { Duration::ZERO });
    let mut running = start(&fake);
    let table = timeout(hour / 2, running.table.wait_for(Option::is_some));
    table.await.expect("it waits for no other kind").expect("the loop runs");
    let asked = |path: &str| fake.requests().iter().position(|request| request == &format!("GET {path}"));
    let last = asked("/apis/networking.internal.knative.dev/v1alpha1/ingresses").expect("it is listed");
    assert!(asked("/api/v1/secrets").is_none_or(|at| at > last), "others come after them");
}

#[tokio::test(start_paused = true)]
async fn what_comes_first_and_is_refused_does_not_keep_the_others() {
    let fake = cluster();
    let refused = |method: &Method, path: &str, _: &Value| {
        (*method == Method::GET && path.ends_with("/ingresses")).then_some((403, "Forbidden"))
    };
    fake.set_fault(refused);
    let _running = start(&fake);
    fake.put(Kind::Deployment, deployment(1));
    fake.until("a bound pod", |fake| bound_pods(fake) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_is_not_told_ahead_comes_with_all_others() {
    let fake = cluster();
    fake.put(Kind::ConfigMap, config_map(1));
    let hour = Duration::from_secs(3600);
    let ahead = "/api/v1/namespaces/knative-serving/configmaps";
    fake.set_delay(move |_, path| if path == ahead { hour } else { Duration::ZERO });
    let mut running = start(&fake);
    let table = timeout(hour / 2, running.table.wait_for(Option::is_some));
    table.await.expect("it waits for it no longer").expect("the loop runs");
}
