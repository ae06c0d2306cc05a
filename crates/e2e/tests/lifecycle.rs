//! Instances start, stop, die, come back and go. Each test has its own, one at a time on the machine.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use knoll_e2e::{Cluster, Load, Namespace, Own, Reply, Sink, condition, get, knoll, request, scratch, succeed, until};
use serde_json::{Value, json};

/// What tells a running container from a new one.
fn containers(space: &Namespace) -> Vec<Value> {
    let mut all: Vec<Value> = space
        .list("pods")
        .iter()
        .map(|pod| {
            let status = &pod["status"]["containerStatuses"][0];
            json!([
                pod["metadata"]["uid"],
                pod["status"]["podIP"],
                status["containerID"],
                status["restartCount"],
                status["state"]["running"]["startedAt"],
            ])
        })
        .collect();
    all.sort_by_key(Value::to_string);
    all
}

/// Asks until it answers 200.
fn served(cluster: &Cluster, host: &str, path: &str) -> String {
    until("requests are served", || {
        let answer = get(&cluster.gateway, host, path).ok()?;
        (answer.status == 200).then_some(answer.body)
    })
}

/// Waits until the node has told of itself since it came back, so that what it says of pods is of now.
fn settled(space: &Namespace) {
    space.kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", "ksvc", "--all"]);
    until("the pods are ready", || {
        let pods = space.list("pods");
        (!pods.is_empty() && pods.iter().all(|pod| condition(pod, "Ready")["status"] == "True")).then_some(())
    });
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn killed_under_load_it_loses_nothing_and_adopts_its_containers() {
    let own = Own::up("killed");
    let space = Namespace::within(own.cluster.clone(), "load");
    let host = space.actor();
    // The process remembers this; another would be well.
    assert_eq!(served(&own.cluster, &host, "/sicken"), "done\n");
    let before = containers(&space);

    let acknowledged = Mutex::new(Vec::new());
    let (stop, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    let path = format!("/api/v1/namespaces/{}/configmaps", space.name);
    let newest = thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let name = format!("write-{number}");
                    let object =
                        json!({"metadata": {"name": name}, "data": {"number": number.to_string()}}).to_string();
                    let headers = [("content-type", "application/json")];
                    let answer = request(&own.cluster.proxy, "localhost", "POST", &path, &headers, &object);
                    if let Ok(answer) = answer
                        && answer.status == 201
                    {
                        let version =
                            serde_json::from_str::<Value>(&answer.body).expect("JSON")["metadata"]["resourceVersion"]
                                .as_str()
                                .and_then(|version| version.parse::<u64>().ok())
                                .expect("a number");
                        acknowledged.lock().expect("no writer panics").push((name, number, version));
                    }
                }
            });
        }
        let clients = scope.spawn(|| Load::run(&own.cluster.gateway, &host, "/", 8, &stop));
        until("many writes are acknowledged", || {
            (acknowledged.lock().expect("no writer panics").len() > 300).then_some(())
        });
        own.signal("KILL");
        stop.store(true, Ordering::Relaxed);
        assert!(clients.join().expect("the clients end").good > 0);
        acknowledged.lock().expect("no writer panics").iter().map(|(_, _, version)| *version).max().expect("some")
    });

    own.up_again();
    assert!(served(&own.cluster, &host, "/").starts_with("actor"));
    let found = space.list("configmaps");
    for (name, number, version) in acknowledged.into_inner().expect("no writer panics") {
        let object = found.iter().find(|object| object["metadata"]["name"] == name.as_str());
        let object = object.unwrap_or_else(|| panic!("{name} was acknowledged and is lost"));
        assert_eq!(object["data"]["number"], number.to_string());
        assert_eq!(object["metadata"]["resourceVersion"], version.to_string());
    }
    space.kubectl(&["create", "configmap", "after"]);
    let after =
        space.object("configmaps", "after")["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok());
    assert!(after.is_some_and(|after| after > newest), "{after:?} after {newest}");

    settled(&space);
    assert_eq!(containers(&space), before, "containers are adopted, not started again");
    let health = get(&own.cluster.gateway, &host, "/health").expect("it answers");
    assert_eq!(health.status, 500, "it is the same process");
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn terminated_it_leaves_its_containers_to_the_next() {
    let own = Own::up("terminated");
    let space = Namespace::within(own.cluster.clone(), "kept");
    let host = space.actor();
    assert_eq!(served(&own.cluster, &host, "/sicken"), "done\n");
    let before = containers(&space);
    own.signal("TERM");
    own.up_again();
    assert!(served(&own.cluster, &host, "/").starts_with("actor"));
    settled(&space);
    assert_eq!(containers(&space), before);
    assert_eq!(get(&own.cluster.gateway, &host, "/health").expect("it answers").status, 500, "it is the same process");
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn a_clean_restart_under_load_fails_no_request() {
    let own = Own::up("restarted");
    let space = Namespace::within(own.cluster.clone(), "restarted");
    let host = space.actor();
    served(&own.cluster, &host, "/");
    let gateway = own.cluster.gateway.as_str();
    // Requests that are under way when the word to end comes.
    for _ in 0..2 {
        let stop = AtomicBool::new(false);
        // Those that are soon answered, the slow ones, and those of an outside client of the API.
        let clients = [8, 4, 2];
        let answered = [const { AtomicUsize::new(0) }; 3];
        let proxy = own.cluster.proxy.as_str();
        let asked =
            [(gateway, host.as_str(), "/"), (gateway, &host, "/busy?300"), (proxy, "localhost", "/api/v1/namespaces")];
        thread::scope(|scope| {
            let load = |at: usize| {
                let (address, host, path) = asked[at];
                let (stop, answered) = (&stop, &answered[at]);
                scope.spawn(move || Load::run_counted(address, host, path, clients[at], stop, answered))
            };
            let loads = [0, 1, 2].map(load);
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                until("requests are under way", || {
                    let mut all = answered.iter().zip(clients);
                    all.all(|(answered, clients)| answered.load(Ordering::Relaxed) > clients).then_some(())
                });
                own.signal("TERM");
                own.up_again();
                // All of them go on with the next server.
                for _ in 0..50 {
                    assert_eq!(get(gateway, &host, "/").expect("it answers").status, 200);
                }
            }));
            stop.store(true, Ordering::Relaxed);
            let loads = loads.map(|load| load.join().expect("the clients end"));
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            for (load, clients) in loads.into_iter().zip(clients) {
                assert!(load.good > 0 && load.bad.is_empty(), "{load:?}");
                // A kept connection ends with its server, at most once a round.
                assert!(load.again <= clients, "{load:?}");
            }
        });
    }
}

/// The processes of monitors. What a monitor forks has its command line until it runs something else, so a monitor is
/// one that leads its session and is no child of another.
fn monitors() -> Vec<String> {
    let is_monitor = |process: &String| {
        let words = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        words.len() > 2 && words[1] == b"monitor" && words[2] == b"--options"
    };
    let leads = |process: &String| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // Behind the program's name: state, parent, group, session.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        fields.get(3) == Some(&process.as_str()) && !is_monitor(&fields[1].to_owned())
    };
    let processes = fs::read_dir("/proc").expect("is there").flatten();
    let names = processes.filter_map(|process| process.file_name().into_string().ok());
    names.filter(is_monitor).filter(leads).collect()
}

/// Whether a process has the socket open that listens at `address`, which is of version 4.
fn has_listener(process: &str, address: &str) -> bool {
    let port = address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).expect("a port");
    let place = format!(":{port:04X}");
    let sockets = fs::read_to_string("/proc/net/tcp").expect("is there");
    let fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listeners: Vec<String> = fields
        .filter(|fields| fields[1].ends_with(&place) && fields[3] == "0A")
        .map(|fields| format!("socket:[{}]", fields[9]))
        .collect();
    let open = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let mut names = open.filter_map(|file| fs::read_link(file.path()).ok());
    names.any(|name| listeners.iter().any(|listener| name.as_os_str() == listener.as_str()))
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn clients_wait_for_a_server_that_was_killed_after_its_monitor() {
    let own = Own::up("monitorless");
    let space = Namespace::within(own.cluster.clone(), "monitorless");
    let host = space.actor();
    let gateway = own.cluster.gateway.clone();
    let first = monitors();
    own.cluster.succeed("kill", &["-KILL", &first[0]], "");
    until("another monitor has the gateway's socket", || {
        monitors().iter().any(|process| !first.contains(process) && has_listener(process, &gateway)).then_some(())
    });
    own.signal("KILL");
    let mut waiting = TcpStream::connect(&gateway).expect("it is let in");
    write!(waiting, "GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").expect("it asks");
    own.up_again();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).expect("it is answered");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn down_stops_all_and_up_brings_all_back() {
    let own = Own::up("back");
    let space = Namespace::within(own.cluster.clone(), "back");
    let host = space.actor();
    space.apply_example("hello.yaml");
    space.ready("hello");
    let hello = space.host("hello");
    assert_eq!(served(&own.cluster, &host, "/sicken"), "done\n");
    succeed(own.data(), &["down"]);
    assert_eq!(processes_of_containers(), Vec::<String>::new(), "the pods are stopped");
    assert!(get(&own.cluster.gateway, &host, "/").is_err(), "nobody listens");
    let refused = knoll(own.data(), &["down"]);
    assert_eq!(refused.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("knoll is not running"));
    own.up_again();
    assert_eq!(served(&own.cluster, &hello, "/"), "Hello World!\n");
    assert!(served(&own.cluster, &host, "/").starts_with("actor"));
    assert_eq!(served(&own.cluster, &host, "/health"), "well\n", "it is another process");
}

/// Processes below the cgroup of all containers.
fn processes_of_containers() -> Vec<String> {
    let found = Command::new("find").args(["/sys/fs/cgroup", "-path", "*/knoll/*", "-name", "cgroup.procs"]).output();
    let files = String::from_utf8(found.expect("find runs").stdout).expect("paths are text");
    let mut all: Vec<String> = files
        .lines()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        // The monitor may live beside the containers.
        .filter(|process| {
            fs::read_to_string(format!("/proc/{process}/cmdline")).is_ok_and(|line| !line.contains("\0monitor\0"))
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

/// Runs `knoll up` in the foreground, which must refuse; its exit code and complaint.
fn refused(data: &Path, more: &[&str]) -> (Option<i32>, String) {
    let mut words = vec!["up", "--no-port-80"];
    words.extend(more);
    let output = knoll(data, &words);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let complaint = errors.lines().rev().find(|line| line.starts_with("knoll: ")).unwrap_or(&errors).to_owned();
    (output.status.code(), complaint)
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn a_second_instance_is_refused() {
    let own = Own::up("first");
    let (code, complaint) = refused(&scratch("second"), &[]);
    assert_eq!(code, Some(69), "{complaint}");
    assert_eq!(complaint, "knoll: another instance of knoll runs on this machine: stop it with `knoll down`");
    let (code, complaint) = refused(own.data(), &[]);
    assert_eq!(code, Some(69), "{complaint}");
    // In the background it is where it should be already.
    assert!(succeed(own.data(), &["up", "--detach"]).contains("knoll is running already"));
    let output = knoll(own.data(), &["reset", "--yes"]);
    assert_eq!(output.status.code(), Some(69), "a running instance is not removed");
    assert!(own.cluster.kubectl(&["get", "namespaces"]).contains("kube-system"));
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn containers_of_another_data_directory_are_left_alone_while_it_is_there() {
    let own = Own::up("theirs");
    let space = Namespace::within(own.cluster.clone(), "theirs");
    let host = space.actor();
    assert_eq!(served(&own.cluster, &host, "/sicken"), "done\n");
    own.signal("KILL");
    let other = scratch("other");
    let (code, complaint) = refused(&other, &[]);
    assert_eq!(code, Some(69), "{complaint}");
    let fix = format!("go on with `knoll up --data-dir {}`", own.data().display());
    assert!(complaint.contains(&fix), "{complaint}");
    own.up_again();
    settled(&space);
    assert_eq!(get(&own.cluster.gateway, &host, "/health").expect("it answers").status, 500, "it is the same process");

    // Removed by hand, it has nothing to go on with.
    own.signal("KILL");
    fs::remove_dir_all(own.data().join("containers")).expect("it is removed");
    assert!(succeed(&other, &["up", "--detach"]).contains("knoll is ready"));
    succeed(&other, &["down"]);
    succeed(&other, &["reset", "--yes"]);
}

#[test]
#[ignore = "needs the machine without an instance: scripts/e2e runs it alone"]
fn what_is_missing_is_told_with_the_fix() {
    let data = scratch("missing");
    // Another user can run this program only where it can read it.
    let program = scratch("knoll");
    fs::copy(std::env::var("KNOLL").expect("scripts/e2e sets it"), &program).expect("it is copied");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("anybody may run it");
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .arg("up")
        .arg("--data-dir")
        .arg(&data);
    let output = command.output().expect("setpriv runs");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(77), "{complaint}");
    assert!(complaint.contains("run as root"), "{complaint}");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it has one").to_string();
    for option in ["--api-addr", "--http-addr", "--registry-addr"] {
        let (code, complaint) = refused(&data, &[option, &address]);
        assert_eq!(code, Some(69), "{complaint}");
        let wanted = format!("{address} is in use: stop what uses it, or choose another with {option}");
        assert!(complaint.ends_with(&wanted), "{complaint}");
    }

    let foreign = scratch("foreign");
    fs::create_dir_all(foreign.join("store")).expect("it is made");
    fs::write(foreign.join("store/notes.txt"), "mine").expect("it is written");
    let (code, complaint) = refused(&foreign, &[]);
    assert_eq!(code, Some(78), "{complaint}");
    assert!(complaint.contains("holds files that are not a knoll store"), "{complaint}");
    assert_eq!(fs::read_to_string(foreign.join("store/notes.txt")).expect("it is there"), "mine");

    let full = scratch("full");
    fs::create_dir_all(&full).expect("it is made");
    let mount = ["-t", "tmpfs", "-o", "size=16k", "none", &full.display().to_string()].map(str::to_owned);
    assert!(Command::new("mount").args(mount).status().expect("mount runs").success());
    let (code, complaint) = refused(&full, &[]);
    assert!(Command::new("umount").arg("--lazy").arg(&full).status().expect("umount runs").success());
    assert_eq!(code, Some(71), "{complaint}");
    assert!(complaint.contains("No space left on device") && complaint.contains("free some space"), "{complaint}");

    let nobody = knoll(&scratch("nobody"), &["image", "list"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("start it with `knoll up`"));
    assert_eq!(knoll(&data, &["up", "--no-such-option"]).status.code(), Some(64));
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn events_are_sent_seen_and_redriven_by_command() {
    let own = Own::up("events");
    let space = Namespace::within(own.cluster.clone(), "commands");
    let well = std::sync::Arc::new(AtomicBool::new(false));
    let sink = Sink::new({
        let well = well.clone();
        move |_| Reply::status(if well.load(Ordering::Relaxed) { 202 } else { 400 })
    });
    for (kind, name, spec) in [
        ("Broker", "b", json!({})),
        ("Trigger", "t", json!({"broker": "b", "subscriber": {"uri": sink.url()}})),
        ("Trigger", "lost", json!({"broker": "nowhere", "subscriber": {"uri": sink.url()}})),
    ] {
        let object =
            json!({"apiVersion": "eventing.knative.dev/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        space.apply(&object.to_string());
    }
    space.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "trigger/t"]);
    let event = |words: &[&str]| succeed(own.data(), &[&["event", "-n", &space.name], words].concat());
    let sent = event(&["send", "--to", "broker:b", "--id", "1", "--type", "t", "--field", "who=me"]);
    assert_eq!(sent, "event (ID: 1) has been sent\n");
    sink.wait_for(1);
    let tail = event(&["tail", "broker:b"]);
    assert!(tail.contains(" 1 {\"who\":\"me\"}"), "{tail}");
    let letter = until("the dead letter", || event(&["dlq", "list", "broker:b"]).lines().nth(1).map(str::to_owned));
    assert!(letter.contains(" 400 ") && letter.contains(" t "), "{letter}");
    let offset = letter.split(' ').next().expect("its offset");
    assert!(event(&["dlq", "show", "broker:b", offset]).contains("\"knativeerrorcode\": 400"));
    well.store(true, Ordering::Relaxed);
    assert_eq!(event(&["dlq", "redrive", "broker:b", "--all"]), "1 dead letters are delivered again\n");
    sink.wait_for(2);
    until("none is left", || (event(&["dlq", "list", "broker:b"]).lines().count() == 1).then_some(()));
    assert_eq!(event(&["replay", "broker:b", "--to", "t", "--offset", "0"]), "1 events are delivered to t once more\n");
    sink.wait_for(3);
    let listed = event(&["list"]);
    assert!(listed.contains(&format!("broker:{}/b", space.name)), "{listed}");

    let graph = event(&["graph"]);
    let lines: Vec<String> = graph.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for start in [
        format!("Broker/{0}/b events Trigger/{0}/t", space.name),
        format!("Trigger/{0}/t events {1}", space.name, sink.url()),
        format!("Broker/{0}/nowhere is not there", space.name),
        format!("Trigger/{0}/lost is not ready", space.name),
    ] {
        assert!(lines.iter().any(|line| line.starts_with(&start)), "{start:?} is missing in\n{graph}");
    }
    let refused = knoll(own.data(), &["event", "-n", &space.name, "tail", "broker:nobody"]);
    assert_eq!(refused.status.code(), Some(1));
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn reset_leaves_no_trace() {
    let own = Own::up("gone");
    let space = Namespace::within(own.cluster.clone(), "gone");
    space.actor();
    let here = traces(own.data());
    for part in ["mount", "cgroup", "rules", "link", "process", "file"] {
        assert!(here.iter().any(|trace| trace.starts_with(part)), "an instance that runs shows as {part}: {here:#?}");
    }
    // Killed, it cleans nothing itself.
    own.signal("KILL");
    succeed(own.data(), &["reset", "--yes"]);
    let left = traces(own.data());
    assert!(left.is_empty(), "{left:#?}");
    // It can be removed again, and started anew.
    succeed(own.data(), &["reset", "--yes"]);
    own.up_again();
    assert!(!own.cluster.kubectl(&["get", "namespaces"]).contains(&space.name), "nothing came back");
}

/// What of an instance can be found on the machine.
fn traces(data: &Path) -> Vec<String> {
    let data = data.display().to_string();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let ours = |line: &&str| line.contains(&data) || line.contains("knoll");
    let mut all = Vec::new();
    let mut note = |what: &str, text: &str| all.extend(text.lines().map(|line| format!("{what}: {line}")));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("it can be read");
    let below = |line: &&str| line.contains(&data) || line.contains("/run/knoll");
    note("mount", &mounts.lines().filter(below).collect::<Vec<_>>().join("\n"));
    note("cgroup", &run("find", &["/sys/fs/cgroup", "-type", "d", "-name", "knoll"]));
    note("rules", &run("nft", &["list", "tables"]).lines().filter(ours).collect::<Vec<_>>().join("\n"));
    let links = fs::read_to_string("/proc/net/dev").expect("it can be read");
    note(
        "link",
        &links
            .lines()
            .filter(|line| line.trim().starts_with("knoll") || line.trim().starts_with("veth"))
            .collect::<Vec<_>>()
            .join("\n"),
    );
    let address = run("ip", &["-brief", "address"]);
    note("address", &address.lines().filter(|line| line.contains("169.254.77.1")).collect::<Vec<_>>().join("\n"));
    let routes = run("ip", &["route", "show"]);
    note("route", &routes.lines().filter(|line| line.contains("10.244.")).collect::<Vec<_>>().join("\n"));
    let processes = run("ps", &["-eo", "args"]);
    let monitor = |line: &&str| line.contains(&data) || line.starts_with("/actor");
    note(
        "process",
        &processes.lines().filter(monitor).filter(|line| !line.starts_with("kubectl")).collect::<Vec<_>>().join("\n"),
    );
    note("file", &run("find", &[&data, "/run/knoll"]));
    all
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn a_kubeconfig_that_was_given_away_can_be_made_void_without_a_restart() {
    let own = Own::up("revoked");
    let copy = scratch("revoked-copy.kubeconfig");
    fs::copy(own.data().join("admin.kubeconfig"), &copy).expect("is copied");
    let with_copy = || {
        let copied = format!("--kubeconfig={}", copy.display());
        own.cluster.try_kubectl(&[&copied, "get", "namespaces"], "").status.success()
    };
    assert!(with_copy());
    succeed(own.data(), &["revoke"]);
    until("the copy is refused", || (!with_copy()).then_some(()));
    own.cluster.kubectl(&["get", "namespaces"]);
    own.signal("TERM");
    own.up_again();
    assert!(!with_copy(), "still after a restart");
    own.cluster.kubectl(&["get", "namespaces"]);
}

/// Files of a folder, with what is in them.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).expect("is there").map(|file| file.expect("can be listed"));
    files.map(|f| (f.file_name().into_string().expect("text"), fs::read(f.path()).expect("can be read"))).collect()
}

/// Flips a bit where a file has `text`; the file's name and the place.
fn flip(folder: &Path, text: &str) -> (String, usize) {
    let found = contents(folder).into_iter().find_map(|(name, bytes)| {
        let at = bytes.windows(text.len()).position(|window| window == text.as_bytes())?;
        Some((name, bytes, at))
    });
    let (name, mut bytes, at) = found.unwrap_or_else(|| panic!("{text} is in a file of {}", folder.display()));
    bytes[at] ^= 1;
    fs::write(folder.join(&name), bytes).expect("is written");
    (name, at)
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn a_flipped_byte_in_the_middle_of_the_log_is_refused_explained_and_repaired_at_the_price_that_was_told() {
    let own = Own::up("flipped");
    let space = Namespace::within(own.cluster.clone(), "flipped");
    let write = |name: &str| {
        space.kubectl(&["create", "configmap", name, &format!("--from-literal=word=the-word-of-{name}")]);
        space.object("configmaps", name)["metadata"]["resourceVersion"].as_str().expect("it has one").to_owned()
    };
    let kept = ["first", "second"];
    kept.iter().for_each(|name| drop(write(name)));
    let revision = write("damaged");
    let later = ["third", "fourth"];
    later.iter().for_each(|name| drop(write(name)));
    own.signal("TERM");
    let store = own.data().join("store");
    let (file, at) = flip(&store, "the-word-of-damaged");
    let flipped = contents(&store);

    // The first byte of the record stands before the one that changed.
    let names_the_place = |text: &str| {
        let told = text.split(&file).nth(1).and_then(|rest| rest.split("byte ").nth(1));
        let digits: String = told.unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
        let offset: usize = digits.parse().unwrap_or_else(|_| panic!("{file} and a byte are missing in {text}"));
        assert!(offset < at && at - offset < 4096, "byte {offset} is told, {at} was changed: {text}");
    };
    let (code, complaint) = refused(own.data(), &[]);
    assert_eq!(code, Some(78), "{complaint}");
    names_the_place(&complaint);

    let run = |words: &[&str]| {
        let mut all = words.to_vec();
        let data = own.data().display().to_string();
        all.extend(["--data-dir", &data]);
        let output = knoll(own.data(), &all);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    };
    let (well, said) = run(&["doctor"]);
    let line = said.lines().find(|line| line.contains("store:")).unwrap_or_else(|| panic!("{said}"));
    assert!(!well && line.starts_with("fail"), "{said}");
    names_the_place(line);
    assert!(said.contains("knoll store verify"), "{said}");

    // What would be lost is told before anything is done.
    for words in [&["store", "verify"][..], &["store", "repair"]] {
        let (well, said) = run(words);
        assert!(!well, "{said}");
        names_the_place(&said);
        assert!(said.contains(&format!("lost: the write of revision {revision}\n")), "{said}");
        assert!(said.contains(&format!("configmaps {}/damaged of revision {revision}", space.name)), "{said}");
        assert!(contents(&store) == flipped, "knoll {} changed a file", words.join(" "));
    }
    let (well, said) = run(&["store", "repair", "--yes"]);
    assert!(well && said.contains("repaired:"), "{said}");
    let (well, said) = run(&["store", "verify"]);
    assert!(well && said.contains("nothing is lost"), "{said}");

    own.up_again();
    for name in kept.iter().chain(&later) {
        assert_eq!(space.object("configmaps", name)["data"]["word"], format!("the-word-of-{name}"), "{name}");
    }
    assert!(space.object("configmaps", "damaged").is_null(), "what was told as lost is lost");
    let after: u64 = write("after").parse().expect("a number");
    assert!(after > revision.parse().expect("a number"));
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn what_the_shell_left_open_does_not_stay_open() {
    let left = scratch("left-open");
    fs::write(&left, "secret").expect("is written");
    let program = std::env::var("KNOLL").expect("scripts/e2e says so");
    // As a shell does whose script forgot them.
    let script = format!(r#"exec 9<"{}" 77<&9; exec "$0" "$@""#, left.display());
    let mut command = Command::new("bash");
    command.args(["-c", &script, &program]);
    let own = Own::up_as("inherits", command, &[]);
    let mut processes = monitors();
    assert_eq!(processes.len(), 1, "one monitor runs: {processes:?}");
    processes.push(own.cluster.instance()["pid"].to_string());
    for process in processes {
        let open = fs::read_dir(format!("/proc/{process}/fd")).expect("it runs").flatten();
        let files: Vec<_> = open.filter_map(|file| fs::read_link(file.path()).ok()).collect();
        assert!(files.len() > 3 && !files.contains(&left), "{process} holds {files:?}");
    }
}

/// The program with a wall clock that a file sets: `+1d`.
fn with_clock(file: &Path) -> Command {
    let below =
        |folder: &Path| fs::read_dir(folder).map_or(Vec::new(), |all| all.flatten().map(|e| e.path()).collect());
    let found = below(Path::new("/usr/lib")).into_iter().map(|path| path.join("faketime/libfaketimeMT.so.1"));
    let library = found.into_iter().find(|path| path.exists()).expect("libfaketime is there");
    let mut command = Command::new("env");
    command.arg(format!("LD_PRELOAD={}", library.display())).arg(format!("FAKETIME_TIMESTAMP_FILE={}", file.display()));
    command.args(["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"]);
    command.arg(std::env::var("KNOLL").expect("scripts/e2e says so"));
    command
}

#[test]
#[ignore = "starts an instance of its own: scripts/e2e runs it alone"]
fn a_clock_that_is_set_a_day_ahead_and_two_days_back_stops_and_stalls_nothing() {
    let clock = scratch("clock-file");
    let set = |to: &str| fs::write(&clock, format!("{to}\n")).expect("is written");
    set("+0");
    let own = Own::up_as("clock", with_clock(&clock), &[]);
    let windows = json!({"stable-window": "6s", "scale-to-zero-grace-period": "6s"});
    let _short = own.cluster.configure("config-autoscaler", windows);
    let space = Namespace::within(own.cluster.clone(), "clock");
    space.apply_example("hello.yaml");
    space.ready("hello");
    let host = space.host("hello");
    let mut days: Vec<String> = Vec::new();
    for (round, offset) in ["+0", "+1d", "-1d"].into_iter().enumerate() {
        set(offset);
        served(&own.cluster, &host, "/");
        let name = format!("made-{round}");
        space.kubectl(&["create", "configmap", &name]);
        let made = space.object("configmaps", &name)["metadata"]["creationTimestamp"].clone();
        days.push(made.as_str().expect("a time")[..10].to_owned());
        until("there is no instance", || space.pods("hello").is_empty().then_some(()));
        served(&own.cluster, &host, "/");
        // A new revision becomes ready, too.
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {"round": offset}}}}}).to_string();
        space.kubectl(&["patch", "ksvc", "hello", "--type=merge", "-p", &patch]);
        space.service("hello", "the new revision serves", |service| {
            service["status"]["latestReadyRevisionName"] == format!("hello-{:05}", round + 2).as_str()
        });
    }
    days.sort();
    days.dedup();
    assert_eq!(days.len(), 3, "the clock was set: {days:?}");
}
