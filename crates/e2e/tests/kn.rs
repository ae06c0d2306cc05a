//! An unmodified `kn` makes, changes, shows and removes services.

use knoll_e2e::{Namespace, condition, get, host_of};

fn kn(space: &Namespace, arguments: &[&str]) -> String {
    let mut words = arguments.to_vec();
    words.extend(["-n", &space.name]);
    space.cluster.succeed("kn", &words, "")
}

const ACTOR: &str = "localhost:5000/e2e/actor:1";

#[test]
fn services_are_created_updated_described_listed_and_deleted() {
    let space = Namespace::new("kn");
    let created = kn(&space, &["service", "create", "app", "--image", ACTOR, "--env", "TARGET=one"]);
    assert!(created.contains(&format!("http://app.{}.localhost", space.name)), "{created}");
    assert_eq!(space.ask("app").body, "actor one\n");
    kn(&space, &["service", "update", "app", "--env", "TARGET=two", "--concurrency-limit", "5"]);
    assert_eq!(space.ready("app")["status"]["latestReadyRevisionName"], "app-00002");
    assert_eq!(space.ask("app").body, "actor two\n");
    let described = kn(&space, &["service", "describe", "app"]);
    for part in ["Name:", "app-00002", "100%", "++ Ready", ACTOR] {
        assert!(described.contains(part), "{part} is missing in:\n{described}");
    }
    let listed = kn(&space, &["service", "list"]);
    assert!(listed.contains("app-00002") && listed.contains("3 OK / 3") && listed.contains("True"), "{listed}");
    kn(&space, &["service", "delete", "app", "--wait"]);
    assert!(space.object("ksvc", "app").is_null());
    assert!(kn(&space, &["service", "list"]).contains("No services found."));
}

#[test]
fn traffic_is_tagged_and_split() {
    let space = Namespace::new("split");
    kn(&space, &["service", "create", "app", "--image", ACTOR, "--env", "TARGET=one"]);
    kn(&space, &["service", "update", "app", "--env", "TARGET=two"]);
    let tag =
        ["service", "update", "app", "--tag", "app-00001=old", "--traffic", "app-00001=50", "--traffic", "@latest=50"];
    kn(&space, &tag);
    let service = space.service("app", "is split", |service| {
        let traffic = service["status"]["traffic"].as_array();
        condition(service, "Ready")["status"] == "True" && traffic.is_some_and(|traffic| traffic.len() == 2)
    });
    let traffic = service["status"]["traffic"].as_array().expect("a list");
    let old = traffic.iter().find(|target| target["tag"] == "old").expect("the tag is there");
    let host = host_of(old["url"].as_str().expect("it has a URL"));
    assert_eq!(get(&space.cluster.gateway, &host, "/").expect("it answers").body, "actor one\n");
    let bodies: Vec<String> = (0..60).map(|_| space.ask("app").body).collect();
    // That 60 throws of a coin all show one side has a chance of one in 10^18.
    for body in ["actor one\n", "actor two\n"] {
        assert!(bodies.iter().any(|seen| seen == body), "{bodies:?}");
    }
    let listed = kn(&space, &["revision", "list"]);
    assert!(listed.contains("app-00001") && listed.contains("app-00002") && listed.contains("old"), "{listed}");
    let described = kn(&space, &["revision", "describe", "app-00001"]);
    assert!(described.contains("Service:") && described.contains("++ Ready"), "{described}");
    let routes = kn(&space, &["route", "list"]);
    assert!(routes.contains("app") && routes.contains("True"), "{routes}");
}

#[test]
fn a_service_that_cannot_start_is_told() {
    let space = Namespace::new("fails");
    let words = ["service", "create", "app", "--image", "localhost:5000/e2e/nowhere:1", "-n", &space.name];
    let output = space.cluster.run("kn", &words, "");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(errors.contains("RevisionFailed") && errors.contains("localhost:5000/e2e/nowhere:1"), "{errors}");
}

#[test]
fn applying_what_is_there_tells_of_no_changes() {
    let space = Namespace::new("apply");
    kn(&space, &["service", "apply", "app", "--image", ACTOR, "--env", "TARGET=one"]);
    space.ready("app");
    let again = kn(&space, &["service", "apply", "app", "--image", ACTOR, "--env", "TARGET=one"]);
    assert!(again.to_lowercase().contains("no changes"), "{again}");
    assert_eq!(space.object("ksvc", "app")["metadata"]["generation"], 1);
}
