//! Images that have nothing in common run as they were made: interpreters', a shell's, a named user's, one of layers
//! that hide each other.

use knoll_e2e::{Namespace, condition};
use serde_json::{Value, json};

fn archive(space: &Namespace, name: &str) -> String {
    space.cluster.images.join(format!("{name}.tar")).display().to_string()
}

fn load(space: &Namespace, path: &str) -> String {
    space.cluster.succeed(&space.cluster.knoll, &["image", "load", path], "")
}

fn service(name: &str, spec: &Value) -> String {
    let mut spec = spec.clone();
    // Those that do not listen to signals are not waited for.
    spec["timeoutSeconds"] = 5.into();
    let template = json!({"spec": spec});
    json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": name}, "spec": {"template": template}})
        .to_string()
}

#[test]
fn an_interpreters_image_is_pushed_with_skopeo() {
    let space = Namespace::new("python");
    let registry = space.cluster.instance()["registry"].as_str().expect("it has one").to_owned();
    assert_eq!(registry, "127.0.0.1:5000");
    let source = format!("docker-archive:{}", archive(&space, "python"));
    let target = "docker://localhost:5000/e2e/python:1";
    let login = format!("--authfile={}", space.cluster.data_dir.join("registry/config.json").display());
    space.cluster.succeed("skopeo", &["copy", "--quiet", &login, "--dest-tls-verify=false", &source, target], "");
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
        "data": {"greeting": "good day", "colour": "blue"},
    });
    space.apply(&config.to_string());
    space.kubectl(&["create", "secret", "generic", "keys", "--from-literal=password=s3cret"]);
    let spec = json!({
        "containers": [{
            "image": "localhost:5000/e2e/python:1",
            "env": [
                {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "greeting"}}},
                {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
                {"name": "BOTH", "value": "$(GREETING), $(PASSWORD)"},
            ],
            "envFrom": [{"prefix": "SET_", "configMapRef": {"name": "settings"}}],
            "volumeMounts": [{"name": "files", "mountPath": "/etc/settings", "readOnly": true}],
        }],
        "volumes": [{"name": "files", "projected": {"sources": [
            {"configMap": {"name": "settings"}}, {"secret": {"name": "keys", "items": [{"key": "password", "path": "deep/word"}]}},
        ]}}],
    });
    space.apply(&service("python", &spec));
    let ready = space.ready("python");
    let image = space.object("revisions", ready["status"]["latestReadyRevisionName"].as_str().unwrap_or_default());
    let digest = image["status"]["containerStatuses"][0]["imageDigest"].as_str().unwrap_or_default().to_owned();
    assert!(digest.starts_with("localhost:5000/e2e/python@sha256:"), "{digest}");
    assert!(space.ask("python").body.starts_with("good day from python 3."), "{}", space.ask("python").body);
    assert!(space.ask("python").body.ends_with(" in /app"));
    let answers = [
        ("/env?PASSWORD", "s3cret"),
        ("/env?BOTH", "good day, s3cret"),
        ("/env?SET_colour", "blue"),
        ("/env?K_SERVICE", "python"),
        ("/env?K_CONFIGURATION", "python"),
        ("/env?K_REVISION", "python-00001"),
        ("/env?PORT", "8080"),
        ("/file?/etc/settings/colour", "blue"),
        ("/file?/etc/settings/deep/word", "s3cret"),
        ("/file?/etc/settings/nothing", "no file: No such file or directory"),
    ];
    for (path, wanted) in answers {
        assert_eq!(space.ask_for("python", path).body, wanted, "{path}");
    }
}

#[test]
fn a_named_users_image_is_loaded_as_an_oci_layout() {
    let space = Namespace::new("perl");
    let scratch = tempfile::tempdir().expect("a directory");
    let layout = scratch.path().join("perl.oci.tar").display().to_string();
    let source = format!("docker-archive:{}", archive(&space, "perl"));
    let target = format!("oci-archive:{layout}:localhost:5000/e2e/perl:1");
    space.cluster.succeed("skopeo", &["copy", "--quiet", &source, &target], "");
    let loaded = load(&space, &layout);
    assert!(loaded.contains("localhost:5000/e2e/perl:1"), "{loaded}");
    space.apply(&service("perl", &json!({"containers": [{"image": "localhost:5000/e2e/perl:1"}]})));
    space.ready("perl");
    // Its user by name, with that user's group, further groups, home and own directory.
    assert_eq!(space.ask("perl").body, "user 4711 groups 4712,4713 home /desk directory writable\n");
    // A user that the pod asks for comes before the image's.
    let spec = json!({"containers": [{
        "image": "localhost:5000/e2e/perl:1", "securityContext": {"runAsUser": 99, "runAsGroup": 98},
    }]});
    space.apply(&service("other", &spec));
    space.ready("other");
    let body = space.ask("other").body;
    assert!(body.starts_with("user 99 groups 98 ") && body.contains("not writable"), "{body}");
}

#[test]
fn a_shells_image_runs_beside_another_in_one_pod() {
    let space = Namespace::new("shell");
    let loaded = load(&space, &archive(&space, "shell"));
    assert!(loaded.contains("localhost:5000/e2e/shell:1") && loaded.contains("docker.io/e2e/shell:1"), "{loaded}");
    // Alone.
    space.apply(&service("shell", &json!({"containers": [{"image": "localhost:5000/e2e/shell:1"}]})));
    space.ready("shell");
    assert_eq!(space.ask("shell").body, "from the shell\n");
    // As a sidecar: same network, shared volume, own files.
    let spec = json!({
        "containers": [
            {
                "name": "front", "image": "localhost:5000/e2e/actor:1", "ports": [{"containerPort": 8080}],
                "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
            },
            {
                "name": "side", "image": "localhost:5000/e2e/shell:1", "env": [{"name": "PORT", "value": "9999"}],
                "command": ["/bin/sh", "-c"],
                "args": ["echo written by the side >/shared/note; trap 'exit 0' TERM; httpd -f -p $PORT -h /www & wait"],
                "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
            },
        ],
        "volumes": [{"name": "shared", "emptyDir": {}}],
    });
    space.apply(&service("both", &spec));
    space.ready("both");
    // The side has no probe: that it runs does not say that it listens.
    knoll_e2e::until("the side answers", || {
        let body = space.ask_for("both", "/fetch?http://127.0.0.1:9999/index.html").body;
        (body == "200\nfrom the shell\n").then_some(())
    });
    assert_eq!(space.ask_for("both", "/file?/shared/note").body, "written by the side\n");
    assert_eq!(space.ask_for("both", "/file?/www/index.html").status, 500, "files of another image are not seen");
    let pods = space.pods("both");
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0]["status"]["containerStatuses"].as_array().map(Vec::len), Some(2));
    assert_eq!(condition(&pods[0], "ContainersReady")["status"], "True");
}

#[test]
fn layers_add_change_remove_replace_and_hide() {
    let space = Namespace::new("layers");
    load(&space, &archive(&space, "layers"));
    space.apply(&service("layers", &json!({"containers": [{"image": "localhost:5000/e2e/layers:1"}]})));
    space.ready("layers");
    let listing = space.ask_for("layers", "/listing").body;
    let wanted = [
        ".",
        "./added",
        "./back",
        "./becomes-file",
        "./becomes-folder",
        "./becomes-folder/inner",
        "./changed",
        "./hidden",
        "./hidden/middle",
        "./kept",
        "./link",
    ];
    assert_eq!(listing.lines().collect::<Vec<_>>(), wanted);
    let files = [
        ("added", "middle"),
        ("back", "above"),
        ("becomes-file", "above"),
        ("becomes-folder/inner", "middle"),
        ("changed", "middle"),
        ("hidden/middle", "middle"),
        ("kept", "below"),
        ("link", "below"),
    ];
    for (file, content) in files {
        assert_eq!(space.ask_for("layers", &format!("/site/{file}")).body, format!("{content}\n"), "{file}");
    }
    assert_eq!(space.ask_for("layers", "/site/removed").status, 404);
}

/// What a pod of the image `marked` says once it ran a script as nobody in particular.
fn marked(space: &Namespace, name: &str, security: &Value, script: &str) -> String {
    let mut security = security.clone();
    security["runAsUser"] = 65532.into();
    let script = format!("exec 2>&1; {script}");
    let container = json!({
        "image": "localhost:5000/e2e/marked:1", "workingDir": "/marked", "command": ["/bin/sh", "-c", script],
        "securityContext": security,
    });
    space.run_pod(name, container)
}

#[test]
fn hard_links_owners_attributes_and_capabilities_of_files_are_kept() {
    let space = Namespace::new("marked");
    load(&space, &archive(&space, "marked"));
    let script =
        "ls; [ $(stat -c %i first) = $(stat -c %i second) ] && echo one file; stat -c '%n %h %u:%g %a' first owned;
        getfattr --only-values -n user.origin noted; echo; getcap cat; ./cat owned second";
    let wanted = "cat\nfirst\nnoted\nowned\nsecond\nsecret\none file\nfirst 2 0:0 644\nowned 1 4711:4712 2750\n\
        made by a test\ncat cap_dac_override=ep\nof clerks\none file\n";
    assert_eq!(marked(&space, "kept", &json!({}), script), wanted);
}

#[test]
fn a_files_capability_is_for_containers_that_may_gain_privileges() {
    let space = Namespace::new("capability");
    load(&space, &archive(&space, "marked"));
    let script = "cat secret; ./cat secret";
    let denied = "cat: can't open 'secret': Permission denied\n";
    assert_eq!(marked(&space, "may", &json!({}), script), format!("{denied}for root\n"));
    let gains_nothing = json!({"allowPrivilegeEscalation": false});
    assert_eq!(marked(&space, "may-not", &gains_nothing, script), format!("{denied}{denied}"));
    // The kernel does not run what wants a capability that the container can never have.
    let drops = json!({"capabilities": {"drop": ["ALL"]}});
    let said = marked(&space, "cannot", &drops, script);
    assert!(said.starts_with(denied) && said.contains("./cat: Operation not permitted"), "{said}");
}

#[test]
fn containers_are_confined() {
    let space = Namespace::new("confined");
    let spec = json!({"containers": [{
        "image": "localhost:5000/e2e/actor:1",
        "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
    }]});
    space.apply(&service("actor", &spec));
    space.ready("actor");
    let id = space.ask_for("actor", "/id").body;
    assert!(id.contains("Uid:\t65532\t65532\t65532\t65532"), "{id}");
    assert!(id.contains("Seccomp:\t2"), "{id}");
    let limit = ["/file?/sys/fs/cgroup/memory.max", "/file?/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .map(|path| space.ask_for("actor", path))
        .into_iter()
        .find(|answer| answer.status == 200);
    assert_eq!(limit.expect("the limit shows").body.trim(), (64 << 20).to_string());
    // Some kernels have no such file; where it is, nothing of it is to be seen.
    let kernel = space.ask_for("actor", "/file?/proc/kcore");
    assert!(kernel.status == 500 || kernel.body.is_empty(), "{kernel:?}");
    assert_eq!(space.ask_for("actor", "/file?/etc/shadow").status, 500, "the machine's files are not seen");
    let hostname = space.ask_for("actor", "/file?/etc/hostname").body;
    assert_eq!(hostname.trim(), space.pods("actor")[0]["metadata"]["name"].as_str().unwrap_or_default());
}
