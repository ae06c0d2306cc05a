//! The YAMLs in `examples/` behave as the articles they come from say.

use std::{
    collections::BTreeMap,
    sync::{
        RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use knoll_e2e::{Load, Namespace, condition, get, host_of, until};
use serde_json::{Value, json};

/// Read by tests that rely on the domain, written by the one that changes it.
static DOMAIN: RwLock<()> = RwLock::new(());

fn domain_stays() -> RwLockReadGuard<'static, ()> {
    DOMAIN.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[test]
fn hello_answers_at_its_url() {
    let _domain = domain_stays();
    let space = Namespace::new("hello");
    space.apply_example("hello.yaml");
    let service = space.ready("hello");
    let url = service["status"]["url"].as_str().expect("it has a URL");
    assert_eq!(host_of(url), format!("hello.{}.localhost", space.name));
    let table = space.kubectl(&["get", "ksvc"]);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<_> = table.lines().map(words).collect();
    assert_eq!(rows[0], ["NAME", "URL", "LATESTCREATED", "LATESTREADY", "READY", "REASON"]);
    assert_eq!(rows[1], ["hello", url, "hello-00001", "hello-00001", "True"]);
    let pasted = space.cluster.succeed("curl", &["--fail", "--silent", "--show-error", url], "");
    assert_eq!(pasted, "Hello World!\n");
}

#[test]
fn hello_has_upstreams_tree_of_owned_objects() {
    let _domain = domain_stays();
    let space = Namespace::new("tree");
    space.apply_example("hello.yaml");
    space.ready("hello");
    let expected = [
        "0 Service.serving hello",
        "1 Configuration hello",
        "2 Revision hello-00001",
        "3 Deployment hello-00001-deployment",
        "4 ReplicaSet hello-00001-deployment-*",
        "5 Pod hello-00001-deployment-*-*",
        "3 Image hello-00001-cache-user-container",
        "3 PodAutoscaler hello-00001",
        "4 Metric hello-00001",
        "4 ServerlessService hello-00001",
        "5 Endpoints hello-00001",
        "6 EndpointSlice hello-00001-*",
        "5 Service hello-00001",
        "5 Service hello-00001-private",
        "6 EndpointSlice hello-00001-private-*",
        "1 Route hello",
        "2 Ingress hello",
        "2 Service hello",
    ];
    // Slices follow their Services a moment later.
    let mut last = Vec::new();
    let found = knoll_e2e::found_within(Duration::from_secs(20), || {
        last = tree(&space, "hello");
        (last == expected).then_some(())
    });
    assert!(found.is_some(), "the tree is {last:#?}\ninstead of {expected:#?}");
}

/// The tree below a Knative Service as lines `depth kind name`, sorted by kind and name below each parent, random parts
/// of names as stars.
fn tree(space: &Namespace, service: &str) -> Vec<String> {
    let kinds = [
        "configurations",
        "routes",
        "revisions",
        "deployments",
        "replicasets",
        "pods",
        "images",
        "podautoscalers",
        "metrics",
        "serverlessservices",
        "endpoints",
        "endpointslices",
        "services",
        "ingresses",
        "certificates",
    ];
    let mut children: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for object in kinds.iter().flat_map(|kind| with_kind(space, kind)) {
        for owner in object["metadata"]["ownerReferences"].as_array().into_iter().flatten() {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            assert_eq!(owner["controller"], true, "controller of {name}");
            assert_eq!(owner["blockOwnerDeletion"], true, "owner of {name}");
            children.entry(owner["uid"].as_str().unwrap_or_default().to_owned()).or_default().push(object.clone());
        }
    }
    let mut lines = vec![format!("0 Service.serving {service}")];
    walk(&space.object("ksvc", service), 1, service, &children, &mut lines);
    lines
}

fn with_kind(space: &Namespace, kind: &str) -> Vec<Value> {
    let name = match kind {
        "configurations" => "Configuration",
        "routes" => "Route",
        "revisions" => "Revision",
        "deployments" => "Deployment",
        "replicasets" => "ReplicaSet",
        "pods" => "Pod",
        "images" => "Image",
        "podautoscalers" => "PodAutoscaler",
        "metrics" => "Metric",
        "serverlessservices" => "ServerlessService",
        "endpoints" => "Endpoints",
        "endpointslices" => "EndpointSlice",
        "services" => "Service",
        "ingresses" => "Ingress",
        _ => "Certificate",
    };
    let mut objects = space.list(kind);
    objects.iter_mut().for_each(|object| object["kind"] = name.into());
    objects
}

fn walk(parent: &Value, depth: usize, prefix: &str, children: &BTreeMap<String, Vec<Value>>, lines: &mut Vec<String>) {
    let mut below = children.get(parent["metadata"]["uid"].as_str().unwrap_or_default()).cloned().unwrap_or_default();
    let key = |object: &Value| (object["kind"].to_string(), object["metadata"]["name"].to_string());
    below.sort_by_key(key);
    for child in below {
        let name = child["metadata"]["name"].as_str().unwrap_or_default();
        let kind = child["kind"].as_str().unwrap_or_default();
        // These add random words to their parent's name.
        let shown = match kind {
            "ReplicaSet" | "Pod" | "EndpointSlice" => {
                let rest = name.strip_prefix(prefix_of(parent)).and_then(|rest| rest.strip_prefix('-'));
                let random = rest.is_some_and(|rest| !rest.is_empty() && !rest.contains('-'));
                assert!(random, "{kind} {name} below {}", parent["metadata"]["name"]);
                format!("{prefix}-*")
            }
            _ => name.to_owned(),
        };
        lines.push(format!("{depth} {kind} {shown}"));
        walk(&child, depth + 1, &shown, children, lines);
    }
}

fn prefix_of(parent: &Value) -> &str {
    parent["metadata"]["name"].as_str().unwrap_or_default()
}

#[test]
fn canary_splits_by_percentage_and_tag_and_rolls_back() {
    let _domain = domain_stays();
    let space = Namespace::new("canary");
    let service = "helloworld-go";
    space.apply_example("canary-v1.yaml");
    space.ready(service);
    assert_eq!(space.ask(service).body, "Hello World v1!\n");
    space.apply_example("canary-v2.yaml");
    let status = space.ready(service)["status"].clone();
    assert_eq!(status["latestReadyRevisionName"], "helloworld-go-v2");

    let share = |count: usize| {
        let host = space.host(service);
        let answers: Vec<String> =
            (0..count).map(|_| get(&space.cluster.gateway, &host, "/").expect("the gateway answers").body).collect();
        assert!(answers.iter().all(|body| body == "Hello World v1!\n" || body == "Hello World v2!\n"), "{answers:?}");
        answers.iter().filter(|body| *body == "Hello World v1!\n").count()
    };
    // 500 of a 20 % chance: 100 expected, standard deviation 9; five of them are one in a million.
    let first = share(500);
    assert!((55..=145).contains(&first), "{first} of 500 went to v1");

    let traffic = status["traffic"].as_array().expect("it has traffic").clone();
    for (tag, answer) in [("v1", "Hello World v1!\n"), ("v2", "Hello World v2!\n"), ("latest", "Hello World v2!\n")] {
        let target = traffic.iter().find(|target| target["tag"] == tag).expect("the tag is there");
        let host = host_of(target["url"].as_str().expect("it has a URL"));
        assert_eq!(host, format!("{tag}-{service}.{}.localhost", space.name));
        let answered = get(&space.cluster.gateway, &host, "/").expect("the gateway answers");
        assert_eq!((answered.status, answered.body.as_str()), (200, answer), "{tag}");
    }

    let back = json!({"spec": {"traffic": [{"revisionName": "helloworld-go-v1", "percent": 100}]}}).to_string();
    space.kubectl(&["patch", "ksvc", service, "--type=merge", "-p", &back]);
    space.service(service, "is rolled back", |service| {
        condition(service, "Ready")["status"] == "True"
            && service["status"]["traffic"][0]["revisionName"] == "helloworld-go-v1"
    });
    assert_eq!(share(50), 50);
}

#[test]
fn domain_changes_the_url_without_a_restart() {
    let _alone = DOMAIN.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    let space = Namespace::new("domain");
    space.apply_example("hello.yaml");
    space.ready("hello");
    let process = space.cluster.instance()["pid"].clone();
    // What the ConfigMap holds is put back; the example's key goes.
    let back = space.cluster.configure("config-domain", json!({"apps.example.test": null}));
    space.cluster.kubectl(&["apply", "-f", &knoll_e2e::example("domain.yaml")]);
    let wanted = format!("hello.{}.apps.example.test", space.name);
    let url_is = |wanted: &str| {
        space.service("hello", &format!("has host {wanted}"), |service| {
            service["status"]["url"].as_str().is_some_and(|url| host_of(url) == wanted)
                && condition(service, "Ready")["status"] == "True"
        })
    };
    url_is(&wanted);
    let answer = get(&space.cluster.gateway, &wanted, "/").expect("the gateway answers");
    assert_eq!((answer.status, answer.body.as_str()), (200, "Hello World!\n"));
    assert_eq!(space.cluster.instance()["pid"], process, "without a restart");
    drop(back);
    url_is(&format!("hello.{}.localhost", space.name));
    until("the old host is forgotten", || {
        let answer = get(&space.cluster.gateway, &wanted, "/").expect("the gateway answers");
        (answer.status == 404).then_some(())
    });
}

#[test]
fn scale_stays_within_its_bounds_and_fails_no_request() {
    let _domain = domain_stays();
    let space = Namespace::new("scale");
    let service = "helloworld-go";
    space.apply_example("scale.yaml");
    space.ready(service);
    let (stop, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let host = space.host(service);
    let begun = Instant::now();
    let (load, most) = thread::scope(|scope| {
        // A revision is ready with its least instances, and never has fewer; never more than its most.
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                let pods = space.pods(service).len();
                assert!((2..=10).contains(&pods), "{pods} pods");
                most = most.max(space.ready_pods(service));
                thread::park_timeout(Duration::from_millis(100));
            }
            most
        });
        let clients = scope.spawn(|| Load::run(&space.cluster.gateway, &host, "/", 50, &stop));
        thread::sleep(Duration::from_secs(30).saturating_sub(begun.elapsed()));
        stop.store(true, Ordering::Relaxed);
        let load = clients.join().expect("the clients end");
        let shrunk = knoll_e2e::found_within(knoll_e2e::PATIENCE, || (space.pods(service).len() == 2).then_some(()));
        done.store(true, Ordering::Relaxed);
        let most = watch.join().expect("the bounds are kept");
        assert!(shrunk.is_some(), "it shrinks to two after the load");
        (load, most)
    });
    assert!(load.bad.is_empty() && load.again == 0, "{load:?}");
    assert!(load.good > 1000, "{} answers", load.good);
    assert!(most > 2, "it grows past two under load");
}

#[test]
fn helloworld_go_answers_a_pod_at_its_cluster_local_name() {
    let _domain = domain_stays();
    let space = Namespace::new("inside");
    space.apply_example("helloworld-go.yaml");
    space.ready("helloworld-go");
    space.apply(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: asker}\nspec: {template: {spec: \
         {containers: [{image: 'localhost:5000/e2e/actor:1'}]}}}\n",
    );
    space.ready("asker");
    let path = format!("/fetch?http://helloworld-go.{}.svc.cluster.local/", space.name);
    let answer = space.ask_for("asker", &path);
    assert_eq!((answer.status, answer.body.as_str()), (200, "200\nHello World!\n"));
    // The same name without its domain, as a pod's search path completes it.
    let answer = space.ask_for("asker", "/fetch?http://helloworld-go/");
    assert_eq!(answer.status, 200, "{}", answer.body);
    until("the tree below it is complete", || (!space.pods("helloworld-go").is_empty()).then_some(()));
}
