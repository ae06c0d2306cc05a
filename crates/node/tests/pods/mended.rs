//! What goes wrong beside a pod's containers, and is put right.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Failure, IMAGE, PATIENCE, Running, Site, ready};

/// What a container does right after its start holds back its readiness and nothing else: its end is noticed, its
/// failure ends it, and the pod can be deleted.
pub(crate) async fn hooks(site: &Site, node: &Running) -> Result<(), Failure> {
    let spec = |hook: &str, command: &str| {
        json!({"terminationGracePeriodSeconds": 0, "restartPolicy": "Never",
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c", command],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", hook]}}}}]})
    };
    let runs = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["running"].is_object();
    let failed = |pod: &Value| pod["status"]["phase"] == "Failed";

    let uid = site.pod("hook-waits", spec("while ! [ -e /v/go ]; do sleep 0.05; done", "sleep 600")).await?;
    let pod = site.until("hook-waits", "runs", runs).await?;
    assert!(!ready(&pod), "{:#}", pod["status"]);
    assert_eq!(node.run(&uid, &["touch", "/v/go"]).await?.0, 0);
    site.until("hook-waits", "is ready", ready).await?;

    site.pod("hook-hangs", spec("sleep 600", "sleep 600")).await?;
    let pod = site.until("hook-hangs", "runs", runs).await?;
    assert!(!ready(&pod), "{:#}", pod["status"]);

    site.pod("hook-fails", spec("exit 7", "sleep 600")).await?;
    let pod = site.until("hook-fails", "is killed", failed).await?;
    let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(state["exitCode"], 137, "{:#}", pod["status"]);

    site.pod("hook-outlives", spec("sleep 600", "sleep 0.2; exit 3")).await?;
    let pod = site.until("hook-outlives", "has ended", failed).await?;
    let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(state["exitCode"], 3, "{:#}", pod["status"]);

    for name in ["hook-waits", "hook-hangs", "hook-fails", "hook-outlives"] {
        site.delete(name).await?;
        site.until_gone(name).await?;
    }
    Ok(())
}

/// A status that others change is put right, whatever else happens to the pod.
pub(crate) async fn statuses(site: &Site) -> Result<(), Failure> {
    let spec = json!({"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": IMAGE, "command": ["sleep", "600"]}]});
    site.pod("changed", spec).await?;
    site.until("changed", "is ready", ready).await?;
    let path = "/api/v1/namespaces/default/pods/changed/status";
    let wrong = json!({"status": {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}]}});
    assert!(!ready(&site.send("PATCH", path, wrong).await?));
    site.until("changed", "is ready again", |pod| ready(pod) && pod["status"]["phase"] == "Running").await?;
    site.delete("changed").await?;
    site.until_gone("changed").await
}

/// A ConfigMap that changes while a pod's volume is being filled from what it was before is in the volume in the end.
pub(crate) async fn sources(site: &Site, node: &Running) -> Result<(), Failure> {
    site.create("configmaps", json!({"metadata": {"name": "changing"}, "data": {"k": "one"}})).await?;
    let spec = json!({"terminationGracePeriodSeconds": 0, "volumes": [{"name": "v", "configMap": {"name": "changing"}}],
        "containers": [{"name": "c", "image": IMAGE, "command": ["sleep", "600"],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]});
    let pods = [site.pod("reads", spec.clone()).await?, site.pod("reads-too", spec).await?];
    for name in ["reads", "reads-too"] {
        site.until(name, "is ready", ready).await?;
    }
    let path = "/api/v1/namespaces/default/configmaps/changing";
    // Whoever is held up has read the second and not the third; the other one shows when both were told of that.
    site.faults.reads.hold_next();
    site.send("PATCH", path, json!({"data": {"k": "two"}})).await?;
    site.faults.reads.held().await;
    site.send("PATCH", path, json!({"data": {"k": "three"}})).await?;
    until_read(node, &pods, 1).await?;
    site.faults.reads.let_go();
    until_read(node, &pods, 2).await?;
    for name in ["reads", "reads-too"] {
        site.delete(name).await?;
        site.until_gone(name).await?;
    }
    Ok(())
}

/// Waits until so many of these pods read the third.
async fn until_read(node: &Running, pods: &[String], wanted: usize) -> Result<(), Failure> {
    let begin = Instant::now();
    loop {
        let mut read = 0;
        for uid in pods {
            read += usize::from(node.run(uid, &["cat", "/v/k"]).await? == (0, "three".to_owned()));
        }
        if read >= wanted {
            return Ok(());
        }
        assert!(begin.elapsed() < PATIENCE, "{read} of {wanted} pods have what the ConfigMap says");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A program that is asked to end before it asks for signals, as one that has only just begun, ends once it does.
pub(crate) async fn endings(site: &Site, node: &Running) -> Result<(), Failure> {
    let command = "until [ -e /v/go ]; do sleep 0.05; done; trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let spec = json!({"terminationGracePeriodSeconds": 3600, "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c", command],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]});
    let uid = site.pod("begins", spec).await?;
    site.until("begins", "is ready", ready).await?;
    site.delete("begins").await?;
    let begin = Instant::now();
    let asked = |event: &Value| event["reason"] == "Killing" && event["involvedObject"]["name"] == "begins";
    loop {
        let events = site.send("GET", "/api/v1/namespaces/default/events", Value::Null).await?;
        if events["items"].as_array().is_some_and(|events| events.iter().any(asked)) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "it is not asked to end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(node.run(&uid, &["touch", "/v/go"]).await?.0, 0);
    site.until_gone("begins").await
}
