//! A pod, with and without every capability that a tenant can be granted.

use std::{net::UdpSocket, path::Path, time::Duration};

use knoll_e2e::{Namespace, PATIENCE};
use serde_json::{Value, json};

use crate::Watchman;

/// Every capability that leaves the machine's kernel, clock and devices to root.
const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "KILL",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
    "SYS_NICE",
    "SYS_PTRACE",
    "SYS_RESOURCE",
];

/// Looks for what leads out of a container by its processes; prints a line for each way that does.
const LOOK: &str = r#"
for root in /proc/[0-9]*/root /proc/[0-9]*/cwd; do
  for mark in "$root$MARK" "$root/../..$MARK"; do [ -e "$mark" ] && echo "OUT by $root"; done
done
"#;

/// Tries the other ways; prints a line for each that leads out.
const WAYS: &str = r#"
for exe in /proc/[0-9]*/exe; do
  cat "$exe" 2>/dev/null | grep -q 'knoll up' && echo "OUT: the program of the monitor by $exe"
done
for fd in /proc/self/fd/*; do [ -e "$fd/..$MARK" ] || [ -e "$fd/../../..$MARK" ] && echo "OUT by $fd"; done
for file in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /sys/kernel/uevent_helper; do
  (echo x >"$file") 2>/dev/null && echo "OUT: $file can be written"
done
for device in sda vda nvme0n1; do
  number=$(cat /sys/class/block/$device/dev 2>/dev/null) || continue
  mknod /tmp/$device b ${number%:*} ${number#*:} 2>/dev/null && head -c 1 /tmp/$device >/dev/null 2>&1 && echo "OUT: disk $device"
done
echo tried
"#;

fn shell(script: &str, context: &Value) -> Value {
    json!({
        "image": "localhost:5000/e2e/shell:1", "command": ["/bin/sh", "-c", script], "securityContext": context,
        "env": [{"name": "MARK", "value": "/etc/machine-id-of-the-test"}],
    })
}

/// A file at the machine's root that a way out would find.
struct Mark;

impl Mark {
    const PATH: &str = "/etc/machine-id-of-the-test";

    fn new() -> Self {
        std::fs::write(Self::PATH, "found").expect("the machine takes a file");
        Self
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        std::fs::remove_file(Self::PATH).ok();
    }
}

fn load_shell(space: &Namespace) {
    let archive = space.cluster.images.join("shell.tar").display().to_string();
    space.cluster.succeed(&space.cluster.knoll, &["image", "load", &archive], "");
}

#[test]
fn there_is_no_way_out_with_or_without_capabilities_and_shared_processes() {
    let space = Namespace::new("ways");
    let _watchman = Watchman::new(&space);
    let _mark = Mark::new();
    load_shell(&space);
    // What the last does by leave of the kernel itself, such as to load a module, is not tried: docs/security.md says who is
    // root. Without that leave it stays inside like the others.
    let all = json!({"capabilities": {"add": ["ALL"]}});
    for (name, context) in
        [("plain", json!({})), ("armed", json!({"capabilities": {"add": CAPABILITIES}})), ("mighty", all)]
    {
        for shared in [false, true] {
            let name = format!("{name}-{shared}");
            let spec = json!({"shareProcessNamespace": shared});
            let said = space.run_pod_with(PATIENCE, &name, spec, shell(&[LOOK, WAYS].concat(), &context));
            assert!(said.contains("tried") && !said.contains("OUT"), "{name}: {said}");
        }
    }
}

/// What finds nothing proves nothing: where a pod is let out, by leave of who may share the machine's processes, the same look
/// sees it.
#[test]
fn the_look_for_ways_out_sees_one_where_there_is_one() {
    let space = Namespace::new("control");
    let _watchman = Watchman::new(&space);
    let _mark = Mark::new();
    load_shell(&space);
    let container = shell(&[LOOK, "echo tried"].concat(), &json!({"capabilities": {"add": ["SYS_PTRACE"]}}));
    let said = space.run_pod_with(PATIENCE, "let", json!({"hostPID": true}), container);
    assert!(said.contains("tried") && said.contains("OUT by /proc/"), "{said}");
}

#[test]
fn a_working_directory_does_not_lead_to_a_descriptor_of_the_monitor() {
    let space = Namespace::new("cwd");
    let _watchman = Watchman::new(&space);
    let _mark = Mark::new();
    load_shell(&space);
    for number in 3..12 {
        let mut container =
            shell("[ -e ../../../../..$MARK ] && echo OUT; [ -e .$MARK ] && echo OUT; echo tried", &json!({}));
        container["workingDir"] = format!("/proc/self/fd/{number}").into();
        container["name"] = "main".into();
        let name = format!("cwd-{number}");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "containers": [container]},
        });
        space.apply(&pod.to_string());
        let refused = knoll_e2e::until(&format!("{name} is decided"), || {
            let status = space.object("pods", &name)["status"].clone();
            let waiting = &status["containerStatuses"][0]["state"]["waiting"]["reason"];
            let ended = status["phase"] == "Succeeded" || status["phase"] == "Failed";
            let refused = waiting.as_str().is_some_and(|reason| reason.contains("Error") || reason.contains("BackOff"));
            (ended || refused).then_some(refused)
        });
        if !refused {
            let said = space.cluster.try_kubectl(&["-n", &space.name, "logs", &name], "");
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            assert!(!said.contains("OUT"), "{name}: {said}");
        }
    }
}

#[test]
fn a_pod_reads_images_and_changes_none() {
    let space = Namespace::new("pushes");
    let _watchman = Watchman::new(&space);
    load_shell(&space);
    let script = r#"
registry=http://169.254.77.1:5000
wget -q -O - $registry/v2/e2e/actor/manifests/1 | grep -q schemaVersion && echo "it reads"
wget -q -O - --post-data=x "$registry/knoll/images?tag=evil" && echo "OUT: load"
wget -q -O - --post-data= $registry/v2/evil/blobs/uploads/ && echo "OUT: push"
echo tried"#;
    let said = space.run_pod("pushes", shell(script, &json!({})));
    assert!(said.contains("it reads"), "{said}");
    assert!(said.contains("tried") && !said.contains("OUT"), "{said}");
}

#[test]
fn a_pod_sends_from_its_own_address_only() {
    let space = Namespace::new("spoof");
    let _watchman = Watchman::new(&space);
    load_shell(&space);
    let listener = UdpSocket::bind("169.254.77.1:0").expect("the pods' gateway is an address of this machine");
    listener.set_read_timeout(Some(Duration::from_secs(60))).expect("it is set");
    let port = listener.local_addr().expect("it has one").port();
    // With NET_ADMIN it takes other addresses: its neighbour's and one of the outside. Each datagram is sent
    // before the next address is taken, and the first and the last go by the pod's own.
    let script = format!(
        r#"
sent() {{ while read -r name in unknown errors out rest; do [ $name = Udp: ] && echo $out; done </proc/net/snmp; }}
for step in first=$OWN neighbour=$NEIGHBOUR outside=198.51.100.7 last=$OWN; do
  address=${{step#*=}}
  [ $address = $OWN ] || ip addr add $address/32 dev eth0 || exit
  ip route replace default via 169.254.77.1 dev eth0 src $address
  ip route replace 169.254.77.1 dev eth0 src $address || exit
  before=$(sent)
  tftp -g -r ${{step%=*}} -l /tmp/x 169.254.77.1 {port} 2>/dev/null &
  while [ "$(sent)" = "$before" ]; do sleep 0.01; done
  kill $!; wait $! 2>/dev/null
done
echo tried"#
    );
    space.actor();
    let neighbour = space.pods("actor")[0]["status"]["podIP"].clone();
    let mut spoofer = shell(&script, &json!({"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}}));
    spoofer["env"] = json!([
        {"name": "OWN", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "NEIGHBOUR", "value": neighbour},
    ]);
    let said = space.run_pod("spoofer", spoofer);
    assert!(said.contains("tried"), "{said}");
    let own = space.object("pods", "spoofer")["status"]["podIP"].as_str().expect("it has one").to_owned();
    let mut heard = Vec::new();
    while heard.last().is_none_or(|name| name != "last") {
        let mut buffer = [0; 128];
        let (length, from) = listener.recv_from(&mut buffer).expect("a pod is heard under its own address");
        // A request to read: two bytes that say so, and a name that ends with a zero.
        let name = buffer[2..length].split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        assert_eq!(from.ip().to_string(), own, "{name}");
        heard.push(name);
    }
    heard.dedup();
    assert_eq!(heard, ["first", "last"]);
}

#[test]
fn a_fork_bomb_stays_within_its_pod() {
    let space = Namespace::new("forks");
    let _watchman = Watchman::alone(&space);
    load_shell(&space);
    // The shell ends when it cannot fork.
    let script =
        "n=0; while [ $n -lt 8000 ]; do sleep 1000 & n=$((n+1)); [ $((n % 500)) = 0 ] && echo $n; done; echo OUT";
    // Its processes are bounded, not their memory: where that runs short, it is this pod that has more than it asked for.
    let mut container = shell(script, &json!({}));
    container["resources"] = json!({"requests": {"memory": "16Mi"}, "limits": {"memory": "2Gi"}});
    let bomb = std::thread::scope(|scope| {
        let bomb = scope.spawn(|| space.run_pod_within(3 * PATIENCE, "bomb", container));
        let mut asked = 0;
        while !bomb.is_finished() {
            space.cluster.kubectl(&["get", "namespaces", "--request-timeout=120s"]);
            asked += 1;
        }
        assert!(asked > 0);
        bomb.join().expect("the pod ends")
    });
    assert!(bomb.contains("500\n") && !bomb.contains("OUT"), "{bomb}");
    assert_eq!(space.object("pods", "bomb")["status"]["phase"], "Failed");
    space.kubectl(&["delete", "pod", "bomb", "--timeout=120s"]);
}

#[test]
fn a_pod_that_leaves_trees_without_end_is_removed_all_the_same() {
    let space = Namespace::new("trees");
    let _watchman = Watchman::new(&space);
    load_shell(&space);
    let step = ["d"; 20].join("/");
    let script = format!(
        "for root in /tmp /volume; do cd $root; n=0; while [ $n -lt 130 ] && mkdir -p {step} && cd -P {step}; do n=$((n+1)); done; \
         echo $root $n; done"
    );
    let mut container = shell(&script, &json!({}));
    container["name"] = "main".into();
    container["volumeMounts"] = json!([{"name": "volume", "mountPath": "/volume"}]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "trees"},
        "spec": {
            "restartPolicy": "Never", "containers": [container], "volumes": [{"name": "volume", "emptyDir": {}}],
        },
    });
    space.apply(&pod.to_string());
    knoll_e2e::until("the trees have grown", || {
        (space.object("pods", "trees")["status"]["phase"] == "Succeeded").then_some(())
    });
    assert_eq!(space.kubectl(&["logs", "trees"]), "/tmp 130\n/volume 130\n");
    let uid = space.object("pods", "trees")["metadata"]["uid"].as_str().expect("it has one").to_owned();
    // A node that is a process of its own has a directory of its own.
    let data = space.cluster.data_dir.display();
    let nodes = [format!("{data}/node/pods"), format!("{data}-node/node/pods")];
    let mut places = nodes.iter().map(|pods| Path::new(pods).join(&uid));
    let volumes = places.find(|place| place.exists()).expect("the node keeps it");
    space.kubectl(&["delete", "pod", "trees", "--timeout=120s"]);
    // Of its volumes nothing is left, either.
    knoll_e2e::until("its directory goes", || (!volumes.exists()).then_some(()));
}
