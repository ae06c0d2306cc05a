//! The life of real pods on a real machine: an API server, a monitor, containers from an image of busybox, all in a
//! network of this process's own. Needs root and busybox; run as the monitor when its options are given.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use jiff::Timestamp;
use knoll_apiserver::auth::{LocalAuthority, Pki, TokenKey, node_user};
use knoll_apiserver::node_backend::NoNode;
use knoll_apiserver::{ApiServer, UserInfo};
use knoll_container::client::Client as Monitor;
use knoll_container::launch::{Launcher, Options};
use knoll_container::monitor;
use knoll_container::network::{self, HostNetwork};
use knoll_container::protocol::{Configuration, ContainerId, Phase, PodNetwork};
use knoll_node::exec::ExecOptions;
use knoll_node::logs::LogOptions;
use knoll_node::{Callbacks, Config, InstanceEvent, Node, Whom};
use knoll_oci::ImageStore;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

#[path = "pods/confined.rs"]
mod confined;
#[path = "pods/faults.rs"]
mod faults;
#[path = "pods/mended.rs"]
mod mended;
#[path = "pods/shortage.rs"]
mod shortage;

use faults::Faults;

type Failure = Box<dyn Error + Send + Sync>;

/// What the host's ends of the veths are called, before a number.
const VETHS: &str = "ktn";
const PODS: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 244, 0, 0), 24);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);
const IMAGE: &str = "localhost:5000/busybox:1";
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, options] = &args[..]
        && flag == "--options"
    {
        return Ok(monitor::run(&serde_json::from_str(options)?)?);
    }
    if args.iter().any(|arg| arg == "--list") {
        println!("pods: test");
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        return Err("it needs root, and /bin/busybox of Debian's busybox-static".into());
    }
    let faults = Arc::<Faults>::default();
    Arc::clone(&faults).listen();
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(async {
        let site = Arc::new(Site::new(faults).await?);
        let traveller = Arc::clone(&site);
        // In a task of its own, so that a failed assertion does not leave the monitor behind.
        let outcome = tokio::spawn(async move { journey(&traveller).await }).await.unwrap_or_else(|e| Err(e.into()));
        if outcome.is_err() {
            site.tell().await?;
        }
        site.monitor.shutdown(true).await?;
        outcome
    });
    println!("pods: {}", if outcome.is_ok() { "ok" } else { "FAILED" });
    outcome
}

/// Everything but the node.
struct Site {
    dir: tempfile::TempDir,
    server: Arc<ApiServer>,
    api: knoll_client::Client,
    monitor: Monitor,
    launcher: Launcher,
    images: ImageStore,
    network: Arc<Mutex<HostNetwork>>,
    faults: Arc<Faults>,
}

/// A node that runs.
struct Running {
    node: Node,
    events: mpsc::UnboundedReceiver<(Instant, InstanceEvent)>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<Result<(), knoll_node::NodeError>>,
}

impl Site {
    async fn new(faults: Arc<Faults>) -> Result<Site, Failure> {
        let dir = tempfile::Builder::new().prefix("knoll-node-").tempdir()?;
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        let services = (Ipv4Addr::new(10, 96, 0, 0), 12);
        let config = network::Config {
            table: "knolltest".into(),
            pods: PODS,
            services,
            gateway: GATEWAY,
            veth_prefix: VETHS.into(),
        };
        let network = tokio::task::spawn_blocking(move || network::setup(config)).await??;
        let options = Options {
            socket: dir.path().join("monitor.sock"),
            state_dir: dir.path().join("state"),
            runtime_dir: dir.path().join("run"),
            cgroup_root: format!("knollnode{}", std::process::id()),
            foreground: false,
        };
        let launcher = Launcher { program: std::env::current_exe()?, args: vec![], options };
        let starting = launcher.clone();
        tokio::task::spawn_blocking(move || starting.ensure()).await??;
        let monitor = Monitor::connect(&launcher.options.socket).await?;
        let network_of_pods =
            PodNetwork { address: PODS.0, prefix: PODS.1, gateway: GATEWAY, interface_prefix: VETHS.into(), mtu: 1500 };
        monitor.configure(Configuration { network: Some(network_of_pods), pool: 2 }).await?;
        let hosts = knoll_oci::Config { registry_hosts: vec!["localhost:5000".into()], ..knoll_oci::Config::default() };
        let images = ImageStore::open(&dir.path().join("images"), hosts)?;
        let tarball = busybox_image(dir.path())?;
        images.load_tar(&tarball, None).await?;

        let store = knoll_store::Store::open(&dir.path().join("store"), knoll_store::Options::default())?;
        let pki = Pki::open(&dir.path().join("pki"), Timestamp::now())?;
        let tokens = TokenKey::from_pem(&pki.token_key_pem()?, "https://kubernetes.default.svc.cluster.local")?;
        let config = knoll_apiserver::Config {
            authority: Arc::new(LocalAuthority::new(store.clone(), tokens, Timestamp::now)),
            node: Arc::new(NoNode),
            root_ca: pki.ca_pem().to_owned(),
            advertise: (GATEWAY, 6443).into(),
            machine: Arc::new(|| Ok(Vec::new())),
            pod_network: (Ipv4Addr::new(10, 244, 0, 0), 16),
        };
        let server = ApiServer::new(store, config);
        server.bootstrap().await?;
        let api = server.client(UserInfo::admin());
        let network = Arc::new(Mutex::new(network));
        Ok(Site { dir, server, api, monitor, launcher, images, network, faults })
    }

    fn config(&self) -> Config {
        let mut config = Config::new("n1", GATEWAY, self.dir.path().join("data"), self.dir.path().join("runtime"));
        config.pod_network = PODS;
        config
    }

    fn start(&self) -> Result<Running, Failure> {
        self.start_as(self.config())
    }

    fn start_as(&self, config: Config) -> Result<Running, Failure> {
        let (sender, events) = mpsc::unbounded_channel();
        let (network, launcher) = (Arc::clone(&self.network), self.launcher.clone());
        let (telling, draining) = (Arc::clone(&self.faults), Arc::clone(&self.faults));
        let callbacks = Callbacks {
            drained: Arc::new(move |event| {
                draining.about(&event);
                None
            }),
            on_instance: Arc::new(move |event| {
                telling.about(&event);
                drop(sender.send((Instant::now(), event)));
            }),
            change_services: Arc::new(move |changes| {
                network.lock().expect("no panic before").change_services(&changes).map_err(|e| e.to_string())
            }),
            reconnect: Arc::new(move || {
                let socket = launcher.options.socket.clone();
                Box::pin(async move { Monitor::connect(&socket).await })
            }),
            rush: knoll_client::rush::Rush::default(),
            gateway_serves: Arc::new(|host, _| host == "app.default.svc.cluster.local"),
        };
        let client = self.faults.client(self.server.client(node_user("n1")));
        let node = Node::new(config, client, self.monitor.clone(), self.images.clone(), callbacks)?;
        let (stop, stopped) = watch::channel(false);
        let running = node.clone();
        let task = tokio::spawn(async move { running.run(stopped).await });
        Ok(Running { node, events, stop, task })
    }

    async fn strategic_patch(&self, path: &str, body: Value) -> Result<Value, Failure> {
        self.send_as("application/strategic-merge-patch+json", "PATCH", path, body).await
    }

    async fn send(&self, method: &str, path: &str, body: Value) -> Result<Value, Failure> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        self.send_as(kind, method, path, body).await
    }

    async fn send_as(&self, kind: &str, method: &str, path: &str, body: Value) -> Result<Value, Failure> {
        let content = (!body.is_null()).then(|| (kind, body.to_string().into_bytes()));
        let answer = self.api.call(method.parse()?, path, knoll_client::JSON, content).await;
        Ok(serde_json::from_slice(&answer.map_err(|e| format!("{method} {path}: {e}"))?)?)
    }

    /// Prints what is known, for a journey that failed.
    async fn tell(&self) -> Result<(), Failure> {
        let pods = self.send("GET", "/api/v1/namespaces/default/pods", Value::Null).await?;
        for pod in pods["items"].as_array().into_iter().flatten() {
            println!("{} {:#}", pod["metadata"]["name"], pod["status"]);
        }
        let events = self.send("GET", "/api/v1/namespaces/default/events", Value::Null).await?;
        for event in events["items"].as_array().into_iter().flatten() {
            println!("{} {} {}", event["involvedObject"]["name"], event["reason"], event["message"]);
        }
        Ok(())
    }

    async fn create(&self, kind: &str, body: Value) -> Result<Value, Failure> {
        self.send("POST", &format!("/api/v1/namespaces/default/{kind}"), body).await
    }

    async fn pod(&self, name: &str, spec: Value) -> Result<String, Failure> {
        self.labelled_pod(name, json!({"app": name}), spec).await
    }

    async fn labelled_pod(&self, name: &str, labels: Value, spec: Value) -> Result<String, Failure> {
        let mut spec = spec;
        spec["nodeName"] = "n1".into();
        let pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec});
        let made = self.create("pods", pod).await?;
        Ok(made["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
    }

    async fn get(&self, name: &str) -> Result<Value, Failure> {
        self.send("GET", &format!("/api/v1/namespaces/default/pods/{name}"), Value::Null).await
    }

    async fn delete(&self, name: &str) -> Result<Value, Failure> {
        self.send("DELETE", &format!("/api/v1/namespaces/default/pods/{name}"), Value::Null).await
    }

    /// Waits until a pod is as `wanted` says.
    async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value, Failure> {
        let begin = Instant::now();
        loop {
            let pod = self.get(name).await?;
            if wanted(&pod) {
                return Ok(pod);
            }
            if begin.elapsed() > PATIENCE {
                return Err(format!("waited in vain: {name} {what}").into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_gone(&self, name: &str) -> Result<(), Failure> {
        let begin = Instant::now();
        while self.get(name).await.is_ok() {
            if begin.elapsed() > PATIENCE {
                return Err(format!("waited in vain: {name} is still there").into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Running {
    async fn event(&mut self) -> Result<(Instant, InstanceEvent), Failure> {
        tokio::select! {
            event = tokio::time::timeout(PATIENCE, self.events.recv()) => {
                Ok(event.map_err(|_| "no instance event")?.ok_or("the node is gone")?)
            }
            ended = &mut self.task => Err(format!("the node ended: {ended:?}").into()),
        }
    }

    /// The next event about one pod.
    async fn event_of(&mut self, name: &str) -> Result<InstanceEvent, Failure> {
        loop {
            let (_, event) = self.event().await?;
            if event.pod.metadata.name.as_deref() == Some(name) {
                return Ok(event);
            }
        }
    }

    async fn end(self) -> Result<(), Failure> {
        self.stop.send_replace(true);
        Ok(self.task.await??)
    }

    /// Runs a program in a pod and gives what it printed.
    async fn run(&self, uid: &str, command: &[&str]) -> Result<(i32, String), Failure> {
        let options =
            ExecOptions { command: command.iter().map(|w| (*w).to_owned()).collect(), stdin: false, tty: false };
        let whom = Whom { uid: uid.to_owned(), container: String::new() };
        let mut running = self.node.exec(&whom, options).await?;
        let (mut text, mut errors) = (String::new(), String::new());
        running.stdout.take().ok_or("no output")?.read_to_string(&mut text).await?;
        running.stderr.take().ok_or("no output")?.read_to_string(&mut errors).await?;
        text += &errors;
        Ok((running.wait().await?.code, text))
    }

    async fn logs(&self, uid: &str, previous: bool) -> Result<String, Failure> {
        let whom = Whom { uid: uid.to_owned(), container: String::new() };
        let pieces: Vec<_> = self.node.logs(&whom, previous, LogOptions::default()).await?.collect().await;
        let bytes: Result<Vec<_>, _> = pieces.into_iter().collect();
        Ok(String::from_utf8(bytes?.concat())?)
    }
}

/// An image of busybox, as `docker save` writes it.
fn busybox_image(dir: &Path) -> Result<PathBuf, Failure> {
    let append = |tar: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8], mode: u32| -> std::io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_mtime(0);
        header.set_gid(0);
        tar.append_data(&mut header, path, bytes)
    };
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, "bin/busybox", &std::fs::read("/bin/busybox")?, 0o755)?;
    append(&mut layer, "etc/passwd", b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n", 0o644)?;
    for name in
        ["sh", "cat", "echo", "sleep", "httpd", "nslookup", "nc", "printf", "id", "env", "ls", "true", "mkdir", "touch"]
    {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_mtime(0);
        header.set_gid(0);
        layer.append_link(&mut header, format!("bin/{name}"), "busybox")?;
    }
    let layer = layer.into_inner()?;
    let diff = knoll_oci::Digest::of(&layer);
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff.to_string()]},
        "config": {"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["sh"], "WorkingDir": "/"}});
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    let mut image = tar::Builder::new(Vec::new());
    append(&mut image, "config.json", config.to_string().as_bytes(), 0o644)?;
    append(&mut image, "layer.tar", &layer, 0o644)?;
    append(&mut image, "manifest.json", manifest.to_string().as_bytes(), 0o644)?;
    let path = dir.join("busybox.tar");
    std::fs::write(&path, image.into_inner()?)?;
    Ok(path)
}

fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

async fn http_get(address: IpAddr, port: u16) -> Result<String, Failure> {
    let mut stream = tokio::net::TcpStream::connect((address, port)).await?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn journey(site: &Site) -> Result<(), Failure> {
    let mut node = site.start()?;
    serves(site, &mut node).await.map_err(|e| format!("a web server: {e}"))?;
    crashes(site, &node).await.map_err(|e| format!("a crash loop: {e}"))?;
    completes(site, &node).await.map_err(|e| format!("a task: {e}"))?;
    refused(site).await.map_err(|e| format!("refusals: {e}"))?;
    loopback(site, &mut node).await.map_err(|e| format!("a program on 127.0.0.1: {e}"))?;
    mended::hooks(site, &node).await.map_err(|e| format!("hooks: {e}"))?;
    mended::endings(site, &node).await.map_err(|e| format!("an end: {e}"))?;
    mended::statuses(site).await.map_err(|e| format!("a status that others change: {e}"))?;
    mended::sources(site, &node).await.map_err(|e| format!("a ConfigMap that changes: {e}"))?;
    confined::confined(site, &node).await.map_err(|e| format!("what confines a pod: {e}"))?;
    endless(site, &node).await.map_err(|e| format!("what has no end: {e}"))?;
    let node = panics(site, node).await.map_err(|e| format!("panics: {e}"))?;
    let node = adopted(site, node).await.map_err(|e| format!("adoption: {e}"))?;
    node.end().await?;
    shortage::of_memory(site).await.map_err(|e| format!("too little memory: {e}"))?;
    shortage::of_disk(site).await.map_err(|e| format!("too little disk: {e}"))?;
    Ok(())
}

/// A revision's program that listens on 127.0.0.1 alone becomes ready and is reached; its other ports are not, and the
/// next program of the same pod may listen elsewhere.
async fn loopback(site: &Site, node: &mut Running) -> Result<(), Failure> {
    let script = "mkdir /www; echo inside > /www/index.html; if [ -e /v/again ]; then exec httpd -f -p 8080 -h /www; fi; \
        httpd -f -p 127.0.0.1:8081 -h /www & exec httpd -f -p 127.0.0.1:8080 -h /www";
    let spec = |probe: Value| {
        json!({"terminationGracePeriodSeconds": 0, "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c", script],
            "ports": [{"containerPort": 8080}], "readinessProbe": probe,
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]})
    };
    let labels = || json!({"serving.knative.dev/revision": "rev"});
    for (name, probe) in [
        ("loop-tcp", json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1})),
        ("loop-http", json!({"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1})),
    ] {
        let uid = site.labelled_pod(name, labels(), spec(probe)).await?;
        let event = node.event_of(name).await?;
        assert!(event.up, "{name} is ready");
        assert!(http_get(event.address, 8080).await?.ends_with("inside\n"), "{name} is reached");
        assert!(tokio::net::TcpStream::connect((event.address, 8081)).await.is_err(), "{name}: another port is open");
        if name == "loop-http" {
            // The next program listens everywhere: nothing leads it to 127.0.0.1 any more.
            assert_eq!(node.run(&uid, &["touch", "/v/again"]).await?.0, 0);
            site.monitor.kill(ContainerId::new(format!("{uid}_c_0"))?).await?;
            assert!(!node.event_of(name).await?.up);
            let event = node.event_of(name).await?;
            assert!(event.up && http_get(event.address, 8080).await?.ends_with("inside\n"));
        }
        site.delete(name).await?;
        assert!(!node.event_of(name).await?.up);
        site.until_gone(name).await?;
    }
    // A pod of nobody's revision is asked as a kubelet asks.
    site.pod("loop-plain", spec(json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1})))
        .await?;
    let unhealthy = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "ContainersReady" && c["message"].to_string().contains("refused"))
    };
    site.until("loop-plain", "is refused", unhealthy).await?;
    site.delete("loop-plain").await?;
    site.until_gone("loop-plain").await
}

/// The longest grace the API takes, and a tree of directories that no path can name, end nothing but their pod.
async fn endless(site: &Site, node: &Running) -> Result<(), Failure> {
    let panics = node.node.counts().panics;
    let deep = "cd /v; i=0; while [ $i -lt 500 ]; do mkdir d; cd d; i=$((i+1)); done; touch /v/done; exec sleep 600";
    let spec = json!({"terminationGracePeriodSeconds": i32::MAX, "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c", deep],
        "readinessProbe": {"exec": {"command": ["ls", "/v/done"]}, "periodSeconds": 1},
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]});
    let uid = site.pod("endless", spec).await?;
    site.until("endless", "has dug its tree", ready).await?;
    site.delete("endless").await?;
    site.until("endless", "is asked to stop", |pod| !ready(pod)).await?;
    let path = "/api/v1/namespaces/default/pods/endless";
    site.send("DELETE", path, json!({"gracePeriodSeconds": 0})).await?;
    site.until_gone("endless").await?;
    let left = site.dir.path().join("data/pods").join(&uid);
    let begin = Instant::now();
    while left.exists() {
        assert!(begin.elapsed() < PATIENCE, "the tree is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(node.node.counts().panics, panics);
    Ok(())
}

/// What a pod's worker has done beside itself, its probes and the writing of its status, costs no more when it panics;
/// nor does the telling of Events, which belongs to no pod.
async fn parts_panic(site: &Site, node: &Running) -> Result<(), Failure> {
    let spec = |container: &str| {
        json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": container, "image": IMAGE,
            "command": ["sleep", "600"], "readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1}}]})
    };
    for (name, container, part) in [
        ("written", "c", &site.faults.statuses),
        ("probed", "asked", &site.faults.probes),
        ("told", "c", &site.faults.events),
    ] {
        let before = node.node.counts().panics;
        part.store(2, Ordering::Relaxed);
        site.pod(name, spec(container)).await?;
        let pod = site.until(name, "is ready", ready).await?;
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
        let begin = Instant::now();
        while part.load(Ordering::Relaxed) > 0 || node.node.counts().panics < before + 2 {
            assert!(begin.elapsed() < PATIENCE, "{name}: {} panics", node.node.counts().panics - before);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(node.node.counts().panics, before + 2, "{name}");
        site.delete(name).await?;
        site.until_gone(name).await?;
    }
    let begin = Instant::now();
    loop {
        let events = site.send("GET", "/api/v1/namespaces/default/events", Value::Null).await?;
        if events["items"].as_array().into_iter().flatten().any(|event| event["involvedObject"]["name"] == "told") {
            return Ok(());
        }
        assert!(begin.elapsed() < PATIENCE, "what follows a panic is told: {events:#}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A panic costs one pod: it is taken up again as it is, left alone when it goes on, and can be deleted all the same.
async fn panics(site: &Site, node: Running) -> Result<Running, Failure> {
    let script = "until [ -e /end ]; do sleep 0.01; done";
    let spec = || json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c", script]}]});
    let mut node = node;
    site.pod("twice", spec()).await?;
    assert!(node.event_of("twice").await?.up);
    let pod = site.until("twice", "is ready", ready).await?;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(node.node.counts().panics, 2);

    site.pod("always", spec()).await?;
    let quarantined = |pod: &Value| pod["status"]["reason"] == "Quarantined" && !ready(pod);
    let pod = site.until("always", "is left alone", quarantined).await?;
    assert!(pod["status"]["message"].to_string().contains("a fault that stays"), "{}", pod["status"]);
    let events = site.send("GET", "/api/v1/namespaces/default/events", Value::Null).await?;
    let told = |name: &str| {
        let list = events["items"].as_array().cloned().unwrap_or_default();
        list.iter().any(|e| e["involvedObject"]["name"] == name && e["reason"] == "NodePanic")
    };
    assert!(told("twice") && told("always"), "{events:#}");

    parts_panic(site, &node).await?;

    // A node that starts with such a pod is a node all the same.
    node.end().await?;
    let mut node = site.start()?;
    site.pod("other", spec()).await?;
    site.until("other", "is ready", ready).await?;
    let begin = Instant::now();
    while node.node.counts().quarantined == 0 {
        assert!(begin.elapsed() < PATIENCE, "the pod is not left alone");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for name in ["always", "twice", "other"] {
        site.delete(name).await?;
        site.until_gone(name).await?;
    }
    while let Ok(Some(_)) = tokio::time::timeout(Duration::ZERO, node.events.recv()).await {}
    Ok(node)
}

/// A pod with volumes, variables, names and a probe comes up, is reached, follows its ConfigMap, and goes.
async fn serves(site: &Site, node: &mut Running) -> Result<(), Failure> {
    site.create("configmaps", json!({"metadata": {"name": "page"}, "data": {"index.html": "one"}})).await?;
    let spec = json!({
        "terminationGracePeriodSeconds": 5,
        "volumes": [{"name": "page", "configMap": {"name": "page"}}, {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
        "containers": [{"name": "web", "image": IMAGE,
            "command": ["sh", "-c", "trap 'echo bye; exit 0' TERM; echo hello $NAME; httpd -f -p 8080 -h /www & wait"],
            "env": [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "ports": [{"containerPort": 8080, "name": "http"}],
            "readinessProbe": {"httpGet": {"path": "/index.html", "port": "http"}},
            "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
            "volumeMounts": [{"name": "page", "mountPath": "/www"}, {"name": "tmp", "mountPath": "/tmp"}]}]});
    let begin = Instant::now();
    let uid = site.pod("web", spec).await?;
    let (at, event) = node.event().await?;
    println!("  ready after {:?}", at - begin);
    assert!(event.up && event.pod.metadata.name.as_deref() == Some("web"));
    assert!(http_get(event.address, 8080).await?.ends_with("one"));
    let pod = site.until("web", "is ready", ready).await?;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["podIP"], event.address.to_string());
    assert_eq!(pod["status"]["qosClass"], "Guaranteed");
    assert_eq!(node.logs(&uid, false).await?, "hello web\n");

    let (_, environment) = node.run(&uid, &["env"]).await?;
    for variable in
        ["FROM_IMAGE=yes", "HOSTNAME=web", "KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT=443"]
    {
        assert!(environment.lines().any(|line| line == variable), "{variable} in {environment}");
    }
    let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let (code, text) = node.run(&uid, &["cat", token]).await?;
    assert!(code == 0 && text.split('.').count() == 3, "a token: {text}");

    names(site, node, &uid).await?;

    let path = "/api/v1/namespaces/default/configmaps/page";
    site.send("PATCH", path, json!({"data": {"index.html": "two"}})).await?;
    let begin = Instant::now();
    while !http_get(event.address, 8080).await?.ends_with("two") {
        assert!(begin.elapsed() < PATIENCE, "the page never changed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    site.delete("web").await?;
    let (_, event) = node.event().await?;
    assert!(!event.up);
    site.until_gone("web").await?;
    let left = site.dir.path().join("data/pods").join(&uid);
    while left.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Names and Service addresses work from inside a pod.
async fn names(site: &Site, node: &Running, uid: &str) -> Result<(), Failure> {
    let service = json!({"metadata": {"name": "front"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}});
    let service = site.create("services", service).await?;
    let address = service["spec"]["clusterIP"].as_str().ok_or("no address")?.to_owned();
    let pod = site.get("web").await?;
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "front-1", "labels": {"kubernetes.io/service-name": "front"}},
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [pod["status"]["podIP"]], "conditions": {"ready": true}}]});
    site.send("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await?;
    let begin = Instant::now();
    loop {
        // By number: a static program of this C library cannot look names up by itself.
        let ask = format!("printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {address} 80");
        let (_, text) = node.run(uid, &["sh", "-c", &ask]).await?;
        if text.ends_with("one") {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "the Service {address} is not reached: {text}");
    }
    let (_, text) = node.run(uid, &["nslookup", "front"]).await?;
    assert!(text.contains(&format!("Name:\tfront.default.svc.cluster.local\nAddress: {address}")), "{text}");
    let (_, text) = node.run(uid, &["nslookup", "app.default.svc.cluster.local"]).await?;
    assert!(text.contains(&GATEWAY.to_string()), "{text}");
    Ok(())
}

/// A container that fails is started again, with its last words.
async fn crashes(site: &Site, node: &Running) -> Result<(), Failure> {
    let spec = json!({"containers": [{"name": "c", "image": IMAGE, "terminationMessagePolicy": "FallbackToLogsOnError",
        "command": ["sh", "-c", "echo no luck; exit 3"]}]});
    let uid = site.pod("crash", spec).await?;
    let looped =
        |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let pod = site.until("crash", "loops", looped).await?;
    let status = &pod["status"]["containerStatuses"][0];
    let last = &status["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(3), &json!("Error")), "{status:#}");
    assert_eq!(last["message"], "no luck\n");
    assert_eq!(status["restartCount"], 1);
    assert_eq!(node.logs(&uid, true).await?, "no luck\n");
    site.delete("crash").await?;
    site.until_gone("crash").await
}

/// A pod that is done is done; init containers come first.
async fn completes(site: &Site, node: &Running) -> Result<(), Failure> {
    let spec = json!({"restartPolicy": "Never", "volumes": [{"name": "v", "emptyDir": {}}],
        "securityContext": {"runAsUser": 1000, "fsGroup": 2000},
        "initContainers": [{"name": "i", "image": IMAGE, "command": ["sh", "-c", "echo from init > /v/f"],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c", "cat /v/f; id -u; echo last > /dev/termination-log"],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]});
    let uid = site.pod("task", spec).await?;
    let pod = site.until("task", "succeeds", |pod| pod["status"]["phase"] == "Succeeded").await?;
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["message"]), (&json!("Completed"), &json!("last\n")));
    assert_eq!(node.logs(&uid, false).await?, "from init\n1000\n");
    site.delete("task").await?;
    site.until_gone("task").await
}

/// What cannot run says why.
async fn refused(site: &Site) -> Result<(), Failure> {
    let container = |extra: Value| {
        let mut container = json!({"name": "c", "image": IMAGE, "command": ["sleep", "60"]});
        container.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        json!({"terminationGracePeriodSeconds": 0, "containers": [container]})
    };
    for (name, extra, reason, text) in [
        (
            "no-map",
            json!({"envFrom": [{"configMapRef": {"name": "absent"}}]}),
            "CreateContainerConfigError",
            "configmap \"absent\" not found",
        ),
        (
            "root",
            json!({"securityContext": {"runAsNonRoot": true}}),
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root",
        ),
        ("no-image", json!({"image": "localhost:5000/absent:1"}), "ImagePullBackOff", "Back-off pulling image"),
    ] {
        site.pod(name, container(extra)).await?;
        let waits = |pod: &Value| {
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            waiting["reason"] == reason && waiting["message"].as_str().is_some_and(|m| m.contains(text))
        };
        site.until(name, reason, waits).await?;
    }
    site.pod("no-program", container(json!({"command": ["/absent"]}))).await?;
    let failed =
        |pod: &Value| pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["reason"] == "StartError";
    site.until("no-program", "cannot be run", failed).await?;
    // A ConfigMap that appears is taken up without waiting for the next try.
    site.create("configmaps", json!({"metadata": {"name": "absent"}, "data": {"A": "1"}})).await?;
    site.until("no-map", "is ready", ready).await?;
    // What trying again would not help is over at once.
    let mut unsafe_sysctl = container(json!({}));
    unsafe_sysctl["securityContext"] = json!({"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]});
    site.pod("sysctl", unsafe_sysctl).await?;
    let rejected = site.until("sysctl", "is rejected", |pod| pod["status"]["phase"] == "Failed").await?;
    let told = (&rejected["status"]["reason"], &rejected["status"]["message"]);
    let text = "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted";
    assert_eq!(told, (&json!("SysctlForbidden"), &json!(text)));
    let mut windows = container(json!({}));
    windows["os"] = json!({"name": "windows"});
    let greedy = container(json!({"resources": {"requests": {"cpu": "1000000"}}}));
    for (name, spec, reason) in [("windows", windows, "PodOSNotSupported"), ("greedy", greedy, "OutOfcpu")] {
        site.pod(name, spec).await?;
        let rejected = site.until(name, "is rejected", |pod| pod["status"]["phase"] == "Failed").await?;
        assert_eq!(rejected["status"]["reason"], reason);
    }
    for name in ["no-map", "root", "no-image", "no-program", "sysctl", "windows", "greedy"] {
        site.delete(name).await?;
        site.until_gone(name).await?;
    }
    Ok(())
}

/// Containers go on while no node runs; the next node takes them up and removes what has no pod any more.
async fn adopted(site: &Site, node: Running) -> Result<Running, Failure> {
    let script = "until [ -e /end ]; do sleep 0.01; done";
    let spec = || json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c", script]}]});
    let (kept, orphan) = (site.pod("kept", spec()).await?, site.pod("orphan", spec()).await?);
    let before = site.until("kept", "is ready", ready).await?;
    site.until("orphan", "is ready", ready).await?;
    node.end().await?;
    // What it runs from is here, but not for whoever names it by another repository.
    let digest = before["status"]["containerStatuses"][0]["imageID"].as_str().and_then(|id| id.split_once('@'));
    let stolen = format!("127.0.0.1:1/stolen@{}", digest.ok_or("no image was told")?.1);
    let patch = json!({"spec": {"containers": [{"name": "c", "image": stolen}]}});
    site.strategic_patch("/api/v1/namespaces/default/pods/kept", patch).await?;
    // As older versions left it.
    std::fs::set_permissions(site.dir.path().join("data/pods"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    site.send("DELETE", "/api/v1/namespaces/default/pods/orphan", json!({"gracePeriodSeconds": 0})).await?;
    let leftover = site.dir.path().join("data/pods/left-by-nobody/volumes/v");
    std::fs::create_dir_all(&leftover)?;
    let still_there = site.monitor.list().await?.containers;
    for uid in [&kept, &orphan] {
        assert!(still_there.iter().any(|c| c.spec.sandbox.as_str() == uid && c.phase == Phase::Running));
    }

    let mut node = site.start()?;
    let (_, event) = node.event().await?;
    assert!(event.up && event.pod.metadata.uid.as_deref() == Some(kept.as_str()));
    let begin = Instant::now();
    while site.monitor.list().await?.sandboxes.iter().any(|s| s.spec.id.as_str() != kept) {
        assert!(begin.elapsed() < PATIENCE, "an orphan is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while site.dir.path().join("data/pods/left-by-nobody").exists() {
        assert!(begin.elapsed() < PATIENCE, "what nobody knows is still on disk");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let modes = ["data", "data/pods", "runtime", "runtime/pods"].map(|name| {
        std::fs::metadata(site.dir.path().join(name)).map(|meta| std::os::unix::fs::MetadataExt::mode(&meta) & 0o777)
    });
    assert!(modes.iter().all(|mode| matches!(mode, Ok(0o700))), "only root enters: {modes:?}");
    let after = site.until("kept", "is ready", ready).await?;
    let id = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    assert_eq!((id(&before), after["status"]["containerStatuses"][0]["restartCount"].clone()), (id(&after), json!(0)));
    assert_eq!(node.run(&kept, &["touch", "/end"]).await?.0, 0);
    let waits = |pod: &Value| {
        let state = &pod["status"]["containerStatuses"][0]["state"];
        assert!(pod["status"]["containerStatuses"][0]["restartCount"] == 0, "it was started again: {pod}");
        matches!(state["waiting"]["reason"].as_str(), Some("ErrImagePull" | "ImagePullBackOff"))
    };
    site.until("kept", "cannot be started from what it has no access to", waits).await?;
    site.delete("kept").await?;
    site.until_gone("kept").await?;
    Ok(node)
}
