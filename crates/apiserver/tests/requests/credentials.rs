//! Certificates and tokens: what counts, and when it no longer does.

use std::{net::SocketAddr, time::Duration};

use jiff::Timestamp;
use knoll_apiserver::UserInfo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::support::{Answer, Harness, dial, listen, pod};

const ACCOUNT: &str = "/api/v1/namespaces/default/serviceaccounts/robot";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// The code of an answer to a GET; none where the server hangs up.
async fn get(stream: &mut TlsStream<TcpStream>, path: &str, headers: &str) -> Option<u16> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(head).unwrap().to_lowercase();
    let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    stream.read_exact(&mut vec![0; length.unwrap_or(0)]).await.ok()?;
    text.split(' ').nth(1)?.parse().ok()
}

#[tokio::test]
async fn revoked_certificates_end_at_once_and_new_ones_count() {
    let h = Harness::new().await;
    let address = listen(&h).await;
    let client = |h: &Harness| h.pki.client("kubernetes-admin", "system:masters", Timestamp::now()).unwrap();
    let old = client(&h);
    let mut open = dial(&h, address, Some(&old)).await.unwrap();
    assert_eq!(get(&mut open, "/api/v1/nodes/x", "").await, Some(404));
    h.pki.revoke_clients(Timestamp::now()).unwrap();
    let ended = async {
        // A connection that was open before, too.
        while get(&mut open, "/api/v1/nodes/x", "").await != Some(401) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the old certificate is refused");
    let refused = match dial(&h, address, Some(&old)).await {
        Ok(mut stream) => get(&mut stream, "/api/v1/nodes/x", "").await.is_none(),
        Err(_) => true,
    };
    assert!(refused, "no handshake with it");
    let mut stream = dial(&h, address, Some(&client(&h))).await.unwrap();
    assert_eq!(get(&mut stream, "/api/v1/nodes/x", "").await, Some(404));
}

/// Asks for a token of the account `robot`.
async fn token(h: &Harness, spec: Value) -> Answer {
    h.post(&format!("{ACCOUNT}/token"), json!({"spec": spec})).await
}

/// Whether the server takes a token.
async fn counts(h: &Harness, address: SocketAddr, token: &str) -> bool {
    let mut stream = dial(h, address, None).await.unwrap();
    let code = get(&mut stream, "/api/v1/nodes/x", &format!("authorization: Bearer {token}\r\n")).await;
    match code {
        Some(401) => false,
        Some(403) => true,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_bound_token_ends_with_its_pod() {
    let h = Harness::new().await;
    let address = listen(&h).await;
    h.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "robot"}})).await.expect(201);
    h.post("/api/v1/nodes", json!({"metadata": {"name": "one"}})).await.expect(201);
    let mut made = pod("p");
    made["spec"]["serviceAccountName"] = "robot".into();
    made["spec"]["nodeName"] = "one".into();
    made["spec"]["terminationGracePeriodSeconds"] = 0.into();
    h.post(PODS, made.clone()).await.expect(201);
    let bound = json!({"boundObjectRef": {"kind": "Pod", "name": "p"}});
    let answer = token(&h, bound.clone()).await.expect(201);
    let text = answer["status"]["token"].as_str().unwrap().to_owned();
    assert!(counts(&h, address, &text).await);
    let review = json!({"spec": {"token": text}});
    let user =
        h.post("/apis/authentication.k8s.io/v1/tokenreviews", review.clone()).await.expect(201)["status"].clone();
    assert_eq!(user["user"]["username"], "system:serviceaccount:default:robot");
    let extra = &user["user"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["p"]));
    assert_eq!(extra["authentication.kubernetes.io/node-name"], json!(["one"]));
    // Gone, and back under the same name: it is another pod.
    h.send("DELETE", &format!("{PODS}/p?gracePeriodSeconds=0"), Value::Null).await.expect(200);
    h.post(PODS, made).await.expect(201);
    assert!(!counts(&h, address, &text).await);
    let status = h.post("/apis/authentication.k8s.io/v1/tokenreviews", review).await.expect(201)["status"].clone();
    assert_eq!(status["authenticated"], false);
    // A pod of another account gets none.
    h.post(PODS, pod("other")).await.expect(201);
    let other = json!({"boundObjectRef": {"kind": "Pod", "name": "other"}});
    let message = token(&h, other).await.failure(400);
    assert_eq!(
        message,
        "cannot bind token for serviceaccount \"robot\" to pod running with different serviceaccount name."
    );
    // With its account, every token ends.
    let free = token(&h, json!({})).await.expect(201)["status"]["token"].as_str().unwrap().to_owned();
    assert!(counts(&h, address, &free).await);
    h.send("DELETE", ACCOUNT, Value::Null).await.expect(200);
    h.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "robot"}})).await.expect(201);
    assert!(!counts(&h, address, &free).await);
}

#[tokio::test]
async fn a_token_is_for_its_audience_and_of_a_sensible_size() {
    let h = Harness::new().await;
    let address = listen(&h).await;
    h.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "robot"}})).await.expect(201);
    let vault = token(&h, json!({"audiences": ["vault"]})).await.expect(201);
    let vault = vault["status"]["token"].as_str().unwrap();
    assert!(!counts(&h, address, vault).await);
    let review = async |audiences: Value| {
        let review = json!({"spec": {"token": vault, "audiences": audiences}});
        h.post("/apis/authentication.k8s.io/v1/tokenreviews", review).await.expect(201)["status"].clone()
    };
    assert_eq!(review(json!(["vault", "other"])).await["audiences"], json!(["vault"]));
    assert_eq!(review(json!([])).await["authenticated"], false);
    assert!(!counts(&h, address, &"a".repeat(20_000)).await);
    let empty = h.post("/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {}})).await.failure(400);
    assert!(empty.contains("token is required"), "{empty}");
}

#[tokio::test]
async fn a_secret_of_an_account_holds_a_token_that_ends_with_it() {
    let h = Harness::new().await;
    let address = listen(&h).await;
    h.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "robot"}})).await.expect(201);
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = |account: &str| {
        let annotations = json!({"kubernetes.io/service-account.name": account});
        json!({"metadata": {"name": "t", "annotations": annotations}, "type": "kubernetes.io/service-account-token"})
    };
    let message = h.post(secrets, secret("nobody")).await.failure(422);
    assert!(message.contains("there is no such ServiceAccount"), "{message}");
    assert!(h.post(secrets, secret("")).await.failure(422).contains("Required value"));
    let made = h.post(secrets, secret("robot")).await.expect(201);
    let text = |key: &str| {
        let bytes =
            base64::Engine::decode(&base64::engine::general_purpose::STANDARD, made["data"][key].as_str().unwrap());
        String::from_utf8(bytes.unwrap()).unwrap()
    };
    assert_eq!((text("namespace").as_str(), text("ca.crt").as_str()), ("default", h.pki.ca_pem()));
    assert!(counts(&h, address, &text("token")).await);
    h.send("DELETE", &format!("{secrets}/t"), Value::Null).await.expect(200);
    assert!(!counts(&h, address, &text("token")).await);
}

#[tokio::test]
async fn impersonation_is_asked_about_each_part() {
    let h = Harness::new().await;
    let address = listen(&h).await;
    let rules =
        json!([{"apiGroups": [""], "resources": ["users"], "resourceNames": ["jane"], "verbs": ["impersonate"]}]);
    let base = "/apis/rbac.authorization.k8s.io/v1";
    h.post(&format!("{base}/clusterroles"), json!({"metadata": {"name": "as"}, "rules": rules})).await.expect(201);
    let binding = json!({"metadata": {"name": "as"}, "roleRef": {"kind": "ClusterRole", "name": "as"},
        "subjects": [{"kind": "User", "name": "ann"}]});
    h.post(&format!("{base}/clusterrolebindings"), binding).await.expect(201);
    let ann = h.pki.client("ann", "staff", Timestamp::now()).unwrap();
    let mut stream = dial(&h, address, Some(&ann)).await.unwrap();
    for (headers, code) in [
        ("impersonate-user: jane\r\n", 200),
        ("impersonate-user: joe\r\n", 403),
        ("impersonate-user: jane\r\nimpersonate-group: system:masters\r\n", 403),
        ("impersonate-user: jane\r\nimpersonate-uid: 7\r\n", 403),
        ("impersonate-user: jane\r\nimpersonate-extra-scopes: all\r\n", 403),
        ("impersonate-user: system:serviceaccount:default:default\r\n", 403),
        ("impersonate-group: system:masters\r\n", 500),
        ("impersonate-user: jane\r\nimpersonate-power: all\r\n", 400),
    ] {
        assert_eq!(get(&mut stream, "/version", headers).await, Some(code), "{headers}");
    }
}

#[tokio::test]
async fn a_local_review_asks_about_its_own_namespace() {
    let h = Harness::new().await;
    let path = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
    let review = |namespace: &str| json!({"spec": {"user": "ann", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": namespace}}});
    assert_eq!(h.post(path, review("default")).await.expect(201)["status"]["allowed"], false);
    let message = h.post(path, review("kube-system")).await.failure(422);
    let why = "spec.resourceAttributes.namespace: Invalid value: \"kube-system\": must match metadata.namespace";
    assert!(message.ends_with(why), "{message}");
    let elsewhere = json!({"spec": {"user": "ann", "nonResourceAttributes": {"verb": "get", "path": "/version"}}});
    let message = h.post(path, elsewhere).await.failure(422);
    assert!(message.contains("spec.nonResourceAttributes: Invalid value"), "{message}");
    let nobody = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}});
    assert!(h.post(path, nobody).await.failure(422).contains("at least one of user or group must be specified"));
}

#[tokio::test]
async fn reviews_answer_what_was_asked_and_refuse_what_asks_nothing() {
    let h = Harness::new().await;
    let ann = || {
        let mut ann = UserInfo::new("ann", &["staff", "system:authenticated"]);
        ann.extra.insert("acme.example/team".into(), vec!["blue".into()]);
        ann
    };
    let post =
        async |path: &str, spec: Value| h.send_as(ann(), "POST", path, "application/json", json!({"spec": spec})).await;
    let myself = post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await.expect(201);
    assert_eq!(
        myself["status"]["userInfo"],
        json!({"username": "ann", "groups": ["staff", "system:authenticated"], "extra": {"acme.example/team": ["blue"]}})
    );
    let base = "/apis/authorization.k8s.io/v1";
    let own = format!("{base}/selfsubjectaccessreviews");
    let version = json!({"nonResourceAttributes": {"verb": "get", "path": "/version"}});
    let status = post(&own, version.clone()).await.expect(201)["status"].clone();
    assert_eq!(status["allowed"], true);
    assert!(status["reason"].as_str().unwrap().starts_with("RBAC: allowed by ClusterRoleBinding"), "{status}");
    let pods = json!({"verb": "get", "resource": "pods", "namespace": "default"});
    assert_eq!(post(&own, json!({"resourceAttributes": pods})).await.expect(201)["status"], json!({"allowed": false}));
    for (spec, field) in [
        (json!({}), "spec.resourceAttributes"),
        (
            json!({"resourceAttributes": pods, "nonResourceAttributes": version["nonResourceAttributes"]}),
            "spec.nonResourceAttributes",
        ),
    ] {
        let message = post(&own, spec).await.failure(422);
        assert!(message.contains(&format!("{field}: Invalid value")), "{message}");
    }
    let rules = format!("{base}/selfsubjectrulesreviews");
    let status = post(&rules, json!({"namespace": "default"})).await.expect(201)["status"].clone();
    assert_eq!(status["incomplete"], false);
    let reviews = |rule: &Value| rule["resources"].as_array().unwrap().contains(&"selfsubjectrulesreviews".into());
    assert!(status["resourceRules"].as_array().unwrap().iter().any(reviews), "{status}");
    assert!(post(&rules, json!({})).await.failure(400).contains("spec.namespace"), "whose rules");
    // Asking about others is a right of its own.
    let others = format!("{base}/subjectaccessreviews");
    post(&others, json!({"user": "bob", "resourceAttributes": pods})).await.expect(403);
    let review = json!({"spec": {"groups": ["system:masters"], "resourceAttributes": pods}});
    assert_eq!(h.post(&others, review).await.expect(201)["status"]["allowed"], true);
}

#[tokio::test]
async fn what_everybody_may_see_is_what_kubernetes_lets_everybody_see() {
    let h = Harness::new().await;
    let may = async |groups: &[&str], path: &str| {
        let review =
            json!({"spec": {"user": "u", "groups": groups, "nonResourceAttributes": {"verb": "get", "path": path}}});
        let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        h.post(reviews, review).await.expect(201)["status"]["allowed"] == true
    };
    let (stranger, user) = (["system:unauthenticated"], ["system:authenticated"]);
    for (path, strangers, users) in [
        ("/version", true, true),
        ("/readyz", true, true),
        ("/api", false, true),
        ("/apis/apps/v1", false, true),
        ("/openapi/v3", false, true),
        ("/", false, false),
        ("/metrics", false, false),
        ("/readyz/log", false, false),
    ] {
        assert_eq!((may(&stranger, path).await, may(&user, path).await), (strangers, users), "{path}");
    }
    assert!(may(&["system:monitoring"], "/metrics").await && may(&["system:monitoring"], "/livez/ping").await);
}
