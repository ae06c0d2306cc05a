//! The Eventing part of Knative's tutorial, its commands as they are written there. The player is the one of `examples/`, under
//! the name of the tutorial's.

use knoll_e2e::{Answer, Namespace, get, request, until};
use serde_json::Value;

/// Runs `kn` with these words in a namespace.
fn kn(space: &Namespace, command: &str) -> String {
    let mut words: Vec<&str> = command.split_whitespace().collect();
    words.extend(["-n", &space.name]);
    space.cluster.succeed("kn", &words, "")
}

/// The tutorial's way to post an event, to a path of the player.
fn post(space: &Namespace, path: &str, id: &str, kind: &str) -> Answer {
    let headers = [
        ("Content-Type", "application/json"),
        ("Ce-Id", id),
        ("Ce-Specversion", "1.0"),
        ("Ce-Type", kind),
        ("Ce-Source", "command-line"),
    ];
    let (gateway, host) = (&space.cluster.gateway, space.host("cloudevents-player"));
    request(gateway, &host, "POST", path, &headers, r#"{"msg":"Hello CloudEvents!"}"#).expect("the player answers")
}

/// What became of the events that the player knows, newest first: `id type`.
fn messages(space: &Namespace) -> Vec<String> {
    let host = space.host("cloudevents-player");
    let answer = get(&space.cluster.gateway, &host, "/messages").expect("the player answers");
    let listed: Value = serde_json::from_str(&answer.body).expect("JSON");
    let text = |message: &Value, field: &str| message[field].as_str().unwrap_or_default().to_owned();
    let each = |message: &Value| format!("{} {}", text(message, "id"), text(message, "type"));
    listed.as_array().into_iter().flatten().map(each).collect()
}

fn until_known(space: &Namespace, message: &str) {
    until(&format!("the player knows {message}"), || {
        messages(space).iter().any(|known| known == message).then_some(())
    });
}

#[test]
fn the_tutorial_of_eventing_goes_as_it_is_written() {
    let space = Namespace::new("tutorial");
    let name = &space.name;
    // There the broker comes with the installation.
    kn(&space, "broker create example-broker");
    space.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "broker/example-broker"]);
    let listed = kn(&space, "broker list");
    let url = format!("http://broker-ingress.knative-eventing.svc.cluster.local/{name}/example-broker");
    let row: Vec<&str> = listed.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row[..2], ["example-broker", &url], "{listed}");
    assert_eq!(row.last(), Some(&"True"), "{listed}");

    let created = kn(&space, "service create cloudevents-player --image quay.io/ruben/cloudevents-player:latest");
    let said =
        "Service 'cloudevents-player' created to latest revision 'cloudevents-player-00001' is available at URL:";
    assert!(created.contains(said), "{created}");
    let bound = kn(
        &space,
        "source binding create ce-player-binding --subject Service:serving.knative.dev/v1:cloudevents-player \
         --sink broker:example-broker",
    );
    assert_eq!(bound, format!("Sink binding 'ce-player-binding' created in namespace '{name}'.\n"));
    space.service("cloudevents-player", "is told of its sink", |service| {
        service["status"]["latestReadyRevisionName"] == "cloudevents-player-00002"
    });
    space.ready("cloudevents-player");

    assert!(space.ask("cloudevents-player").body.contains("Create event"));
    assert_eq!(post(&space, "/", "123456789", "some-type").status, 202);
    until_known(&space, "123456789 RECEIVED");
    assert_eq!(post(&space, "/messages", "first", "some-type").status, 202);
    until_known(&space, "first SENT");

    let made = kn(&space, "trigger create cloudevents-trigger --sink cloudevents-player --broker example-broker");
    assert_eq!(made, format!("Trigger 'cloudevents-trigger' successfully created in namespace '{name}'.\n"));
    space.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "trigger/cloudevents-trigger"]);
    post(&space, "/messages", "second", "any-type");
    until_known(&space, "second RECEIVED");
    assert!(!messages(&space).contains(&"first RECEIVED".to_owned()), "there was no Trigger then");

    kn(&space, "trigger delete cloudevents-trigger");
    kn(
        &space,
        "trigger create cloudevents-player-filter --sink cloudevents-player --broker example-broker --filter type=some-type",
    );
    space.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "trigger/cloudevents-player-filter"]);
    post(&space, "/messages", "third", "any-type");
    post(&space, "/messages", "fourth", "some-type");
    until_known(&space, "fourth RECEIVED");
    let known = messages(&space);
    assert!(known.contains(&"third SENT".to_owned()) && !known.contains(&"third RECEIVED".to_owned()), "{known:?}");
}
