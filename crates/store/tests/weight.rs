//! What services cost the store: memory, packing, restart, watches. Prints numbers and judges none:
//! `cargo test -p knoll-store --test weight -- --ignored --nocapture`, with `KNOLL_WEIGHT_SERVICES` for how many.

use std::{
    fs,
    time::{Duration, Instant},
};

use bytes::Bytes;
use knoll_store::{Durability, Expect, Options, Store, Write};
use serde_json::{Value, json};

/// Where the second half of the measurement finds the store.
const CHILD: &str = "KNOLL_WEIGHT_DIRECTORY";

/// The objects of one Knative Service that is idle: key folder, kind, and what its spec and status hold beside what all
/// have.
fn chain() -> Vec<(&'static str, Value)> {
    let template = json!({"metadata": {"labels": {"app": "NAME-00001", "serving.knative.dev/revision": "NAME-00001"},
        "annotations": {"autoscaling.knative.dev/target": "10"}}, "spec": {"containerConcurrency": 0,
        "timeoutSeconds": 300, "responseStartTimeoutSeconds": 300, "enableServiceLinks": false, "containers": [{
            "name": "user-container", "image": "registry.knoll.local/hello@sha256:RANDOMRANDOMRANDOMRANDOM",
            "env": [{"name": "TARGET", "value": "world"}, {"name": "PORT", "value": "8080"},
                {"name": "K_REVISION", "value": "NAME-00001"}, {"name": "K_CONFIGURATION", "value": "NAME"},
                {"name": "K_SERVICE", "value": "NAME"}], "ports": [{"name": "http1", "containerPort": 8080}],
            "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 0}},
            "resources": {"limits": {"cpu": "1", "memory": "256Mi"}, "requests": {"cpu": "25m"}},
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}}]}});
    let ready = |kinds: &[&str]| {
        let of = |kind: &&str| json!({"type": kind, "status": "True", "lastTransitionTime": "TIME"});
        json!(kinds.iter().map(of).collect::<Vec<_>>())
    };
    let url = "http://NAME.SPACE.example.com";
    let traffic = json!([{"latestRevision": true, "percent": 100, "revisionName": "NAME-00001"}]);
    let deployment = json!({"replicas": 0, "selector": {"matchLabels": {"serving.knative.dev/revisionUID": "RANDOM"}},
        "template": template, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}}});
    let port = json!([{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"},
        {"name": "http-metrics", "port": 9090, "targetPort": 9090, "protocol": "TCP"}]);
    vec![
        (
            "/serving.knative.dev/services",
            json!({"spec": {"template": template, "traffic": traffic}, "status": {
            "conditions": ready(&["ConfigurationsReady", "Ready", "RoutesReady"]), "traffic": traffic, "url": url,
            "latestReadyRevisionName": "NAME-00001", "address": {"url": "http://NAME.SPACE.svc.cluster.local"}}}),
        ),
        (
            "/serving.knative.dev/configurations",
            json!({"spec": {"template": template}, "status": {
            "conditions": ready(&["Ready"]), "latestReadyRevisionName": "NAME-00001"}}),
        ),
        (
            "/serving.knative.dev/revisions",
            json!({"spec": template["spec"], "status": {"conditions":
            ready(&["Active", "ContainerHealthy", "Ready", "ResourcesAvailable"]), "actualReplicas": 0,
            "containerStatuses": [{"name": "user-container", "imageDigest": "hello@sha256:RANDOMRANDOM"}]}}),
        ),
        (
            "/serving.knative.dev/routes",
            json!({"spec": {"traffic": traffic}, "status": {"url": url, "traffic": traffic,
            "conditions": ready(&["AllTrafficAssigned", "CertificateProvisioned", "IngressReady", "Ready"])}}),
        ),
        (
            "/apps/deployments",
            json!({"spec": deployment, "status": {"observedGeneration": 2, "conditions":
            ready(&["Progressing", "Available"])}}),
        ),
        ("/apps/replicasets", json!({"spec": deployment, "status": {"replicas": 0, "observedGeneration": 2}})),
        (
            "/autoscaling.internal.knative.dev/podautoscalers",
            json!({"spec": {"reachability": "Reachable",
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "NAME-00001-deployment"},
            "protocolType": "http1"}, "status": {"desiredScale": 0, "actualScale": 0, "serviceName": "NAME-00001",
            "metricsServiceName": "NAME-00001-private", "conditions": ready(&["Active", "Ready", "SKSReady"])}}),
        ),
        (
            "/autoscaling.internal.knative.dev/metrics",
            json!({"spec": {"panicWindow": 6_000_000_000_u64,
            "stableWindow": 60_000_000_000_u64, "scrapeTarget": "NAME-00001-private"}, "status": {
            "conditions": ready(&["Ready"])}}),
        ),
        (
            "/networking.internal.knative.dev/serverlessservices",
            json!({"spec": {"mode": "Proxy", "objectRef": {
            "apiVersion": "apps/v1", "kind": "Deployment", "name": "NAME-00001-deployment"}, "protocolType": "http1"},
            "status": {"serviceName": "NAME-00001", "conditions": ready(&["Ready", "EndpointsPopulated"])}}),
        ),
        (
            "/core/services",
            json!({"spec": {"clusterIP": "10.96.12.34", "clusterIPs": ["10.96.12.34"], "ports": port,
            "type": "ClusterIP", "selector": {"serving.knative.dev/revisionUID": "RANDOM"},
            "sessionAffinity": "None", "ipFamilies": ["IPv4"]}, "status": {"loadBalancer": {}}}),
        ),
        ("/core/endpoints", json!({"subsets": [{"addresses": [{"ip": "169.254.0.1"}], "ports": port}]})),
        (
            "/discovery.k8s.io/endpointslices",
            json!({"addressType": "IPv4", "ports": port,
            "endpoints": [{"addresses": ["169.254.0.1"], "conditions": {"ready": true}}]}),
        ),
        ("/caching.internal.knative.dev/images", json!({"spec": {"image": "hello@sha256:RANDOMRANDOM"}})),
        (
            "/networking.internal.knative.dev/ingresses",
            json!({"spec": {"httpOption": "Enabled", "rules": [
            {"hosts": ["NAME.SPACE", "NAME.SPACE.svc", "NAME.SPACE.svc.cluster.local"], "visibility": "ClusterLocal",
             "http": {"paths": [{"splits": [{"percent": 100, "serviceName": "NAME-00001", "servicePort": 80}]}]}},
            {"hosts": ["NAME.SPACE.example.com"], "visibility": "ExternalIP",
             "http": {"paths": [{"splits": [{"percent": 100, "serviceName": "NAME-00001", "servicePort": 80}]}]}}]},
            "status": {"conditions": ready(&["LoadBalancerReady", "NetworkConfigured", "Ready"])}}),
        ),
        (
            "/core/events",
            json!({"reason": "Created", "message": "Created Revision \"NAME-00001\"", "type": "Normal",
            "source": {"component": "service-controller"}, "count": 1, "involvedObject": {"kind": "Service",
            "name": "NAME", "namespace": "SPACE", "uid": "RANDOM"}, "firstTimestamp": "TIME"}),
        ),
    ]
}

/// As good as random for the compressor.
fn digits(seed: &mut u64) -> String {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    format!("{:016x}", seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
}

fn object(folder: &str, parts: &Value, service: u64, seed: &mut u64) -> Write {
    let fields = "{\"f:metadata\":{\"f:labels\":{},\"f:ownerReferences\":{}},\"f:spec\":{},\"f:status\":{}}";
    let managed = |by: &str| {
        json!({"apiVersion": "v1", "fieldsType": "FieldsV1", "manager": by, "operation": "Update",
        "time": "TIME", "fieldsV1": serde_json::from_str::<Value>(fields).expect("JSON")})
    };
    let mut object = json!({"metadata": {"name": "NAME-00001", "namespace": "SPACE", "uid": "RANDOM-RANDOM",
        "generation": 1, "creationTimestamp": "TIME", "labels": {"serving.knative.dev/service": "NAME",
            "serving.knative.dev/configuration": "NAME", "serving.knative.dev/configurationUID": "RANDOM-RANDOM",
            "serving.knative.dev/serviceUID": "RANDOM-RANDOM", "serving.knative.dev/revision": "NAME-00001"},
        "annotations": {"serving.knative.dev/creator": "kubernetes-admin"}, "ownerReferences": [{"kind": "Revision",
            "apiVersion": "serving.knative.dev/v1", "name": "NAME-00001", "uid": "RANDOM-RANDOM", "controller": true}],
        "managedFields": [managed("controller"), managed("kubectl-create")]}});
    object.as_object_mut().expect("an object").extend(parts.as_object().expect("an object").clone());
    let name = format!("service-{service}");
    let mut text = object.to_string();
    text = text.replace("NAME", &name).replace("SPACE", &format!("team-{}", service % 50));
    text = text.replace("TIME", &format!("2026-03-0{}T10:{:02}:{:02}Z", service % 9 + 1, service % 60, service % 59));
    while text.contains("RANDOM") {
        text = text.replacen("RANDOM", &digits(seed), 1);
    }
    let key = format!("{folder}/team-{}/{name}-00001", service % 50);
    Write { key, value: Some(Bytes::from(text.into_bytes().into_boxed_slice())), expect: Expect::Absent }
}

/// Bytes of this process that are its own.
fn private_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("it is there");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") << 10
}

fn options() -> Options {
    Options { cold_after: Duration::from_secs(1), ..Options::default() }
}

async fn quiet(store: &Store) {
    let mut before = u64::MAX;
    loop {
        let packed = store.figures().packed;
        if packed == before {
            return;
        }
        before = packed;
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of minutes"]
async fn what_services_weigh() {
    let services: u64 = std::env::var("KNOLL_WEIGHT_SERVICES").map_or(10_000, |n| n.parse().expect("a number"));
    let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let path = directory.path().join("store");
    let chain = chain();
    let mut seed = 88_172_645_463_325_252;
    let before = private_bytes();
    let store = Store::open(&path, options()).expect("opens");
    let mut raw = 0;
    let mut slowest = Duration::ZERO;
    let start = Instant::now();
    for service in 0..services {
        for (folder, parts) in &chain {
            let write = object(folder, parts, service, &mut seed);
            raw += write.value.as_ref().map_or(0, Bytes::len);
            let begun = Instant::now();
            store.commit(vec![write], Durability::Relaxed).await.expect("writes");
            slowest = slowest.max(begun.elapsed());
        }
    }
    let each = |bytes: u64| format!("{:.1} KB", bytes as f64 / services as f64 / 1024.0);
    println!("{services} services, {} objects each, {} of JSON a service", chain.len(), each(raw as u64));
    println!("written in {:.1} s, slowest commit {slowest:.1?}", start.elapsed().as_secs_f64());
    println!("memory while written: {} a service", each(private_bytes().saturating_sub(before)));
    quiet(&store).await;
    let figures = store.figures();
    println!("{} of {} packed, {} checkpoints", figures.packed, figures.entries, figures.checkpoints);
    println!("memory when cold: {} a service", each(private_bytes().saturating_sub(before)));

    let begun = Instant::now();
    let snapshot = store.snapshot();
    let read = snapshot.range("/", None).map(|entry| entry.value.len()).sum::<usize>();
    println!(
        "reading all {} MB: {:.1} µs an object",
        read >> 20,
        begun.elapsed().as_micros() as f64 / figures.entries as f64
    );
    drop(snapshot);

    for watchers in [10, 1_000, 10_000] {
        let watches: Vec<_> = (0..watchers)
            .map(|n| store.watch(&format!("/core/pods/team-{n}/"), store.revision()).expect("watches"))
            .collect();
        let begun = Instant::now();
        for n in 0..1_000_u64 {
            let key = format!("/core/pods/team-{}/pod", n % watchers);
            store.put(key, Bytes::from_static(b"{}"), Expect::Any, Durability::Relaxed).await.expect("writes");
        }
        println!(
            "{watchers} watches, each of a namespace: {:.1} µs a commit",
            begun.elapsed().as_micros() as f64 / 1_000.0
        );
        drop(watches);
    }
    store.close().await;
    drop(store);
    let newest = fs::read_dir(&path).expect("is there").map(|entry| entry.expect("reads"));
    let newest = newest.filter(|entry| entry.file_name().to_string_lossy().starts_with("checkpoint-"));
    let newest = newest.max_by_key(fs::DirEntry::file_name).expect("one was written");
    println!("newest checkpoint: {} a service", each(newest.metadata().expect("is there").len()));
    // A process of its own, which has not yet used memory for anything else.
    let child = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--ignored", "--exact", "what_a_restart_costs", "--nocapture"])
        .env(CHILD, &path)
        .env("KNOLL_WEIGHT_SERVICES", services.to_string())
        .status();
    assert!(child.expect("starts").success());
}

/// Not a measurement of its own: the second half of `what_services_weigh`.
#[tokio::test]
#[ignore = "a part of the other"]
async fn what_a_restart_costs() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let services: u64 = std::env::var("KNOLL_WEIGHT_SERVICES").map_or(10_000, |n| n.parse().expect("a number"));
    let each = |bytes: u64| format!("{:.1} KB", bytes as f64 / services as f64 / 1024.0);
    let path = std::path::PathBuf::from(path);
    let entries = fs::read_dir(&path).expect("is there");
    let size: u64 = entries.map(|entry| entry.expect("reads").metadata().expect("is there").len()).sum();
    let before = private_bytes();
    let begun = Instant::now();
    let store = Store::open(&path, options()).expect("opens");
    println!("restart: {:.2} s from {} MB of files", begun.elapsed().as_secs_f64(), size >> 20);
    println!("memory at once: {} a service", each(private_bytes().saturating_sub(before)));
    quiet(&store).await;
    println!("memory when cold: {} a service", each(private_bytes().saturating_sub(before)));
    store.close().await;
}
