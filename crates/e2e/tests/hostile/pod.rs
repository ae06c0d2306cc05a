//! A pod, with and without every capability that a tenant can be granted.

use knoll_e2e::Namespace;
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

/// Tries what leads out of a container; prints a line for each way that does.
const WAYS: &str = r#"
for root in /proc/[0-9]*/root /proc/[0-9]*/cwd; do
  for mark in "$root$MARK" "$root/../..$MARK"; do [ -e "$mark" ] && echo "OUT by $root"; done
done
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
        "image": "e2e/shell:1", "command": ["/bin/sh", "-c", script], "securityContext": context,
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
    for (name, context) in [("plain", json!({})), ("armed", json!({"capabilities": {"add": CAPABILITIES}}))] {
        for shared in [false, true] {
            let mut container = shell(WAYS, &context);
            container["name"] = "main".into();
            let name = format!("{name}-{shared}");
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                "spec": {"restartPolicy": "Never", "shareProcessNamespace": shared, "containers": [container]},
            });
            space.apply(&pod.to_string());
            knoll_e2e::until(&format!("{name} has tried"), || {
                let phase = space.object("pods", &name)["status"]["phase"].clone();
                (phase == "Succeeded" || phase == "Failed").then_some(())
            });
            let said = space.kubectl(&["logs", &name]);
            assert!(said.contains("tried") && !said.contains("OUT"), "{name}: {said}");
        }
    }
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
for target in 169.254.77.1:5000 registry.knoll.local:5000; do
  wget -q -O - --post-data=x "http://$target/knoll/images?tag=evil" && echo "OUT: load"
  wget -q -O - --post-data= "http://$target/v2/evil/blobs/uploads/" && echo "OUT: push"
done
echo tried"#;
    let said = space.run_pod("pushes", shell(script, &json!({})));
    assert!(said.contains("tried") && !said.contains("OUT"), "{said}");
}

#[test]
fn a_pod_sends_from_its_own_address_only() {
    let space = Namespace::new("spoof");
    let _watchman = Watchman::new(&space);
    load_shell(&space);
    let other = space.run_pod("other", shell("hostname -i || true; sleep 0", &json!({})));
    drop(other);
    // With NET_ADMIN it takes another address, and nobody answers to that one.
    let script = r#"
ip addr add 10.244.200.200/32 dev eth0 2>/dev/null
wget -q -T 3 -O - --header "Host: x" http://169.254.77.1/ >/dev/null 2>&1
nc -w 3 -s 10.244.200.200 169.254.77.1 80 </dev/null >/dev/null 2>&1 && echo "OUT: another's address is answered"
echo tried"#;
    let said = space.run_pod("spoofer", shell(script, &json!({"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}})));
    assert!(said.contains("tried") && !said.contains("OUT"), "{said}");
}
