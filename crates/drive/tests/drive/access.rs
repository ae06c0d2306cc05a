//! What ServiceAccounts may do is asked of the API server, no more often than need be.

use super::*;

const REVIEW: &str = "POST /apis/authorization.k8s.io/v1/subjectaccessreviews";

fn source(fake: &Fake, selector: Value) {
    let mut spec = json!({"mode": "Reference", "resources": [{"apiVersion": "v1", "kind": "Event"}], "sink": {"uri": "http://sink"}});
    if !selector.is_null() {
        spec["namespaceSelector"] = selector;
    }
    fake.put(Kind::ApiServerSource, json!({"metadata": {"namespace": "a", "name": "s"}, "spec": spec}));
}

fn binding(fake: &Fake, kind: Kind, namespace: Value) {
    let subject = json!({"kind": "ServiceAccount", "name": "default", "namespace": "a"});
    fake.put(
        kind,
        json!({"metadata": {"namespace": namespace, "name": "b"}, "subjects": [subject],
               "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}}),
    );
}

/// Status and message of the source's condition.
fn permissions(fake: &Fake) -> (String, String) {
    let source = fake.get(Kind::ApiServerSource, &Key::new("a", "s")).unwrap_or_default();
    let conditions = source["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found =
        conditions.into_iter().find(|condition| condition["type"] == "SufficientPermissions").unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("message"))
}

fn reviews(fake: &Fake) -> usize {
    fake.requests().iter().filter(|request| *request == REVIEW).count()
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_given_and_taken_is_noticed() {
    let fake = Fake::default();
    source(&fake, Value::Null);
    let running = start(&fake);
    fake.until("the source may not watch", |fake| permissions(fake).0 == "False").await;
    let text = "User system:serviceaccount:a:default cannot get, list, watch resource \"events\" in API group \"\" in \
                Namespace \"a\"";
    assert_eq!((permissions(&fake).1.as_str(), reviews(&fake)), (text, 3));

    binding(&fake, Kind::RoleBinding, "a".into());
    fake.until("it may", |fake| permissions(fake).0 == "True").await;
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    assert_eq!(reviews(&fake), 6, "nothing is asked while nothing changes");

    fake.delete(Kind::RoleBinding, &Key::new("a", "b"));
    fake.until("it may no longer", |fake| permissions(fake).0 == "False").await;
    assert_eq!(reviews(&fake), 9);
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn what_is_allowed_everywhere_is_asked_once_for_all_namespaces() {
    let fake = Fake::default();
    for name in ["a", "b", "c"] {
        fake.put(Kind::Namespace, json!({"metadata": {"name": name}}));
    }
    binding(&fake, Kind::ClusterRoleBinding, Value::Null);
    source(&fake, json!({}));
    let running = start(&fake);
    fake.until("the source may watch", |fake| permissions(fake).0 == "True").await;
    assert_eq!(reviews(&fake), 3);
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_right_in_some_namespaces_is_told_by_those_where_it_is_missing() {
    let fake = Fake::default();
    for name in ["a", "b"] {
        fake.put(Kind::Namespace, json!({"metadata": {"name": name}}));
    }
    binding(&fake, Kind::RoleBinding, "b".into());
    source(&fake, json!({}));
    let running = start(&fake);
    fake.until("the source may not watch", |fake| permissions(fake).0 == "False").await;
    let (_, text) = permissions(&fake);
    assert!(text.ends_with("in API group \"\" in Namespace \"a\"") && !text.contains("\"b\""), "{text}");
    drop(running);
}
