//! Jobs and CronJobs: what is filled in, what is refused, what may change, and what becomes of their pods.

use serde_json::{Value, json};

use crate::support::Harness;

const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const CRON_JOBS: &str = "/apis/batch/v1/namespaces/default/cronjobs";
const BINDINGS: &str = "/apis/sources.knative.dev/v1/namespaces/default/sinkbindings";

fn template() -> Value {
    json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}})
}

fn job(name: &str, spec: Value) -> Value {
    let mut object = json!({"metadata": {"name": name}, "spec": {"template": template()}});
    object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    object
}

fn cron_job(name: &str, spec: Value) -> Value {
    let job = json!({"spec": {"template": template()}});
    let mut object = json!({"metadata": {"name": name}, "spec": {"schedule": "* * * * *", "jobTemplate": job}});
    object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    object
}

/// Why objects are refused, a line a finding.
async fn refusals(h: &Harness, path: &str, objects: &[Value]) -> String {
    let mut text = String::new();
    for object in objects {
        let status = h.post(path, object.clone()).await.expect(422);
        for cause in status["details"]["causes"].as_array().unwrap() {
            let (field, message) = (cause["field"].as_str().unwrap(), cause["message"].as_str().unwrap());
            text += &format!("{field}: {message}\n");
        }
    }
    text
}

#[tokio::test]
async fn what_a_job_leaves_out_is_filled_in_and_its_pods_are_told_apart() {
    let h = Harness::new().await;
    let made = h.post(JOBS, job("a", json!({}))).await.expect(201);
    let (spec, uid) = (&made["spec"], made["metadata"]["uid"].clone());
    let expected = json!({
        "completions": 1, "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
        "manualSelector": false, "podReplacementPolicy": "TerminatingOrFailed",
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}},
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&spec[field], value, "{field}");
    }
    let labels = json!({
        "batch.kubernetes.io/controller-uid": uid, "controller-uid": uid,
        "batch.kubernetes.io/job-name": "a", "job-name": "a",
    });
    assert_eq!((&spec["template"]["metadata"]["labels"], &made["metadata"]["labels"]), (&labels, &labels));
    let policy = json!({"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]});
    let by_index =
        json!({"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 1, "podFailurePolicy": policy});
    let made = h.post(JOBS, job("b", by_index)).await.expect(201);
    assert_eq!(made["spec"]["backoffLimit"], i32::MAX);
    assert_eq!(made["spec"]["podReplacementPolicy"], "Failed");
    assert_eq!(made["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"], "True");
}

#[tokio::test]
async fn a_job_that_cannot_work_is_refused_by_field() {
    let h = Harness::new().await;
    let rule = |rule: Value| job("x", json!({"podFailurePolicy": {"rules": [rule]}}));
    let indexed = |mut spec: Value| {
        spec["completionMode"] = "Indexed".into();
        job("x", spec)
    };
    let mut always = job("x", json!({"podFailurePolicy": {"rules": []}}));
    always["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure".into();
    let mut labelled = job("x", json!({}));
    labelled["spec"]["template"]["metadata"] = json!({"labels": {"job-name": "other"}});
    let objects = [
        job("x", json!({"backoffLimit": -1, "maxFailedIndexes": 1})),
        job("x", json!({"completionMode": "Random", "podReplacementPolicy": "Never", "managedBy": "me"})),
        indexed(json!({"parallelism": 1})),
        indexed(json!({"completions": 2, "maxFailedIndexes": 3, "backoffLimitPerIndex": 0})),
        indexed(json!({"completions": 100_001, "parallelism": 10_001, "backoffLimitPerIndex": 0})),
        indexed(
            json!({"completions": 3, "successPolicy": {"rules": [{"succeededIndexes": "2-1", "succeededCount": 4}, {}]}}),
        ),
        job("x", json!({"successPolicy": {"rules": [{"succeededCount": 1}]}})),
        rule(json!({"action": "Panic"})),
        rule(
            json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [3, 0, 3], "containerName": "d"}}),
        ),
        always,
        labelled,
    ];
    expect_test::expect![[r#"
        spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0
        spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified
        spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode
    "#]]
    .assert_eq(&refusals(&h, JOBS, &objects[..1]).await);
    expect_test::expect![[r#"
        spec.managedBy: Invalid value: "me": must be a domain-prefixed path (such as "acme.io/foo")
        spec.completionMode: Unsupported value: "Random": supported values: "NonIndexed", "Indexed"
        spec.podReplacementPolicy: Unsupported value: "Never": supported values: "Failed", "TerminatingOrFailed"
    "#]]
    .assert_eq(&refusals(&h, JOBS, &objects[1..2]).await);
    expect_test::expect![[r#"
        spec.completions: Required value: when completion mode is Indexed
        spec.maxFailedIndexes: Invalid value: 3: must be less than or equal to completions
        spec.maxFailedIndexes: Required value: must be specified when completions is above 100000
        spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index
    "#]]
    .assert_eq(&refusals(&h, JOBS, &objects[2..5]).await);
    expect_test::expect![[r#"
        spec.successPolicy.rules[0].succeededIndexes: Invalid value: "2-1": error parsing succeededIndexes: non-increasing order, previous: 2, current: 1
        spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of specified completions)
        spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 0 (the number of indexes in the specified succeededIndexes field)
        spec.successPolicy.rules[1]: Required value: at least one of succeededCount or succeededIndexes must be specified
        spec.successPolicy: Invalid value: {"rules":[{"succeededCount":1}]}: requires indexed completion mode
    "#]]
    .assert_eq(&refusals(&h, JOBS, &objects[5..7]).await);
    expect_test::expect![[r#"
        spec.podFailurePolicy.rules[0].action: Unsupported value: "Panic": supported values: "Count", "FailIndex", "FailJob", "Ignore"
        spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required
        spec.podFailurePolicy.rules[0].action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set
        spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: "d": must be one of the container or initContainer names in the pod template
        spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator
        spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 3
        spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [3,0,3]: must be ordered
        spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is specified
        spec.template.metadata.labels[job-name]: Invalid value: {"batch.kubernetes.io/controller-uid":"UID","batch.kubernetes.io/job-name":"x","controller-uid":"UID","job-name":"other"}: must be 'x'
    "#]]
    .assert_eq(&without_uids(&refusals(&h, JOBS, &objects[7..]).await));
}

/// With `UID` for what changes from run to run.
fn without_uids(text: &str) -> String {
    let parts: Vec<&str> = text.split("uid\":\"").collect();
    let shown = |part: &&str| part.find('"').map_or_else(|| (*part).to_owned(), |end| format!("UID{}", &part[end..]));
    let rest: Vec<String> = parts[1..].iter().map(shown).collect();
    [&[parts[0].to_owned()][..], &rest].concat().join("uid\":\"")
}

#[tokio::test]
async fn of_a_stored_job_little_may_change() {
    let h = Harness::new().await;
    h.post(JOBS, job("a", json!({"suspend": true, "completions": 2}))).await.expect(201);
    let path = format!("{JOBS}/a");
    let moved =
        json!({"spec": {"template": {"metadata": {"labels": {"x": "y"}}, "spec": {"nodeSelector": {"disk": "fast"}}}}});
    h.send("PATCH", &path, moved).await.expect(200);
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "other"}]}}}});
    let why = h.send("PATCH", &path, image.clone()).await.failure(422);
    assert!(why.contains("spec.template: Invalid value") && why.ends_with("field is immutable"), "{why}");
    h.send("PATCH", &path, json!({"spec": {"completions": 3}})).await.expect(422);
    h.send("PATCH", &path, json!({"spec": {"parallelism": 2, "backoffLimit": 1, "suspend": false}})).await.expect(200);
    let indexed = job("b", json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2}));
    h.post(JOBS, indexed).await.expect(201);
    let path = format!("{JOBS}/b");
    let why = h.send("PATCH", &path, json!({"spec": {"completions": 3}})).await.failure(422);
    assert!(why.contains("can only be modified in tandem with spec.parallelism"), "{why}");
    h.send("PATCH", &path, json!({"spec": {"completions": 3, "parallelism": 3}})).await.expect(200);
}

#[tokio::test]
async fn a_cron_job_has_a_schedule_that_can_be_kept() {
    let h = Harness::new().await;
    let made = h.post(CRON_JOBS, cron_job("a", json!({"schedule": "@every 1h", "timeZone": "Asia/Tokyo"}))).await;
    let made = made.expect(201);
    assert_eq!((&made["spec"]["concurrencyPolicy"], &made["spec"]["suspend"]), (&json!("Allow"), &json!(false)));
    let objects = [
        cron_job("x", json!({"schedule": "* * * *", "concurrencyPolicy": "Maybe", "startingDeadlineSeconds": -1})),
        cron_job("x", json!({"schedule": "TZ=UTC 0 * * * *"})),
        cron_job("x", json!({"timeZone": ""})),
        cron_job("x", json!({"timeZone": "Local"})),
        cron_job("x", json!({"timeZone": "Moon/../Base", "failedJobsHistoryLimit": -1})),
        cron_job(&"x".repeat(53), json!({})),
        cron_job(
            "x",
            json!({"jobTemplate": {"spec": {"manualSelector": true, "selector": {}, "template": template()}}}),
        ),
    ];
    expect_test::expect![[r#"
        spec.schedule: Invalid value: "* * * *": expected exactly 5 fields, found 4: [* * * *]
        spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0
        spec.concurrencyPolicy: Unsupported value: "Maybe": supported values: "Allow", "Forbid", "Replace"
        spec.schedule: Invalid value: "TZ=UTC 0 * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead
        spec.timeZone: Invalid value: "": timeZone must be nil or non-empty string
        spec.timeZone: Invalid value: "Local": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones
        spec.timeZone: Invalid value: "Moon/../Base": unknown time zone Moon/../Base
        spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0
        metadata.name: Invalid value: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx": must be no more than 52 characters
        spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated
        spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false"
    "#]]
    .assert_eq(&refusals(&h, CRON_JOBS, &objects).await);
}

#[tokio::test]
async fn pods_of_a_deleted_job_stay_unless_its_deletion_says_otherwise() {
    let h = Harness::new().await;
    for name in ["a", "b", "c"] {
        h.post(JOBS, job(name, json!({}))).await.expect(201);
    }
    let answer = h.send("DELETE", &format!("{JOBS}/a"), Value::Null).await;
    assert!(answer.warnings()[0].contains("child pods are preserved by default"), "{:?}", answer.warnings());
    assert_eq!(answer.expect(200)["metadata"]["finalizers"], json!(["orphan"]));
    for (name, how) in [("b", json!({"propagationPolicy": "Background"})), ("c", json!({"orphanDependents": false}))] {
        let answer = h.send("DELETE", &format!("{JOBS}/{name}"), how).await;
        assert!(answer.warnings().is_empty());
        assert_eq!(answer.expect(200)["status"], "Success");
    }
}

#[tokio::test]
async fn the_end_of_a_job_is_one() {
    let h = Harness::new().await;
    h.post(JOBS, job("a", json!({"managedBy": "example.com/queue"}))).await.expect(201);
    let path = format!("{JOBS}/a/status");
    let condition = |type_: &str| json!({"type": type_, "status": "True", "reason": "R", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = |conditions: &[&str], more: Value| {
        let conditions: Vec<Value> = conditions.iter().map(|type_| condition(type_)).collect();
        let mut status = json!({"conditions": conditions, "startTime": "2026-01-01T00:00:00Z"});
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"status": status})
    };
    let complete = ["SuccessCriteriaMet", "Complete"];
    let refused = [
        status(&["Complete"], json!({"active": 1, "completionTime": "2025-01-01T00:00:00Z"})),
        status(&["Failed"], json!({"uncountedTerminatedPods": {"failed": ["a", "a"]}})),
        status(&[], json!({"ready": 1, "completedIndexes": "0", "failedIndexes": "0", "failed": -1})),
    ];
    let mut found = String::new();
    for body in refused {
        found += &h.send("PATCH", &path, body).await.failure(422);
        found += "\n";
    }
    for why in [
        "status.active: Invalid value: 1: active>0 is invalid for finished job",
        "must be equal to or after `startTime`",
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        "cannot set Failed=True condition without the FailureTarget=true condition",
        "status.uncountedTerminatedPods.failed[1]: Duplicate value: \"a\"",
        "must be empty for finished job",
        "status.ready: Invalid value: 1: cannot set more ready pods than active",
        "cannot set non-empty completedIndexes when non-indexed completion mode",
        "cannot set non-null failedIndexes when backoffLimitPerIndex is null",
        "status.failed: Invalid value: -1: must be greater than or equal to 0",
    ] {
        assert!(found.contains(why), "{why} in\n{found}");
    }
    let done = status(&complete, json!({"succeeded": 1, "completionTime": "2026-01-01T00:00:01Z"}));
    h.send("PATCH", &path, done).await.expect(200);
    let back = status(&[], json!({"succeeded": 0, "completionTime": null}));
    let why = h.send("PATCH", &path, back).await.failure(422);
    for part in ["cannot disable the terminal Complete=True condition", "cannot decrease the succeeded counter"] {
        assert!(why.contains(part), "{part} in {why}");
    }
}

#[tokio::test]
async fn containers_of_a_job_are_told_by_the_oldest_binding_that_means_it() {
    let h = Harness::new().await;
    let binding = |name: &str, subject: &Value| {
        let subject = json!({"apiVersion": "batch/v1", "kind": "Job", "namespace": "default", "name": subject["name"],
            "selector": subject["selector"]});
        let overrides = json!({"extensions": {"from": name}});
        json!({"metadata": {"name": name}, "spec": {"subject": subject, "sink": {"uri": "http://sink/"}, "ceOverrides": overrides}})
    };
    let labelled = |name: &str| {
        let mut made = job(name, json!({}));
        made["metadata"]["labels"] = json!({"app": "beat"});
        made["spec"]["template"]["spec"]["containers"][0]["env"] =
            json!([{"name": "K_SINK", "value": "old"}, {"name": "MINE", "value": "x"}]);
        made
    };
    let container = |made: &Value| made["spec"]["template"]["spec"]["containers"][0].clone();
    let by_label = json!({"selector": {"matchLabels": {"app": "beat"}}});
    h.post(BINDINGS, binding("a", &by_label)).await.expect(201);
    let early = h.post(JOBS, labelled("early")).await.expect(201);
    assert_eq!(container(&early)["env"][0]["value"], "old", "it does not know where its sink is");

    h.post(BINDINGS, binding("b", &json!({"name": "told"}))).await.expect(201);
    for name in ["a", "b"] {
        let found = json!({"status": {"sinkUri": "http://found/"}});
        h.send("PATCH", &format!("{BINDINGS}/{name}/status"), found).await.expect(200);
    }
    let told = h.post(JOBS, labelled("told")).await.expect(201);
    let env = json!([
        {"name": "MINE", "value": "x"},
        {"name": "K_SINK", "value": "http://found/"},
        {"name": "K_CE_OVERRIDES", "value": r#"{"extensions":{"from":"a"}}"#},
    ]);
    assert_eq!(container(&told)["env"], env);
    assert!(told["spec"]["template"]["spec"]["volumes"].is_null());
    let other = h.post(JOBS, job("other", json!({}))).await.expect(201);
    assert!(container(&other)["env"].is_null());

    let bundle = json!({"metadata": {"name": "trust", "labels": {"networking.knative.dev/trust-bundle": "true"}}});
    h.post("/api/v1/namespaces/default/configmaps", bundle).await.expect(201);
    let trusting = h.post(JOBS, labelled("trusting")).await.expect(201);
    let mount = json!([{"name": "kne-bundle-volume", "mountPath": "/knative-custom-certs", "readOnly": true}]);
    assert_eq!(container(&trusting)["volumeMounts"], mount);
    let projected = &trusting["spec"]["template"]["spec"]["volumes"][0]["projected"];
    assert_eq!(projected["sources"], json!([{"configMap": {"name": "trust"}}]));
}
