//! An unmodified `kubectl` does what it does elsewhere.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use knoll_e2e::{Namespace, condition, get, until};
use serde_json::{Value, json};

const ACTOR: &str = "localhost:5000/e2e/actor:1";

fn config_map(name: &str, data: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}).to_string()
}

fn deployment(name: &str) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 2, "containers": [{
                    "name": "main", "image": ACTOR, "env": [{"name": "PORT", "value": "8080"}],
                    "ports": [{"containerPort": 8080}],
                }]},
            },
        },
    })
    .to_string()
}

fn the_pod(space: &Namespace) -> String {
    until("the pod is ready", || {
        let pods = space.list("pods");
        let ready = pods.iter().find(|pod| {
            condition(pod, "Ready")["status"] == "True" && pod["metadata"]["deletionTimestamp"].is_null()
        })?;
        Some(ready["metadata"]["name"].as_str()?.to_owned())
    })
}

/// A `kubectl` that goes on, and the lines it prints.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn start(space: &Namespace, arguments: &[&str]) -> Self {
        let mut command = space.cluster.command("kubectl");
        command.args(["-n", &space.name]).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("kubectl starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (send, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { child, lines }
    }

    /// Waits for a line that is `wanted`.
    fn line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(60)) {
                Ok(line) if wanted(&line) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("{what}: {error}; seen: {seen:#?}"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn objects_are_made_changed_and_removed() {
    let space = Namespace::new("verbs");
    space.kubectl(&["create", "configmap", "made", "--from-literal=a=1"]);
    assert_eq!(space.object("configmaps", "made")["data"], json!({"a": "1"}));
    let refused = space.kubectl_refused(&["create", "configmap", "made"], "");
    assert_eq!(refused.trim(), "error: failed to create configmap: configmaps \"made\" already exists");

    assert!(space.apply(&config_map("kept", &json!({"a": "1", "b": "2"}))).contains("configmap/kept created"));
    assert!(space.apply(&config_map("kept", &json!({"a": "1", "b": "2"}))).contains("configmap/kept unchanged"));
    // What is no longer applied goes; what somebody else added stays.
    space.kubectl(&["patch", "configmap", "kept", "--type=merge", "-p", r#"{"data":{"other":"x"}}"#]);
    assert!(space.apply(&config_map("kept", &json!({"a": "3"}))).contains("configmap/kept configured"));
    assert_eq!(space.object("configmaps", "kept")["data"], json!({"a": "3", "other": "x"}));

    space.kubectl(&["label", "configmap", "kept", "tier=back"]);
    space.kubectl(&["annotate", "configmap", "kept", "note=it is kept"]);
    let metadata = space.object("configmaps", "kept")["metadata"].clone();
    assert_eq!(metadata["labels"], json!({"tier": "back"}));
    assert_eq!(metadata["annotations"]["note"], "it is kept");
    let refused = space.kubectl_refused(&["label", "configmap", "kept", "tier=front"], "");
    assert!(refused.contains("already has a value (back)"), "{refused}");
    space.kubectl(&["label", "configmap", "kept", "tier-"]);
    assert!(space.object("configmaps", "kept")["metadata"]["labels"]["tier"].is_null());

    assert_eq!(
        space.kubectl(&["delete", "configmap", "kept"]).trim(),
        format!("configmap \"kept\" deleted from {} namespace", space.name)
    );
    let missing = space.kubectl_refused(&["get", "configmap", "kept"], "");
    assert_eq!(missing.trim(), "Error from server (NotFound): configmaps \"kept\" not found");
}

#[test]
fn patches_of_each_kind_apply() {
    let space = Namespace::new("patch");
    space.apply(&deployment("web"));
    let container =
        |field: &str| space.object("deployments", "web")["spec"]["template"]["spec"]["containers"][0][field].clone();
    // Strategic: lists of containers and of variables merge by name.
    let add = r#"{"spec":{"template":{"spec":{"containers":[{"name":"main","env":[{"name":"MORE","value":"1"}]}]}}}}"#;
    space.kubectl(&["patch", "deployment", "web", "-p", add]);
    assert_eq!(container("image"), ACTOR);
    let names: Vec<Value> = container("env").as_array().expect("a list").iter().map(|e| e["name"].clone()).collect();
    assert!(names.contains(&json!("PORT")) && names.contains(&json!("MORE")), "{names:?}");
    let json =
        r#"[{"op":"test","path":"/spec/replicas","value":1},{"op":"replace","path":"/spec/replicas","value":0}]"#;
    space.kubectl(&["patch", "deployment", "web", "--type=json", "-p", json]);
    assert_eq!(space.object("deployments", "web")["spec"]["replicas"], 0);
    let refused = space.kubectl_refused(&["patch", "deployment", "web", "--type=json", "-p", json], "");
    assert!(!refused.is_empty(), "a test that does not hold refuses the patch");
    space.kubectl(&["patch", "deployment", "web", "--type=merge", "-p", r#"{"spec":{"replicas":2,"paused":true}}"#]);
    let spec = space.object("deployments", "web")["spec"].clone();
    assert_eq!((&spec["replicas"], &spec["paused"]), (&json!(2), &json!(true)));
    space.kubectl(&["scale", "deployment", "web", "--replicas=0"]);
    assert_eq!(space.object("deployments", "web")["spec"]["replicas"], 0);
}

#[test]
fn edit_opens_an_editor_and_applies_what_it_leaves() {
    let space = Namespace::new("edit");
    space.apply(&config_map("text", &json!({"word": "before"})));
    let home = tempfile::tempdir().expect("a directory");
    let editor = home.path().join("editor");
    fs::write(&editor, "#!/bin/sh\nexec sed -i s/before/after/ \"$1\"\n").expect("it is written");
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).expect("it may run");
    let mut command = space.cluster.command("kubectl");
    let output = command
        .args(["-n", &space.name, "edit", "configmap", "text"])
        .env("KUBE_EDITOR", &editor)
        .output()
        .expect("kubectl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(space.object("configmaps", "text")["data"], json!({"word": "after"}));
}

#[test]
fn a_service_is_shown_in_every_form() {
    let space = Namespace::new("show");
    space.apply_example("hello.yaml");
    let waited = space.kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", "ksvc/hello"]);
    assert_eq!(waited.trim(), "service.serving.knative.dev/hello condition met");
    assert_eq!(
        space.kubectl(&["get", "ksvc", "hello", "-o", "jsonpath={.status.latestReadyRevisionName}"]),
        "hello-00001"
    );
    assert_eq!(space.kubectl(&["get", "ksvc", "-o", "name"]).trim(), "service.serving.knative.dev/hello");
    let yaml = space.kubectl(&["get", "ksvc", "hello", "-o", "yaml"]);
    assert!(yaml.contains("apiVersion: serving.knative.dev/v1\nkind: Service\n"), "{yaml}");
    let json: Value = serde_json::from_str(&space.kubectl(&["get", "ksvc", "hello", "-o", "json"])).expect("JSON");
    assert_eq!(json["metadata"]["name"], "hello");
    let header = |arguments: &[&str]| {
        let text = space.kubectl(arguments);
        text.lines().next().unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        header(&["get", "revision"]),
        "NAME CONFIG NAME GENERATION READY REASON ACTUAL REPLICAS DESIRED REPLICAS"
    );
    assert_eq!(header(&["get", "route"]), "NAME URL READY REASON");
    assert_eq!(header(&["get", "configuration"]), "NAME LATESTCREATED LATESTREADY READY REASON");
    assert_eq!(
        header(&["get", "pods", "-o", "wide"]),
        "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES"
    );
    assert_eq!(header(&["get", "deployments"]), "NAME READY UP-TO-DATE AVAILABLE AGE");
    let described = space.kubectl(&["describe", "ksvc", "hello"]);
    assert!(
        described.contains("Latest Ready Revision Name") && described.contains("Kind:         Service"),
        "{described}"
    );
    let pod = the_pod(&space);
    let described = space.kubectl(&["describe", "pod", &pod]);
    for part in ["user-container:", "Container ID:", "Image ID:", "Ready:          True", "Events:", "Started"] {
        assert!(described.contains(part), "{part} is missing in:\n{described}");
    }
    let events = space.kubectl(&["get", "events", "--sort-by=.lastTimestamp"]);
    for part in ["LAST SEEN", "Scheduled", "Started", "ScalingReplicaSet"] {
        assert!(events.contains(part), "{part} is missing in:\n{events}");
    }
}

#[test]
fn a_list_is_applied_item_by_item() {
    let space = Namespace::new("list");
    let item = |name: &str| -> Value { serde_json::from_str(&config_map(name, &json!({"a": "1"}))).expect("JSON") };
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [item("one"), item("two")]}).to_string();
    let applied = space.apply(&list);
    assert!(applied.contains("configmap/one created") && applied.contains("configmap/two created"), "{applied}");
    let shown = space.kubectl(&["get", "configmaps", "one", "two", "-o", "yaml"]);
    assert!(space.apply(&shown).contains("configmap/one configured"));
    // What a List holds is checked by kubectl itself.
    let mut wrong = item("three");
    wrong["dota"] = json!({});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [wrong]}).to_string();
    let refused = space.kubectl_refused(&["apply", "-f", "-"], &list);
    assert!(refused.contains("unknown field \"dota\""), "{refused}");
}

#[test]
fn the_api_describes_itself() {
    let space = Namespace::new("api");
    let resources = space.kubectl(&["api-resources"]);
    for part in [
        "services                            kservice,ksvc",
        "serving.knative.dev/v1",
        "deployments",
        "apps/v1",
        "podautoscalers                      kpa,pa",
        "subjectaccessreviews",
    ] {
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let wanted = squeeze(part);
        assert!(resources.lines().any(|line| squeeze(line).contains(&wanted)), "{part} is missing in:\n{resources}");
    }
    let explained = space.kubectl(&["explain", "pod.spec.containers.image"]);
    assert!(explained.contains("KIND:       Pod") && explained.contains("FIELD: image <string>"), "{explained}");
    let explained = space.kubectl(&["explain", "ksvc.spec.traffic.percent"]);
    assert!(
        explained.contains("GROUP:      serving.knative.dev") && explained.contains("FIELD: percent <integer>"),
        "{explained}"
    );
    let version = space.kubectl(&["version"]);
    assert!(version.contains("Server Version: v1."), "{version}");
}

#[test]
fn watching_shows_what_happens() {
    let space = Namespace::new("watch");
    let told = |line: &str, event: &str| line.split_whitespace().take(2).eq([event, "seen"]);
    let watch = Running::start(&space, &["get", "configmaps", "-w", "--output-watch-events"]);
    watch.line("the first objects are shown", |line| line.contains("kube-root-ca.crt"));
    space.apply(&config_map("seen", &json!({"a": "1"})));
    watch.line("it is added", |line| told(line, "ADDED"));
    space.apply(&config_map("seen", &json!({"a": "2"})));
    watch.line("it is modified", |line| told(line, "MODIFIED"));
    space.kubectl(&["delete", "configmap", "seen"]);
    watch.line("it is deleted", |line| told(line, "DELETED"));
}

#[test]
fn logs_follow_and_remember_the_container_before() {
    let space = Namespace::new("logs");
    space.apply(&deployment("talker"));
    let pod = the_pod(&space);
    let address =
        space.object("pods", &pod)["status"]["podIP"].as_str().expect("it has an address").to_owned() + ":8080";
    let follow = Running::start(&space, &["logs", "-f", &pod]);
    follow.line("its first line", |line| line == "actor: start");
    get(&address, "talker", "/say?one-more").expect("it answers");
    follow.line("a line that comes later", |line| line == "actor: one-more");
    // It ends without an answer.
    drop(get(&address, "talker", "/leave?3"));
    follow.line("its last line", |line| line == "actor: leaving with 3");
    until("it is started again", || {
        let status = space.object("pods", &pod)["status"]["containerStatuses"][0].clone();
        (status["restartCount"] == 1 && !status["state"]["running"].is_null()).then_some(())
    });
    let status = space.object("pods", &pod)["status"]["containerStatuses"][0].clone();
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 3);
    let before = space.kubectl(&["logs", "--previous", &pod]);
    assert!(before.contains("actor: one-more\n") && before.ends_with("actor: leaving with 3\n"), "{before}");
    let now = until("the new container talks", || {
        let text = space.kubectl(&["logs", &pod]);
        text.contains("listening").then_some(text)
    });
    assert!(!now.contains("one-more"), "{now}");
    let one = space.kubectl(&["logs", "--tail=1", "--timestamps", &pod]);
    assert!(one.contains("Z actor: listening on port 8080") && one.lines().count() == 1, "{one}");
}

#[test]
fn exec_runs_in_the_container() {
    let space = Namespace::new("exec");
    let image = format!("docker-archive:{}", space.cluster.images.join("layers.tar").display());
    let login = format!("--authfile={}", space.cluster.data_dir.join("registry/config.json").display());
    space.cluster.succeed(
        "skopeo",
        &["copy", "--quiet", &login, "--dest-tls-verify=false", &image, "docker://localhost:5000/e2e/exec:1"],
        "",
    );
    space.apply(&deployment("shell").replace(ACTOR, "localhost:5000/e2e/exec:1"));
    let pod = the_pod(&space);
    let output = space.kubectl(&["exec", &pod, "--", "sh", "-c", "echo here; cat /site/added"]);
    assert_eq!(output, "here\nmiddle\n");
    let input = space.cluster.kubectl_with(&["-n", &space.name, "exec", "-i", &pod, "--", "cat"], "by hand\n");
    assert_eq!(input, "by hand\n");
    let output = space.cluster.try_kubectl(&["-n", &space.name, "exec", &pod, "--", "sh", "-c", "exit 7"], "");
    assert_eq!(output.status.code(), Some(7));
    let refused = space.kubectl_refused(&["exec", &pod, "--", "/no/such/program"], "");
    assert!(refused.contains("/no/such/program") && !refused.contains("Upgrade"), "{refused}");
}

#[test]
fn wait_sees_deletions_and_json_paths() {
    let space = Namespace::new("wait");
    space.apply(&deployment("web"));
    space.kubectl(&["wait", "--for=jsonpath={.status.readyReplicas}=1", "--timeout=120s", "deployment/web"]);
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    let pod = the_pod(&space);
    space.kubectl(&["delete", "deployment", "web"]);
    space.kubectl(&["wait", "--for=delete", "--timeout=120s", &format!("pod/{pod}")]);
}

#[test]
fn server_side_apply_tells_conflicts() {
    let space = Namespace::new("apply");
    let apply = |manager: &str, value: &str, more: &[&str]| {
        let yaml = config_map("owned", &json!({"key": value}));
        let manager = format!("--field-manager={manager}");
        let mut words = vec!["-n", &space.name, "apply", "--server-side", &manager, "-f", "-"];
        words.extend(more);
        space.cluster.try_kubectl(&words, &yaml)
    };
    assert!(apply("first", "1", &[]).status.success());
    let refused = apply("second", "2", &[]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    assert!(text.contains("Apply failed with 1 conflict: conflict with \"first\": .data.key"), "{text}");
    assert!(apply("second", "2", &["--force-conflicts"]).status.success());
    let object: Value =
        serde_json::from_str(&space.kubectl(&["get", "configmap", "owned", "-o", "json", "--show-managed-fields"]))
            .expect("JSON");
    assert_eq!(object["data"]["key"], "2");
    let fields = object["metadata"]["managedFields"].as_array().expect("it has them").clone();
    let second = fields.iter().find(|entry| entry["manager"] == "second").expect("the second is there");
    assert_eq!(second["fieldsV1"]["f:data"]["f:key"], json!({}));
    assert_eq!(second["operation"], "Apply");
}

#[test]
fn who_may_do_what_is_told() {
    let space = Namespace::new("auth");
    let may = |arguments: &[&str]| {
        let mut words = vec!["-n", &space.name, "auth", "can-i"];
        words.extend(arguments);
        String::from_utf8_lossy(&space.cluster.try_kubectl(&words, "").stdout).trim().to_owned()
    };
    assert_eq!(may(&["create", "ksvc"]), "yes");
    let account = format!("--as=system:serviceaccount:{}:default", space.name);
    assert_eq!(may(&["delete", "pods", &account]), "no");
    space.kubectl(&["create", "role", "cleaner", "--verb=delete", "--resource=pods"]);
    let subject = format!("--serviceaccount={}:default", space.name);
    space.kubectl(&["create", "rolebinding", "cleaner", "--role=cleaner", &subject]);
    until("the binding counts", || (may(&["delete", "pods", &account]) == "yes").then_some(()));
    assert_eq!(may(&["delete", "ksvc", &account]), "no");
    let refused = space.kubectl_refused(&["get", "secrets", &account], "");
    let user = format!("system:serviceaccount:{}:default", space.name);
    let wanted = format!(
        "Error from server (Forbidden): secrets is forbidden: User \"{user}\" cannot list resource \"secrets\" in API group \
         \"\" in the namespace \"{}\"",
        space.name
    );
    assert_eq!(refused.trim(), wanted);
}

#[test]
fn nobody_in_particular_is_refused() {
    let space = Namespace::new("nobody");
    let server = space.cluster.instance()["api"].as_str().expect("it has an address").to_owned();
    let path = format!("{server}/api/v1/namespaces/{}/configmaps", space.name);
    let status = |more: &[&str]| {
        let mut words = vec!["--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}", &path];
        words.extend(more);
        space.cluster.succeed("curl", &words, "")
    };
    assert!(["401", "403"].contains(&status(&[]).as_str()), "{}", status(&[]));
    assert_eq!(status(&["--header", "authorization: Bearer made.up.token"]), "401");
    assert!(["401", "403"].contains(&status(&["--request", "POST", "--data", "{}"]).as_str()));
}

#[test]
fn unknown_fields_are_told() {
    let space = Namespace::new("strict");
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: odd}\ndata: {a: b}\nsurprise: true\n";
    let refused = space.kubectl_refused(&["create", "--validate=strict", "-f", "-"], yaml);
    assert!(refused.contains("strict decoding error: unknown field \"surprise\""), "{refused}");
    let service = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: odd}\nspec: {template: {spec: \
                   {surprise: true, containers: [{image: 'localhost:5000/e2e/actor:1'}]}}}\n";
    let refused = space.kubectl_refused(&["create", "--validate=strict", "-f", "-"], service);
    assert!(refused.contains("unknown field \"spec.template.spec.surprise\""), "{refused}");
    let output = space.cluster.try_kubectl(&["-n", &space.name, "create", "--validate=warn", "-f", "-"], yaml);
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && warning.contains("Warning: unknown field \"surprise\""), "{warning}");
}

#[test]
fn admission_refuses_in_knatives_words() {
    let space = Namespace::new("words");
    let denied = "admission webhook \"validation.webhook.serving.knative.dev\" denied the request: validation failed: ";
    let service = |template: Value, more: Value| {
        let mut spec = json!({"template": template});
        spec.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "bad"}, "spec": spec})
            .to_string()
    };
    let container = json!({"image": ACTOR});
    let good = json!({"spec": {"containers": [container]}});
    let cases = [
        (
            service(good.clone(), json!({"traffic": [{"latestRevision": true, "percent": 90}]})),
            "Traffic targets sum to 90, want 100: spec.traffic",
        ),
        (
            service(json!({"metadata": {"name": "other"}, "spec": {"containers": [container]}}), json!({})),
            "invalid value: \"other\" must have prefix \"bad-\": spec.template.metadata.name",
        ),
        (
            service(json!({"spec": {"containers": [container], "containerConcurrency": -1}}), json!({})),
            "expected 0 <= -1 <= 1000: spec.template.spec.containerConcurrency",
        ),
        (
            service(
                json!({"spec": {"containers": [{"image": ACTOR, "env": [{"name": "PORT", "value": "1"}]}]}}),
                json!({}),
            ),
            "\"PORT\" is a reserved environment variable: spec.template.spec.containers[0].env[0].name",
        ),
        (
            service(
                json!({"metadata": {"annotations": {"autoscaling.knative.dev/min-scale": "5", "autoscaling.knative.dev/max-scale": "2"}},
                       "spec": {"containers": [container]}}),
                json!({}),
            ),
            "max-scale=2 is less than min-scale=5: spec.template.metadata.annotations.autoscaling.knative.dev/max-scale, \
             spec.template.metadata.annotations.autoscaling.knative.dev/min-scale",
        ),
        (
            service(json!({"spec": {"containers": [container], "serviceAccountName": "foo@bar.baz"}}), json!({})),
            "invalid value: foo@bar.baz: spec.template.spec.serviceAccountName",
        ),
    ];
    for (yaml, wanted) in cases {
        let refused = space.kubectl_refused(&["create", "-f", "-"], &yaml);
        let head = "Error from server (BadRequest): error when creating \"STDIN\": ";
        assert!(refused.starts_with(&format!("{head}{denied}{wanted}")), "{refused}\ninstead of\n{wanted}");
    }
}

#[test]
fn namespaces_take_all_that_is_in_them() {
    let space = Namespace::new("whole");
    space.apply_example("hello.yaml");
    space.ready("hello");
    space.cluster.kubectl(&["delete", "namespace", &space.name, "--timeout=120s"]);
    for kind in ["pods", "ksvc", "revisions", "services", "configmaps", "podautoscalers"] {
        assert!(space.list(kind).is_empty(), "{kind}");
    }
    let missing = space.cluster.try_kubectl(&["get", "namespace", &space.name], "");
    assert!(!missing.status.success());
}
