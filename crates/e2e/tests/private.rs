//! A registry that asks for a password: a secret that comes late heals what waited for it, and what one namespace may
//! run, another may not. And the embedded registry, which reads for everybody and lets only some push.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use knoll_e2e::{Namespace, condition, until, until_within};
use serde_json::{Value, json};

/// `u:p` as a header has it.
const LOGIN: &str = "Basic dTpw";
/// Longest a failed look-up waits for the next, in these tests, and then some.
const RETRIED: Duration = Duration::from_secs(90);

/// The embedded registry behind a password: `u`, `p`. Lives as long as the test's process. Returns its host.
fn private_registry(registry: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let host = listener.local_addr().expect("bound").to_string();
    let registry = registry.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let registry = registry.clone();
            thread::spawn(move || pass_on(stream, &registry));
        }
    });
    host
}

/// One request, passed on if it shows the password.
fn pass_on(mut stream: TcpStream, registry: &str) -> io::Result<()> {
    let (mut first, mut accept, mut shown) = (String::new(), String::new(), false);
    let mut reader = BufReader::new(stream.try_clone()?);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        shown |= line.to_ascii_lowercase().starts_with("authorization:") && line.trim().ends_with(LOGIN);
        if line.to_ascii_lowercase().starts_with("accept:") {
            accept = line;
        }
    }
    if !shown {
        let head = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"private\"\r\n";
        return stream.write_all(format!("{head}content-length: 0\r\nconnection: close\r\n\r\n").as_bytes());
    }
    let mut behind = TcpStream::connect(registry)?;
    behind.write_all(format!("{first}host: {registry}\r\n{accept}connection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    behind.read_to_end(&mut answer)?;
    stream.write_all(&answer)
}

fn service(name: &str, image: &str, more: &Value) -> String {
    let mut spec = json!({"containers": [{"image": image}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": name},
           "spec": {"template": {"spec": spec}}})
    .to_string()
}

fn secret(space: &Namespace, name: &str, host: &str) {
    let server = format!("--docker-server={host}");
    let login = ["--docker-username=u", "--docker-password=p"];
    space.kubectl(&["create", "secret", "docker-registry", name, &server, login[0], login[1]]);
}

fn heals(space: &Namespace, name: &str) {
    until_within(RETRIED, "the service is ready", || {
        (condition(&space.object("ksvc", name), "Ready")["status"] == "True").then_some(())
    });
}

#[test]
fn a_pull_secret_that_comes_late_heals_the_revision_and_opens_the_image_to_nobody_else() {
    let space = Namespace::new("private");
    let registry = space.cluster.instance()["registry"].as_str().expect("it has one").to_owned();
    let host = private_registry(&registry);
    let image = format!("{host}/e2e/actor:1");
    space.apply(&service("late", &image, &json!({"imagePullSecrets": [{"name": "pull"}]})));
    until("the registry's refusal is told", || {
        let healthy = condition(&space.object("revisions", "late-00001"), "ContainerHealthy");
        let message = healthy["message"].as_str()?.to_owned();
        let told = format!("Unable to fetch image \"{image}\": failed to resolve image to digest: ");
        (healthy["status"] == "False"
            && healthy["reason"] == "ContainerMissing"
            && message.starts_with(&told)
            && message.contains("401"))
        .then_some(())
    });
    secret(&space, "pull", &host);
    heals(&space, "late");

    space.kubectl(&["create", "serviceaccount", "puller"]);
    let patch = json!({"imagePullSecrets": [{"name": "pull"}]}).to_string();
    space.kubectl(&["patch", "serviceaccount", "puller", "-p", &patch]);
    space.apply(&service("account", &image, &json!({"serviceAccountName": "puller"})));
    heals(&space, "account");

    // It is on this machine now, and still only for who has the password.
    let other = Namespace::new("thief");
    let digest = space.object("revisions", "late-00001")["status"]["containerStatuses"][0]["imageDigest"].clone();
    for (name, policy, reason, part) in [
        ("if-not-present", "IfNotPresent", "ErrImagePull", "401"),
        ("never", "Never", "ErrImageNeverPull", "does not have the proper credentials"),
    ] {
        let container = json!({"name": "main", "image": digest, "imagePullPolicy": policy});
        let pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}});
        other.apply(&pod.to_string());
        until("the pod waits", || {
            let waiting = other.object("pods", name)["status"]["containerStatuses"][0]["state"]["waiting"].clone();
            let back_off = waiting["reason"] == "ImagePullBackOff" && reason == "ErrImagePull";
            ((waiting["reason"] == reason || back_off) && waiting["message"].as_str()?.contains(part)).then_some(())
        });
    }
}

#[test]
fn pushing_needs_a_login_and_reading_does_not() {
    let space = Namespace::new("push");
    let source = format!("docker-archive:{}", space.cluster.images.join("layers.tar").display());
    let target = "docker://localhost:5000/push/layers:1";
    let copy = ["copy", "--quiet", "--dest-tls-verify=false", &source, target];
    let refused = space.cluster.run("skopeo", &copy, "");
    let said = String::from_utf8_lossy(&refused.stderr).to_lowercase();
    assert!(!refused.status.success() && (said.contains("authentication") || said.contains("unauthorized")), "{said}");
    let login = format!("--authfile={}", space.cluster.data_dir.join("registry/config.json").display());
    space.cluster.succeed("skopeo", &["copy", "--quiet", &login, "--dest-tls-verify=false", &source, target], "");
    let read = space.cluster.succeed("skopeo", &["inspect", "--raw", "--tls-verify=false", target], "");
    assert!(read.contains("layers"), "{read}");
    let delete = ["delete", "--tls-verify=false", target];
    assert!(!space.cluster.run("skopeo", &delete, "").status.success());

    // A ServiceAccount pushes what a role lets it push: below its namespace's name.
    space.kubectl(&["create", "serviceaccount", "builder"]);
    let token = space.kubectl(&["create", "token", "builder"]);
    let creds = format!("--dest-creds=builder:{}", token.trim());
    let mine = format!("docker://localhost:5000/{}/layers:1", space.name);
    let push = |target: &str| {
        space.cluster.run("skopeo", &["copy", "--quiet", &creds, "--dest-tls-verify=false", &source, target], "")
    };
    let refused = push(&mine);
    let said = String::from_utf8_lossy(&refused.stderr).to_lowercase();
    assert!(!refused.status.success() && (said.contains("denied") || said.contains("may not push")), "{said}");
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "push"},
        "rules": [{"apiGroups": ["registry.knoll.dev"], "resources": ["repositories"], "verbs": ["push"]}],
    });
    space.apply(&role.to_string());
    let account = format!("--serviceaccount={}:builder", space.name);
    space.kubectl(&["create", "rolebinding", "push", "--role=push", &account]);
    until("the role counts", || push(&mine).status.success().then_some(()));
    assert!(!push("docker://localhost:5000/another/layers:1").status.success());
}
