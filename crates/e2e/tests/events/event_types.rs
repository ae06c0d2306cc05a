//! EventTypes that are made of events, and policies where nobody says who they are.

use std::collections::BTreeSet;

use knoll_e2e::{Namespace, until};
use serde_json::json;

use super::{broker, object, refused};

const FEATURES: [&str; 4] = ["-n", "knative-eventing", "configmap", "config-features"];

/// EventTypes are made of events until this is dropped. Others may be switched on and off meanwhile.
struct AutoCreate<'a>(&'a Namespace);

impl<'a> AutoCreate<'a> {
    fn on(space: &'a Namespace) -> Self {
        switch(space, "enabled");
        Self(space)
    }
}

impl Drop for AutoCreate<'_> {
    fn drop(&mut self) {
        switch(self.0, "disabled");
    }
}

fn switch(space: &Namespace, to: &str) {
    let patch = json!({"data": {"eventtype-auto-create": to}}).to_string();
    let words = [&["patch"], &FEATURES[..], &["--type=merge", "-p", &patch]].concat();
    space.cluster.kubectl(&words);
}

/// uids of the broker's EventTypes.
fn types(space: &Namespace) -> BTreeSet<String> {
    let of_broker = |kind: &&serde_json::Value| kind["spec"]["reference"]["name"] == "b";
    let all = space.list("eventtypes");
    all.iter().filter(of_broker).map(|kind| kind["metadata"]["uid"].as_str().expect("a uid").to_owned()).collect()
}

#[test]
fn a_type_of_events_is_noted_once_and_goes_with_its_broker() {
    let space = Namespace::new("types");
    let place = broker(&space, &[]);
    let _on = AutoCreate::on(&space);
    // Events that come before the feature is in force everywhere make none.
    let mut sent = 0;
    let send = |sent: &mut u32, kind: &str| {
        *sent += 1;
        place.take(&sent.to_string(), kind);
    };
    until("both are noted", || {
        send(&mut sent, "one");
        send(&mut sent, "other");
        (types(&space).len() >= 2).then_some(())
    });
    let noted = types(&space);
    assert_eq!(noted.len(), 2);
    for _ in 0..20 {
        send(&mut sent, "one");
    }
    // One that comes later is noted later: by then those before were left alone.
    until("a third is noted", || {
        send(&mut sent, "third");
        (types(&space).len() >= 3).then_some(())
    });
    assert!(types(&space).is_superset(&noted) && types(&space).len() == 3);
    space.kubectl(&["delete", "broker", "b"]);
    until("they are gone with it", || types(&space).is_empty().then_some(()));

    let from = json!([{"sub": "system:serviceaccount:x:y"}]);
    let policy = object("eventing.knative.dev/v1alpha1", "EventPolicy", "p", &json!({"from": from}));
    let said = refused(&space, &policy);
    assert!(said.contains("oidc-authentication feature not enabled"), "{said}");
}
